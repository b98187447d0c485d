//! The settings of `framehook up` and of each role.
//!
//! Each is stated once, as a field: its name is also its key in the file, with dashes its flag (unless `long`
//! says otherwise), in capitals behind `FRAMEHOOK_` its variable (unless `env` says otherwise); its comment
//! is the help; `group` or `groups` are the roles that have it. `layers` reads them: flags win over the
//! environment, the environment over the file, the file over the defaults.

mod file;
pub(crate) mod layers;
pub(crate) mod parsers;

use std::{collections::HashSet, path::PathBuf, str::FromStr as _};

use anyhow::Context;
use clap::{ArgAction, Args, ValueEnum};
use framehook_api::HttpLimits;
use framehook_compiled::COMPILE_TIMEOUT;
use framehook_confine::DEFAULT_USER;
use framehook_core::{
    execution::{Precision, ProviderChoice},
    hook_state::USUAL_HOOK,
    job::{DEFAULT_PICTURE_SIDE, HookLimits},
    limits::HookCeilings,
    memory::{LEAST_MIB, MemoryCaps},
    placement::{Labels, check_labels},
    spec::{Decoder, Lanes},
};
use framehook_infra::{
    registry::RegistryHost,
    space::{LEAST, Reserve},
};
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use crate::{cluster::Cluster, http::Http, limits::Limits};
use layers::Origins;
use parsers::{ProviderOption, a, at_least, lanes, number, pair, positive, provider, provider_option};

/// The roles that a setting may name. `framehook up` has all settings but those of the cluster; what
/// names no role is everybody's.
pub(crate) const ROLES: [&str; 4] = ["api", "orchestrator", "runner", "migrate"];
/// Roles that answer HTTP requests.
pub(crate) const SERVERS: [&str; 3] = ["api", "orchestrator", "runner"];
/// Roles that start children.
pub(crate) const PARENTS: [&str; 2] = ["api", "runner"];

