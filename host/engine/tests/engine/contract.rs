//! The versions of the contract: plugins that a release built for the first go on working, alone and among
//! those of the newest; and all that the newest gives and takes.

use std::collections::BTreeMap;

use framehook_core::{
    job::HookJob,
    prediction::{Attribute, Detection, Episode, Event, Mask, Phase},
    probe::Verdict,
    reason::ReasonCode,
    spec::OnPluginFailure as Policy,
};
use framehook_engine::{
    chain::{After, Chain, ChainSettings, Stage},
    media::{Decision, Size, Source, Start, Values},
};
use serde_json::{Value, json};

use crate::{
    stock::{head, run},
    support::{
        COMPILER, ENGINE, Flat, Lines, SIZE, frame, infer_values, inspect, job, job_0_1, judge, position, settings,
        wasm_0_1,
    },
};

fn chain_of(jobs: &[HookJob], start: Start) -> (Chain, Lines) {
    let (settings, lines) = settings(Policy::FailScenario);
    (Chain::start(&ENGINE, Stage::Post, jobs, &ChainSettings { start, ..settings }).unwrap(), lines)
}

fn chain(jobs: &[HookJob]) -> Chain {
    chain_of(jobs, Start::default()).0
}

fn witness(config: Value) -> HookJob {
    job("witness", config)
}

fn line() -> Value {
    json!({"line": [[0.5, 0.0], [0.5, 1.0]], "labels": ["car"]})
}

fn street() -> Value {
    json!({"labels": ["person", "car", "truck"]})
}

/// The events of a kind, each with its attributes.
fn told(after: &After, kind: &str) -> Vec<BTreeMap<String, Attribute>> {
    after.events.iter().filter(|event| event.kind == kind).map(|event| event.attributes.clone()).collect()
}

fn text(event: &BTreeMap<String, Attribute>, key: &str) -> String {
    event.get(key).map(ToString::to_string).unwrap_or_default()
}

