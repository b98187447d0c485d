//! The limits of a scenario as written: lengths, counts and ranges, before anything is looked up.

use framehook_core::{
    error_code::ErrorCode,
    memory::LEAST_MIB,
    model_use,
    placement::check_labels,
    spec::{Lanes, MAX_FPS, MAX_LANES, SPEEDS, Sampling, ScenarioSpec, SourceSpec, TimeRange},
};

use crate::{
    Limits,
    check::{canonical, resolve::lists},
    http::problem::FieldError,
};

/// One line on a screen, with room for other scripts.
const MAX_NAME: usize = 200;
/// Each hook is an instance of a plugin with up to 256 MiB of its own.
const MAX_HOOKS: usize = 16;
/// Longer than any that a converter writes.
const MAX_TENSOR: usize = 256;
/// `PATH_MAX` of Linux.
const MAX_PATH: usize = 4096;

/// Everything that is out of them.
pub(super) fn check_sizes(spec: &ScenarioSpec, most_mib: u32, limits: Limits) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut check = |bad: bool, field: &str, message: String| {
        if bad {
            errors.push(FieldError::new(ErrorCode::InvalidScenario, field, message));
        }
    };
    let name = spec.name.chars().count();
    check(name > MAX_NAME, "name", format!("the name has {name} characters; at most {MAX_NAME} are allowed"));
    check(spec.name.chars().any(char::is_control), "name", "the name contains control characters".into());
    for (field, labels) in [("labels", &spec.labels), ("placement", &spec.placement)] {
        let checked = check_labels(labels);
        check(checked.is_err(), field, checked.err().unwrap_or_default());
    }
    let models = model_use::check_names(spec.models.keys().map(String::as_str));
    check(models.is_err(), "models", models.err().unwrap_or_default());
    let is_empty = spec.shadow.as_ref().is_some_and(|shadow| shadow.post.is_empty());
    check(is_empty, "shadow.post", "a shadow has at least one hook; leave `shadow` out if there is none".into());
    for (list, hooks) in lists(spec) {
        let count = hooks.len();
        check(count > MAX_HOOKS, list.list(), format!("there are {count} hooks; at most {MAX_HOOKS} are allowed"));
    }
    let (field, is_off, expected) = match spec.frames {
        Some(Sampling::Every(n)) => ("frames.every", n == 0, "1 or more"),
        Some(Sampling::Fps(fps)) => ("frames.fps", !(fps > 0.0 && fps <= MAX_FPS), "above 0 and at most 1000"),
        None => ("frames", false, ""),
    };
    check(is_off, field, format!("`{field}` must be {expected}"));
    if let Some(Lanes::Fixed(lanes)) = spec.lanes {
        let message = format!("`lanes` is {lanes}; it is `auto` or a number from 1 to {MAX_LANES}");
        check(!(1..=MAX_LANES).contains(&lanes), "lanes", message);
    }
    if let Some(TimeRange { from_us: Some(from), until_us: Some(until) }) = spec.range {
        check(from >= until, "range.until_us", format!("the range from {from} us until {until} us has no frame in it"));
    }
    let is_speed = spec.max_speed.is_none_or(|speed| SPEEDS.contains(&speed));
    check(!is_speed, "max_speed", format!("`max_speed` must be from {} to {}", SPEEDS.start(), SPEEDS.end()));
    let mib = spec.memory_mib.unwrap_or(LEAST_MIB);
    let range = format!("`memory_mib` is {mib}; a worker has {LEAST_MIB} to {most_mib} MiB here (`worker_memory_mib`)");
    check(!(LEAST_MIB..=most_mib).contains(&mib), "memory_mib", range);
    let tensor = spec.input.tensor.as_deref().map_or(0, str::len);
    check(
        tensor > MAX_TENSOR,
        "input.tensor",
        format!("the name has {tensor} bytes; at most {MAX_TENSOR} are allowed"),
    );
    let longest = spec.input.inputs.keys().map(String::len).max().unwrap_or_default();
    let field = "input.inputs";
    check(longest > MAX_TENSOR, field, format!("a name has {longest} bytes; at most {MAX_TENSOR} are allowed"));
    if let SourceSpec::File(path) = &spec.source {
        let length = path.len();
        check(length > MAX_PATH, "source.file", format!("the path has {length} bytes; at most {MAX_PATH} are allowed"));
    }
    let hooks = spec.plugins.pre.len() + spec.plugins.post.len();
    for (field, message) in spec.limits.problems(limits.hooks, hooks) {
        errors.push(FieldError::new(ErrorCode::InvalidScenario, format!("limits.{field}"), message));
    }
    errors.extend(check_configs(spec, limits));
    errors.extend(check_precision(spec));
    errors
}

/// No runner will ever have what its provider does not compute in.
fn check_precision(spec: &ScenarioSpec) -> Option<FieldError> {
    let (provider, precision) = (spec.provider?.provider()?, spec.precision?);
    let known: Vec<_> = provider.precisions().iter().map(|precision| precision.as_str()).collect();
    let (name, wanted, known) = (provider.as_str(), precision.as_str(), known.join(", "));
    let message = format!("`{name}` runs models in {known} only, not in {wanted}; take another provider or precision");
    let is_impossible = !provider.precisions().contains(&precision);
    is_impossible.then(|| FieldError::new(ErrorCode::InvalidScenario, "precision", message))
}

/// A configuration is counted in its canonical form, so that white space and the order of keys make
/// no difference.
fn check_configs(spec: &ScenarioSpec, limits: Limits) -> Vec<FieldError> {
    let Limits { config_bytes, configs_bytes, .. } = limits;
    let mut errors = Vec::new();
    let mut total = 0;
    for (list, hooks) in lists(spec) {
        // What is beyond the limit of hooks is refused by that.
        for (index, hook) in hooks.iter().take(MAX_HOOKS).enumerate() {
            let size = canonical::text(&hook.config).len();
            total += size;
            if size > config_bytes {
                let message = format!(
                    "the configuration has {size} bytes of JSON; at most {config_bytes} are allowed (max_config_kib)"
                );
                let field = format!("{}[{index}].config", list.list());
                errors.push(FieldError::new(ErrorCode::InvalidPluginConfig, field, message));
            }
        }
    }
    if total > configs_bytes {
        let message = format!(
            "the configurations of all hooks have {total} bytes of JSON; at most {configs_bytes} are allowed \
             (max_configs_kib)"
        );
        errors.push(FieldError::new(ErrorCode::InvalidPluginConfig, "plugins", message));
    }
    errors
}
