//! The runner against workers that crash, hang, lie and will not go, and against a bus that goes away.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod recordings;
mod shortage;
mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use framehook_core::{
    ids::Incarnation,
    message::{Message, WorkerPhase as P},
    reason::{Reason, ReasonCode},
    spec::Lanes,
    topic::Topic,
};
use framehook_runner::LastWord;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{World, eventually, is_gone, position, processes_of};

/// A frame timeout that a healthy script keeps on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(2);

fn numbers(frames: u64) -> Vec<u64> {
    (0..frames).collect()
}

#[tokio::test]
async fn a_file_is_published_in_order_and_finishes() {
    let world = World::start(|_| {}).await;
    let clip = world.clip(json!({"frames": 300}));
    world.deploy(&clip, 1).await;
    world.deploy(&clip, 1).await;
    let last = world.phase(&clip, 1, P::Finished).await;
    assert_eq!(world.frames(&clip), numbers(300));
    assert_eq!(last.reason.unwrap().code, ReasonCode::EndOfStream);
    let progress = last.progress;
    assert_eq!((progress.published, progress.frames, progress.frames_total), (position(299), 300, Some(300)));
    assert!(progress.fps > 0.0);
    assert_eq!((progress.mean.decode_us, progress.mean.post_us), (10, 40));
    let phases: Vec<_> = world.history(&clip, 1).iter().map(|s| s.phase).collect();
    assert!(phases.is_sorted_by_key(|p| [P::Starting, P::Running, P::Finished].iter().position(|q| q == p)));
    assert_eq!(clip.starts(), [0]);
    assert!(is_gone(clip.pids()[0]));
    let environment = &clip.notes("environment")[0];
    // Python adds the last one itself.
    let known = ["LANG", "LD_LIBRARY_PATH", "ORT_DISABLE_TELEMETRY", "RUST_LOG", "LC_CTYPE"];
    assert!(environment.split(' ').all(|name| known.contains(&name)), "{environment}");
    assert!(environment.contains("ORT_DISABLE_TELEMETRY"), "{environment}");
}

#[tokio::test]
async fn a_worker_that_crashes_goes_on_behind_its_last_frame() {
    let world = World::start(|_| {}).await;
    let plan = json!({"frames": 150, "crash_at": [3, 50, 51, 149], "torn_at": [80], "stderr": "about to\nfall over"});
    let clip = world.clip(plan);
    world.deploy(&clip, 1).await;
    let last = world.phase(&clip, 1, P::Finished).await;
    assert_eq!(world.frames(&clip), numbers(150));
    assert_eq!(clip.starts(), [0, 3, 50, 51, 80, 149]);
    assert_eq!((last.progress.frames, last.attempt), (150, 0));
    let history = world.history(&clip, 1);
    let down: Vec<_> = history.iter().filter(|s| s.phase == P::Recovering).collect();
    let reasons: Vec<_> = down.iter().filter_map(|s| s.reason.clone()).collect();
    assert!(reasons.iter().all(|r| r.code == ReasonCode::WorkerCrash));
    assert!(
        reasons.iter().any(|r| r.message.contains("SIGKILL") && r.message.contains("about to | fall over")),
        "{reasons:?}"
    );
}

#[tokio::test]
async fn a_deployment_goes_on_where_its_order_says() {
    let world = World::start(|_| {}).await;
    let clip = world.clip(json!({"frames": 30, "crash_at": [25]}));
    let mut order = world.order(&clip, 7);
    order.resume_after = position(19);
    world.send(Message::Deploy(Box::new(order))).await;
    let last = world.phase(&clip, 7, P::Finished).await;
    assert_eq!(world.frames(&clip), (20..30).collect::<Vec<_>>());
    assert_eq!((clip.starts(), last.progress.frames), (vec![20, 25], 10));
}

