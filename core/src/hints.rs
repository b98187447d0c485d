//! What about a scenario is likely not meant, although it runs: a pure function of what it is made of and of
//! what became of its hooks' calls.
//!
//! Invariant: a hint says what was seen, as it was, and what it may mean; nothing that is not known. A hook
//! that fails is no hint: the scenario's reason says so.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    hook_stats::{HookStage, HookStats},
    spec::ResolvedScenario,
    state::words,
};

/// A scene may be empty for a few seconds.
const ENOUGH_FRAMES: u64 = 100;

words! {
    /// Programs match on it.
    HintCode {
        /// Nothing makes detections of the model's outputs.
        NoPostHook = "no_post_hook",
        /// A hook that got no detections stands before one that makes some.
        HookBeforeDetector = "hook_before_detector",
        /// No hook made a detection or an event, although there were frames enough.
        NoDetections = "no_detections",
        /// A configuration names a label that no class has.
        UnknownLabel = "unknown_label",
    }
}

/// Something that is likely not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hint {
    pub code: HintCode,
    /// What was seen, and what to do about it.
    pub message: String,
}

/// Those of a scenario whose hooks did this in its current or last deployment; `hooks` is empty if nothing is
/// known of that. `has_ended`: no more frames come.
#[must_use]
pub fn hints(scenario: &ResolvedScenario, hooks: &[HookStats], has_ended: bool) -> Vec<Hint> {
    let post: Vec<_> = hooks.iter().filter(|hook| hook.stage == HookStage::Post).collect();
    let mut hints = Vec::new();
    hints.extend(scenario.post.is_empty().then(no_post_hook));
    hints.extend((0..post.len()).filter_map(|at| before_detector(post[at], &post[at + 1..])));
    hints.extend(no_detections(&post, has_ended));
    hints.extend(post.iter().filter_map(|hook| unknown_label(hook)));
    hints
}

fn hint(code: HintCode, message: String) -> Hint {
    Hint { code, message }
}

fn no_post_hook() -> Hint {
    let message = "the scenario has no post hook, so nothing makes detections of the model's outputs: add one to \
                   `plugins.post`, such as `yolo`";
    hint(HintCode::NoPostHook, message.to_owned())
}

fn before_detector(hook: &HookStats, behind: &[&HookStats]) -> Option<Hint> {
    let is_idle = hook.successes() > 0 && hook.detections_in + hook.detections_out + hook.events == 0;
    let detector = behind.iter().find(|other| other.detections_out > other.detections_in)?;
    is_idle.then(|| {
        let HookStats { plugin, calls, .. } = hook;
        let (other, made) = (&detector.plugin, detector.detections_out);
        let message = format!(
            "{plugin} got no detections in {calls} calls and made none, and {other}, which is called after it, made \
             {made}: if {plugin} works on them, list it behind {other} in `plugins.post`"
        );
        hint(HintCode::HookBeforeDetector, message)
    })
}

fn no_detections(post: &[&HookStats], has_ended: bool) -> Option<Hint> {
    let frames = post.iter().map(|hook| hook.successes()).max()?;
    let made: u64 = post.iter().map(|hook| hook.detections_out + hook.events).sum();
    if made > 0 || frames == 0 || (frames < ENOUGH_FRAMES && !has_ended) {
        return None;
    }
    let height = |hook: &&&HookStats| hook.highest_score.unwrap_or(f32::NEG_INFINITY);
    let highest = post.iter().max_by(|a, b| height(a).total_cmp(&height(b)));
    let seen = match highest.map(|hook| (&hook.plugin, hook.highest_score)) {
        Some((plugin, Some(score))) => {
            format!("the highest value from 0 to 1 that {plugin} had the host look for is {score:.3}")
        }
        _ => "which scores the model gave is not known, because no hook had the host look for the highest".to_owned(),
    };
    let dropped: u64 = post.iter().map(|hook| hook.dropped).sum();
    let dropped = match dropped {
        0 => String::new(),
        n => format!("; {n} detections were dropped because they were out of range"),
    };
    let message = format!(
        "no hook made a detection or an event in {frames} frames; {seen}{dropped}. Compare it with the hooks' thresholds, \
         and look at what the model is given: GET /model/NAME/VERSION/preview.jpg"
    );
    Some(hint(HintCode::NoDetections, message))
}

