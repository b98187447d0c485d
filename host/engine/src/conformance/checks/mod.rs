//! The checks, each a function of the kit. The first that says what is wrong with a plugin says it in words
//! that its author can act on.

mod damaged;

use std::sync::atomic::Ordering;

use framehook_core::{
    artifact::{PluginManifest, check_name, check_version},
    hook_state::HookState,
    hook_stats::HookStage,
    prediction::Position,
    text::short_line,
};
use serde_json::{Value, json};

use super::{
    Check, ModelOutput, Subject, Verdict,
    play::{Living, Made, Player},
    synthetic::{INPUT, SIZES, Scene, USUAL, output, so_far, usual_models},
};
use crate::{Plugin, abi::VERSIONS, media::Size, sandbox::Failure, schema};

/// A second of a stream at 25 frames a second: what most hooks remember fits into it.
const FRAMES: u64 = 25;
/// A crowd.
const MANY: u32 = 100;
/// A scenario may log 50 lines a second, and has 25 frames in it.
const LINES_PER_CALL: u64 = 2;
/// What a plugin says when it starts, apart from its frames.
const LINES_TO_START: u64 = 20;

/// Bytes of an error that is no failure.
const WORDS: usize = 120;

struct Kit<'a> {
    player: Player<'a>,
    subject: &'a Subject,
    manifest: Option<PluginManifest>,
    /// What its post hook is shown: in words, and the outputs.
    model: (String, Vec<ModelOutput>),
    /// Whether it was started at all: the rest is skipped otherwise.
    starts: bool,
    instances: u64,
}

type Outcome = Result<String, Wrong>;

enum Wrong {
    Failed(String),
    NotTried(String),
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.message)
    }
}

fn fail<T>(why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Failed(why.into()))
}

fn skip<T>(why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::NotTried(why.into()))
}

/// Its name, and what it does.
type Step = (&'static str, fn(&mut Kit<'_>) -> Outcome);

const CHECKS: [Step; 11] = [
    ("describe", describe),
    ("defaults", defaults),
    ("bad_config", bad_config),
    ("lifecycle", lifecycle),
    ("preprocess", preprocess),
    ("postprocess", postprocess),
    ("damaged", damaged::damaged),
    ("skipped", skipped),
    ("deterministic", deterministic),
    ("state", state),
    ("limits", limits),
];

pub(super) fn run(plugin: &Plugin, subject: &Subject) -> Vec<Check> {
    let player = Player::new(plugin);
    let mut kit = Kit { player, subject, manifest: None, model: Default::default(), starts: false, instances: 0 };
    let check = |(name, check): Step| match check(&mut kit) {
        Ok(seen) => Check::new(name, Verdict::Pass, seen),
        Err(Wrong::NotTried(why)) => Check::new(name, Verdict::Skip, why),
        Err(Wrong::Failed(why)) => Check::new(name, Verdict::Fail, why),
    };
    CHECKS.into_iter().map(check).collect()
}

/// The same each time, and usable.
fn describe(kit: &mut Kit<'_>) -> Outcome {
    let mut instance = kit.player.instance()?;
    let manifest = instance.describe()?;
    let again = instance.describe()?;
    let elsewhere = kit.player.instance()?.describe()?;
    if again != manifest || elsewhere != manifest {
        return fail("it describes itself differently when it is asked again");
    }
    check_name(&manifest.name).and_then(|()| check_version(&manifest.version)).map_err(Wrong::Failed)?;
    schema::check(&manifest.config_schema).map_err(|why| Wrong::Failed(format!("`config-schema` {why}")))?;
    let hooks = [(manifest.pre, "pre"), (manifest.post, "post")];
    let hooks: Vec<_> = hooks.into_iter().filter_map(|(has, hook)| has.then_some(hook)).collect();
    let seen = format!("{}@{}, contract {}, {}", manifest.name, manifest.version, manifest.abi, hooks.join(" and "));
    kit.manifest = Some(manifest);
    Ok(seen)
}