#[tokio::test]
async fn a_worker_that_always_crashes_fails_after_its_attempts() {
    let world = World::start(|_| {}).await;
    let clip = world.clip(json!({"frames": 10, "always_crash_at": 2}));
    world.deploy(&clip, 1).await;
    let last = world.phase(&clip, 1, P::Failed).await;
    // One that came as far as it could, and three more.
    assert_eq!(clip.starts(), [0, 2, 2, 2]);
    assert_eq!(world.frames(&clip), [0, 1]);
    let reason = last.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::WorkerCrash);
    assert!(reason.message.contains("gave up after 3 restarts"), "{}", reason.message);
    assert!(last.retry_at.is_none());
}

#[tokio::test]
async fn an_ended_worker_is_told_of_until_its_end_is_noted() {
    let world = World::start(|_| {}).await;
    let (ended, running) = (world.clip(json!({"frames": 3})), world.clip(json!({"frames": 3, "silent_at": [1]})));
    for clip in [&ended, &running] {
        world.deploy(clip, 1).await;
    }
    world.phase(&ended, 1, P::Finished).await;
    world.status(&running, 1, |s| s.phase == P::Running).await;
    // What runs cannot have been noted.
    world.note(&running, 1).await;
    world.note(&ended, 1).await;
    let told = || world.last_heartbeat().workers.iter().map(|w| w.scenario_id).collect::<Vec<_>>();
    world.bus.wait("a heartbeat without the end", || (told() == [running.id]).then_some(())).await;
    // A repeated order is answered all the same, and does not start it again.
    world.deploy(&ended, 1).await;
    world.bus.wait("an answer", || told().contains(&ended.id).then_some(())).await;
    assert_eq!(ended.starts(), [0]);
}

#[tokio::test]
async fn a_recovering_worker_shows_when_it_comes_back() {
    let world = World::start(|c| c.restarts.quick = Duration::from_secs(600)).await;
    let clip = world.clip(json!({"frames": 10, "always_crash_at": 2}));
    world.deploy(&clip, 1).await;
    let waiting = world.status(&clip, 1, |s| s.retry_at.is_some()).await;
    assert_eq!((waiting.phase, waiting.attempt, waiting.progress.published), (P::Recovering, 1, position(1)));
    world.stop(&clip, 1).await;
    let last = world.phase(&clip, 1, P::Stopped).await;
    assert_eq!((last.retry_at, last.reason.unwrap().code), (None, ReasonCode::StoppedByUser));
}

#[tokio::test]
async fn a_silent_worker_is_killed_and_started_again() {
    let world = World::start(|c| c.frame_timeout = PATIENCE).await;
    let clip = world.clip(json!({"frames": 20, "silent_at": [5]}));
    world.deploy(&clip, 1).await;
    world.phase(&clip, 1, P::Finished).await;
    assert_eq!((world.frames(&clip), clip.starts()), (numbers(20), vec![0, 5]));
    let history = world.history(&clip, 1);
    let reason = history.iter().find(|s| s.phase == P::Recovering).unwrap().reason.as_ref().unwrap();
    assert_eq!(reason.code, ReasonCode::SourceStalled);
    assert!(is_gone(clip.pids()[0]));
}

#[tokio::test]
async fn a_worker_that_is_never_ready_fails() {
    let world = World::start(|c| {
        c.start_timeout = Duration::from_millis(200);
        c.restarts.max_attempts = 1;
    })
    .await;
    let clip = world.clip(json!({"frames": 20, "never_ready": true}));
    world.deploy(&clip, 1).await;
    let reason = world.phase(&clip, 1, P::Failed).await.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::SourceStalled);
    assert!(reason.message.contains("not ready"), "{}", reason.message);
}

