//! Blobs on a disk that is full.

use framehook_tests::disk::SmallDisk;

use super::*;

/// Room for one [`large`] blob, and not for two.
const DISK: u64 = 64 << 20;

/// More than is kept in any case, so that it is this one that is seen.
const RESERVE: u64 = 16 << 20;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(framehook_tests::DEADLINE, test).await.expect("in time") });
}

#[test]
fn a_full_shared_folder_loses_nothing_and_goes_on_when_there_is_room() {
    let name = "blobs::tests::full::a_full_shared_folder_loses_nothing_and_goes_on_when_there_is_room";
    let Some(disk) = SmallDisk::of(name, DISK, &[]) else { return };
    run(async {
        let place = tempfile::tempdir_in(&disk.folder).unwrap();
        let world = World { place, shared: Some(Kind::Folder) };
        let (one, two) = (world.process().await, world.process().await);
        let kept = commit(&one.blobs, b"kept").await;
        // At once, and after some parts of a large one.
        for room in [0, 20 << 20] {
            disk.fill_but(room);
            for bytes in [&b"kept"[..], b"new", &large()] {
                if bytes.len() as u64 <= room {
                    continue;
                }
                let outcome = one.blobs.commit(stage(&one.blobs, bytes).await).await;
                assert!(matches!(outcome, Err(BlobError::Full)), "{} bytes: {outcome:?}", bytes.len());
                // Another thread removes the parts of a large one.
                while crate::blobs::folder::files(&world.root().join("sha256")).unwrap() != [world.original(&kept)] {
                    tokio::task::yield_now().await;
                }
                assert_eq!(leftovers(&one.blobs), 0);
            }
        }
        assert_eq!(read(&two.blobs, &kept).await, b"kept");
        disk.empty();
        for bytes in [&b"new"[..], &large()] {
            let digest = commit(&one.blobs, bytes).await;
            assert!(read(&two.blobs, &digest).await == bytes);
        }
    });
}

#[test]
fn a_shared_folder_keeps_the_reserve() {
    let name = "blobs::tests::full::a_shared_folder_keeps_the_reserve";
    let Some(disk) = SmallDisk::of(name, DISK, &[]) else { return };
    run(async {
        let place = tempfile::tempdir_in(&disk.folder).unwrap();
        let world = World { place, shared: Some(Kind::Folder) };
        let (data, reader) = (tempfile::tempdir().unwrap(), world.process().await);
        let blobs = world.open_with(data.path(), u64::MAX, Reserve::Bytes(RESERVE)).await.unwrap();
        let kept = commit(&blobs, b"kept").await;
        disk.fill_but(RESERVE + (4 << 20));
        // Within a second of a look at the disk its numbers are those from before.
        let shortage = loop {
            match blobs.commit(stage(&blobs, &large()).await).await {
                Err(BlobError::Short(shortage)) => break shortage,
                Err(BlobError::Full) => {}
                outcome => panic!("it would leave less than stays free: {outcome:?}"),
            }
        };
        assert_eq!(shortage.reserve, RESERVE);
        commit(&blobs, b"small").await;

        disk.fill_but(RESERVE - (4 << 20));
        while let Ok(upload) = blobs.begin(CAP).await {
            drop(upload);
            tokio::task::yield_now().await;
        }
        let outcome = blobs.begin(CAP).await;
        assert!(matches!(outcome, Err(BlobError::Short(_))), "{outcome:?}");
        assert_eq!(leftovers(&blobs), 0);
        // Nothing is taken in by reading, nor by deleting.
        assert_eq!(read(&reader.blobs, &kept).await, b"kept");
        blobs.remove(&kept).await.unwrap();
        assert_eq!(read(&blobs, &kept).await, b"kept");
        disk.empty();
        commit(&blobs, &large()).await;
    });
}

#[test]
fn a_cache_on_a_full_disk_gives_way_to_what_is_needed() {
    let name = "blobs::tests::full::a_cache_on_a_full_disk_gives_way_to_what_is_needed";
    let Some(disk) = SmallDisk::of(name, DISK, &[]) else { return };
    run(async {
        let world = World::shared_folder();
        let one = world.process().await;
        let (first, second) = (commit(&one.blobs, &large()).await, commit(&one.blobs, &large()[1..]).await);
        let data = tempfile::tempdir_in(&disk.folder).unwrap();
        let two = world.open(data.path(), u64::MAX).await.unwrap();
        read(&two, &first).await;
        let outcome = two.verified(&second).await;
        assert!(matches!(outcome, Err(BlobError::Full)), "what is there is in use: {outcome:?}");
        assert_eq!(leftovers(&two), 0);
        assert!(two.path(&first).exists());
        two.inner.folder.last_used(&first, IN_USE * 2);
        assert!(read(&two, &second).await == large()[1..]);
        assert!(!two.path(&first).exists());
    });
}
