//! Judges a file that somebody uploaded as a plugin, the cheap checks first.
//!
//! For the child process only ([`crate::command`]): the last checks compile and run the file. What
//! is wrong with it comes back as data, each finding with a stable code.

use std::sync::Arc;

use parking_lot::Mutex;

use framehook_core::{
    artifact::{PluginManifest, check_name, check_version},
    job::{HookLimits, PluginLog},
    log_budget::LogLimits,
    probe::{ConfigProblem, Finding, Verdict},
};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};
use wasmtime::component::Component;

use crate::{
    Engine, Plugin,
    abi::{NEWEST, PACKAGE, v0_1::Instance},
    log::{Log, Logger},
    sandbox::{Failure, State},
    schema,
};

/// Stable, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingCode {
    /// Not WebAssembly at all.
    NotWasm,
    /// WebAssembly as text.
    WasmText,
    /// A core module instead of a component.
    CoreModule,
    /// Machine code.
    Precompiled,
    /// A component that is damaged, or uses a proposal that is not allowed.
    InvalidComponent,
    /// It wants something that plugins do not get.
    UnknownImport,
    /// It was built against a version of the interface that this host does not run.
    UnknownAbi,
    /// It is no plugin: it lacks exports, or they have other types.
    WrongWorld,
    CompileFailed,
    /// It does not start, or does not describe itself.
    DescribeFailed,
    BadName,
    BadVersion,
    BadConfigSchema,
}

impl FindingCode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotWasm => "not_wasm",
            Self::WasmText => "wasm_text",
            Self::CoreModule => "core_module",
            Self::Precompiled => "precompiled",
            Self::InvalidComponent => "invalid_component",
            Self::UnknownImport => "unknown_import",
            Self::UnknownAbi => "unknown_abi",
            Self::WrongWorld => "wrong_world",
            Self::CompileFailed => "compile_failed",
            Self::DescribeFailed => "describe_failed",
            Self::BadName => "bad_name",
            Self::BadVersion => "bad_version",
            Self::BadConfigSchema => "bad_config_schema",
        }
    }
}

type Checked<T> = Result<T, Vec<Finding>>;

fn finding(code: FindingCode, message: impl AsRef<str>) -> Vec<Finding> {
    vec![Finding::new(code.as_str(), message.as_ref())]
}

/// Everything there is to check about a plugin.
pub(crate) fn inspect(engine: &Engine, wasm: &[u8]) -> Verdict<PluginManifest> {
    let manifest = check_kind(wasm)
        .and_then(|()| check_structure(wasm))
        .and_then(|()| check_world(wasm))
        .and_then(|()| load(engine, wasm))
        .and_then(|plugin| check_description(&plugin));
    manifest.map_or_else(Verdict::Findings, Verdict::Ok).bounded()
}

/// What is wrong with a configuration, by the plugin's schema or, if that finds nothing, by the plugin
/// itself; empty if it is good. `wasm` was inspected before, perhaps by an older release.
pub(crate) fn validate_config(engine: &Engine, wasm: &[u8], config: &str) -> Result<Vec<ConfigProblem>, String> {
    let say = |findings: Vec<Finding>| findings.into_iter().map(|f| f.message).collect::<Vec<_>>().join("; ");
    check_kind(wasm).map_err(say)?;
    let plugin = load(engine, wasm).map_err(say)?;
    let said = LastLine::default();
    let silent = |f: Failure| format!("the plugin could not check its configuration: {}", said.explain(&f));
    let mut instance = start(&plugin, &said).map_err(silent)?;
    let manifest = instance.describe().map_err(silent)?;
    let problems = schema::problems(manifest.config_schema, config)?;
    if problems.is_empty() { instance.validate_config(config).map_err(silent) } else { Ok(problems) }
}

fn check_kind(wasm: &[u8]) -> Checked<()> {
    use FindingCode as C;
    /// How to make the right thing.
    const BUILD: &str = "build it with `cargo build --release --target wasm32-wasip2`";
    if wasmtime::Engine::detect_precompiled(wasm).is_some() || wasm.starts_with(b"\x7fELF") {
        return Err(finding(
            C::Precompiled,
            "this is compiled machine code, which is never accepted from outside; upload the `.wasm` it was made from",
        ));
    }
    if Parser::is_component(wasm) {
        return Ok(());
    }
    if Parser::is_core_wasm(wasm) {
        return Err(finding(
            C::CoreModule,
            format!("this is a core WebAssembly module, but a plugin is a component; {BUILD}"),
        ));
    }
    let text = wasm.trim_ascii_start();
    if text.starts_with(b"(module") || text.starts_with(b"(component") || text.starts_with(b";;") {
        return Err(finding(C::WasmText, format!("this is WebAssembly as text, but a plugin is a binary; {BUILD}")));
    }
    let start: Vec<_> = wasm.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let found = if start.is_empty() { "nothing".to_owned() } else { start.join(" ") };
    Err(finding(
        C::NotWasm,
        format!(
            "this is not WebAssembly: it begins with `{found}`, a component with `00 61 73 6d 0d 00 01 00`; {BUILD}"
        ),
    ))
}