impl Kit<'_> {
    fn manifest(&self) -> Result<PluginManifest, Wrong> {
        self.manifest.clone().map_or_else(|| skip("it did not describe itself"), Ok)
    }

    /// One that can be started, of a plugin that has this hook.
    fn begin(&mut self, stage: Option<HookStage>) -> Result<Living, Wrong> {
        let manifest = self.manifest()?;
        let has = match stage {
            None => true,
            Some(HookStage::Pre) => manifest.pre,
            Some(HookStage::Post) => manifest.post,
        };
        match (has, self.starts) {
            (false, _) => skip("it has no such hook"),
            (true, false) => skip("it was given no configuration that it accepts"),
            (true, true) => self.again(&HookState::default(), None),
        }
    }

    fn again(&mut self, state: &HookState, after: Option<Position>) -> Result<Living, Wrong> {
        self.instances += 1;
        Ok(self.player.begin(state, after)?)
    }

    fn input(&self) -> Size {
        let size = self.manifest.as_ref().and_then(|manifest| manifest.input.size);
        size.map_or(INPUT, |[width, height]| Size { width, height })
    }

    fn scene(&self, number: u64) -> Scene {
        let outputs = self.model.1.iter().map(|of| output(of, self.input(), number)).collect();
        Scene { number, size: USUAL, input: self.input(), outputs, so_far: so_far(number, 4) }
    }

    /// What no plugin may do is told with the scene on which it did it.
    fn call(&mut self, living: &mut Living, stage: HookStage, scene: &Scene, on: &str) -> Result<Made, Wrong> {
        self.player.call(living, stage, scene).or_else(|failure| fail(format!("on {on}: {}", failure.message)))
    }

    fn stages(&self) -> Result<Vec<HookStage>, Wrong> {
        let manifest = self.manifest()?;
        let stages = [(manifest.pre, HookStage::Pre), (manifest.post, HookStage::Post)];
        Ok(stages.into_iter().filter_map(|(has, stage)| has.then_some(stage)).collect())
    }
}

/// Its own, or those that the kit was given, are such that it starts with them.
fn defaults(kit: &mut Kit<'_>) -> Outcome {
    let manifest = kit.manifest()?;
    let own = Value::Object(manifest.defaults.clone());
    let config = kit.subject.config.as_ref().unwrap_or(&own).to_string();
    let mut problems = schema::problems(manifest.config_schema, &config).map_err(Wrong::Failed)?;
    if problems.is_empty() {
        problems = kit.player.instance()?.validate_config(&config)?;
    }
    if let Some(problem) = problems.first() {
        let given = match kit.subject.config {
            Some(_) => "what it was given",
            None => "its own defaults (give what it needs besides them with --config)",
        };
        return fail(format!("it refuses {given}: {} {}", problem.path, problem.message));
    }
    kit.player.config = config;
    kit.instances += 1;
    let living = kit.player.begin(&HookState::default(), None);
    let living = living.or_else(|failure| fail(format!("it does not start: {}", failure.message)))?;
    kit.starts = true;
    Ok(format!("it starts, and has names for {} classes", living.ready.labels.len()))
}

/// It says what is wrong with a configuration, and does not end of it.
fn bad_config(kit: &mut Kit<'_>) -> Outcome {
    let manifest = kit.manifest()?;
    let properties = manifest.config_schema["properties"].as_object();
    let names: Vec<_> = properties.into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let whole = [json!(null), json!([]), json!("text")].map(|bad| (bad, true));
    let parts = names.iter().map(|name| (json!({ name.as_str(): {"no": [null, {"such": 1e300}]} }), false));
    let unknown = [(json!({"no_such_setting_\u{1f3a5}": true}), false)];
    let mut refused = 0;
    for (bad, is_no_object) in whole.into_iter().chain(parts).chain(unknown) {
        let text = bad.to_string();
        let by_schema = schema::problems(manifest.config_schema.clone(), &text).map_err(Wrong::Failed)?;
        // Also where the schema would have kept it away.
        let by_itself = kit.player.instance()?.validate_config(&text);
        let by_itself = by_itself.or_else(|why| fail(format!("`validate-config` on {text}: {}", why.message)))?;
        let is_refused = !by_schema.is_empty() || !by_itself.is_empty();
        if is_no_object && !is_refused {
            return fail(format!("it accepts {text} as its configuration, which is an object"));
        }
        refused += u32::from(is_refused);
    }
    Ok(format!("{refused} of {} were refused, none ended it", names.len() + 4))
}