/// The settings in force. They cannot be printed but by `layers::dump`, which leaves out what is secret.
#[derive(Args, Clone)]
#[command(groups = layers::role_groups())]
pub(crate) struct Settings {
    /// Folder of all data; made if missing
    #[arg(long, value_name = "FOLDER", default_value = "framehook-data")]
    pub(crate) data: PathBuf,

    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080, value_parser = number::<u16>(0..=65_535), groups = SERVERS)]
    pub(crate) port: u16,

    /// Most scenarios that run at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive::<u32>(), group = "runner")]
    pub(crate) max_workers: u32,

    /// What this runner has, for scenarios whose `placement` asks for it, such as gpu=true; repeat
    /// for several [default: none]
    #[arg(long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = pair, group = "runner")]
    labels: Vec<(String, String)>,

    /// Folder that scenarios may read video files from; repeat for several [default: none]
    #[arg(long = "source-dir", value_name = "FOLDER", value_delimiter = ':', groups = PARENTS)]
    pub(crate) source_dirs: Vec<PathBuf>,

    /// Network that a scenario's `url` source may lie in besides the public one, such as
    /// 10.1.0.0/16; repeat for several [default: none]
    #[arg(long = "source-network", value_name = "NETWORK", group = "runner")]
    #[arg(value_delimiter = ',', value_parser = a::<IpNet>("a network, such as 10.1.0.0/16"))]
    pub(crate) source_networks: Vec<IpNet>,

    /// Threads of one inference; with many scenarios, 1 is best
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive::<usize>(), group = "runner")]
    pub(crate) intra_threads: usize,

    /// What decodes the video of a scenario that does not say so itself
    #[arg(long, value_name = "DECODER", value_enum, default_value_t, group = "runner")]
    pub(crate) decoder: DecoderName,

    /// What runs the model of a scenario that does not say so itself: auto takes the provider that is fastest
    /// for the model on this machine, as measured once
    #[arg(long, value_name = "PROVIDER", default_value = "auto", value_parser = provider, group = "runner")]
    pub(crate) provider: ProviderChoice,

    /// What the model of a scenario that does not say so itself is computed in: f32, bf16 or f16
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = Precision::from_str, group = "runner")]
    pub(crate) precision: Precision,

    /// Option of a provider in ONNX Runtime's words, such as cuda.device_id=1; repeat for several [default:
    /// none]
    #[arg(long = "provider-option", value_name = "PROVIDER.KEY=VALUE", value_parser = provider_option)]
    #[arg(value_delimiter = ';', group = "runner")]
    pub(crate) provider_options: Vec<ProviderOption>,

    /// Frames of a scenario that are in the model at a time, if it does not say so itself: a number
    /// from 1 to 64, or auto, which shares the cores among the scenarios that run
    #[arg(long, value_name = "N", default_value = "auto", value_parser = lanes, group = "runner")]
    pub(crate) lanes: Lanes,

    /// Longest a hook may take for one frame, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = hooks().call_ms, value_parser = positive::<u64>(), group = "runner")]
    pub(crate) hook_call_ms: u64,

    /// Most memory of one plugin, in MiB
    #[arg(long, value_name = "MIB", groups = PARENTS)]
    #[arg(default_value_t = hooks().memory_bytes >> 20, value_parser = number::<usize>(1..=MAX_HOOK_MEMORY_MIB))]
    pub(crate) hook_memory_mib: usize,

    /// Longest that a source may be without a frame, in seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = positive::<u64>(), group = "runner")]
    pub(crate) frame_timeout_s: u64,

    /// Longest that a model may take for its first inference, in seconds; a model that never ends
    /// keeps its slot for this time
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = positive::<u64>(), group = "runner")]
    pub(crate) first_inference_s: u64,

    /// Most memory of one worker, in MiB, the same for all APIs and runners; a scenario may ask for less
    #[arg(long, value_name = "MIB", groups = PARENTS)]
    #[arg(default_value_t = MemoryCaps::default().worker_mib, value_parser = at_least::<u32>(LEAST_MIB.into()))]
    pub(crate) worker_memory_mib: u32,

    /// Memory for all workers of this runner, in MiB [default: three quarters of what this machine
    /// or container has]
    #[arg(long, value_name = "MIB", value_parser = positive::<u32>(), group = "runner")]
    pub(crate) runner_memory_mib: Option<u32>,

    // The default: an hour's recording of a camera (8 Mbit/s) over a line of 16 Mbit/s takes half of it.
    /// Longest that a recording may take to be fetched, in seconds
    #[arg(long, value_name = "S", default_value_t = 3600, value_parser = positive::<u64>(), group = "runner")]
    pub(crate) fetch_timeout_s: u64,

    // The default: a line that is slower takes all day for a minute of video.
    /// Least that a server must deliver of a recording, in KiB a second over half a minute
    #[arg(long, value_name = "KIB", default_value_t = 16, value_parser = positive::<u64>(), group = "runner")]
    pub(crate) fetch_least_kib_s: u64,

    // The default: a plugin with a script engine in it takes 15 s of a processor that does nothing else.
    /// Longest that a plugin may take to be compiled, in seconds; the compiler may use twice as much
    /// processor time
    #[arg(long, value_name = "S", default_value_t = COMPILE_TIMEOUT.as_secs(), value_parser = positive::<u64>())]
    #[arg(groups = PARENTS)]
    pub(crate) compile_timeout_s: u64,

    // The default: a script engine inside a plugin takes some 18 MB.
    /// Largest plugin that can be uploaded, in MiB
    #[arg(long, value_name = "MIB", group = "api")]
    #[arg(default_value_t = 32, value_parser = number::<u64>(1..=MAX_UPLOAD_MIB))]
    pub(crate) max_plugin_mib: u64,

    // The default: the most that an ONNX file without external data can hold.
    /// Largest model that can be uploaded, in MiB
    #[arg(long, value_name = "MIB", group = "api")]
    #[arg(default_value_t = 2048, value_parser = number::<u64>(1..=MAX_UPLOAD_MIB))]
    pub(crate) max_model_mib: u64,

    // The default: a day of 1080p at 6 Mbit/s.
    /// Largest video that can be uploaded or fetched, in MiB
    #[arg(long, value_name = "MIB", groups = PARENTS)]
    #[arg(default_value_t = 65_536, value_parser = number::<u64>(1..=MAX_UPLOAD_MIB))]
    pub(crate) max_video_mib: u64,

    /// Longest side of a video's pictures, in pixels; a longer one is refused before it is decoded
    #[arg(long, value_name = "PIXELS", groups = PARENTS)]
    #[arg(default_value_t = DEFAULT_PICTURE_SIDE, value_parser = number::<u32>(1..=MAX_PICTURE_SIDE))]
    pub(crate) max_picture_side: u32,

    /// Refuse to start where the kernel cannot confine child processes
    #[arg(long, value_name = "BOOL", groups = PARENTS)]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub(crate) require_sandbox: bool,

    /// As root: number of the user that child processes run as
    #[arg(long, value_name = "UID", default_value_t = DEFAULT_USER, value_parser = positive::<u32>(), groups = PARENTS)]
    pub(crate) child_user: u32,

    /// Public key of who may sign plugins, or folder of public keys (*.pem) [default: none]
    #[arg(long, value_name = "PATH", group = "api")]
    pub(crate) trusted_keys: Option<PathBuf>,

    /// Refuse plugins that no trusted key has signed, and new scenarios with such plugins
    #[arg(long, value_name = "BOOL", group = "api")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub(crate) require_signed: bool,

    /// Registry that plugins may be imported from, such as ghcr.io, or `http://registry.example:5000` for one
    /// without TLS; repeat for several [default: none]
    #[arg(long = "registry", value_name = "HOST", value_delimiter = ',', group = "api")]
    pub(crate) registries: Vec<RegistryHost>,

    /// File with the passwords of registries, as `docker login` writes it [default: none]
    #[arg(long, value_name = "FILE", group = "api")]
    pub(crate) registry_auth: Option<PathBuf>,

    /// Days after which predictions are removed [default: they stay until their scenario is deleted]
    #[arg(long, value_name = "DAYS", value_parser = positive::<u32>(), group = "orchestrator")]
    pub(crate) keep_results_days: Option<u32>,

    /// Space of the disk that stays free, in MiB: 8 at least, or 0 for none. Below it nothing is
    /// taken in [default: 5 % of the disk, 2048 at most]
    #[arg(long, value_name = "MIB", value_parser = reserve, groups = PARENTS)]
    disk_reserve_mib: Option<u64>,

    /// Folder of compiled plugins, which the processes of one user on one machine may share; made if missing.
    /// The key that they are signed with lies beside it [default: compiled in the data folder]
    #[arg(long, value_name = "FOLDER", groups = PARENTS)]
    pub(crate) compiled_dir: Option<PathBuf>,

    /// The worker executable; that with OpenCV's decoder is beside it, with `-opencv` behind its name
    /// [default: framehook-worker beside this one]
    #[arg(long, value_name = "FILE", groups = PARENTS)]
    #[arg(default_value_os_t = beside("framehook-worker"), hide_default_value = true)]
    pub(crate) worker: PathBuf,

    /// The ONNX Runtime library [default: libonnxruntime.so beside this executable]
    #[arg(long, value_name = "FILE", groups = PARENTS)]
    #[arg(default_value_os_t = beside("libonnxruntime.so"), hide_default_value = true)]
    pub(crate) onnxruntime: PathBuf,

    /// ONNX Runtime with OpenVINO [default: onnxruntime-openvino/libonnxruntime.so beside this executable, if
    /// it is there]
    #[arg(long, value_name = "FILE", group = "runner")]
    pub(crate) onnxruntime_openvino: Option<PathBuf>,

    /// ONNX Runtime with CUDA and TensorRT [default: onnxruntime-gpu/libonnxruntime.so beside this
    /// executable, if it is there]
    #[arg(long, value_name = "FILE", group = "runner")]
    pub(crate) onnxruntime_gpu: Option<PathBuf>,

    /// What is logged, such as `info` or `info,framehook_runner=debug`
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = filter, groups = ROLES)]
    pub(crate) log: String,

    /// Form of the log on stderr
    #[arg(long, value_name = "FORM", value_enum, default_value_t, groups = ROLES)]
    pub(crate) log_format: LogFormat,

    /// Collector of traces, which speaks OTLP over HTTP, such as http://127.0.0.1:4318 [default: none]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL", groups = ROLES)]
    pub(crate) otlp_endpoint: Option<String>,

    #[command(flatten)]
    pub(crate) http: Http,

    #[command(flatten)]
    pub(crate) limits: Limits,

    #[command(flatten)]
    pub(crate) cluster: Cluster,

    #[arg(skip)]
    pub(crate) origins: Origins,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// A [`Decoder`], as a setting.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum DecoderName {
    #[default]
    Libav,
    Opencv,
}

