//! What lies in a registry for one plugin, in the format of `wkg` (crate `oci-wasm`): a manifest, a
//! configuration that says what the component imports and exports, and one layer, the component's bytes.
//!
//! A signature is an annotation of the manifest. So it is copied wherever the plugin is copied, by tools that
//! have never heard of it; tools that read components pay it no attention.

use std::collections::BTreeMap;

use framehook_core::{
    ids::Digest,
    signature::{MAX_SIGNATURE, PluginSignature},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::RegistryError;

/// The only form of a manifest that is written and read.
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_TYPE: &str = "application/wasm";
const SIGNATURE: &str = "framehook.signature";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    // Optional to the specification; wkg asks for it.
    #[serde(default)]
    media_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// A component as it is pushed.
pub struct Component {
    pub wasm: Vec<u8>,
    /// Names of what it imports and exports, such as `framehook:plugin/types@0.2.0`.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    pub signature: Option<PluginSignature>,
}

/// The three that a push uploads.
pub(super) struct Packed {
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) layer: Vec<u8>,
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(&Sha256::digest(bytes).into())
}

/// The same component, with the same signature, always has the same digest: no time is in it.
pub(super) fn pack(component: Component) -> Packed {
    let Component { wasm: layer, imports, exports, signature } = component;
    let describe = |media_type: &str, bytes: &[u8]| Descriptor {
        media_type: media_type.to_owned(),
        digest: digest(bytes),
        size: bytes.len() as u64,
    };
    let described = describe(LAYER_TYPE, &layer);
    let config = json!({
        // The format asks for a time.
        "created": "1970-01-01T00:00:00Z",
        "author": null,
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [described.digest],
        "component": {"exports": exports, "imports": imports, "target": null},
    });
    let config = config.to_string().into_bytes();
    let annotation = signature.and_then(|signature| serde_json::to_string(&signature).ok());
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        config: describe(CONFIG_TYPE, &config),
        layers: vec![described],
        annotations: annotation.map(|text| (SIGNATURE.to_owned(), text)).into_iter().collect(),
    };
    let manifest = serde_json::to_vec(&manifest).expect("texts and numbers become JSON");
    Packed { manifest, config, layer }
}

/// What a manifest says, if it is that of a component.
pub(super) fn unpack(bytes: &[u8]) -> Result<(Descriptor, Option<PluginSignature>), RegistryError> {
    let not_one = |what: String| RegistryError::Malformed(format!("it holds no WebAssembly component there: {what}"));
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| not_one(format!("the manifest: {error}")))?;
    let Manifest { media_type, config, layers, annotations, .. } = manifest;
    // A list of platforms would be one, and an image.
    if !media_type.is_empty() && media_type != MANIFEST_TYPE {
        return Err(not_one(format!("the manifest is `{}`, expected {MANIFEST_TYPE}", shortened(&media_type))));
    }
    if config.media_type != CONFIG_TYPE {
        return Err(not_one(format!(
            "the configuration is `{}`, expected {CONFIG_TYPE}",
            shortened(&config.media_type)
        )));
    }
    let [layer] = <[Descriptor; 1]>::try_from(layers).map_err(|all| not_one(format!("it has {} layers", all.len())))?;
    if layer.media_type != LAYER_TYPE {
        return Err(not_one(format!("the layer is `{}`, expected {LAYER_TYPE}", shortened(&layer.media_type))));
    }
    let signature = annotations.get(SIGNATURE).map(|text| PluginSignature::parse(text)).transpose();
    let signature = signature.map_err(|why| {
        RegistryError::Malformed(format!("its annotation `{SIGNATURE}` (up to {MAX_SIGNATURE} bytes): {why}"))
    })?;
    Ok((layer, signature))
}

