//! Judges a file that somebody uploaded as a plugin by its bytes alone: what can be found without compiling
//! it.
//!
//! What is wrong with it comes back as data, each finding with a stable code.

use std::collections::BTreeSet;

use framehook_core::probe::Finding;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::abi::{PACKAGE, VERSIONS};

/// What passed a check, or what is wrong with the file.
pub(crate) type Checked<T> = Result<T, Vec<Finding>>;

pub(crate) fn refused<T>(code: &'static str, message: impl AsRef<str>) -> Checked<T> {
    Err(vec![Finding::new(code, message.as_ref())])
}

/// The cheapest check first, as each one trusts those before it.
pub(crate) fn check(wasm: &[u8]) -> Checked<()> {
    check_kind(wasm).and_then(|()| check_structure(wasm)).and_then(|()| check_world(wasm))
}

fn check_kind(wasm: &[u8]) -> Checked<()> {
    /// How to make the right thing.
    const BUILD: &str = "build it with `cargo build --release --target wasm32-wasip2`";
    if wasmtime::Engine::detect_precompiled(wasm).is_some() || wasm.starts_with(b"\x7fELF") {
        let upload = "which is never accepted from outside; upload the `.wasm` it was made from";
        return refused("precompiled", format!("this is compiled machine code, {upload}"));
    }
    if Parser::is_component(wasm) {
        return Ok(());
    }
    if Parser::is_core_wasm(wasm) {
        let message = format!("this is a core WebAssembly module, but a plugin is a component; {BUILD}");
        return refused("core_module", message);
    }
    let text = wasm.trim_ascii_start();
    if [&b"(module"[..], b"(component", b";;"].iter().any(|start| text.starts_with(start)) {
        return refused("wasm_text", format!("this is WebAssembly as text, but a plugin is a binary; {BUILD}"));
    }
    let start: Vec<_> = wasm.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let found = if start.is_empty() { "nothing".to_owned() } else { start.join(" ") };
    let wanted = "a component with `00 61 73 6d 0d 00 01 00`";
    refused("not_wasm", format!("this is not WebAssembly: it begins with `{found}`, {wanted}; {BUILD}"))
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
        Err(e) => refused("invalid_component", format!("the component is damaged or not allowed: {e}")),
    }
}

/// Names of what a component imports and of what it exports itself, not what its parts do.
///
/// # Errors
/// When it is damaged.
pub fn interface_names(wasm: &[u8]) -> wasmparser::Result<(Vec<String>, Vec<String>)> {
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
/// Those that the first version lacks.
const LATER_IMPORTS: [&str; 2] = ["metrics", "model"];

fn check_world(wasm: &[u8]) -> Checked<()> {
    let (imports, exports) = interface_names(wasm).or_else(|e| refused("invalid_component", e.to_string()))?;
    let version = contract(imports.iter().chain(&exports))?;
    let ours = |name: &str| format!("{PACKAGE}/{name}@{version}");
    let later = if version == VERSIONS[0] { &[][..] } else { &LATER_IMPORTS[..] };
    let allowed = |name: &String| {
        ALLOWED_IMPORTS.iter().chain(later).any(|i| *name == ours(i))
            || (ALLOWED_WASI.iter().any(|p| name.starts_with(p)) && name.contains("@0.2."))
    };
    let offence = |name: &String| {
        let message = format!(
            "it imports `{name}`, which plugins do not get: there are {PACKAGE}@{version} and, without files or network, \
             wasi:cli, clocks, filesystem, io and random of WASI 0.2"
        );
        Finding::new("unknown_import", &message)
    };
    let offences: Vec<_> = imports.iter().filter(|name| !allowed(name)).map(offence).collect();
    if !offences.is_empty() {
        return Err(offences);
    }
    let [lifecycle, pre, post] = ["lifecycle", "preprocess", "postprocess"].map(ours);
    if exports.contains(&lifecycle) && (exports.contains(&pre) || exports.contains(&post)) {
        return Ok(());
    }
    let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
    let wanted = format!("`{lifecycle}` and one or both of `{pre}` and `{post}`");
    refused("wrong_world", format!("a plugin exports {wanted}; this component exports {found}"))
}

/// The version of the contract that a component was built against: all of its interfaces are of one.
fn contract<'a>(names: impl Iterator<Item = &'a String>) -> Checked<&'static str> {
    let version = |name: &'a String| name.strip_prefix(PACKAGE)?.split_once('@').map(|(_, version)| version);
    let found: BTreeSet<_> = names.filter_map(version).collect();
    let known = VERSIONS.map(|version| format!("{PACKAGE}@{version}")).join(" and ");
    match found.iter().copied().collect::<Vec<_>>()[..] {
        [] => Ok(VERSIONS[VERSIONS.len() - 1]),
        [one] => VERSIONS.into_iter().find(|known| *known == one).map_or_else(
            || {
                let advice = "build it with the SDK of this release";
                refused(
                    "unknown_abi",
                    format!("it was built against {PACKAGE}@{one}, but this host runs {known}; {advice}"),
                )
            },
            Ok,
        ),
        ref several => {
            let several = several.join(" and ");
            refused(
                "unknown_abi",
                format!("it was built against {PACKAGE}@{several}, but a plugin keeps to one version"),
            )
        }
    }
}