#[tokio::test]
async fn who_gave_no_frame_is_not_tried_five_times() {
    let world = World::start(|c| (c.frame_timeout, c.start_timeout) = (PATIENCE, PATIENCE)).await;
    let stalled = json!({"code": "model_stalled", "message": "the model's first inference took longer than 30.0 s"});
    for (plan, code, words, starts) in [
        (
            json!({"frames": 9, "end": ["retry", stalled], "nothing": true}),
            ReasonCode::ModelStalled,
            "30.0 s; it had given",
            1,
        ),
        (json!({"frames": 9, "out_of_memory": true}), ReasonCode::OutOfMemory, "it may have 700 MiB", 1),
        (json!({"frames": 9, "greedy": true}), ReasonCode::OutOfMemory, "`memory_mib`, at most 2048", 1),
        (json!({"frames": 9, "never_ready": true}), ReasonCode::SourceStalled, "gave up after 1 restarts", 2),
        // The same with a frame before: once more for the model, as often as ever for memory.
        (json!({"frames": 9, "end": ["retry", stalled]}), ReasonCode::ModelStalled, "gave up after 1 restarts", 2),
    ] {
        let clip = world.clip(plan.clone());
        let mut order = world.order(&clip, 1);
        order.scenario.memory_mib = Some(700);
        world.send(Message::Deploy(Box::new(order))).await;
        let reason = world.phase(&clip, 1, P::Failed).await.reason.unwrap();
        assert_eq!(reason.code, code, "{plan}: {reason:?}");
        assert!(reason.message.contains(words), "{}", reason.message);
        assert_eq!(clip.starts().len(), starts, "{plan}");
    }
}

#[tokio::test]
async fn reasons_name_no_path_of_this_machine() {
    let world = World::start(|_| {}).await;
    let blob = world.dir.path().join("blobs").display().to_string();
    let message =
        format!("cannot load {blob} at /build/onnx/session.cc:12 with {}", world.config.onnxruntime.display());
    let clip = world.clip(json!({"frames": 3, "end": ["failed", {"code": "model_load", "message": message}]}));
    world.deploy(&clip, 1).await;
    let reason = world.phase(&clip, 1, P::Failed).await.reason.unwrap();
    assert!(!reason.message.contains("session.cc") && !reason.message.contains("fake_worker"), "{}", reason.message);
}

#[tokio::test]
async fn nonsense_costs_a_worker_its_life_and_nothing_else() {
    let world = World::start(|_| {}).await;
    let clip = world.clip(json!({"frames": 40, "garbage_at": [4], "back_at": [9], "large_at": [14]}));
    world.deploy(&clip, 1).await;
    world.phase(&clip, 1, P::Finished).await;
    assert_eq!((world.frames(&clip), clip.starts()), (numbers(40), vec![0, 4, 9, 14]));
    let history = world.history(&clip, 1);
    let reasons: Vec<_> = history.iter().filter_map(|s| s.reason.as_ref()).map(|r| r.message.as_str()).collect();
    for nonsense in [
        "sent what no worker may send: expected",
        "sent what no worker may send: frame 7 came after frame 8",
        "where at most 262208 are allowed",
    ] {
        assert!(reasons.iter().any(|m| m.contains(nonsense)), "{nonsense} is not in {reasons:?}");
    }
}

#[tokio::test]
async fn the_last_frame_may_come_again_and_counts_once() {
    let world = World::start(|_| {}).await;
    let clip = world.clip(json!({"frames": 20, "last_twice": true}));
    world.deploy(&clip, 1).await;
    let last = world.phase(&clip, 1, P::Finished).await;
    assert_eq!((world.frames(&clip), last.progress.frames), ([numbers(20), vec![19]].concat(), 20));
}

#[tokio::test]
async fn what_a_worker_reports_as_its_end_is_its_end() {
    let world = World::start(|_| {}).await;
    let end = |outcome: &str| {
        world.clip(json!({"frames": 3, "end": [outcome, {"code": "decode_error", "message": "bad bytes"}]}))
    };
    let (failed, retry) = (end("failed"), end("retry"));
    world.deploy(&failed, 1).await;
    world.deploy(&retry, 1).await;
    let reason = world.phase(&failed, 1, P::Failed).await.reason;
    assert_eq!(reason, Some(Reason::new(ReasonCode::DecodeError, "bad bytes")));
    assert_eq!(failed.starts(), [0]);
    let reason = world.phase(&retry, 1, P::Failed).await.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::DecodeError);
    assert_eq!(retry.starts(), [0, 3, 3, 3]);
}

