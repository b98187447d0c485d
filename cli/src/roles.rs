//! One role in a process of its own, on PostgreSQL and Kafka: any number of each may run.
//!
//! What a role needs to be told is looked at first; its port is bound and its servers are connected before
//! work begins, and it says what it connected to. On a signal it is not ready any more, stops taking work,
//! drains, and ends; the others go on.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use framehook_api::{ApiConfig, App, health::Needs};
use framehook_core::ids::RunnerId;
use framehook_infra::{bus::SharedBus, sqlite, store::SharedStore};
use framehook_runner::LastWord;
use futures::FutureExt as _;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::net::TcpListener;
use tracing::info;

use crate::{
    confinement::confine,
    process,
    services::{Services, Stage},
    settings::Settings,
};

/// Two looks of a load balancer that asks each second.
const LAME_DUCK: Duration = Duration::from_secs(2);

/// Holds the number of the process that runs on a runner's folder.
const PID_FILE: &str = "runner.pid";

/// The REST API, an outbox relay and a member of the results inbox.
pub(crate) async fn api(settings: Settings) -> anyhow::Result<()> {
    let cluster = &settings.cluster;
    cluster.database_url().and(cluster.brokers()).and(cluster.blobs_url())?;
    let confined = confine(&settings)?;
    let compiled = process::compiled_plugins(&settings, &confined)?;
    let config = process::api_config(&settings, &confined, compiled, cluster.key()?)?;
    let config = ApiConfig { lame_duck: LAME_DUCK, ..config };
    let listener = listen(&settings).await?;
    let (store, bus) = connect(&settings).await?;
    let blobs = settings.blame("blobs", cluster.blobs(&settings.data, settings.disk_reserve()).await)?;
    let cache = settings.blame("redis_url", cluster.cache())?;
    announce("api", &listener, &settings)?;

    let mut services = Services::default();
    services.sweeper(&store, &blobs);
    services.outputs_sweeper(&store, &blobs, settings.limits.outputs_age());
    services.start("api", Stage::Intake, {
        let (store, bus) = (store.clone(), bus.clone());
        |cancel| framehook_api::serve(App::new(config, store, bus, blobs, cache, cancel), listener).map(Ok)
    });
    services.relay(&store, &bus);
    services.inbox(&store, &bus, settings.limits.max_prediction_kib << 10);
    services.run().await
}

/// Leads, or stands by to lead. It has a relay of its own, so that its orders go out at once.
pub(crate) async fn orchestrator(settings: Settings) -> anyhow::Result<()> {
    let cluster = &settings.cluster;
    cluster.database_url().and(cluster.brokers())?;
    let listener = listen(&settings).await?;
    let (store, bus) = connect(&settings).await?;
    announce("orchestrator", &listener, &settings)?;

    let mut services = Services::default();
    let needs = Needs { store: Some(store.clone()), bus: bus.clone(), draining: services.draining.clone() };
    services.health(listener, needs, process::http_limits(&settings));
    services.relay(&store, &bus);
    services.orchestrator(process::orchestrator_config(&settings), &store, &bus);
    services.run().await
}

