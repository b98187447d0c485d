//! Whatever a plugin does, it costs the plugin its instance at most, and the frame after is fine.

use framehook_core::{
    job::HookLimits,
    reason::{Reason, ReasonCode as C},
    spec::OnPluginFailure as Policy,
};
use framehook_engine::{
    chain::{After, Chain, Stage},
    hook::Hook,
    media::Decision,
};
use serde_json::json;

use crate::support::{ENGINE, Flat, Lines, frame, infer, job, settings};

/// One plugin that goes wrong on every `every`-th call.
fn chain(mode: &str, every: u64, policy: Policy) -> (Chain, Lines) {
    let (settings, lines) = settings(policy);
    let job = job("misbehave", json!({"mode": mode, "every": every}));
    (Chain::start(&ENGINE, Stage::Post, &[job], &settings).unwrap(), lines)
}

fn call(chain: &mut Chain, sequence: u64) -> Result<After, Reason> {
    infer(sequence, &[(&[1, 2], &[0.0, 1.0])], |inference| chain.postprocess(inference))
}

#[test]
fn every_way_to_fail_is_contained_and_named() {
    for (mode, code, words) in [
        ("trap", C::PluginTrap, "unreachable"),
        ("loop", C::PluginTimeout, "deadline of 20 ms"),
        ("sleep", C::PluginTrap, "may not sleep"),
        ("allocate", C::PluginTrap, "limit of 64 MiB"),
        ("recurse", C::PluginTrap, "call stack exhausted"),
        ("panic", C::PluginTrap, "misbehave@0.1.0: panicked at "),
        (
            "panic-printed",
            C::PluginTrap,
            "executed; it printed: thread '<unnamed>' (1) panicked at src/other.rs:3:5: printed on purpose",
        ),
        ("handle-flood", C::PluginTrap, "ended unexpectedly"),
        ("bad-subject", C::PluginError, "about detection 99, but there are 0"),
        ("too-many-detections", C::PluginError, "20000 detections"),
        ("out-of-bounds", C::PluginError, "not there"),
        ("bad-input", C::PluginError, "on purpose"),
        ("transient", C::PluginError, "on purpose"),
        ("fatal", C::PluginError, "on purpose"),
    ] {
        let (mut chain, _) = chain(mode, 2, Policy::SkipFrame);
        assert_eq!(call(&mut chain, 0).unwrap(), After::default(), "{mode}");
        let failed = call(&mut chain, 1).unwrap();
        let reason = &failed.failures[0].reason;
        assert_eq!((reason.code, failed.failures.len()), (code, 1), "{mode}: {reason:?}");
        assert!(reason.message.contains(words), "{mode}: {reason:?}");
        let skipped = failed.skipped.unwrap();
        assert_eq!(skipped.by, "misbehave@0.1.0");
        assert_eq!(call(&mut chain, 2).unwrap(), After::default(), "{mode}: the frame after");
        assert_eq!(chain.degraded(), None, "{mode}: one failure is no reason to leave it out");
    }
}

/// What was printed on the frame before explains nothing.
#[test]
fn a_failure_tells_the_panic_of_its_own_call() {
    let (settings, lines) = settings(Policy::SkipFrame);
    let fail = |mode: &str| {
        let job = job("misbehave", json!({"mode": mode, "every": 2, "chatty": true}));
        let mut chain = Chain::start(&ENGINE, Stage::Post, &[job], &settings).unwrap();
        call(&mut chain, 0).unwrap();
        call(&mut chain, 1).unwrap().failures.remove(0).reason.message
    };
    let panicked = fail("panic");
    assert!(panicked.ends_with(": this plugin panics on purpose"), "{panicked}");
    let trapped = fail("trap");
    assert!(trapped.ends_with("instruction executed"), "{trapped}");
    assert_eq!(lines.texts().iter().filter(|line| *line == "all is well").count(), 2);
}

#[test]
fn a_plugin_that_always_fails_is_left_out_with_its_reason() {
    let (mut chain, _) = chain("trap", 1, Policy::RawOutput);
    for sequence in 0..50 {
        let after = call(&mut chain, sequence).unwrap();
        assert_eq!(after.failures[0].reason.code, C::PluginTrap);
        assert_eq!(after.skipped, None, "raw output goes on without the plugin");
    }
    let reason = chain.degraded().unwrap();
    assert_eq!(reason.code, C::PluginTrap);
    assert!(reason.message.starts_with("misbehave@0.1.0: "), "{reason:?}");
}