#[tokio::test]
async fn the_health_of_hooks_is_shown() {
    let world = World::start(|_| {}).await;
    let trap = json!({"code": "plugin_trap", "message": "p@1 trapped"});
    let clip = world.clip(json!({"frames": 10, "hold_at": 6, "hooks": {"3": trap}}));
    let well = world.clip(json!({"frames": 10, "hold_at": 6, "hooks": {"3": trap, "5": null}}));
    world.deploy(&clip, 1).await;
    world.deploy(&well, 1).await;
    let degraded = world.phase(&clip, 1, P::Degraded).await;
    assert_eq!(degraded.reason, Some(Reason::new(ReasonCode::PluginTrap, "p@1 trapped")));
    world.status(&well, 1, |s| s.phase == P::Running && s.reason.is_none() && s.progress.frames == 6).await;
}

#[tokio::test]
async fn what_a_scenario_logs_is_published_before_its_end_and_keeps_nobody_waiting() {
    let world = World::start(|_| {}).await;
    let well = || world.clip(json!({"frames": 10, "hooks": {"3": null, "5": null}}));
    let (before, after) = (well(), well());
    world.bus.set_down(Topic::ScenarioLogs, true);
    world.deploy(&before, 1).await;
    world.phase(&before, 1, P::Finished).await;
    assert_eq!((world.frames(&before), world.logged(&before)), (numbers(10), vec![]));

    world.bus.set_down(Topic::ScenarioLogs, false);
    world.deploy(&after, 1).await;
    let crashing = world.clip(json!({"frames": 10, "crash_at": [5]}));
    world.deploy(&crashing, 1).await;
    for clip in [&after, &crashing] {
        world.phase(clip, 1, P::Finished).await;
    }
    let logged = world.logged(&after);
    assert!(logged.iter().all(|(number, line)| (&*line.plugin, &*line.message) == ("p@1", "unwell") && *number < 2));
    assert_eq!(logged.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1]);
    let logged = world.logged(&crashing);
    assert_eq!((&*logged[0].1.plugin, &*logged[0].1.target, logged.len()), ("framehook", "worker", 1), "{logged:?}");
}

#[tokio::test]
async fn a_stop_is_idempotent_and_keeps_the_frames_in_flight() {
    let world = World::start(|_| {}).await;
    let clip = world.clip(json!({"frames": 20, "hold_at": 10}));
    world.deploy(&clip, 1).await;
    world.published(&clip, 1).await;
    world.stop(&clip, 1).await;
    world.stop(&clip, 1).await;
    let last = world.phase(&clip, 1, P::Stopped).await;
    assert_eq!(last.reason.unwrap().code, ReasonCode::StoppedByUser);
    assert_eq!((world.frames(&clip), last.progress.published), (numbers(10), position(9)));
    world.stop(&clip, 1).await;
    world.deploy(&clip, 1).await;
    world.deploy(&clip, 2).await;
    world.status(&clip, 2, |s| s.phase == P::Running).await;
    assert_eq!(clip.starts(), [0, 0]);
}

#[tokio::test]
async fn a_worker_that_will_not_stop_is_killed() {
    let world = World::start(|c| c.drain_deadline = Duration::from_secs(1)).await;
    let clip = world.clip(json!({"frames": 20, "hold_at": 10, "deaf": true}));
    world.deploy(&clip, 1).await;
    world.published(&clip, 10).await;
    world.stop(&clip, 1).await;
    world.phase(&clip, 1, P::Stopping).await;
    world.phase(&clip, 1, P::Stopped).await;
    assert!(is_gone(clip.pids()[0]));
    assert_eq!(world.frames(&clip), numbers(10));
}

