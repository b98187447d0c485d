//! `framehook up`: every role in one process, on one data folder.
//!
//! The port is bound and the executables are checked before work begins.

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use framehook_api::App;
use framehook_core::ids::RunnerId;
use framehook_infra::{
    blobs::Blobs,
    seal::Key,
    sqlite::Sqlite,
    store::{RunnerRecord, SharedStore},
};
use futures::FutureExt as _;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{
    confinement, process, roles,
    services::{Services, Stage},
    settings::Settings,
};

/// The only runner there is.
const RUNNER: &str = "local";

/// Runs until a signal.
pub(crate) async fn up(settings: Settings) -> anyhow::Result<()> {
    if !settings.origins.of_others.is_empty() {
        warn!("`up` has no settings of a cluster; ignored: {}", settings.origins.of_others.join(", "));
    }
    // There is no authentication, so nobody but this machine may call.
    let listener = roles::bind(&settings, Ipv4Addr::LOCALHOST.into()).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let began = SystemTime::now();
    let (services, store) = start(&settings, listener).await?;
    runner_is_known(&store, began).await;
    let address = settings.data.join("url");
    std::fs::write(&address, &url).context("cannot write the address to the data folder")?;
    greet(&url, &settings);
    let outcome = services.run().await;
    // A stale address would lead the next reader astray.
    std::fs::remove_file(address).ok();
    outcome
}

/// What is posted right after the greeting is placed at once, and does not wait for a runner to be heard of.
/// One that is not heard of for so long says why in the log.
async fn runner_is_known(store: &SharedStore, began: SystemTime) {
    /// A runner tries its execution providers first, which takes some tenths of a second.
    const LONGEST: Duration = Duration::from_secs(3);
    /// Next to nothing for a query by a key.
    const PAUSE: Duration = Duration::from_millis(10);
    let id = RunnerId(RUNNER.into());
    let is_known = async {
        let is_heard = |record: RunnerRecord| SystemTime::from(record.seen_at) >= began;
        while !store.runner(&id).await.ok().flatten().is_some_and(is_heard) {
            sleep(PAUSE).await;
        }
    };
    timeout(LONGEST, is_known).await.ok();
}

async fn start(settings: &Settings, listener: TcpListener) -> anyhow::Result<(Services, SharedStore)> {
    let sqlite = Sqlite::open_with(&settings.data, settings.disk_reserve(), settings.limits.max_history_lines).await?;
    let (store, bus) = (sqlite.store(), sqlite.bus());
    let blobs = Blobs::open(&settings.data, None, settings.disk_reserve()).await;
    let blobs = blobs.context("cannot open the blob folder")?;
    let key = Key::read_or_make(&settings.data.join("key"))?;
    let confined = confinement::confine(settings)?;
    let compiled = process::compiled_plugins(settings, &confined)?;
    let api = process::api_config(settings, &confined, compiled.clone(), Some(key.clone()))?;
    let runner = process::runner_config(settings, confined, RunnerId(RUNNER.into()), Some(key));

    let mut services = Services::default();
    services.sweeper(&store, &blobs);
    services.outputs_sweeper(&store, &blobs, settings.limits.outputs_age());
    services.start("api", Stage::Intake, {
        let (store, bus, blobs) = (store.clone(), bus.clone(), blobs.clone());
        |cancel| framehook_api::serve(App::new(api, store, bus, blobs, None, cancel), listener).map(Ok)
    });
    services.start("runner", Stage::Work, {
        let bus = bus.clone();
        |cancel| async move { Ok(framehook_runner::run(runner, compiled, bus, blobs, cancel).await.map(drop)?) }
    });
    services.relay(&store, &bus);
    services.inbox(&store, &bus, settings.limits.max_prediction_kib << 10);
    services.orchestrator(process::orchestrator_config(settings), &store, &bus);
    Ok((services, store))
}

/// The first thing a new user sees: where it is, and what to do next.
fn greet(url: &str, settings: &Settings) {
    println!(
        "\
Framehook {version} is up
  API      {url}
  Docs     {url}/docs
  Data     {data}
  Workers  at most {workers}

Upload a model, a video and the plugin that reads the model, then post a scenario:
  curl -sSw '\\n' --data-binary @model.onnx '{url}/model?name=street&version=1'
  curl -sSw '\\n' --data-binary @video.mp4 '{url}/video?name=street&version=1'
  curl -sSw '\\n' --data-binary @yolo.wasm '{url}/plugin'
  curl -sSw '\\n' '{url}/scenario/init' -H 'content-type: application/json' \\
       -d '{{\"source\": {{\"video\": \"street@1\"}}, \"model\": \"street@1\", \"plugins\": {{\"post\": [{{\"use\": \"yolo\"}}]}}}}'
  curl -sSw '\\n' '{url}/prediction/ID'

A plugin of your own: `framehook plugin new NAME` makes a folder, `framehook plugin push FILE.wasm --api {url}` uploads it.

Ctrl-C stops it; everything is kept in the data folder.",
        version = env!("CARGO_PKG_VERSION"),
        data = settings.data.display(),
        workers = settings.max_workers,
    );
}
