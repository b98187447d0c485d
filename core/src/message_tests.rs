//! What a message says of itself: its topic, its key, what it is about; and what the scenario in an order
//! needs.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::{from_value, json};

use crate::{
    hook_state::HookState,
    hook_stats::{HookStage, HookStats},
    ids::{Digest, Incarnation, RunnerId, ScenarioId},
    message::{
        DeployOrder, Envelope, Message, NotedWorkers, RunnerStatus, StopOrder, WorkerPhase, WorkerStatus, frame_of,
    },
    prediction::{Position, Prediction},
    scenario_log::LoggedLines,
    spec::{PluginUse, ResolvedScenario},
    topic::{DEAD_LETTERS, Topic},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn results_wait_a_week_for_their_inbox_and_dead_letters_a_month_for_a_person() {
    assert_eq!(Topic::Results.layout().retention, 7 * DAY);
    assert_eq!(DEAD_LETTERS.retention, 30 * DAY);
}

fn digest(byte: u8) -> Digest {
    Digest::from_bytes(&[byte; 32])
}

fn scenario() -> ResolvedScenario {
    let artifact = |byte| json!({"name": "a", "version": "1", "digest": digest(byte)});
    let hook = |byte| json!({"name": "a", "version": "1", "digest": digest(byte), "config": {}});
    let input = json!({"tensor": "x", "width": 8, "height": 8, "resize": "letterbox", "anchor": "center", "channels": "rgb",
            "pad": 114, "scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]});
    let scenario = json!({"source": {"video": artifact(1)}, "model": artifact(2), "pre": [hook(3)], "post": [hook(4)],
        "models": {"plate": {"name": "a", "version": "1", "digest": digest(5), "input": input}},
        "on_plugin_failure": "skip_frame",
        "input": input});
    from_value(scenario).unwrap()
}

#[test]
fn a_runner_fetches_everything_that_a_scenario_names() {
    let digests: Vec<_> = scenario().digests().cloned().collect();
    assert_eq!(digests, [1, 2, 5, 3, 4].map(digest));
}

#[test]
fn a_hook_without_a_configuration_has_an_empty_one() {
    assert_eq!(from_value::<PluginUse>(json!({"use": "yolo"})).unwrap().config, json!({}));
}

#[test]
fn each_message_has_its_topic_its_key_and_its_subject() {
    let (scenario_id, runner_id, incarnation) = (ScenarioId::generate(), RunnerId("r".into()), Incarnation::generate());
    let runner = || runner_id.clone();
    let deploy = DeployOrder {
        scenario_id,
        generation: 3,
        runner_id: runner(),
        incarnation,
        revision: 1,
        created_at: Timestamp::UNIX_EPOCH,
        scenario: scenario(),
        resume_after: None,
        fresh: false,
        state: HookState::default(),
        execution: None,
    };
    let prediction = json!({
        "scenario_id": scenario_id, "generation": 3, "pts_us": 40_000, "frame": 1, "captured_at": "2026-11-27T03:04:05Z",
        "detections": [], "events": [], "timings": {"decode_us": 1, "pre_us": 2, "inference_us": 3, "post_us": 4},
        "provenance": {"model": digest(2), "plugins": [], "revision": 1},
    });
    let prediction: Prediction = from_value(prediction).unwrap();
    let status = RunnerStatus {
        runner_id: runner(),
        incarnation,
        sequence: 1,
        capacity: 1,
        memory_mib: None,
        draining: false,
        version: "1".into(),
        labels: BTreeMap::new(),
        confinement: vec![],
        providers: Vec::new(),
        workers: vec![],
    };
    let stop = StopOrder { scenario_id, generation: 3, runner_id: runner(), incarnation };
    let noted = NotedWorkers { runner_id: runner(), incarnation, workers: vec![] };
    let line = json!({"at": "2026-11-27T03:04:05Z", "level": "info", "plugin": "a@1", "target": "a", "message": "seen",
        "frame": 7, "fields": {"zone": "door", "people": 3, "seconds": [0.5, 2]}});
    let logged = LoggedLines { scenario_id, generation: 3, first: 0, lines: vec![from_value(line).unwrap()] };
    let difference =
        json!({"revision": 1, "pts_us": 0, "frame": 0, "counts": {"events_added": 1}, "events_added": ["seen"]});
    let found = json!({"scenario_id": scenario_id, "generation": 3, "first": 0, "differences": [difference],
        "summary": {"revision": 1, "plugins": [], "compared": 2, "equal": 1, "different": 1, "not_compared": 0,
            "counts": {"events_added": 1}, "starts": 1}});
    let (scenario, of_it) = (scenario_id.to_string(), Some((scenario_id, Some(3))));
    for (message, topic, key, subject) in [
        (Message::ScenarioChanged { scenario_id }, Topic::InitScenario, &*scenario, Some((scenario_id, None))),
        (Message::Deploy(Box::new(deploy)), Topic::ToDeploy, "r", of_it),
        (Message::Stop(stop), Topic::ToDeploy, "r", of_it),
        (Message::Noted(noted), Topic::ToDeploy, "r", None),
        (Message::Result((&prediction).into()), Topic::Results, &*scenario, of_it),
        (Message::RunnerStatus(status), Topic::RunnerStatus, "r", None),
        (Message::Logged(logged), Topic::ScenarioLogs, &*scenario, of_it),
        (Message::Shadow(from_value(found).unwrap()), Topic::ScenarioLogs, &*scenario, of_it),
    ] {
        let envelope = Envelope::new(message, Timestamp::UNIX_EPOCH);
        assert_eq!((envelope.topic(), &*envelope.key(), envelope.subject()), (topic, key, subject));
        let text = serde_json::to_string(&envelope).unwrap();
        assert_eq!(text.parse::<Envelope>().unwrap(), envelope);
        let frame = (topic == Topic::Results).then_some((scenario_id, Position { pts_us: 40_000, frame: 1 }));
        assert_eq!(frame_of(text.as_bytes()), frame);
    }
}

#[test]
fn a_worker_has_ended_in_three_phases() {
    use WorkerPhase as P;
    assert!([P::Finished, P::Stopped, P::Failed].into_iter().all(P::is_ended));
    assert!(![P::Starting, P::Running, P::Degraded, P::Recovering, P::Stopping].into_iter().any(P::is_ended));
}

#[test]
fn a_runner_has_its_labels_and_what_its_providers_can() {
    let mut status: RunnerStatus = from_value(json!({
        "runner_id": "r", "incarnation": Incarnation::generate(), "sequence": 1, "capacity": 1, "draining": false,
        "version": "0.1.0", "labels": {"site": "north"}, "workers": [],
    }))
    .unwrap();
    assert_eq!(status.all_labels(), status.labels, "an older release has the processor in f32, which needs no label");
    status.providers = from_value(json!([
        {"provider": "cpu", "precisions": ["f32"], "why": ""},
        {"provider": "openvino", "precisions": ["f32", "bf16"], "why": ""},
        {"provider": "cuda", "precisions": [], "why": "no driver"},
    ]))
    .unwrap();
    let labels = ["provider.openvino.bf16", "provider.openvino.f32", "site"];
    assert_eq!(status.all_labels().into_keys().collect::<Vec<_>>(), labels);
}

/// As the release before wrote it, and so that the release before can read it.
#[test]
fn a_heartbeat_tells_of_hooks_if_there_is_something_to_tell() {
    let status = WorkerStatus {
        hooks: vec![HookStats { calls: 3, ..HookStats::new("p@1".into(), HookStage::Post) }],
        ..WorkerStatus::new(ScenarioId::generate(), 1, WorkerPhase::Running)
    };
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["hooks"][0]["calls"], 3);
    assert_eq!(from_value::<WorkerStatus>(json).unwrap(), status);
    let without = status.without_hooks();
    let json = serde_json::to_value(&without).unwrap();
    assert!(json.get("hooks").is_none());
    assert_eq!(from_value::<WorkerStatus>(json).unwrap(), without);
}
