//! Compiled plugins, frames and model outputs for the tests.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock, Mutex},
};

use framehook_core::{
    artifact::PluginManifest,
    hook_state::{HookState, StateQuota},
    ids::Digest,
    job::{HookJob, HookLimits, PluginLog},
    log_budget::LogLimits,
    prediction::{PluginIdentity, Position},
    probe::Verdict,
    size::{MAX_PREDICTION, room_for_outputs},
    spec::OnPluginFailure,
};
use framehook_engine::{
    Engine, Log,
    chain::ChainSettings,
    compile::Compiler,
    judge::Judge,
    media::{
        Element, Elements, Frame, FramePixels, Geometry, Inference, Output, PixelFormat, PixelsUnavailable, Region,
        Size, Start, Tensor, TensorDesc, Values,
    },
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub(crate) static COMPILER: LazyLock<Compiler> = LazyLock::new(|| Compiler::new().unwrap());
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::loader().unwrap());

/// The bytes of a stock plugin.
pub(crate) fn wasm(name: &str) -> Vec<u8> {
    let file = format!("{}.wasm", name.replace('-', "_"));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/plugins/wasm32-wasip2/release");
    let path = PathBuf::from(folder).join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run `make plugins` first", path.display()))
}

/// The bytes of a plugin that the release 4bc00f0 built for framehook:plugin@0.1.0.
pub(crate) fn wasm_0_1(name: &str) -> Vec<u8> {
    let file = format!("{}.wasm.xz", name.replace('-', "_"));
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/release-0.1.0")).join(file);
    let unpacked = Command::new("xz").arg("-dc").arg(&path).output();
    let unpacked = unpacked.expect("xz is installed by scripts/setup.sh --tests");
    assert!(unpacked.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&unpacked.stderr));
    unpacked.stdout
}

/// A job for one of those.
pub(crate) fn job_0_1(name: &str, config: Value) -> HookJob {
    job_of(&format!("{name}-0.1.0"), || wasm_0_1(name), config)
}

/// Compiles a plugin from outside and asks it what it is, as two processes do.
pub(crate) fn inspect(bytes: &[u8]) -> Verdict<PluginManifest> {
    COMPILER.compile(bytes).map_or_else(Verdict::Findings, |code| judge(&code).describe())
}

/// The judge of a compiled plugin.
pub(crate) fn judge(code: &[u8]) -> Judge {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), code).unwrap();
    Judge::load(file.path(), &digest_of(file.path())).unwrap()
}

/// A job for a stock plugin.
pub(crate) fn job(name: &str, config: Value) -> HookJob {
    job_of(name, || wasm(name), config)
}

/// A job for a plugin, compiled once for all tests.
pub(crate) fn job_of(name: &str, wasm: impl Fn() -> Vec<u8>, config: Value) -> HookJob {
    static COMPILED: LazyLock<(tempfile::TempDir, Mutex<HashMap<String, PathBuf>>)> =
        LazyLock::new(|| (tempfile::tempdir().unwrap(), Mutex::default()));
    let (folder, done) = &*COMPILED;
    let compiled = done
        .lock()
        .unwrap()
        .entry(name.to_owned())
        .or_insert_with(|| {
            let path = folder.path().join(format!("{name}.cwasm"));
            std::fs::write(&path, COMPILER.compile(&wasm()).unwrap()).unwrap();
            path
        })
        .clone();
    let identity =
        PluginIdentity { name: name.to_owned(), version: "0.1.0".into(), digest: Digest::from_bytes(&[0; 32]) };
    let digest = digest_of(&compiled);
    HookJob { identity, compiled, digest, config }
}

/// The digest of a file.
pub(crate) fn digest_of(path: &Path) -> Digest {
    Digest::from_bytes(&Sha256::digest(std::fs::read(path).unwrap()).into())
}

#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<PluginLog>>>);

impl Lines {
    pub(crate) fn all(&self) -> Vec<PluginLog> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|line| line.message.clone()).collect()
    }
}