/// Instances come and go.
fn lifecycle(kit: &mut Kit<'_>) -> Outcome {
    for _ in 0..3 {
        let mut living = kit.begin(None)?;
        living.instance.shutdown().or_else(|failure| fail(format!("`shutdown`: {}", failure.message)))?;
    }
    Ok("it starts and ends again and again".into())
}

/// Frames of each size.
fn preprocess(kit: &mut Kit<'_>) -> Outcome {
    let mut living = kit.begin(Some(HookStage::Pre))?;
    let mut said = Tally::default();
    for number in 0..5 {
        let scene = kit.scene(number);
        said.add(kit.call(&mut living, HookStage::Pre, &scene, "an ordinary frame")?)?;
    }
    for (number, size) in (5..).zip(SIZES) {
        let scene = Scene { size, ..kit.scene(number) };
        let on = format!("a frame of {}x{}", size.width, size.height);
        said.add(kit.call(&mut living, HookStage::Pre, &scene, &on)?).or_else(|_| kit.fresh(&mut living))?;
    }
    Ok(said.told())
}

/// Outputs of a model that it reads, on frames of each size.
fn postprocess(kit: &mut Kit<'_>) -> Outcome {
    drop(kit.begin(Some(HookStage::Post))?);
    kit.choose_model()?;
    let mut living = kit.begin(Some(HookStage::Post))?;
    let mut said = Tally::default();
    for number in 0..5 {
        let scene = kit.scene(number);
        said.add(kit.call(&mut living, HookStage::Post, &scene, "ordinary outputs")?)?;
    }
    for (number, size) in (5..).zip(SIZES) {
        let scene = Scene { size, so_far: so_far(number, MANY), ..kit.scene(number) };
        let on = format!("a frame of {}x{}", size.width, size.height);
        said.add(kit.call(&mut living, HookStage::Post, &scene, &on)?).or_else(|_| kit.fresh(&mut living))?;
    }
    if kit.player.spent.out_of_range > 0 {
        return fail(format!("{} of its results were out of range", kit.player.spent.out_of_range));
    }
    let events = kit.player.flush(&mut living)?;
    let last =
        events.map_or_else(|why| format!("`flush`: {why}"), |events| format!("{} events at the end", events.len()));
    Ok(format!("{}: {}, {last}", kit.model.0, said.told()))
}

impl Kit<'_> {
    /// A new instance in the place of one that said that it cannot go on.
    fn fresh(&mut self, living: &mut Living) -> Result<(), Wrong> {
        *living = self.again(&HookState::default(), None)?;
        Ok(())
    }

    /// Finds outputs that its post hook can read.
    fn choose_model(&mut self) -> Result<(), Wrong> {
        if !self.subject.outputs.is_empty() {
            self.model = ("outputs of the model".into(), self.subject.outputs.clone());
            return Ok(());
        }
        let mut first_words = None;
        for (words, outputs) in usual_models() {
            self.model = (format!("outputs of {words}"), outputs);
            let mut living = self.again(&HookState::default(), None)?;
            let scene = self.scene(0);
            match self.call(&mut living, HookStage::Post, &scene, &self.model.0.clone())? {
                Made::Said(words) => first_words = first_words.or(Some(words)),
                _ => return Ok(()),
            }
        }
        let words = first_words.unwrap_or_default();
        skip(format!("it reads none of the outputs that the kit has (give its model with --model): {words}"))
    }
}

/// What was called, and what came of it.
#[derive(Default)]
struct Tally {
    calls: u32,
    found: usize,
    said: u32,
    words: Option<String>,
}

impl Tally {
    /// An error in the plugin's own words is an answer, but not to what it is made for.
    fn add(&mut self, made: Made) -> Result<(), Wrong> {
        self.calls += 1;
        match made {
            Made::Found(outcome) => self.found += outcome.detections.len(),
            Made::Decided(_) => {}
            Made::Said(words) => {
                self.said += 1;
                self.words.get_or_insert_with(|| words.clone());
                return fail(format!("it fails on what is ordinary: {words}"));
            }
        }
        Ok(())
    }

    fn told(&self) -> String {
        let Self { calls, found, said, words } = self;
        let plain = words
            .as_ref()
            .map(|words| format!(", {said} plain errors ({})", short_line(words, WORDS)))
            .unwrap_or_default();
        format!("{calls} calls, {found} detections{plain}")
    }
}

