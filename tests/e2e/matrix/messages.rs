//! Rows about messages: delivered twice, out of order, too late, or not to be read at all.

use framehook_tests::{
    client::slow_scenario,
    cluster::{CLUSTER_DEADLINE, Cluster, found},
    servers::topics::{self, Record},
    wait_for,
};
use serde_json::{Value, json};

use super::{FRAME_MS, row, running, undisturbed};

/// What is written for the test to spoil.
fn changed(record: &Record, change: impl FnOnce(&mut Value)) -> Record {
    let mut message: Value = serde_json::from_slice(&record.payload).expect("a message is JSON");
    change(&mut message);
    Record { payload: message.to_string().into_bytes(), ..record.clone() }
}

#[test]
fn messages_may_come_twice_in_any_order_too_late_and_broken() {
    let mut cluster = Cluster::start(&[]);
    // Its first hook prints a line a frame.
    let mut scenario = slow_scenario(FRAME_MS);
    let hook = &mut scenario["plugins"]["pre"][0]["config"];
    (hook["chatty"], hook["calls"]) = (json!(true), json!([0, 0]));
    let ids = [cluster.post_scenario(&scenario)];
    cluster.wait_for_row(&ids[0], 20);
    cluster.settle(&ids);
    let before = cluster.predictions(&ids[0]);
    let brokers = cluster.brokers().to_owned();
    let prefix = cluster.topic("");
    let topic = cluster.topic("results");
    let of_scenario = |topic: &str| -> Vec<Record> {
        let all = topics::read(&brokers, &format!("{prefix}{topic}"));
        all.into_iter().filter(|record| String::from_utf8_lossy(&record.payload).contains(&ids[0])).collect()
    };

    row("every result again, backwards");
    let mut results = of_scenario("results");
    assert!(results.len() >= before.len());
    results.reverse();
    topics::write(&brokers, &topic, &results);
    cluster.at_rest();
    assert_eq!(cluster.predictions(&ids[0]), before);

    row("results of a generation before, with other contents: the words of a zombie");
    let zombie: Vec<_> = results
        .iter()
        .map(|record| {
            changed(record, |message| {
                message["data"]["generation"] = json!(0);
                message["data"]["detections"] = json!([]);
            })
        })
        .collect();
    topics::write(&brokers, &topic, &zombie);
    cluster.at_rest();
    assert_eq!(cluster.predictions(&ids[0]), before);

    row("every log line again, backwards, and as one of a generation before: each is there once");
    let log = || cluster.read(&format!("/scenario/{}/logs?limit=1000", ids[0]))["items"].as_array().cloned().unwrap();
    let (logged, lines) = (of_scenario("scenario_logs"), log());
    assert!(!lines.is_empty() && !logged.is_empty());
    let zombies = logged.iter().map(|record| changed(record, |message| message["data"]["generation"] = json!(0)));
    // None of its deployment has so high a number, so it comes last.
    let last = changed(&logged[0], |message| message["data"]["first"] = json!(1_000_000));
    let again: Vec<_> = logged.iter().rev().cloned().chain(zombies).chain([last]).collect();
    topics::write(&brokers, &cluster.topic("scenario_logs"), &again);
    let after = wait_for("the last line", CLUSTER_DEADLINE, || Some(log()).filter(|after| after.len() > lines.len()));
    assert_eq!(after[..lines.len()], lines);

    row("what cannot be read goes to the dead letters with its reason, and what is behind it is read");
    let at = |payload: Vec<u8>| Record { payload, ..results[0].clone() };
    let poison = [
        at(b"\xff\xfe no JSON at all \0".to_vec()),
        at(Vec::new()),
        changed(&results[0], |message| message["version"] = json!(2)),
        changed(&results[0], |message| message["type"] = json!("frame.unheard_of")),
        changed(&results[0], |message| message["data"]["pts_us"] = json!("late")),
        of_scenario("init_scenario").remove(0),
    ];
    let poison = poison.map(|record| Record { partition: results[0].partition, ..record });
    topics::write(&brokers, &topic, &poison);
    topics::write(&brokers, &topic, &results[..1]);
    cluster.at_rest();
    let mut sql = cluster.sql();
    assert_eq!(sql.number("SELECT count(*) FROM dead_letters WHERE reason <> ''"), poison.len() as i64);
    assert_eq!(topics::read(&brokers, &cluster.topic("results.dlq")).len(), poison.len());
    assert_eq!(cluster.predictions(&ids[0]), before);

    row("orders and heartbeats again, backwards, and broken ones: no worker starts, and nothing is forgotten");
    for name in ["to_deploy", "runner_status", "init_scenario"] {
        let mut records = of_scenario(name);
        assert!(!records.is_empty(), "{name}");
        records.reverse();
        let partition = records[0].partition;
        let broken = Record { partition, key: b"runner-1".to_vec(), payload: b"{\"version\": 1".to_vec() };
        topics::write(&brokers, &cluster.topic(name), &[&records[..], &[broken]].concat());
    }
    // A scenario that is made after all that is placed and runs, so what was before it has been read.
    let next = running(&cluster, 1);
    cluster.settle(&next);
    undisturbed(&cluster, &next[0]);
    undisturbed(&cluster, &ids[0]);
    assert_eq!(cluster.predictions(&ids[0]), before);
    assert_eq!(sql.number("SELECT count(*) FROM workers"), sql.number("SELECT count(*) FROM scenarios"));

    row("a scenario stopped and started: the orders of its first life change nothing in its second");
    let id = running(&cluster, 1).remove(0);
    let stopped = cluster.post_json(&format!("/scenario/{id}/stop"), &Value::Null);
    assert_eq!(stopped.status, 200, "{}", stopped.body);
    cluster.wait_for_state(&id, &["stopped"]);
    let started = cluster.post_json(&format!("/scenario/{id}/start"), &Value::Null);
    assert_eq!(started.status, 200, "{}", started.body);
    cluster.wait_for_scenario(&id, "running again", |s| s["generation"] == 2 && s["state"] == "running");
    let orders = topics::read(&brokers, &cluster.topic("to_deploy"));
    topics::write(&brokers, &cluster.topic("to_deploy"), &orders);
    cluster.settle(std::slice::from_ref(&id));
    assert_eq!(cluster.scenario(&id)["generation"], 2);
    assert_eq!(found(&cluster.predictions(&id)), found(&before));
    wait_for("nothing to run", CLUSTER_DEADLINE, || {
        (cluster.workers("runner-1").is_empty() && cluster.workers("runner-2").is_empty()).then_some(())
    });
}