fn unknown_label(hook: &HookStats) -> Option<Hint> {
    let HookStats { plugin, unknown_labels, detections_in, .. } = hook;
    if unknown_labels.is_empty() || *detections_in == 0 {
        return None;
    }
    let labels = unknown_labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
    let message = format!(
        "the configuration of {plugin} lists {labels}: that is no label of the {detections_in} detections that it got, and \
         no name of a class that it, a hook before it or the model gives"
    );
    Some(hint(HintCode::UnknownLabel, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(post: usize) -> ResolvedScenario {
        let digest = format!("sha256:{}", "0".repeat(64));
        let hook = serde_json::json!({"name": "p", "version": "1", "digest": digest, "config": {}});
        let post = vec![hook; post];
        serde_json::from_value(serde_json::json!({
            "source": {"file": "a.mp4"},
            "model": {"name": "m", "version": "1", "digest": digest},
            "input": {"tensor": "x", "width": 8, "height": 8, "resize": "letterbox", "anchor": "center",
                "channels": "rgb", "pad": 114, "scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
            "pre": [], "post": post, "on_plugin_failure": "skip_frame",
        }))
        .unwrap()
    }

    fn hook(plugin: &str, calls: u64, detections: [u64; 2]) -> HookStats {
        let [detections_in, detections_out] = detections;
        HookStats { calls, detections_in, detections_out, ..HookStats::new(plugin.into(), HookStage::Post) }
    }

    fn codes(hooks: &[HookStats], has_ended: bool) -> Vec<HintCode> {
        hints(&scenario(hooks.len()), hooks, has_ended).into_iter().map(|hint| hint.code).collect()
    }

    #[test]
    fn what_is_likely_not_meant_is_said_and_nothing_else() {
        use HintCode::{HookBeforeDetector, NoDetections, UnknownLabel};
        let failing = |calls| HookStats { traps: calls, ..hook("a@1", calls, [0, 0]) };
        let eventful = HookStats { events: 1, ..hook("a@1", 500, [0, 0]) };
        let asking = |detections| HookStats { unknown_labels: vec!["persn".into()], ..hook("b@1", 9, detections) };
        let pre = HookStats { stage: HookStage::Pre, ..hook("g@1", 500, [0, 0]) };
        let detector = || hook("d@1", 500, [0, 7]);
        let cases: [(&[HookStats], bool, &[HintCode]); 14] = [
            (&[detector()], false, &[]),
            (&[hook("a@1", 0, [0, 0])], false, &[]),
            (&[hook("a@1", 0, [0, 0])], true, &[]),
            (&[hook("a@1", 99, [0, 0])], false, &[]),
            (&[hook("a@1", 100, [0, 0])], false, &[NoDetections]),
            (&[hook("a@1", 9, [0, 0])], true, &[NoDetections]),
            (&[failing(500)], true, &[]),
            (std::slice::from_ref(&eventful), true, &[]),
            (&[detector(), hook("b@1", 500, [7, 0])], true, &[]),
            (&[hook("b@1", 9, [0, 0]), detector()], false, &[HookBeforeDetector]),
            (&[eventful.clone(), detector()], false, &[]),
            (&[failing(9), detector()], false, &[]),
            (&[detector(), asking([7, 0])], false, &[UnknownLabel]),
            (&[pre, detector(), asking([0, 0])], false, &[]),
        ];
        for (hooks, has_ended, expected) in cases {
            assert_eq!(codes(hooks, has_ended), expected, "{hooks:?}");
        }
        assert_eq!(codes(&[], false), [HintCode::NoPostHook]);
    }

    #[test]
    fn a_hint_says_what_was_seen() {
        let said = |hooks: &[HookStats]| hints(&scenario(hooks.len()), hooks, true).remove(0).message;
        let scored = |score| HookStats { highest_score: score, ..hook("y@1", 200, [0, 0]) };
        assert!(said(&[scored(None), scored(Some(0.2137))]).contains("that y@1 had the host look for is 0.214."));
        assert!(said(&[scored(None)]).contains("is not known"));
        let dropped = HookStats { dropped: 3, ..scored(Some(0.5)) };
        assert!(said(&[dropped]).contains("0.500; 3 detections were dropped"));
        let misplaced = said(&[hook("count@1", 50, [0, 0]), hook("yolo@1", 50, [0, 90])]);
        assert!(misplaced.contains("list it behind yolo@1 in `plugins.post`"), "{misplaced}");
    }
}