/// Frames without an inference, for those that want to know.
fn skipped(kit: &mut Kit<'_>) -> Outcome {
    let mut living = kit.begin(Some(HookStage::Post))?;
    if !living.ready.wants_skipped {
        return skip("it does not want to know of skipped frames");
    }
    let mut tally = Tally::default();
    for number in 0..5 {
        let scene = kit.scene(number);
        let made = kit.player.skipped(&mut living, &scene);
        tally.add(made.or_else(|failure| fail(format!("on a skipped frame: {}", failure.message)))?)?;
    }
    Ok(tally.told())
}

impl Kit<'_> {
    /// All that it makes of a second of a stream, in instances that end behind each frame or in one.
    fn second(&mut self, stage: HookStage, is_restarted: bool) -> Result<(Vec<Made>, HookState), Wrong> {
        let (mut state, mut after, mut living) = (HookState::default(), None, None);
        let mut made = Vec::new();
        for number in 0..FRAMES {
            let scene = self.scene(number);
            let mut one = match living.take() {
                Some(living) if !is_restarted => living,
                _ => self.again(&state, after)?,
            };
            made.push(self.call(&mut one, stage, &scene, "ordinary frames")?);
            one.keep(&mut state);
            after = Some(scene.position());
            living = Some(one);
        }
        Ok((made, state))
    }
}

/// The same frames, the same results.
fn deterministic(kit: &mut Kit<'_>) -> Outcome {
    drop(kit.begin(None)?);
    for stage in kit.stages()? {
        let ((first, _), (second, _)) = (kit.second(stage, false)?, kit.second(stage, false)?);
        if let Some((frame, words)) = difference(&first, &second) {
            return fail(format!(
                "{stage}, frame {frame}: another instance, shown the same, made something else: {words}"
            ));
        }
    }
    Ok(format!("{FRAMES} frames, twice the same"))
}

/// An instance that ends and is started again with its state goes on as if nothing had been.
fn state(kit: &mut Kit<'_>) -> Outcome {
    drop(kit.begin(None)?);
    let mut bytes = 0;
    for stage in kit.stages()? {
        let ((whole, kept), (again, _)) = (kit.second(stage, false)?, kit.second(stage, true)?);
        bytes += kept.iter().filter_map(|(_, _, value)| Some(value?.bytes().len())).sum::<usize>();
        if let Some((frame, words)) = difference(&whole, &again) {
            let words = format!(
                "{stage}, frame {frame}: started again behind each frame with its state, it makes something else: {words}"
            );
            // Its hosts lost the state with the process, so its plugins could not count on it.
            return if kit.manifest()?.abi == VERSIONS[0] { skip(words) } else { fail(words) };
        }
    }
    Ok(format!("{bytes} bytes are kept"))
}

fn difference(one: &[Made], other: &[Made]) -> Option<(usize, String)> {
    let frame = one.iter().zip(other).position(|(one, other)| one != other)?;
    let words = |made: &Made| match made {
        Made::Found(outcome) => format!("{} detections, {} events", outcome.detections.len(), outcome.events.len()),
        Made::Decided(decision) => {
            let text = format!("{decision:?}");
            text.chars().take(40).collect()
        }
        Made::Said(words) => words.clone(),
    };
    Some((frame, format!("{}, and {}", words(&one[frame]), words(&other[frame]))))
}

/// What all those calls took, of what a scenario gives by default, and what was logged.
fn limits(kit: &mut Kit<'_>) -> Outcome {
    drop(kit.begin(None)?);
    let (spent, allowed) = (kit.player.spent, kit.player.limits);
    let lines = kit.player.lines.load(Ordering::Relaxed);
    let most = LINES_PER_CALL * spent.calls + LINES_TO_START * kit.instances;
    if lines > most {
        return fail(format!(
            "it logged {lines} lines in {} calls and {} starts; a scenario may log {LINES_PER_CALL} a frame, and the rest \
             would be left out",
            spent.calls, kit.instances
        ));
    }
    Ok(format!(
        "the slowest of {} calls took {:.1} of {} ms, an instance at most {:.1} of {} MiB, {lines} lines were logged",
        spent.calls,
        spent.slowest.as_secs_f64() * 1e3,
        allowed.call_ms,
        spent.memory_bytes as f64 / f64::from(1 << 20),
        allowed.memory_bytes >> 20
    ))
}