#[tokio::test]
async fn a_generation_that_was_stopped_before_it_came_never_starts() {
    let world = World::start(|_| {}).await;
    let (clip, other) = (world.clip(json!({"frames": 5})), world.clip(json!({"frames": 5})));
    world.stop(&clip, 3).await;
    let tombstone = world.phase(&clip, 3, P::Stopped).await;
    assert_eq!(tombstone.progress.published, None);
    world.deploy(&clip, 3).await;
    world.deploy(&clip, 2).await;
    // Orders are taken one after the other, so once this has finished the others were looked at.
    world.deploy(&other, 1).await;
    world.phase(&other, 1, P::Finished).await;
    assert!(clip.starts().is_empty());
    world.deploy(&clip, 4).await;
    world.phase(&clip, 4, P::Finished).await;
    assert_eq!(world.frames(&clip), numbers(5));
}

#[tokio::test]
async fn a_newer_generation_replaces_an_older_one_and_never_the_other_way_round() {
    let world = World::start(|_| {}).await;
    let clip = world.clip(json!({"frames": 20, "hold_at": 10}));
    world.deploy(&clip, 2).await;
    world.published(&clip, 10).await;
    world.deploy(&clip, 1).await;
    world.stop(&clip, 1).await;
    let mut foreign = world.order(&clip, 9);
    foreign.incarnation = Incarnation::generate();
    world.send(Message::Deploy(Box::new(foreign))).await;
    world.deploy(&clip, 3).await;
    world.deploy(&clip, 5).await;
    world.published(&clip, 20).await;
    let generations: Vec<_> = world.results(&clip).iter().map(|p| p.generation).collect();
    assert_eq!((generations[0], generations[19]), (2, 5));
    assert!(is_gone(clip.pids()[0]), "the older worker went before the newer one began");
    assert!(world.history(&clip, 1).is_empty() && world.history(&clip, 9).is_empty());
    world.stop(&clip, 6).await;
    world.phase(&clip, 6, P::Stopped).await;
    eventually("the end of the older worker", || clip.pids().into_iter().all(is_gone)).await;
}

#[tokio::test]
async fn what_is_past_the_limit_waits_for_a_slot() {
    let labels = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
    let world = World::start(|c| (c.max_workers, c.labels) = (1, labels.clone())).await;
    let hold = || world.clip(json!({"frames": 20, "hold_at": 10}));
    let (first, second, third) = (hold(), hold(), hold());
    world.deploy(&first, 1).await;
    world.published(&first, 10).await;
    for clip in [&second, &third] {
        world.deploy(clip, 1).await;
        let waiting = world.phase(clip, 1, P::Starting).await;
        assert_eq!(waiting.reason.unwrap().code, ReasonCode::NoCapacity);
    }
    assert_eq!((world.last_heartbeat().capacity, world.last_heartbeat().labels), (1, labels));
    world.stop(&second, 1).await;
    world.phase(&second, 1, P::Stopped).await;
    assert!(third.starts().is_empty(), "started beside the first");
    world.stop(&first, 1).await;
    world.published(&third, 10).await;
    assert!(second.starts().is_empty());
}

#[tokio::test]
async fn workers_share_the_cores_and_get_what_another_leaves() {
    let world = World::start(|c| c.cores = 4).await;
    let hold = || world.clip(json!({"frames": 20, "hold_at": 10}));
    let (first, second, fixed) = (hold(), hold(), hold());
    let has = async |clip, lanes| drop(world.status(clip, 1, |s| s.progress.lanes == Some(lanes)).await);
    world.deploy(&first, 1).await;
    has(&first, 4).await;
    world.deploy(&second, 1).await;
    has(&second, 2).await;
    has(&first, 2).await;
    let mut order = world.order(&fixed, 1);
    order.scenario.lanes = Some(Lanes::Fixed(3));
    world.send(Message::Deploy(Box::new(order))).await;
    has(&fixed, 3).await;
    world.stop(&second, 1).await;
    world.stop(&fixed, 1).await;
    world
        .bus
        .wait("all cores for the one that is left", || (first.notes("lanes") == ["4", "2", "4"]).then_some(()))
        .await;
    assert_eq!((second.notes("lanes"), fixed.notes("lanes")), (vec!["2".to_owned()], vec!["3".to_owned()]));
}

