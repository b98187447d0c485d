//! The disk: how much of it is taken, what happens when it is full, and that the way back leads through the
//! API alone.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use framehook_tests::{
    DEADLINE, asset,
    client::{Answer, light_scenario, slow_scenario},
    disk::SmallDisk,
    platform::{Platform, patient},
    wait_for,
};
use serde_json::{Value, json};

/// Large enough for the demo and its write-ahead log, and small enough to be filled within a second.
const DISK: u64 = 64 << 20;

const FRAMES: u64 = 500;

#[track_caller]
fn assert_short(answer: &Answer) {
    assert_eq!((answer.status, &answer.body["code"]), (507, &json!("storage_full")), "{answer:?}");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("MiB of the disk are free") && detail.contains("disk_reserve_mib"), "{detail}");
}

/// A clip with a box of `mib` behind it that no decoder looks at.
fn padded_clip(mib: usize) -> Vec<u8> {
    let padding = [vec![fastrand::u8(..); mib << 20], fastrand::u64(..).to_le_bytes().to_vec()].concat();
    let length = u32::try_from(padding.len() + 8).unwrap().to_be_bytes();
    [&fs::read(asset("demo1.mp4")).unwrap()[..], &length, b"free", &padding].concat()
}

fn upload_video(platform: &Platform, name: &str, bytes: &[u8]) -> Answer {
    platform.post(&format!("/video?name={name}"), "application/octet-stream", bytes)
}

fn heartbeat(platform: &Platform) -> Value {
    platform.read("/runner/local")
}

/// The orchestrator records heartbeats, so it leads, and the runner's reach it.
fn is_well(platform: &Platform) {
    let before = heartbeat(platform);
    wait_for("the next heartbeat", DEADLINE, || {
        let now = heartbeat(platform);
        (now["seen_at"] != before["seen_at"] && now["alive"] == true).then_some(())
    });
}

#[test]
fn a_disk_full_of_uploads_is_left_by_deleting_one() {
    let name = "space::a_disk_full_of_uploads_is_left_by_deleting_one";
    let Some(disk) = SmallDisk::of(name, DISK, &[]) else { return };
    let platform = Platform::on(&disk.folder.join("data"), &[]);
    platform.upload_demo();
    let mut uploaded = 0;
    let refused = loop {
        let answer = upload_video(&platform, &format!("padded-{uploaded}"), &padded_clip(4));
        if answer.status != 201 {
            break answer;
        }
        uploaded += 1;
    };
    assert_short(&refused);
    // What is left is not enough for another of these, and is not touched by anything smaller.
    assert_short(&upload_video(&platform, "padded-more", &padded_clip(4)));
    is_well(&platform);

    // The rest, but for what stays free.
    let mut small = 0;
    while upload_video(&platform, &format!("small-{small}"), &padded_clip(0)).status == 201 {
        small += 1;
    }
    disk.fill_but(1 << 20);
    assert_short(&platform.post_json("/scenario/init", &light_scenario()));
    is_well(&platform);
    disk.empty();

    for name in ["padded-0", "padded-1"] {
        assert_eq!(platform.delete(&format!("/video/{name}/1")).status, 204);
    }
    let id = wait_for("a scenario to be taken again, without a restart", DEADLINE, || {
        let answer = platform.post_json("/scenario/init", &light_scenario());
        (answer.status == 200).then(|| answer.body["id"].as_str().unwrap().to_owned())
    });
    platform.completed(&id, FRAMES);
}

#[test]
fn results_wait_for_room_and_go_on_by_themselves() {
    let name = "space::results_wait_for_room_and_go_on_by_themselves";
    let Some(disk) = SmallDisk::of(name, DISK, &[]) else { return };
    let platform = Platform::on(&disk.folder.join("data"), &patient(&[]));
    platform.upload_demo();
    let id = platform.post_scenario(&slow_scenario(5));
    let deleted = platform.post_scenario(&slow_scenario(5));
    platform.wait_for_row(&id, 50);
    // Less than stays free, and enough for everything else.
    disk.fill_but(2 << 20);
    wait_for("results to wait", DEADLINE, || platform.log().contains("frames could not be published").then_some(()));
    is_well(&platform);
    assert_eq!(platform.scenario(&id)["state"], "running");
    assert_eq!(platform.delete(&format!("/scenario/{deleted}")).status, 204);
    wait_for("the other worker to end", DEADLINE, || (platform.workers().len() == 1).then_some(()));
    disk.empty();
    platform.completed(&id, FRAMES);
    assert_eq!(platform.delivery(&id).decoded, FRAMES);
}