fn check_structure(wasm: &[u8]) -> Checked<()> {
    let allowed = WasmFeatures::WASM2
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::COMPONENT_MODEL;
    match Validator::new_with_features(allowed).validate_all(wasm) {
        Ok(_) => Ok(()),
        Err(e) => Err(finding(FindingCode::InvalidComponent, format!("the component is damaged or not allowed: {e}"))),
    }
}

/// Names of what a component imports and exports itself, not what its parts do.
fn interface_names(wasm: &[u8]) -> wasmparser::Result<(Vec<String>, Vec<String>)> {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0u32);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::Version { encoding: Encoding::Component | Encoding::Module, .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

/// What a standard library wants to exist; nothing is behind it but clocks, random numbers and the
/// plugin's log.
const ALLOWED_WASI: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];
const ALLOWED_IMPORTS: [&str; 5] = ["types", "media", "log", "state", "clock"];

fn check_world(wasm: &[u8]) -> Checked<()> {
    let (imports, exports) =
        interface_names(wasm).map_err(|e| finding(FindingCode::InvalidComponent, e.to_string()))?;
    check_abi(imports.iter().chain(&exports))?;
    let ours = |name: &str| format!("{PACKAGE}/{name}@{NEWEST}");
    let allowed = |name: &String| {
        ALLOWED_IMPORTS.iter().any(|i| *name == ours(i))
            || (ALLOWED_WASI.iter().any(|p| name.starts_with(p)) && name.contains("@0.2."))
    };
    let offenders: Vec<_> = imports.iter().filter(|name| !allowed(name)).flat_map(|name| finding(
        FindingCode::UnknownImport,
        format!(
            "it imports `{name}`, which plugins do not get: there are {PACKAGE}@{NEWEST} and, without files or network, wasi:cli, clocks, filesystem, io and random of WASI 0.2"
        ),
    )).collect();
    if !offenders.is_empty() {
        return Err(offenders);
    }
    let exported = |name: &str| exports.contains(&ours(name));
    if exported("lifecycle") && (exported("preprocess") || exported("postprocess")) {
        return Ok(());
    }
    let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
    Err(finding(
        FindingCode::WrongWorld,
        format!(
            "a plugin exports `{}` and one or both of `{}` and `{}`; this component exports {found}",
            ours("lifecycle"),
            ours("preprocess"),
            ours("postprocess")
        ),
    ))
}

fn check_abi<'a>(names: impl Iterator<Item = &'a String>) -> Checked<()> {
    let version = |name: &'a String| name.strip_prefix(PACKAGE)?.split_once('@').map(|(_, version)| version);
    match names.filter_map(version).find(|version| *version != NEWEST) {
        None => Ok(()),
        Some(other) => Err(finding(
            FindingCode::UnknownAbi,
            format!(
                "it was built against {PACKAGE}@{other}, but this host runs {PACKAGE}@{NEWEST}; build it with the SDK of this release"
            ),
        )),
    }
}

fn load(engine: &Engine, wasm: &[u8]) -> Checked<Plugin> {
    let component = Component::from_binary(engine.raw(), wasm)
        .map_err(|e| finding(FindingCode::CompileFailed, format!("the component does not compile: {e:#}")))?;
    engine.link(&component).map_err(|e| {
        finding(
            FindingCode::WrongWorld,
            format!("its imports or exports are not those of {PACKAGE}@{NEWEST}, although the names are: {e}"),
        )
    })
}

/// The last line that a plugin logs while it is checked, which tells why it ended if it did. The SDK logs
/// panics.
#[derive(Default)]
struct LastLine(Arc<Mutex<String>>);

impl LastLine {
    fn log(&self) -> Log {
        let last = Arc::clone(&self.0);
        let keep = move |line: PluginLog| *last.lock() = line.message;
        Log::new(Arc::new(keep), LogLimits::default())
    }

    fn explain(&self, failure: &Failure) -> String {
        match self.0.lock().as_str() {
            "" => failure.message.clone(),
            line => format!("{}; the last line it logged: {line}", failure.message),
        }
    }
}

fn start(plugin: &Plugin, said: &LastLine) -> Result<Instance, Failure> {
    let logger = Logger::new(String::new(), said.log());
    Instance::new(&plugin.code, HookLimits::default(), logger, State::default())
}

fn check_description(plugin: &Plugin) -> Checked<PluginManifest> {
    let said = LastLine::default();
    let described = start(plugin, &said).and_then(|mut instance| instance.describe());
    let manifest = described.map_err(|f| {
        finding(FindingCode::DescribeFailed, format!("the plugin did not describe itself: {}", said.explain(&f)))
    })?;
    let schema_problem = schema::check(&manifest.config_schema).err();
    let checks = [
        (FindingCode::BadName, check_name(&manifest.name).err()),
        (FindingCode::BadVersion, check_version(&manifest.version).err()),
        (FindingCode::BadConfigSchema, schema_problem.map(|e| format!("`config-schema` {e}"))),
    ];
    let findings: Vec<_> =
        checks.into_iter().filter_map(|(code, message)| Some(finding(code, message?))).flatten().collect();
    if findings.is_empty() { Ok(manifest) } else { Err(findings) }
}