#[tokio::test]
async fn what_runs_out_of_memory_with_more_lanes_goes_on_with_one() {
    let world = World::start(|c| c.cores = 2).await;
    let clip = world.clip(json!({"frames": 9, "lanes_out_of_memory": 5}));
    world.deploy(&clip, 1).await;
    let last = world.phase(&clip, 1, P::Finished).await;
    assert_eq!((world.frames(&clip), clip.starts(), last.attempt), (numbers(9), vec![0, 5], 0));
    assert_eq!((clip.notes("lanes"), last.progress.lanes), (vec!["2".to_owned(), "1".to_owned()], Some(1)));
}

#[tokio::test]
async fn what_needs_more_memory_than_is_left_waits_for_it() {
    let world = World::start(|c| c.memory_mib = Some(1000)).await;
    let hold = || world.clip(json!({"frames": 20, "hold_at": 10}));
    let (first, second) = (hold(), hold());
    for clip in [&first, &second] {
        let mut order = world.order(clip, 1);
        order.scenario.memory_mib = Some(600);
        world.send(Message::Deploy(Box::new(order))).await;
        world.status(clip, 1, |s| s.phase == P::Running || s.reason.is_some()).await;
    }
    assert_eq!(world.history(&second, 1).last().unwrap().reason.as_ref().unwrap().code, ReasonCode::NoCapacity);
    assert_eq!(world.last_heartbeat().memory_mib, Some(1000));
    world.published(&first, 10).await;
    assert!(second.starts().is_empty(), "started beside the first");
    assert_eq!(first.notes("limit"), [(600_u64 << 20).to_string()]);
    world.stop(&first, 1).await;
    world.published(&second, 10).await;
}

#[tokio::test]
async fn while_the_bus_is_away_workers_wait_and_nothing_is_lost() {
    let world = World::start(|c| c.frame_timeout = PATIENCE).await;
    // More than publisher and pipe can hold.
    let clip = world.clip(json!({"frames": 1500}));
    world.bus.set_down(Topic::Results, true);
    world.deploy(&clip, 1).await;
    // The sixth try comes 100 + 200 + 400 + 800 + 1600 ms after the first: long past the frame timeout.
    world.bus.wait("refusals", || (world.bus.refused() >= 6).then_some(())).await;
    assert!(!clip.is_done(), "the worker was not held back");
    assert_eq!(world.history(&clip, 1).last().unwrap().progress.published, None);
    world.bus.set_down(Topic::Results, false);
    world.phase(&clip, 1, P::Finished).await;
    assert_eq!((world.frames(&clip), clip.starts()), (numbers(1500), vec![0]));
    assert!(world.history(&clip, 1).iter().all(|s| s.phase != P::Recovering));
}

#[tokio::test]
async fn a_crash_while_the_bus_is_away_repeats_no_frame() {
    let world = World::start(|_| {}).await;
    let clip = world.clip(json!({"frames": 40, "crash_at": [30]}));
    world.bus.set_down(Topic::Results, true);
    world.deploy(&clip, 1).await;
    world.phase(&clip, 1, P::Recovering).await;
    world.bus.set_down(Topic::Results, false);
    world.phase(&clip, 1, P::Finished).await;
    assert_eq!((world.frames(&clip), clip.starts()), (numbers(40), vec![0, 30]));
}

#[tokio::test]
async fn it_knows_whether_its_last_word_was_heard() {
    for (down, expected) in [(false, LastWord::Heard), (true, LastWord::Lost)] {
        let world = World::start(|_| {}).await;
        world.bus.set_down(Topic::RunnerStatus, down);
        assert_eq!(world.shut_down().await, expected);
    }
}