/// As many at any speed, and the same: the pause is a second of the stream.
#[test]
fn a_hiccup_costs_a_second_of_the_stream() {
    let (settings, _) = settings(Policy::SkipFrame);
    let lost = || {
        let job = job("misbehave", json!({"mode": "panic", "calls": [101, 103]}));
        let mut chain = Chain::start(&ENGINE, Stage::Post, &[job], &settings).unwrap();
        (0..200).filter(|frame| call(&mut chain, *frame).unwrap().skipped.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(lost(), (100..127).collect::<Vec<_>>());
    assert_eq!(lost(), lost());
}

/// It keeps its instance, and is left out when the stream ends.
#[test]
fn a_plugin_that_is_left_out_has_its_last_words() {
    let (mut chain, _) = chain("bad-input", 1, Policy::SkipFrame);
    (0..10).for_each(|frame| drop(call(&mut chain, frame).unwrap()));
    assert!(chain.degraded().is_some());
    let (events, failures) = chain.flush(usize::MAX);
    assert_eq!((events[0].kind.as_str(), failures.len()), ("flushed", 0));
}

#[test]
fn a_configuration_that_is_refused_on_a_frame_fails_under_every_policy() {
    for policy in [Policy::SkipFrame, Policy::RawOutput, Policy::FailScenario] {
        let (mut chain, _) = chain("invalid-config", 1, policy);
        let reason = call(&mut chain, 0).unwrap_err();
        assert_eq!(reason.code, C::PluginIncompatible);
        assert!(reason.message.contains("on purpose"), "{reason:?}");
    }
}

#[test]
fn the_policy_may_be_to_fail() {
    let (mut chain, _) = chain("fatal", 1, Policy::FailScenario);
    assert_eq!(call(&mut chain, 0).unwrap_err().code, C::PluginError);
}

#[test]
fn a_plugin_that_fails_at_its_start_gives_a_failing_hook_and_a_bad_configuration_none() {
    let (settings, _) = settings(Policy::SkipFrame);
    let mut trapping = Chain::start(
        &ENGINE,
        Stage::Post,
        &[job("misbehave", json!({"mode": "loop", "at_start": true}))],
        &ChainLimits::short(&settings),
    )
    .unwrap();
    assert_eq!(call(&mut trapping, 0).unwrap().failures[0].reason.code, C::PluginTimeout);
    for (config, words) in [
        (json!({"mode": "invalid-config", "at_start": true}), "on purpose"),
        (json!({"mode": "no-such"}), "/mode: unknown variant"),
        (json!({}), "missing field `mode`"),
    ] {
        let Err(reason) = Chain::start(&ENGINE, Stage::Post, &[job("misbehave", config)], &settings) else {
            panic!("started, although {words}")
        };
        assert_eq!(reason.code, C::PluginIncompatible);
        assert!(reason.message.contains(words), "{reason:?}");
    }
}

/// So that a loop at the start need not run for two seconds.
struct ChainLimits;

impl ChainLimits {
    fn short(settings: &framehook_engine::chain::ChainSettings) -> framehook_engine::chain::ChainSettings {
        let limits = HookLimits { init_ms: 50, ..settings.limits };
        framehook_engine::chain::ChainSettings { limits, ..settings.clone() }
    }
}

#[test]
fn a_plugin_in_the_wrong_place_is_refused() {
    let (settings, _) = settings(Policy::SkipFrame);
    let Err(reason) = Chain::start(&ENGINE, Stage::Pre, &[job("yolo", json!({}))], &settings) else {
        panic!("started")
    };
    assert_eq!(reason.code, C::PluginIncompatible);
    assert!(reason.message.contains("no hook for before the inference"), "{reason:?}");
}

/// By one detection of 10,000, each with ten keypoints; what was found before it stays where the
/// policy says so.
#[test]
fn a_prediction_that_is_too_large_is_a_failure_of_its_hook() {
    for policy in [Policy::SkipFrame, Policy::RawOutput] {
        let (mut settings, _) = settings(policy);
        settings.limits.call_ms = 5000;
        let jobs = [job("misbehave", json!({"mode": "none"})), job("misbehave", json!({"mode": "large-prediction"}))];
        let mut chain = Chain::start(&ENGINE, Stage::Post, &jobs, &settings).unwrap();
        let after = call(&mut chain, 0).unwrap();
        let [failure] = &after.failures[..] else { panic!("{after:?}") };
        assert_eq!(failure.reason.code, C::PluginError);
        assert!(failure.reason.message.contains("prediction_too_large"), "{failure:?}");
        assert_eq!(
            (after.detections.len(), after.skipped.is_some()),
            match policy {
                Policy::RawOutput => (1, false),
                _ => (0, true),
            }
        );
        // What two hooks find together is what counts.
        let (mut settings, _) = self::settings(policy);
        // One detection and its label have 80 bytes, two do not fit.
        settings.room = 100;
        let jobs = [job("misbehave", json!({"mode": "none"})), job("misbehave", json!({"mode": "none"}))];
        let mut chain = Chain::start(&ENGINE, Stage::Post, &jobs, &settings).unwrap();
        assert_eq!(call(&mut chain, 0).unwrap().failures.len(), 1);
        assert_eq!(chain.flush(20).1.len(), 2, "and what they say at the end");
    }
}

#[test]
fn a_row_that_cannot_be_costs_no_other_row() {
    let (mut chain, lines) = chain("out-of-range", 1, Policy::SkipFrame);
    for frame in 0..3 {
        let after = call(&mut chain, frame).unwrap();
        assert_eq!((after.failures, after.skipped), (vec![], None));
        let rows: Vec<_> = after.detections.iter().map(|d| (d.score, d.bbox)).collect();
        let usual = [0.1, 0.2, 0.3, 0.4];
        assert_eq!(rows, [(1.0, usual), (0.5, [0.25, 0.2, 0.75, 0.4]), (0.5, usual)]);
        let events: Vec<_> = after.events.iter().map(|e| (e.kind.as_str(), e.subjects.as_slice())).collect();
        assert_eq!(events, [("mixed", &[0, 2][..]), ("dropped", &[])]);
    }
    let told: Vec<_> = lines.texts().iter().map(|line| line.split(", with").next().unwrap().to_owned()).collect();
    let so_far = |cut, dropped| {
        format!(
            "detections out of range so far: {cut} were cut to scores of 0 to 1 and to the frame, {dropped} were dropped"
        )
    };
    assert_eq!(told, [so_far(2, 2), so_far(6, 6)]);
}

#[test]
fn lines_of_a_plugin_arrive_and_floods_do_not() {
    let (mut flooding, lines) = chain("flood-log", 1, Policy::SkipFrame);
    call(&mut flooding, 0).unwrap();
    let passed = lines.texts().len();
    assert!((50..500).contains(&passed), "{passed}");
    drop(flooding);
    let last = lines.texts().pop().unwrap();
    assert!(last.contains("lines were left out: a scenario may log 50 lines"), "{last}");

    let (mut printing, lines) = chain("print", 1, Policy::SkipFrame);
    call(&mut printing, 0).unwrap();
    assert_eq!(lines.texts(), ["printed to stdout", "printed to stderr"]);

    let (mut panicking, lines) = chain("panic", 1, Policy::SkipFrame);
    call(&mut panicking, 0).unwrap();
    assert!(lines.texts()[0].contains("panics on purpose"), "{:?}", lines.texts());
}

#[test]
fn the_log_says_how_a_plugin_failed_and_when_it_is_left_out() {
    let (mut chain, lines) = chain("bad-input", 1, Policy::SkipFrame);
    for frame in 0..28 {
        call(&mut chain, frame).unwrap();
    }
    // The plugin is named beside it.
    let failed = "on purpose";
    let told: Vec<_> = lines.all().into_iter().map(|line| (line.frame.unwrap(), line.target, line.message)).collect();
    let told: Vec<_> = told.iter().map(|(frame, target, message)| (*frame, &**target, &**message)).collect();
    let left_out = |seconds| format!("{failed}; not called for {seconds} s of the stream");
    let host = "framehook";
    let expected = [(0, host, failed), (1, host, failed), (2, host, &left_out(1)), (27, host, &left_out(2))];
    assert_eq!(told, expected);
}

#[test]
fn pre_hooks_pass_skip_and_build_the_input() {
    let (settings, _) = settings(Policy::SkipFrame);
    let pixels = Flat(7);
    for (mode, every, expect) in [
        ("none", 1, "pass"),
        ("skip", 1, "skip"),
        ("infer", 1, "infer"),
        ("wrong-shape", 1, "fail"),
        ("out-of-bounds", 1, "fail"),
        ("trap", 1, "fail"),
    ] {
        let job = job("misbehave", json!({"mode": mode, "every": every}));
        let mut chain = Chain::start(&ENGINE, Stage::Pre, &[job], &settings).unwrap();
        let before = chain.preprocess(&frame(0, &pixels)).unwrap();
        match (expect, before.decision) {
            ("pass", Decision::Pass) => {}
            ("skip", Decision::Skip(skipped)) => {
                assert_eq!((skipped.by.as_str(), skipped.reason.as_str()), ("misbehave@0.1.0", "because"))
            }
            ("infer", Decision::Infer(tensor, _)) => {
                assert_eq!((tensor.data[0], tensor.data.len()), (7.0, 3 * 320 * 192))
            }
            ("fail", Decision::Skip(skipped)) => {
                assert!(skipped.reason.starts_with("the plugin failed: "), "{mode}: {skipped:?}");
                assert_eq!(before.failures.len(), 1);
            }
            (_, next) => panic!("{mode}: {next:?}"),
        }
    }
}

#[test]
fn flush_speaks_for_the_last_frame_and_labels_are_filled_in() {
    let (mut chain, _) = chain("none", 1, Policy::SkipFrame);
    let after = call(&mut chain, 0).unwrap();
    assert_eq!(after.detections[0].label.as_deref(), Some("one"));
    assert_eq!(after.detections[0].track_id, Some(7));
    let (events, failures) = chain.flush(usize::MAX);
    assert_eq!((events[0].kind.as_str(), failures.len()), ("flushed", 0));
    chain.shutdown();
}

#[test]
fn instances_come_and_go_without_end() {
    // More than the pool holds: a store that was lost must give its place back.
    let (settings, _) = settings(Policy::SkipFrame);
    let job = job("misbehave", json!({"mode": "trap"}));
    let plugin = ENGINE.load(&job.compiled, &job.digest).unwrap();
    for _ in 0..200 {
        let mut hook = Hook::start(&plugin, &job, (Stage::Post, "post/misbehave".into()), &settings).unwrap();
        let outcome = infer(0, &[], |inference| hook.postprocess(inference, &[], &[], 0));
        assert_eq!(outcome.unwrap_err().code, C::PluginTrap);
    }
}