impl From<DecoderName> for Decoder {
    fn from(name: DecoderName) -> Self {
        match name {
            DecoderName::Libav => Self::Libav,
            DecoderName::Opencv => Self::Opencv,
        }
    }
}

impl Settings {
    /// Whether settings fit together; each by itself is judged by its `value_parser`.
    ///
    /// # Errors
    /// The field that cannot be as it is, and why.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let mut seen = HashSet::new();
        if let Some((key, _)) = self.labels.iter().find(|(key, _)| !seen.insert(key)) {
            return Err(("labels", format!("`{key}` is given twice; a runner has one value for each")));
        }
        check_labels(&self.labels()).map_err(|why| ("labels", why))?;
        if self.require_signed && self.trusted_keys.is_none() {
            return Err(("require_signed", "no key is trusted; name some with trusted_keys (--trusted-keys)".into()));
        }
        let (one, all) = (self.limits.max_config_kib, self.limits.max_configs_kib);
        if one > all {
            let why = format!(
                "limits.max_configs_kib is {all} (--max-configs-kib), and one hook may not have more than all of them"
            );
            return Err(("max_config_kib", why));
        }
        let (one, all) = (self.http.max_connections_per_peer, self.http.max_connections);
        // The default follows: whoever lowers the number of all need not know of the other.
        if one > all && one != HttpLimits::default().connections_per_peer {
            let why = format!(
                "http.max_connections is {all} (--max-connections), and one address may not have more than all of them"
            );
            return Err(("max_connections_per_peer", why));
        }
        Ok(())
    }

    /// Names the setting without which `outcome` might have been better.
    pub(crate) fn blame<T, E>(&self, id: &str, outcome: Result<T, E>) -> anyhow::Result<T>
    where
        Result<T, E>: Context<T, E>,
    {
        outcome.with_context(|| format!("{} cannot be used", self.origins.of(id)))
    }

    /// The runner's labels, each key once.
    pub(crate) fn labels(&self) -> Labels {
        self.labels.iter().cloned().collect()
    }

    /// The most that a scenario may ask for its hooks: never less than what each gets that asks for nothing.
    pub(crate) fn hook_ceilings(&self) -> HookCeilings {
        let own = u32::try_from(self.hook_memory_mib).unwrap_or(u32::MAX);
        HookCeilings {
            call_ms: self.limits.max_hook_call_ms.max(self.hook_call_ms),
            memory_mib: self.limits.max_hook_memory_mib.max(own),
            state_kib: self.limits.max_hook_state_kib.max((USUAL_HOOK >> 10) as u32),
        }
    }

    /// What stays free of each disk that the data folder lies on.
    pub(crate) fn disk_reserve(&self) -> Reserve {
        self.disk_reserve_mib.map_or(Reserve::Share, |mib| Reserve::Bytes(mib << 20))
    }
}

/// Width times height times bytes of a pixel must fit the 32-bit sizes of OpenCV and FFmpeg.
const MAX_PICTURE_SIDE: u64 = 16_384;

/// The engine reserves address space for this much.
pub(crate) const MAX_HOOK_MEMORY_MIB: u64 = 256;

/// A pebibyte; more is a mistake, and does not fit the arithmetic.
const MAX_UPLOAD_MIB: u64 = 1 << 30;

fn hooks() -> HookLimits {
    HookLimits::default()
}

fn filter(text: &str) -> Result<String, &'static str> {
    let filter = EnvFilter::try_new(text).map(|_| text.to_owned());
    filter.map_err(|_| "it must be a filter, such as `info` or `debug`")
}

fn reserve(text: &str) -> Result<u64, String> {
    match number(0..=MAX_UPLOAD_MIB)(text)? {
        mib if (1..LEAST >> 20).contains(&mib) => Err(format!("it must be at least {}, or 0 for none", LEAST >> 20)),
        mib => Ok(mib),
    }
}

/// A file that ships beside this executable.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

#[cfg(test)]
pub(crate) mod tests;