pub(crate) fn settings(on_failure: OnPluginFailure) -> (ChainSettings, Lines) {
    let lines = Lines::default();
    let sink = lines.clone();
    let log: framehook_engine::LogSink = Arc::new(move |line| sink.0.lock().unwrap().push(line));
    let log = Log::new(log, LogLimits::default());
    let room = room_for_outputs(MAX_PREDICTION, 1);
    let (quota, state) = (StateQuota::default(), HookState::default());
    (
        ChainSettings {
            start: Start { stream_id: "test".into(), ..Start::default() },
            limits: HookLimits::default(),
            on_failure,
            room,
            quota,
            metric_names: 64,
            state,
            before: None,
            models: None,
            log,
        },
        lines,
    )
}

/// Every pixel has the same value.
pub(crate) struct Flat(pub(crate) u8);

impl FramePixels for Flat {
    fn read(&self, _: Region, target: Size, format: PixelFormat) -> Result<Vec<u8>, PixelsUnavailable> {
        Ok(vec![self.0; (target.width * target.height) as usize * format.channels()])
    }

    fn to_tensor(&self, _: Region) -> Result<(Tensor, Geometry), PixelsUnavailable> {
        let data = vec![f32::from(self.0); 3 * (INPUT.width * INPUT.height) as usize];
        Ok((Tensor { shape: vec![1, 3, INPUT.height, INPUT.width], data }, GEOMETRY))
    }
}

/// The demo's: 640x360 letterboxed into 320x192.
pub(crate) const INPUT: Size = Size { width: 320, height: 192 };
pub(crate) const GEOMETRY: Geometry = Geometry { scale_x: 0.5, scale_y: 0.5, pad_x: 0.0, pad_y: 6.0 };

pub(crate) const SIZE: Size = Size { width: 640, height: 360 };

pub(crate) fn position(frame: u64) -> Position {
    Position { frame, pts_us: frame as i64 * 40_000 }
}

pub(crate) fn frame(number: u64, pixels: &Flat) -> Frame<'_> {
    Frame { position: position(number), size: SIZE, input_size: INPUT, input_planes: 3, pixels }
}

/// Calls `f` with an inference that has these outputs.
pub(crate) fn infer_values<R>(
    frame: u64,
    outputs: &[(&str, &[u32], Values<'_>)],
    f: impl FnOnce(&Inference<'_>) -> R,
) -> R {
    let output = |(name, shape, data): &(&str, &[u32], Values<'_>)| {
        let element = match data {
            // By its name: small whole numbers are kept as floats.
            Values::F32(_) if name.starts_with("small") => Element::Integer,
            Values::F32(_) | Values::F64(_) => Element::Float,
            Values::I64(_) | Values::U64(_) => Element::Integer,
            Values::Text(_) => Element::Text,
        };
        let desc = TensorDesc { name: (*name).into(), shape: shape.to_vec(), element };
        let data = match *data {
            Values::F32(all) => Elements::F32(all.to_vec()),
            Values::F64(all) => Elements::F64(all.to_vec()),
            Values::I64(all) => Elements::I64(all.to_vec()),
            Values::U64(all) => Elements::U64(all.to_vec()),
            Values::Text(all) => Elements::Text(all.to_vec()),
        };
        Output { desc, data }
    };
    let outputs: Vec<_> = outputs.iter().map(output).collect();
    let (position, input_size) = (position(frame), INPUT);
    f(&Inference { position, size: SIZE, input_size, geometry: GEOMETRY, outputs: &outputs, pixels: None })
}

/// The same with numbers, and names that count.
pub(crate) fn infer<R>(frame: u64, outputs: &[(&[u32], &[f32])], f: impl FnOnce(&Inference<'_>) -> R) -> R {
    let names: Vec<_> = (0..outputs.len()).map(|i| format!("output{i}")).collect();
    let outputs = names.iter().zip(outputs).map(|(name, (shape, data))| (name.as_str(), *shape, Values::F32(data)));
    infer_values(frame, &outputs.collect::<Vec<_>>(), f)
}