#[tokio::test]
async fn cancelled_it_drains_says_so_and_leaves_nothing_behind() {
    let world = World::start(|c| {
        c.drain_deadline = Duration::from_millis(500);
        c.max_workers = 2;
    })
    .await;
    let willing = world.clip(json!({"frames": 20, "hold_at": 10}));
    let deaf = world.clip(json!({"frames": 20, "hold_at": 10, "deaf": true}));
    let waiting = world.clip(json!({"frames": 20}));
    for clip in [&willing, &deaf] {
        world.deploy(clip, 1).await;
        world.published(clip, 10).await;
    }
    world.deploy(&waiting, 1).await;
    world.phase(&waiting, 1, P::Starting).await;
    world.shut_down().await;
    let last = world.last_heartbeat();
    assert!(last.draining);
    assert_eq!(last.workers.len(), 3);
    for worker in &last.workers {
        assert_eq!(worker.phase, P::Stopped);
        assert_eq!(worker.reason.as_ref().unwrap().code, ReasonCode::LeaseLost);
    }
    assert!([&willing, &deaf].iter().all(|c| c.pids().into_iter().all(is_gone)));
    assert_eq!(world.frames(&willing), numbers(10));
    assert!(waiting.starts().is_empty());
}

#[tokio::test]
async fn cancelled_without_a_bus_it_ends_all_the_same() {
    let world = World::start(|c| c.drain_deadline = Duration::from_millis(100)).await;
    let clip = world.clip(json!({"frames": 20, "hold_at": 10}));
    world.bus.set_down(Topic::Results, true);
    world.deploy(&clip, 1).await;
    world.bus.wait("a refusal", || (world.bus.refused() > 0).then_some(())).await;
    world.bus.set_down(Topic::RunnerStatus, true);
    world.shut_down().await;
    assert!(clip.pids().into_iter().all(is_gone));
}

#[tokio::test]
async fn dropped_it_kills_its_workers() {
    let world = World::start(|_| {}).await;
    let clip = world.clip(json!({"frames": 20, "hold_at": 10, "deaf": true}));
    world.deploy(&clip, 1).await;
    world.published(&clip, 10).await;
    world.runner.lock().unwrap().take().unwrap().abort();
    eventually("the worker's end", || is_gone(clip.pids()[0])).await;
}

#[tokio::test]
async fn what_cannot_be_prepared_fails_with_its_reason() {
    let world = World::start(|_| {}).await;
    let clip = || world.clip(json!({"frames": 5}));
    let [no_blob, outside, refused] = [clip(), clip(), clip()];

    let mut order = world.order(&no_blob, 1);
    order.scenario.model.digest = framehook_core::ids::Digest::from_bytes(&[7; 32]);
    world.send(Message::Deploy(Box::new(order))).await;
    let mut order = world.order(&outside, 1);
    order.scenario.source = framehook_core::spec::ResolvedSource::File("/etc/hostname".into());
    world.send(Message::Deploy(Box::new(order))).await;
    world.deploy_with_plugin(&refused, "bad").await;

    for (clip, code, words) in [
        (&no_blob, ReasonCode::BlobUnavailable, "the model m (sha256:0707"),
        (&outside, ReasonCode::SourceUnreachable, "/etc/hostname is outside the folders that its runner may read"),
        (&refused, ReasonCode::PluginIncompatible, "bad@1 could not be compiled: error: it imports `wasi:sockets`"),
    ] {
        let reason = world.phase(clip, 1, P::Failed).await.reason.unwrap();
        assert_eq!(reason.code, code);
        assert!(reason.message.contains(words), "{}", reason.message);
        assert!(clip.starts().is_empty());
    }
    assert_eq!(world.files_in_cache(), ["compilations"]);
}