#[test]
fn a_disk_without_a_byte_left_is_left_through_the_api() {
    let name = "space::a_disk_without_a_byte_left_is_left_through_the_api";
    let Some(disk) = SmallDisk::of(name, DISK, &[]) else { return };
    let platform = Platform::on(&disk.folder.join("data"), &patient(&[]));
    platform.upload_demo();
    let done = platform.post_scenario(&light_scenario());
    platform.completed(&done, FRAMES);
    assert_eq!(upload_video(&platform, "spare", &padded_clip(16)).status, 201);
    wait_for("room to be kept for deletions", DEADLINE, || platform.data().join("ballast").exists().then_some(()));
    let running = platform.post_scenario(&slow_scenario(5));
    platform.wait_for_row(&running, 50);

    disk.fill_but(0);
    wait_for("results to wait", DEADLINE, || platform.log().contains("frames could not be published").then_some(()));
    is_well(&platform);
    // The room that was given up may be all that stays free. Now it is taken, too, but for what two deletions
    // need.
    disk.fill_but(6 << 20);
    // A balancer goes on sending those who delete.
    let why = platform.read("/readyz")["disk"].take();
    assert!(why.as_str().is_some_and(|why| why.contains("MiB of the disk are free")), "{why}");
    for id in [&running, &done] {
        assert_eq!(platform.delete(&format!("/scenario/{id}")).status, 204);
        assert_eq!(platform.delete(&format!("/scenario/{id}")).status, 204, "again");
    }
    wait_for("the worker to end", DEADLINE, || platform.workers().is_empty().then_some(()));
    // What the deletions live on is not for anything new.
    assert_short(&platform.post_json("/scenario/init", &light_scenario()));
    assert_eq!(platform.delete("/video/spare/1").status, 204);
    let id = wait_for("a scenario to be taken again", DEADLINE, || {
        let answer = platform.post_json("/scenario/init", &light_scenario());
        (answer.status == 200).then(|| answer.body["id"].as_str().unwrap().to_owned())
    });
    platform.completed(&id, FRAMES);
    is_well(&platform);
    assert_eq!(platform.read("/readyz")["disk"], Value::Null);
}

#[test]
fn what_is_deleted_is_given_back_to_the_disk() {
    let platform = Platform::with_demo(&[]);
    let file = platform.data().join("framehook.db");
    let size = || fs::metadata(&file).unwrap().len();
    let ids: Vec<_> = (0..16).map(|_| platform.post_scenario(&light_scenario())).collect();
    for id in &ids {
        platform.completed(id, FRAMES);
    }
    let full = size();
    assert!(full > 4 << 20, "{full} bytes are too few to show anything");
    for id in &ids {
        assert_eq!(platform.delete(&format!("/scenario/{id}")).status, 204);
    }
    wait_for("the database to be small again", DEADLINE, || (size() <= 2 << 20).then_some(()));
    println!("{full} bytes with 8,000 rows, {} without", size());
    wait_for("ended workers to be forgotten", Duration::from_secs(10), || {
        heartbeat(&platform)["workers"].as_array().unwrap().is_empty().then_some(())
    });
}

#[test]
fn the_data_folder_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut platform = Platform::on(&data, &[]);
    let database = data.join("framehook.db");
    assert_eq!((mode(&data), mode(&database), mode(&data.join("framehook.db-wal"))), (0o700, 0o600, 0o600));
    assert_eq!(platform.interrupt(), Some(0));
    // As an earlier release left them.
    for (path, open) in [(&data, 0o755), (&database, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(open)).unwrap();
    }
    platform.up();
    assert_eq!((mode(&data), mode(&database)), (0o700, 0o600));
    assert_eq!(platform.log().matches("was open to other users").count(), 2, "{}", platform.log());
}
