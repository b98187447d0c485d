//! A change of a scenario that exists: which fields may change, and what it is with them.
//!
//! Invariant: source, model and the form of the model's input stay what they are: a worker that runs keeps
//! all that it has opened, and a scenario's rows are of one source and one model.

use framehook_core::{
    artifact::ArtifactRef,
    error_code::ErrorCode,
    input::InputSpec,
    spec::{PluginChain, PluginUse, ResolvedHook, ResolvedScenario, ScenarioSpec, ShadowSpec},
};
use serde_json::Value;

use crate::{
    App,
    check::resolve::{resolve_hooks, shadow_of},
    http::{
        extract::parse_body,
        problem::{FieldError, Problem},
    },
};

/// What may change; all else is another scenario.
pub(crate) const CHANGEABLE: [&str; 5] = ["name", "plugins", "on_plugin_failure", "limits", "labels"];

/// RFC 7396: `null` removes, objects are merged, anything else takes the place of what was there.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// The specification with a merge patch applied, and the names of the fields that it changes.
///
/// # Errors
/// When it changes what cannot change, or makes no specification.
pub(crate) fn patched(before: &ScenarioSpec, patch: &Value) -> Result<(ScenarioSpec, Vec<String>), Problem> {
    let before = serde_json::to_value(before).map_err(Problem::internal)?;
    let mut after = before.clone();
    merge(&mut after, patch);
    let names = patch.as_object().into_iter().flat_map(serde_json::Map::keys);
    let changed: Vec<_> = names.filter(|name| before.get(name) != after.get(name)).cloned().collect();
    let frozen = changed.iter().filter(|name| !CHANGEABLE.contains(&name.as_str())).map(|name| {
        let known = CHANGEABLE.join("`, `");
        let message =
            format!("`{name}` of a scenario that exists cannot change, only `{known}`; post a new scenario instead");
        FieldError::new(ErrorCode::NotChangeable, name, message)
    });
    if let Some(problem) = Problem::of_all(frozen.collect()) {
        return Err(problem);
    }
    let spec = parse_body::<ScenarioSpec>(after.to_string().as_bytes())?.parsed;
    Ok((spec, changed))
}

/// What would run with this specification in the place of `before`, which a scenario has.
///
/// # Errors
/// As of a new scenario; and when a plugin wants another form of the model's input.
pub(crate) async fn resolve_change(
    app: &App,
    spec: &ScenarioSpec,
    (spec_before, resolved): (&ScenarioSpec, &ResolvedScenario),
) -> Result<ResolvedScenario, Problem> {
    let plugins = PluginChain {
        pre: pinned(&spec.plugins.pre, (&spec_before.plugins.pre, &resolved.pre)),
        post: pinned(&spec.plugins.post, (&spec_before.plugins.post, &resolved.post)),
    };
    let shadow = shadow_of(spec);
    let shadow =
        (!shadow.is_empty()).then(|| ShadowSpec { post: pinned(shadow, (shadow_of(spec_before), &resolved.shadow)) });
    let model = ArtifactRef::Digest(resolved.model.digest.clone());
    let spec = ScenarioSpec { plugins, shadow, model, ..spec.clone() };
    let hooks = resolve_hooks(app, &spec).await?;
    if let Some(field) = difference(&hooks.input, &resolved.input) {
        let message = format!(
            "with these plugins the model's input would have another `{field}` than it has, and that cannot change; name it \
             in `input` of a new scenario, or use plugins that want the same"
        );
        return Err(FieldError::new(ErrorCode::NotChangeable, "plugins", message).into());
    }
    // The worker that runs keeps the limit that it has; the next one may have more.
    let count = [hooks.pre.len(), hooks.post.len(), hooks.shadow.len()].iter().sum::<usize>();
    let more = count.saturating_sub(resolved.pre.len() + resolved.post.len() + resolved.shadow.len());
    let caps = app.config.memory;
    let more_mib =
        u32::try_from(more).unwrap_or(u32::MAX).saturating_mul(spec.limits.hook_memory_mib.unwrap_or(caps.hook_mib));
    let memory_mib =
        spec.memory_mib.or(resolved.memory_mib.map(|mib| mib.saturating_add(more_mib).min(caps.worker_mib)));
    Ok(ResolvedScenario {
        memory_mib,
        pre: hooks.pre,
        post: hooks.post,
        shadow: hooks.shadow,
        on_plugin_failure: spec.on_plugin_failure,
        limits: spec.limits,
        ..resolved.clone()
    })
}