#[tokio::test]
async fn a_compiler_that_hangs_is_killed() {
    let world = World::start_compiling(PATIENCE, |_| {}).await;
    let clip = world.clip(json!({"frames": 5}));
    world.deploy_with_plugin(&clip, "hang").await;
    let reason = world.phase(&clip, 1, P::Failed).await.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::PluginIncompatible);
    assert!(reason.message.contains("it took longer than 2s"), "{}", reason.message);
    for line in world.compilations() {
        let pid = line.split(' ').next().unwrap().parse().unwrap();
        eventually("the end of the compiler", || is_gone(pid)).await;
    }
    // A script that never came to write its line is possible on a busy machine; a file left half done is not.
    assert!(world.files_in_cache().iter().all(|file| file == "compilations"));
}

#[tokio::test]
async fn a_plugin_is_compiled_once_for_all() {
    let world = World::start(|c| c.max_workers = 3).await;
    let clips: Vec<_> = (0..3).map(|_| world.clip(json!({"frames": 5}))).collect();
    for clip in &clips {
        world.deploy_with_plugin(clip, "good").await;
    }
    for clip in &clips {
        world.phase(clip, 1, P::Finished).await;
        assert_eq!(clip.notes("hook"), [r#"good GOOD {"answer": 42}"#]);
        assert_eq!(world.results(clip)[0].provenance.plugins[0].name, "good");
    }
    assert_eq!(world.compilations().len(), 1);
}

/// A world whose worker has a name of its own, so that its processes can be told from those of other tests;
/// and its pre-warmed worker.
async fn with_prewarmed() -> (World, PathBuf, u32) {
    let mut script = PathBuf::new();
    let world = World::start(|config| {
        script = config.recordings_dir.with_file_name("worker.py");
        for name in ["worker.py", "worker.py-opencv"] {
            std::os::unix::fs::symlink(&config.worker, script.with_file_name(name)).unwrap();
        }
        config.worker.clone_from(&script);
    })
    .await;
    let prewarmed = prewarmed_beside(&script, &[]).await;
    (world, script, prewarmed)
}

/// Waits until `script` has one process besides `others`; where `python3` is a script of its own, it has
/// helpers first.
async fn prewarmed_beside(script: &Path, others: &[u32]) -> u32 {
    let mut found = Vec::new();
    eventually("one pre-warmed worker", || {
        found = processes_of(script).into_iter().filter(|pid| !others.contains(pid)).collect();
        found.len() == 1
    })
    .await;
    found[0]
}

#[tokio::test]
async fn a_prewarmed_worker_takes_the_job_and_is_replaced() {
    let (world, script, prewarmed) = with_prewarmed().await;
    assert!(world.last_heartbeat().workers.is_empty());
    let held = || world.clip(json!({"frames": 20, "hold_at": 10}));
    let (first, second) = (held(), held());
    world.deploy(&first, 1).await;
    world.published(&first, 10).await;
    assert_eq!(first.pids(), [prewarmed]);
    let next = prewarmed_beside(&script, &[prewarmed]).await;
    world.deploy(&second, 1).await;
    world.published(&second, 10).await;
    assert_eq!(second.pids(), [next]);
    let last = prewarmed_beside(&script, &[prewarmed, next]).await;
    world.shut_down().await;
    assert!([prewarmed, next].into_iter().all(is_gone));
    eventually("the end of the last pre-warmed worker", || is_gone(last)).await;
}

#[tokio::test]
async fn a_prewarmed_worker_that_died_costs_nothing() {
    let (world, script, prewarmed) = with_prewarmed().await;
    kill_process(Pid::from_raw(prewarmed.cast_signed()).unwrap(), Signal::KILL).unwrap();
    eventually("its end", || is_gone(prewarmed)).await;
    let clip = world.clip(json!({"frames": 20}));
    world.deploy(&clip, 1).await;
    let last = world.phase(&clip, 1, P::Finished).await;
    assert_eq!((last.attempt, clip.starts()), (0, vec![0]));
    assert!(world.history(&clip, 1).iter().all(|status| status.phase != P::Recovering));
    let next = prewarmed_beside(&script, &clip.pids()).await;
    world.runner.lock().unwrap().take().unwrap().abort();
    eventually("the end of the prewarmed", || is_gone(next)).await;
}