/// Runs workers. It knows no database.
pub(crate) async fn runner(settings: Settings) -> anyhow::Result<()> {
    let cluster = &settings.cluster;
    cluster.brokers().and(cluster.blobs_url())?;
    let confined = confine(&settings)?;
    let compiled = process::compiled_plugins(&settings, &confined)?;
    let config = process::runner_config(&settings, confined, RunnerId(cluster.runner_id()?), cluster.key()?);
    let listener = listen(&settings).await?;
    let bus = settings.blame("kafka_brokers", cluster.bus().await)?;
    let blobs = settings.blame("blobs", cluster.blobs(&settings.data, settings.disk_reserve()).await)?;
    announce("runner", &listener, &settings)?;
    let pid_file = settings.data.join(PID_FILE);
    std::fs::write(&pid_file, std::process::id().to_string()).context("cannot write to the data folder")?;

    let mut services = Services::default();
    let needs = Needs { store: None, bus: bus.clone(), draining: services.draining.clone() };
    services.health(listener, needs, process::http_limits(&settings));
    let is_heard = Arc::new(AtomicBool::new(true));
    let heard = Arc::clone(&is_heard);
    services.start("runner", Stage::Work, |cancel| async move {
        let last_word = framehook_runner::run(config, compiled, bus, blobs, cancel).await?;
        heard.store(last_word == LastWord::Heard, Ordering::Relaxed);
        Ok(())
    });
    let outcome = services.run().await;
    if is_heard.load(Ordering::Relaxed) {
        std::fs::remove_file(pid_file).ok();
    }
    outcome
}

/// Makes or updates the tables, and ends.
pub(crate) async fn migrate(settings: Settings) -> anyhow::Result<()> {
    settings.cluster.database_url()?;
    store(&settings).await?;
    println!("the tables are those of framehook {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// Asks the runner on a data folder to hand its scenarios on and to end, and waits until it has.
pub(crate) fn drain(data: &Path) -> anyhow::Result<()> {
    let pid_file = data.join(PID_FILE);
    if !pid_file.exists() && data.join(sqlite::DATABASE).exists() {
        bail!("{} is a folder of `framehook up`, whose runner ends with it: by Ctrl-C or SIGTERM", data.display());
    }
    let text = std::fs::read_to_string(&pid_file)
        .with_context(|| format!("no runner runs on {}: cannot read {}", data.display(), pid_file.display()))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.with_context(|| format!("{} holds no process number", pid_file.display()))?;
    if test_kill_process(pid).is_err() {
        bail!("no runner runs on {}: process {} is gone", data.display(), pid.as_raw_nonzero());
    }
    kill_process(pid, Signal::TERM).context("cannot signal the runner")?;
    println!("draining runner process {}", pid.as_raw_nonzero());
    // It removes the file as its last act, once it was heard; one that died did not get that far.
    while pid_file.exists() && test_kill_process(pid).is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    if pid_file.exists() {
        bail!(
            "the runner has ended and could not tell the orchestrator, its log says why: its scenarios go on with other \
             runners when its lease ends, some ten seconds from now"
        );
    }
    println!("drained; its scenarios go on with other runners");
    Ok(())
}

async fn store(settings: &Settings) -> anyhow::Result<SharedStore> {
    settings.blame("database_url", settings.cluster.store(settings.limits.max_history_lines).await)
}

async fn connect(settings: &Settings) -> anyhow::Result<(SharedStore, SharedBus)> {
    Ok((store(settings).await?, settings.blame("kafka_brokers", settings.cluster.bus().await)?))
}

async fn listen(settings: &Settings) -> anyhow::Result<TcpListener> {
    bind(settings, settings.cluster.bind).await
}

pub(crate) async fn bind(settings: &Settings, ip: IpAddr) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(ip, settings.port);
    TcpListener::bind(address).await.map_err(|error| {
        let [bind, port] = ["bind", "port"].map(|id| settings.origins.of(id));
        let what = match error.kind() {
            ErrorKind::AddrNotAvailable => {
                format!("this machine has no such address; choose one of its own with {bind}")
            }
            _ => format!("choose another port with {port}, or 0 for a free one"),
        };
        anyhow!("cannot listen on {address}: {error}; {what}")
    })
}

fn announce(role: &str, listener: &TcpListener, settings: &Settings) -> anyhow::Result<()> {
    let url = format!("http://{}", listener.local_addr()?);
    std::fs::write(settings.data.join("url"), &url).context("cannot write the address to the data folder")?;
    println!("Framehook {} {role} is up at {url}", env!("CARGO_PKG_VERSION"));
    info!(role, url, data = %settings.data.display(), "started");
    Ok(())
}