/// A stranger's word, as far as it helps.
fn shortened(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use framehook_core::signature::KeyId;
    use serde_json::Value;

    use super::*;

    /// What `oci-wasm` 0.6.0, the crate behind `wkg`, pushed for the stock plugin `zones`.
    const OF_WKG: &str = r#"{"config":{"digest":"sha256:11b79380d7f944468ff4a65e324b114f1aac04498a8b483a68968ada44918723","mediaType":"application/vnd.wasm.config.v0+json","size":783},"layers":[{"digest":"sha256:4c4281ee8855196b75b224aeffc5541d540a1d8b746451a2239ef0bdfd0091dd","mediaType":"application/wasm","size":433724}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}"#;
    /// And the members of its configuration.
    const CONFIG_OF_WKG: [&str; 6] = ["architecture", "author", "component", "created", "layerDigests", "os"];

    fn component(signature: Option<PluginSignature>) -> Component {
        let list = |name: &str| vec![name.to_owned()];
        Component { wasm: b"\0asm".to_vec(), imports: list("a:b/c@1.0.0"), exports: list("a:b/d@1.0.0"), signature }
    }

    fn signature() -> PluginSignature {
        let digest = digest(b"\0asm");
        let key = KeyId::of(&digest);
        PluginSignature { name: "zones".into(), version: "1".into(), digest, key, signature: "x".into() }
    }

    #[test]
    fn what_wkg_pushes_is_read_and_what_is_pushed_has_its_form() {
        let (layer, signature) = unpack(OF_WKG.as_bytes()).unwrap();
        assert_eq!((layer.size, signature), (433_724, None));
        let packed = pack(component(None));
        let keys = |json: &Value| {
            let mut keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        let [ours, theirs]: [Value; 2] =
            [&packed.manifest[..], OF_WKG.as_bytes()].map(|bytes| serde_json::from_slice(bytes).unwrap());
        assert_eq!(keys(&ours), keys(&theirs));
        for member in ["config", "layers", "schemaVersion", "mediaType"] {
            let shape = |json: &Value| if member == "layers" { keys(&json[member][0]) } else { vec![] };
            assert_eq!(shape(&ours), shape(&theirs), "{member}");
        }
        assert_eq!(ours["config"]["mediaType"], theirs["config"]["mediaType"]);
        assert_eq!(ours["layers"][0]["mediaType"], theirs["layers"][0]["mediaType"]);
        let config: Value = serde_json::from_slice(&packed.config).unwrap();
        assert_eq!(keys(&config), CONFIG_OF_WKG);
        assert_eq!(keys(&config["component"]), ["exports", "imports", "target"]);
        assert_eq!(config["layerDigests"][0], digest(b"\0asm").as_str());
    }

    #[test]
    fn a_signature_goes_with_the_manifest() {
        let packed = pack(component(Some(signature())));
        let (layer, read) = unpack(&packed.manifest).unwrap();
        assert_eq!((layer.digest, layer.size, read), (digest(b"\0asm"), 4, Some(signature())));
        assert_eq!(pack(component(Some(signature()))).manifest, packed.manifest, "always the same");
    }

    #[test]
    fn what_holds_no_component_is_refused() {
        let good: Value = serde_json::from_slice(&pack(component(Some(signature()))).manifest).unwrap();
        let changed = |pointer: &str, value: Value| {
            let mut changed = good.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            unpack(changed.to_string().as_bytes()).unwrap_err().to_string()
        };
        for (pointer, value, words) in [
            ("/mediaType", json!("application/vnd.oci.image.index.v1+json"), "image.index"),
            ("/config/mediaType", json!("application/vnd.oci.image.config.v1+json"), "the configuration is"),
            ("/layers", json!([]), "0 layers"),
            ("/layers/0/mediaType", json!("application/gzip"), "application/gzip"),
            ("/layers/0/digest", json!("sha256:../../x"), "64"),
            ("/layers/0/size", json!(-1), "the manifest"),
            ("/annotations/framehook.signature", json!("{}"), "framehook.signature"),
            ("/annotations/framehook.signature", json!(7), "the manifest"),
        ] {
            let said = changed(pointer, value);
            assert!(said.contains(words), "{pointer}: {said}");
        }
        for bad in ["", "[]", "{}", "<html>"] {
            assert!(unpack(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
