//! The settings of `framehook up` and of each role: flags win over the environment, the environment over the TOML file, the file over
//! the defaults.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use framehook_confine::DEFAULT_USER;
use framehook_core::{
    job::DEFAULT_PICTURE_SIDE,
    memory::{LEAST_MIB, MemoryCaps},
    placement::{Labels, check_labels},
};
use framehook_infra::space::{LEAST, Reserve};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::{ClusterOptions, without_secrets},
    http::HttpOptions,
    limits::{LimitOptions, Limits},
};

/// What somebody set; absent means "as it is".
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    /// Folder of all data; made if missing [default: ./framehook-data]
    #[arg(long, env = "FRAMEHOOK_DATA", value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,

    /// Port to listen on; 0 takes a free one [default: 8080]
    #[arg(long, env = "FRAMEHOOK_PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,

    /// Most scenarios that run at a time [default: 4]
    #[arg(long, env = "FRAMEHOOK_MAX_WORKERS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_workers: Option<u32>,

    /// What this runner has, for scenarios whose `placement` asks for it, such as gpu=true; repeat for several [default: none]
    #[arg(long = "label", env = "FRAMEHOOK_LABELS", value_name = "KEY=VALUE", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,

    /// Folder that scenarios may read video files from; repeat for several [default: none]
    #[arg(long = "source-dir", env = "FRAMEHOOK_SOURCE_DIRS", value_name = "FOLDER", value_delimiter = ':')]
    #[serde(skip_serializing_if = "Option::is_none")]
    source_dirs: Option<Vec<PathBuf>>,

    /// Network that a scenario's `url` source may lie in besides the public one, such as 10.1.0.0/16 [default: none]
    #[arg(long = "source-network", env = "FRAMEHOOK_SOURCE_NETWORKS", value_name = "NETWORK", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    source_networks: Option<Vec<IpNet>>,

    /// Threads of one inference; many streams run best with one each [default: 1]
    #[arg(long, env = "FRAMEHOOK_INTRA_THREADS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    intra_threads: Option<usize>,

    /// Longest a hook may take for one frame, in milliseconds [default: 20]
    #[arg(long, env = "FRAMEHOOK_HOOK_CALL_MS", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_call_ms: Option<u64>,

    /// Most memory of one plugin, in MiB [default: 64]
    #[arg(long, env = "FRAMEHOOK_HOOK_MEMORY_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_memory_mib: Option<usize>,

    /// Longest a source may deliver no frame, in seconds [default: 10]
    #[arg(long, env = "FRAMEHOOK_FRAME_TIMEOUT_S", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_timeout_s: Option<u64>,

    /// Longest that a model may take for its first inference, in seconds [default: 30]
    #[arg(long, env = "FRAMEHOOK_FIRST_INFERENCE_S", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    first_inference_s: Option<u64>,

    /// Most memory of one worker, in MiB, 64 at least; a scenario may ask for less [default: 2048]
    #[arg(long, env = "FRAMEHOOK_WORKER_MEMORY_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_memory_mib: Option<u32>,

    /// Memory for all workers of this runner, in MiB [default: three quarters of what this machine or container has]
    #[arg(long, env = "FRAMEHOOK_RUNNER_MEMORY_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    runner_memory_mib: Option<u32>,

    /// Longest that a recording may take to be fetched, in seconds [default: 3600]
    #[arg(long, env = "FRAMEHOOK_FETCH_TIMEOUT_S", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    fetch_timeout_s: Option<u64>,

    /// Least that a server must deliver of a recording, in KiB a second over half a minute [default: 16]
    #[arg(long, env = "FRAMEHOOK_FETCH_LEAST_KIB_S", value_name = "KIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    fetch_least_kib_s: Option<u64>,

    /// Largest plugin that can be uploaded, in MiB [default: 32]
    #[arg(long, env = "FRAMEHOOK_MAX_PLUGIN_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_plugin_mib: Option<u64>,

    /// Largest model that can be uploaded, in MiB [default: 2048]
    #[arg(long, env = "FRAMEHOOK_MAX_MODEL_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_mib: Option<u64>,

    /// Largest video that can be uploaded or fetched, in MiB [default: 65536]
    #[arg(long, env = "FRAMEHOOK_MAX_VIDEO_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_video_mib: Option<u64>,

    /// Longest side of a video's pictures, in pixels [default: 8192]
    #[arg(long, env = "FRAMEHOOK_MAX_PICTURE_SIDE", value_name = "PIXELS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_picture_side: Option<u32>,

    /// Refuse to start where the kernel cannot confine child processes [default: false]
    #[arg(long, env = "FRAMEHOOK_REQUIRE_SANDBOX", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    require_sandbox: Option<bool>,

    /// As root: number of the user that child processes run as [default: 65534]
    #[arg(long, env = "FRAMEHOOK_CHILD_USER", value_name = "UID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    child_user: Option<u32>,

    /// Days after which predictions are removed [default: they stay until their scenario is deleted]
    #[arg(long, env = "FRAMEHOOK_KEEP_RESULTS_DAYS", value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_results_days: Option<u32>,

    /// Space of the disk that stays free, in MiB: 8 at least, or 0 for none. Below it nothing is taken in [default: 5 % of the disk, 2048 at most]
    #[arg(long, env = "FRAMEHOOK_DISK_RESERVE_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_reserve_mib: Option<u64>,

    /// The worker executable [default: framehook-worker beside this one]
    #[arg(long, env = "FRAMEHOOK_WORKER", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<PathBuf>,

    /// The ONNX Runtime library [default: libonnxruntime.so beside this executable]
    #[arg(long, env = "FRAMEHOOK_ONNXRUNTIME", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    onnxruntime: Option<PathBuf>,

    /// What is logged, such as `info` or `info,framehook_runner=debug` [default: info]
    #[arg(long, env = "FRAMEHOOK_LOG", value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,

    /// Form of the log on stderr [default: text]
    #[arg(long, env = "FRAMEHOOK_LOG_FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,

    /// Collector of traces, which speaks OTLP over HTTP, such as http://127.0.0.1:4318 [default: none]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    otlp_endpoint: Option<String>,

    #[command(flatten)]
    #[serde(default, skip_serializing)]
    http: HttpOptions,

    #[command(flatten)]
    #[serde(default)]
    limits: LimitOptions,

    /// Flags of their own.
    #[arg(skip)]
    #[serde(skip_serializing)]
    cluster: Option<ClusterOptions>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The settings in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) port: u16,
    pub(crate) max_workers: u32,
    pub(crate) labels: Vec<String>,
    pub(crate) source_dirs: Vec<PathBuf>,
    pub(crate) source_networks: Vec<IpNet>,
    pub(crate) intra_threads: usize,
    pub(crate) hook_call_ms: u64,
    pub(crate) hook_memory_mib: usize,
    pub(crate) frame_timeout_s: u64,
    pub(crate) first_inference_s: u64,
    pub(crate) worker_memory_mib: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runner_memory_mib: Option<u32>,
    pub(crate) fetch_timeout_s: u64,
    pub(crate) fetch_least_kib_s: u64,
    pub(crate) max_plugin_mib: u64,
    pub(crate) max_model_mib: u64,
    pub(crate) max_video_mib: u64,
    pub(crate) max_picture_side: u32,
    pub(crate) require_sandbox: bool,
    pub(crate) child_user: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_results_days: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_reserve_mib: Option<u64>,
    pub(crate) worker: PathBuf,
    pub(crate) onnxruntime: PathBuf,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) http: HttpOptions,
    pub(crate) limits: Limits,
    /// Of the roles of a scaled deployment; `framehook up` has no use for it.
    #[serde(default)]
    pub(crate) cluster: ClusterOptions,
}

