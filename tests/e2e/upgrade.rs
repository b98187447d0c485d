//! What release 0.1.0 left behind goes on under today's executables: databases, records, plugins.

use framehook_core::{
    prediction::{Prediction, Provenance},
    spec::Decoder,
};
use framehook_tests::{
    client::Client,
    cluster::{Cluster, FRAMES},
    platform::{Platform, patient},
    release::{self, Scenarios, Seen},
};
use serde_json::{Value, json};

#[test]
fn a_data_folder_of_release_0_1_0_goes_on() {
    let before = release::scenarios("up");
    // The label that one of them waits for; the network that another one's source is in.
    let arguments = ["--label", "site=north", "--source-network", "127.0.0.0/8"];
    let platform = Platform::start_on(release::lay_data, &patient(&arguments));

    assert_eq!(platform.get(&format!("/scenario/{}", before["deleted"].id)).status, 404);
    is_as_it_was(&platform, &before, &["completed", "failed", "stopped"]);
    let reference = again(&platform, &before["completed"]);
    let completed = platform.completed(&before["completed"].id, FRAMES);
    assert!(found(&completed) == found(&reference), "the rows of the old release are those of today's");
    // Nobody disturbed it before: it ran on this release only.
    let pending = platform.completed(&before["pending"].id, FRAMES);
    assert!(found(&pending) == found(&reference));
    goes_on(&platform, &before, &reference);

    // Its credentials can be unsealed: it is tried, and nobody listens there.
    let failed = &before["failed"].id;
    assert_eq!(platform.post_json(&format!("/scenario/{failed}/start"), &Value::Null).status, 200);
    let tried = platform.wait_for_state(failed, &["recovering"]);
    assert_eq!(tried["reason"]["code"], "source_unreachable", "{tried:#}");
    assert_eq!(platform.delete(&format!("/scenario/{failed}")).status, 204);
}

#[test]
fn a_database_and_topics_of_release_0_1_0_go_on() {
    let before = release::scenarios("cluster");
    let mut cluster = Cluster::restore();

    is_as_it_was(&cluster, &before, &["completed", "stopped"]);
    let reference = again(&cluster, &before["completed"]);
    // One had ended, and most of its results were not stored: they are in Kafka, as the old release wrote
    // them.
    for name in ["completed", "unread"] {
        let rows = cluster.completed(&before[name].id, FRAMES);
        assert!(found(&rows) == found(&reference), "{name}");
    }
    let history = cluster.transitions(&before["unread"].id);
    assert!(history.iter().all(|(_, to)| to != "recovering"), "its results were there: {history:?}");
    goes_on(&cluster, &before, &reference);
    cluster.at_rest();
}

/// These read as the old release showed them; today's may say more.
fn is_as_it_was(client: &Client, before: &Scenarios, names: &[&str]) {
    for name in names {
        let Seen { id, scenario, rows, detections, events } = &before[*name];
        let mut was = scenario.clone();
        // Words for people may be better ones today.
        was["reason"].as_object_mut().map(|reason| reason.remove("message"));
        let is = client.scenario(id);
        assert!(includes(&is, &was), "{name} is {is:#}\nand was {was:#}");
        let found = client.predictions(id);
        assert_eq!(found.len(), *rows, "{name}");
        assert_eq!(found.iter().map(|row| row.detections.len()).sum::<usize>(), *detections, "{name}");
        assert_eq!(found.iter().map(|row| row.events.len()).sum::<usize>(), *events, "{name}");
    }
}

/// The one that ran when everything died, and the one that was stopped, come to their end.
fn goes_on(client: &Client, before: &Scenarios, reference: &[Prediction]) {
    let stopped = &before["stopped"].id;
    assert_eq!(client.post_json(&format!("/scenario/{stopped}/start"), &Value::Null).status, 200);
    for name in ["running", "stopped"] {
        let rows = client.completed(&before[name].id, FRAMES);
        let generations: Vec<_> = rows.iter().map(|row| row.generation).collect();
        assert!(generations.is_sorted() && generations.first() < generations.last(), "{name} began anew");
        assert!(without_tracks(&rows) == without_tracks(reference), "{name}");
        let decoders: Vec<_> = rows.iter().map(|row| row.provenance.decoder).collect();
        assert!(
            decoders.starts_with(&[None]) && decoders.ends_with(&[Some(Decoder::Opencv)]),
            "{name}: another decoder"
        );
        assert!(decoders.iter().all(|decoder| *decoder != Some(Decoder::Libav)), "{name}: another decoder");
    }
}

/// The same scenario on today's release, from its first frame.
fn again(client: &Client, seen: &Seen) -> Vec<Prediction> {
    let mut scenario = seen.scenario["spec"].clone();
    scenario["name"] = json!("again");
    // What that release decoded with: another decoder's numbers are near, and not the same.
    scenario["decoder"] = json!("opencv");
    let id = client.post_scenario(&scenario);
    client.completed(&id, FRAMES)
}

/// Everything but when it was, how long it took, and what only newer releases say: the decoder.
fn found(rows: &[Prediction]) -> Vec<Value> {
    let content = |row: &Prediction| {
        let provenance = Provenance { decoder: None, execution: None, ..row.provenance.clone() };
        json!([row.pts_us, row.detections, row.events, provenance])
    };
    rows.iter().map(content).collect()
}

/// A plugin that counts tracks begins anew with its worker.
fn without_tracks(rows: &[Prediction]) -> Vec<Value> {
    let place = |row: &Prediction| {
        let all: Vec<_> = row.detections.iter().map(|d| json!([d.class_id, d.label, d.score, d.bbox])).collect();
        json!([row.pts_us, all])
    };
    rows.iter().map(place).collect()
}

/// Whether everything that is in `part` is in `whole`, too.
fn includes(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|whole| includes(whole, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| includes(whole, part))
        }
        _ => whole == part,
    }
}