/// A field that is not the same in both.
fn difference(one: &InputSpec, other: &InputSpec) -> Option<String> {
    let [one, other] = [one, other].map(|input| serde_json::to_value(input).unwrap_or_default());
    let names = one.as_object().into_iter().chain(other.as_object()).flat_map(serde_json::Map::keys);
    names.into_iter().find(|name| one.get(name) != other.get(name)).cloned()
}

/// Hooks whose plugin is named without a version, as before, keep the version that they have: a new one is
/// taken when it is asked for.
fn pinned(uses: &[PluginUse], (before, resolved): (&[PluginUse], &[ResolvedHook])) -> Vec<PluginUse> {
    let pin = |used: &PluginUse| {
        let is_open = matches!(used.plugin, ArtifactRef::Newest { .. });
        let known = before.iter().zip(resolved).find(|(written, _)| is_open && written.plugin == used.plugin);
        let plugin = known.map_or_else(|| used.plugin.clone(), |(_, hook)| hook.identity.reference());
        PluginUse { plugin, config: used.config.clone() }
    };
    uses.iter().map(pin).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_merge_as_the_rfc_says() {
        // The appendix of RFC 7396.
        for (mut target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            merge(&mut target, &patch);
            assert_eq!(target, expected, "{patch}");
        }
    }

    fn spec() -> ScenarioSpec {
        serde_json::from_value(json!({"source": {"video": "street@1"}, "model": "street@1", "labels": {"team": "a"}}))
            .unwrap()
    }

    #[test]
    fn only_what_may_change_changes() {
        let patch =
            json!({"source": {"video": "street@1"}, "labels": {"team": null}, "on_plugin_failure": "raw_output"});
        let (spec_after, changed) = patched(&spec(), &patch).unwrap();
        assert_eq!(changed, ["labels", "on_plugin_failure"]);
        assert!(spec_after.labels.is_empty());
        for (patch, fields) in [
            (json!({"source": {"video": "other@1"}, "plugins": {}}), &["source"][..]),
            (json!({"model": "other@1", "lanes": 2}), &["lanes", "model"]),
            (json!({"speed": 2}), &["speed"]),
        ] {
            let problem = patched(&spec(), &patch).unwrap_err();
            assert_eq!((problem.code, problem.field.as_deref()), (ErrorCode::NotChangeable, fields.first().copied()));
            assert!(problem.detail.contains("post a new scenario"), "{}", problem.detail);
        }
        assert_eq!(patched(&spec(), &json!({"plugins": 1})).unwrap_err().code, ErrorCode::InvalidScenario);
    }

    #[test]
    fn a_name_without_a_version_means_what_it_meant() {
        let uses = |names: &[&str]| -> Vec<PluginUse> {
            names.iter().map(|name| serde_json::from_value(json!({"use": name})).unwrap()).collect()
        };
        let hook =
            json!({"name": "yolo", "version": "1", "digest": format!("sha256:{}", "a".repeat(64)), "config": {}});
        let resolved: Vec<ResolvedHook> = vec![serde_json::from_value(hook).unwrap()];
        let pinned = pinned(&uses(&["tracker", "yolo"]), (&uses(&["yolo"]), &resolved));
        assert_eq!(pinned, uses(&["tracker", "yolo@1"]));
    }
}