impl Settings {
    /// Defaults, with the files that ship beside `executable`.
    fn defaults(executable: &Path) -> Self {
        let beside = |name: &str| executable.with_file_name(name);
        Self {
            data: "framehook-data".into(),
            port: 8080,
            max_workers: 4,
            labels: vec![],
            source_dirs: vec![],
            source_networks: vec![],
            intra_threads: 1,
            hook_call_ms: 20,
            hook_memory_mib: 64,
            frame_timeout_s: 10,
            first_inference_s: 30,
            worker_memory_mib: MemoryCaps::default().worker_mib,
            runner_memory_mib: None,
            // An hour's recording of a camera (8 Mbit/s) over a line of 16 Mbit/s takes half of it.
            fetch_timeout_s: 3600,
            // A line that is slower takes all day for a minute of video.
            fetch_least_kib_s: 16,
            max_plugin_mib: 32,
            // The most that an ONNX file without external data can hold.
            max_model_mib: 2048,
            max_video_mib: 65_536,
            max_picture_side: DEFAULT_PICTURE_SIDE,
            require_sandbox: false,
            child_user: DEFAULT_USER,
            keep_results_days: None,
            disk_reserve_mib: None,
            worker: beside("framehook-worker"),
            onnxruntime: beside("libonnxruntime.so"),
            log: "info".into(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            http: HttpOptions::defaults(),
            limits: Limits::default(),
            cluster: ClusterOptions::default(),
        }
    }

    /// Flags and environment (`options`) over `file` over the defaults.
    pub(crate) fn load(options: &Options, cluster: ClusterOptions, file: Option<&Path>) -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("cannot find the path of this executable")?;
        let mut settings = to_table(&Self::defaults(&executable))?;
        let (mut cluster_of_file, mut http_of_file) = (ClusterOptions::default(), HttpOptions::default());
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut options: Options =
                toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
            cluster_of_file = options.cluster.take().unwrap_or_default();
            http_of_file = std::mem::take(&mut options.http);
            merge(&mut settings, to_table(&options)?);
        }
        merge(&mut settings, to_table(options)?);
        let settings: Self = settings.try_into().context("the settings do not fit together")?;
        let http = options.http.clone().over(http_of_file).over(HttpOptions::defaults());
        let settings = Self { cluster: cluster.over(cluster_of_file), http, ..settings };
        settings.check()?;
        Ok(settings)
    }

    /// The settings as TOML, without what is secret.
    pub(crate) fn dump(&self) -> anyhow::Result<String> {
        let otlp_endpoint = self.otlp_endpoint.as_deref().map(without_secrets);
        let shown = Self { cluster: self.cluster.shown(), otlp_endpoint, ..self.clone() };
        Ok(toml::to_string(&shown).context("cannot print the settings")?.trim_end().to_owned())
    }

    fn check(&self) -> anyhow::Result<()> {
        let positive = [
            ("max_workers", u64::from(self.max_workers)),
            ("intra_threads", self.intra_threads as u64),
            ("hook_call_ms", self.hook_call_ms),
            ("hook_memory_mib", self.hook_memory_mib as u64),
            ("frame_timeout_s", self.frame_timeout_s),
            ("first_inference_s", self.first_inference_s),
            ("runner_memory_mib", self.runner_memory_mib.map_or(1, u64::from)),
            ("fetch_timeout_s", self.fetch_timeout_s),
            ("fetch_least_kib_s", self.fetch_least_kib_s),
            ("max_plugin_mib", self.max_plugin_mib),
            ("max_model_mib", self.max_model_mib),
            ("max_video_mib", self.max_video_mib),
            ("max_picture_side", u64::from(self.max_picture_side)),
            ("child_user", u64::from(self.child_user)),
            ("keep_results_days", self.keep_results_days.map_or(1, u64::from)),
        ];
        for (name, value) in positive {
            if value == 0 {
                bail!("{name} is 0; it must be at least 1");
            }
        }
        for (name, value) in [
            ("max_plugin_mib", self.max_plugin_mib),
            ("max_model_mib", self.max_model_mib),
            ("max_video_mib", self.max_video_mib),
            ("disk_reserve_mib", self.disk_reserve_mib.unwrap_or_default()),
        ] {
            if value > MAX_UPLOAD_MIB {
                bail!("{name} is {value}; it must be at most {MAX_UPLOAD_MIB}");
            }
        }
        let reserve = self.disk_reserve_mib.unwrap_or_default();
        if (1..LEAST >> 20).contains(&reserve) {
            bail!("disk_reserve_mib is {reserve}; it must be at least {}, or 0 for none", LEAST >> 20);
        }
        if self.worker_memory_mib < LEAST_MIB {
            bail!("worker_memory_mib is {}; it must be at least {LEAST_MIB}", self.worker_memory_mib);
        }
        if self.max_picture_side > MAX_PICTURE_SIDE {
            bail!("max_picture_side is {}; it must be at most {MAX_PICTURE_SIDE}", self.max_picture_side);
        }
        if self.hook_memory_mib > MAX_HOOK_MEMORY_MIB {
            bail!("hook_memory_mib is {}; it must be at most {MAX_HOOK_MEMORY_MIB}", self.hook_memory_mib);
        }
        self.http.limits()?;
        self.limits.check()?;
        self.labels().map(drop)
    }

    /// The runner's labels, each key once.
    pub(crate) fn labels(&self) -> anyhow::Result<Labels> {
        let mut labels = Labels::new();
        for text in &self.labels {
            let pair = text
                .split_once('=')
                .with_context(|| format!("labels: `{text}` has no `=`; expected KEY=VALUE, such as site=north"))?;
            if labels.insert(pair.0.to_owned(), pair.1.to_owned()).is_some() {
                bail!("labels: `{}` is given twice; a runner has one value for each", pair.0);
            }
        }
        check_labels(&labels).map_err(|why| anyhow!("labels: {why}"))?;
        Ok(labels)
    }

    /// What stays free of each disk that the data folder lies on.
    pub(crate) fn disk_reserve(&self) -> Reserve {
        self.disk_reserve_mib.map_or(Reserve::Share, |mib| Reserve::Bytes(mib << 20))
    }

    /// There is no authentication, so nobody but this machine may call.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// Width times height times bytes of a pixel must fit the 32-bit sizes of OpenCV and FFmpeg.
const MAX_PICTURE_SIDE: u32 = 16_384;

/// The engine reserves address space for this much.
const MAX_HOOK_MEMORY_MIB: usize = 256;

/// A pebibyte; more is a mistake, and does not fit the arithmetic.
const MAX_UPLOAD_MIB: u64 = 1 << 30;

/// What is set in `over` takes the place of the same in `settings`, tables entry by entry.
fn merge(settings: &mut toml::Table, over: toml::Table) {
    for (name, value) in over {
        match (settings.get_mut(&name), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            (_, value) => drop(settings.insert(name, value)),
        }
    }
}

fn to_table(value: &impl Serialize) -> anyhow::Result<toml::Table> {
    toml::Table::try_from(value).context("a path in the settings is not valid text")
}

#[cfg(test)]
mod tests;