#[test]
fn plugins_of_the_first_version_are_recognised_and_work_as_they_did() {
    for (name, pre, post) in [("yolo", false, true), ("line-counter", false, true), ("motion-gate", true, false)] {
        let Verdict::Ok(manifest) = inspect(&wasm_0_1(name)) else { panic!("{name}") };
        assert_eq!((manifest.name.as_str(), manifest.abi.as_str()), (name, "0.1.0"));
        assert_eq!((manifest.pre, manifest.post), (pre, post));
    }
    let problems =
        judge(&COMPILER.compile(&wasm_0_1("yolo")).unwrap()).validate_config(r#"{"min_score": "high"}"#).unwrap();
    assert_eq!(problems[0].path, "/min_score");

    let (settings, _) = settings(Policy::FailScenario);
    let gate = [job_0_1("motion-gate", json!({"max_skip": 3}))];
    let mut gate = Chain::start(&ENGINE, Stage::Pre, &gate, &settings).unwrap();
    let mut passes =
        |sequence, level| matches!(gate.preprocess(&frame(sequence, &Flat(level))).unwrap().decision, Decision::Pass);
    assert_eq!([passes(0, 0), passes(1, 0), passes(2, 200)], [true, false, true]);
}

/// Every mixture of old and new says the same, but for what only the new can say.
#[test]
fn old_and_new_plugins_work_on_each_others_detections() {
    let yolo = [job_0_1("yolo", street()), job("yolo", street())];
    let counter = [job_0_1("line-counter", line()), job("line-counter", line())];
    let said = |jobs: &[HookJob]| {
        let mut chain = chain(jobs);
        (0..30).map(|step| run(&mut chain, step, &[1, 7, 960], &head(0.2 + 0.02 * step as f32))).collect::<Vec<_>>()
    };
    let expected = said(&[yolo[0].clone(), counter[0].clone()]);
    let crossings: Vec<_> = expected.iter().flat_map(|after| &after.events).collect();
    let [crossing] = &crossings[..] else { panic!("{crossings:?}") };
    assert_eq!(["direction", "label"].map(|key| text(&crossing.attributes, key)), ["backward", "car"]);
    for (yolo, counter) in [(0, 1), (1, 0), (1, 1)].map(|(a, b)| (yolo[a].clone(), counter[b].clone())) {
        assert_eq!(said(&[yolo, counter]), expected);
    }
}

#[test]
fn what_the_first_version_has_no_words_for_passes_through_its_hooks() {
    let jobs = [job_0_1("yolo", street()), witness(json!({})), job_0_1("line-counter", line()), witness(json!({}))];
    let after = run(&mut chain(&jobs), 0, &[1, 7, 960], &head(0.25));
    let [_, second] = &told(&after, "given")[..] else { panic!("{after:?}") };
    // The car, with what the first witness added, and that witness's own.
    assert_eq!(text(second, "detections"), "car 0 false 1;own 3 true 4");
    let [car, first, _] = &after.detections[..] else { panic!("{after:?}") };
    assert_eq!((car.label.as_deref(), car.track_id), (Some("car"), Some(1)));
    assert_eq!(car.attributes, BTreeMap::from([("seen".to_owned(), Attribute::Number(1.0))]));
    assert_eq!((first.polygon.len(), first.mask.is_some(), first.attributes.len()), (3, true, 5));
}

#[test]
fn a_detection_carries_all_that_a_hook_says_of_it() {
    let after = run(&mut chain(&[witness(json!({"labels": ["a", "b"]}))]), 0, &[1, 2], &[0.5, 0.25]);
    let number = Attribute::Number;
    let expected = Detection {
        class_id: 1,
        label: Some("own".into()),
        score: 0.75,
        bbox: [0.1, 0.2, 0.3, 0.4],
        track_id: Some(9),
        keypoints: Vec::new(),
        polygon: vec![[0.1, 0.2], [0.4, 0.2], [0.4, 0.6]],
        mask: Some(Mask { grid: [3, 2], runs: vec![1, 2, 3] }),
        attributes: [
            ("colour".to_owned(), Attribute::Text("red".into())),
            ("speed".to_owned(), number(12.5)),
            ("count".to_owned(), number(3.0)),
            ("path".to_owned(), Attribute::Numbers(vec![0.5, 1.0])),
        ]
        .into(),
    };
    assert_eq!(after.detections, std::slice::from_ref(&expected));
    // As it is stored: a whole number is written as one, and all of it is read again.
    let stored = serde_json::to_string(&expected).unwrap();
    assert!(stored.contains(r#""attributes":{"colour":"red","count":3,"path":[0.5,1],"speed":12.5}"#), "{stored}");
    assert_eq!(serde_json::from_str::<Detection>(&stored).unwrap(), expected);
    // A row of the release before.
    let old: Event = serde_json::from_str(r#"{"kind": "k", "severity": "info", "attributes": {"n": "3"}}"#).unwrap();
    assert_eq!((&old.attributes["n"], old.episode), (&Attribute::Text("3".into()), None));
}

#[test]
fn what_cannot_be_is_refused_or_mended() {
    for (bad, words) in [
        ("twice_in_event", "an event has the attribute `id` twice"),
        ("twice_in_detection", "a detection has the attribute `colour` twice"),
        ("mask", "a mask has runs of 3 cells together, but a grid of 2x2"),
    ] {
        let (settings, _) = settings(Policy::SkipFrame);
        let mut chain = Chain::start(&ENGINE, Stage::Post, &[witness(json!({"bad": bad}))], &settings).unwrap();
        for frame in 0..2 {
            let after = run(&mut chain, frame, &[1, 2], &[0.5, 0.25]);
            let [failure] = &after.failures[..] else { panic!("{after:?}") };
            assert_eq!(failure.reason.code, ReasonCode::PluginError);
            assert!(failure.reason.message.contains(words), "{failure:?}");
        }
    }
    let (mut chain, lines) = chain_of(&[witness(json!({"bad": "not_finite"}))], Start::default());
    let after = run(&mut chain, 0, &[1, 2], &[0.5, 0.25]);
    assert_eq!(after.detections.len(), 1, "the one with a speed that is no number is dropped");
    assert_eq!(after.events[0].attributes, [("kind".to_owned(), Attribute::Text("file".into()))].into());
    assert!(lines.texts().iter().any(|line| line.contains("1 were cut") && line.contains("1 were dropped")));
}

#[test]
fn outputs_are_read_as_what_they_are() {
    let (names, whole) = (["car", "né"].map(str::to_owned), [20_000_001, -3]);
    let outputs: [(&str, &[u32], Values<'_>); 5] = [
        ("scores", &[1, 3], Values::F32(&[0.5, f32::NAN, 0.75])),
        ("ids", &[2], Values::I64(&whole)),
        ("large", &[1], Values::U64(&[u64::MAX])),
        ("small", &[3], Values::F32(&[0.0, 1.0, 255.0])),
        ("names", &[2], Values::Text(&names)),
    ];
    let (mut chain, lines) = chain_of(&[witness(json!({}))], Start::default());
    let after = infer_values(0, &outputs, |inference| chain.postprocess(inference)).unwrap();
    let keys = ["name", "element", "elements", "highest", "as_integers", "as_bytes", "as_text", "beyond"];
    let read: Vec<_> = told(&after, "output").iter().map(|event| keys.map(|key| text(event, key))).collect();
    assert_eq!(
        read,
        [
            [
                "scores",
                "float",
                "[0.5, NaN, 0.75]",
                "[(2, 0.75), (0, 0.5)]",
                "refused",
                "refused",
                "refused",
                "refused"
            ],
            [
                "ids",
                "integer",
                "[20000001, -3]",
                "[(0, 20000000.0), (1, -3.0)]",
                "given",
                "refused",
                "refused",
                "refused"
            ],
            [
                "large",
                "integer",
                "[9223372036854775807]",
                "[(0, 1.8446744e19)]",
                "given",
                "refused",
                "refused",
                "refused"
            ],
            ["small", "integer", "[0, 1, 255]", "[(2, 255.0), (1, 1.0)]", "given", "[0, 1, 255]", "refused", "refused"],
            ["names", "text", r#"["car", "né"]"#, "refused", "refused", "refused", "given", "refused"],
        ]
    );
    assert_eq!(told(&after, "suppressed")[0]["kept"], Attribute::Numbers(vec![1.0, 2.0]));
    let line = lines.all().into_iter().find(|line| line.message == "5 outputs").expect("it logs");
    let fields = json!({"kind": "count", "seconds": 2.5, "ids": [1]});
    assert_eq!((line.frame, serde_json::to_value(&line.fields).unwrap()), (Some(0), fields));
    // Text does not move what the first version knows by its place.
    let outputs: [(&str, &[u32], Values<'_>); 2] =
        [("output0", &[1, 7, 960], Values::F32(&head(0.25))), ("names", &[2], Values::Text(&names))];
    let mut old = self::chain(&[job_0_1("yolo", street())]);
    let after = infer_values(0, &outputs, |inference| old.postprocess(inference)).unwrap();
    assert_eq!(after.detections[0].label.as_deref(), Some("car"));
}

#[test]
fn a_hook_is_told_where_its_stream_stands() {
    let source = Source { is_live: false, size: Some(SIZE), frames_per_second: Some(29.97), frames: Some(500) };
    let model_labels = vec!["zero".to_owned(), "one".to_owned()];
    let start = Start { stream_id: "s".into(), after: None, from_version: None, source, model_labels };
    let started = |start: Start| {
        let after = run(&mut chain_of(&[witness(json!({}))], start).0, 41, &[1, 2], &[0.5, 0.25]);
        let keys = ["id", "model_labels", "start", "after", "pts", "kind", "size", "fps", "frames"];
        keys.map(|key| text(&told(&after, "started")[0], key))
    };
    assert_eq!(started(start.clone()), ["s", "zero,one", "fresh", "", "", "file", "[640.0, 360.0]", "29.97", "500"]);
    let resumed = started(Start { after: Some(position(40)), ..start });
    assert_eq!(resumed[2..5], ["resumed", "40", "1600000"]);
    assert_eq!(started(Start::default())[5..], ["file", "[]", "-1", "0"]);
}

#[test]
fn the_models_names_are_those_of_what_no_hook_names() {
    let named = |jobs: &[HookJob]| {
        let model_labels = ["a", "from the model", ""].map(str::to_owned).to_vec();
        let (mut chain, _) = chain_of(jobs, Start { model_labels, ..Start::default() });
        let after = run(&mut chain, 0, &[1, 7, 960], &head(0.25));
        after.detections[0].label.clone().unwrap_or_default()
    };
    let nameless = json!({"head": "v8"});
    for (jobs, expected) in [
        (vec![job("yolo", nameless.clone())], "from the model"),
        (vec![job_0_1("yolo", json!({}))], "from the model"),
        (vec![job("yolo", nameless.clone()), job("line-counter", line())], "from the model"),
        (vec![job("yolo", street())], "car"),
        (vec![job_0_1("yolo", street()), job_0_1("line-counter", line())], "car"),
    ] {
        assert_eq!(named(&jobs), expected);
    }
}

#[test]
fn hooks_that_want_to_know_are_told_of_frames_without_an_inference() {
    let size = Size { width: 640, height: 360 };
    let both = [job("yolo", street()), witness(json!({"labels": ["own"]})), job_0_1("line-counter", line())];
    let mut chain = chain(&both);
    let after = chain.skipped((position(7), size), "nothing moves").unwrap();
    let keys = ["frame", "reason"].map(|key| text(&told(&after, "skipped")[0], key));
    assert_eq!(keys, ["7", "nothing moves"]);
    // The counter, which is not asked, neither sees nor drops it.
    let [only] = &after.detections[..] else { panic!("{after:?}") };
    assert_eq!((only.label.as_deref(), only.track_id), (Some("own"), None));
    let quiet = self::chain(&[job("yolo", street()), job_0_1("line-counter", line())])
        .skipped((position(7), size), "nothing moves")
        .unwrap();
    assert_eq!(quiet, After::default());
}

#[test]
fn several_events_tell_of_one_episode() {
    let mut chain = chain(&[witness(json!({}))]);
    run(&mut chain, 0, &[1, 2], &[0.5, 0.25]);
    let (events, failures) = chain.flush(1 << 20);
    assert_eq!((events.len(), failures.len()), (1, 0));
    assert_eq!(events[0].episode, Some(Episode { id: "1".into(), phase: Phase::End }));
    let stored = serde_json::to_value(&events[0]).unwrap();
    assert_eq!(stored["episode"], json!({"id": "1", "phase": "end"}));
}
