//! What blobs promise, on each kind of store there is: the folder alone, and in front of a shared folder and
//! of a real S3 server.

mod full;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use framehook_core::ids::Digest;
use framehook_tests::servers::{S3, free_port};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;

/// Limit of the uploads in these tests.
const CAP: u64 = 64 << 20;

/// Where the processes of a deployment keep their blobs.
struct World {
    place: TempDir,
    shared: Option<Kind>,
}

enum Kind {
    Folder,
    S3(S3),
}

/// A process of its own, as far as its folder goes.
struct Process {
    data: TempDir,
    blobs: Blobs,
}

impl World {
    fn new(shared: Option<Kind>) -> Self {
        Self { place: tempfile::tempdir().unwrap(), shared }
    }

    fn folder() -> Self {
        Self::new(None)
    }

    fn shared_folder() -> Self {
        Self::new(Some(Kind::Folder))
    }

    fn s3() -> Self {
        Self::new(Some(Kind::S3(S3::start())))
    }

    async fn process(&self) -> Process {
        self.process_with_cache(u64::MAX).await
    }

    async fn process_with_cache(&self, cache_bytes: u64) -> Process {
        let data = tempfile::tempdir().unwrap();
        let blobs = self.open(data.path(), cache_bytes).await.unwrap();
        Process { data, blobs }
    }

    async fn open(&self, data: &Path, cache_bytes: u64) -> Result<Blobs> {
        self.open_with(data, cache_bytes, Reserve::NONE).await
    }

    async fn open_with(&self, data: &Path, cache_bytes: u64, reserve: Reserve) -> Result<Blobs> {
        let (url, environment) = match &self.shared {
            None => return Blobs::open(data, None, reserve).await,
            Some(Kind::Folder) => (format!("file://{}", self.root().display()), vec![]),
            Some(Kind::S3(s3)) => (format!("s3://{}/some/prefix", S3::BUCKET), s3.environment()),
        };
        Blobs::open_in(data, Some(Shared { url, cache_bytes }), reserve, environment).await
    }

    fn root(&self) -> PathBuf {
        match &self.shared {
            Some(Kind::S3(s3)) => s3.bucket().join("some/prefix"),
            _ => self.place.path().join("made/if/missing"),
        }
    }

    /// The file of the shared store that holds a blob.
    fn original(&self, digest: &Digest) -> PathBuf {
        self.root().join(PathBuf::from_iter(place(digest)))
    }

    fn goes_away(&mut self) {
        match &mut self.shared {
            Some(Kind::S3(s3)) => s3.kill(),
            _ => {
                let root = self.root();
                fs::rename(&root, self.place.path().join("away")).unwrap();
                // As a file system that answers with errors.
                fs::write(&root, "").unwrap();
            }
        }
    }

    fn comes_back(&mut self) {
        match &mut self.shared {
            Some(Kind::S3(s3)) => s3.start_again(),
            _ => {
                let root = self.root();
                fs::remove_file(&root).unwrap();
                fs::rename(self.place.path().join("away"), root).unwrap();
            }
        }
    }
}

/// Each named check, a function of a [`World`], in a world of its own.
macro_rules! suite {
    ($world:ident: $($check:ident),+ $(,)?) => {
        mod $world {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let world = super::World::$world();
                tokio::time::timeout(framehook_tests::DEADLINE, super::$check(world)).await.expect("in time");
            })+
        }
    };
    (each of $($world:ident),+: $checks:tt) => {
        $(suite! { @ $world $checks })+
    };
    (@ $world:ident { $($check:ident),+ $(,)? }) => {
        suite! { $world: $($check),+ }
    };
}

suite! { folder:
    a_blob_is_found_under_its_digest,
    the_known_digest_of_nothing,
    the_cap_counts_every_byte_and_leaves_nothing,
    what_a_killed_process_left_is_removed,
    a_full_disk_is_an_error_of_its_own,
    a_folder_has_one_process,
    what_nothing_names_is_swept_once_it_is_old,
    damage_is_noticed_even_after_a_first_check,
}

suite! { each of shared_folder, s3: {
    a_blob_is_found_under_its_digest,
    the_known_digest_of_nothing,
    the_cap_counts_every_byte_and_leaves_nothing,
    what_a_killed_process_left_is_removed,
    a_full_disk_is_an_error_of_its_own,
    a_folder_has_one_process,
    what_nothing_names_is_swept_once_it_is_old,
    what_one_process_stores_another_fetches,
    many_that_lack_a_blob_fetch_it_once,
    a_damaged_copy_is_fetched_again,
    a_damaged_original_is_never_used_and_another_upload_mends_it,
    a_lost_original_is_missing,
    what_is_removed_here_stays_for_the_others,
    a_store_that_is_away_is_unavailable_and_comes_back,
    the_cache_loses_nothing_in_use,
    the_cache_loses_what_was_used_longest_ago,
    a_cache_is_kept_over_a_restart,
} }

async fn stage(blobs: &Blobs, bytes: &[u8]) -> Staged {
    let mut upload = blobs.begin(CAP).await.unwrap();
    for chunk in bytes.chunks(100_000) {
        upload.write(chunk).await.unwrap();
    }
    upload.finish().await.unwrap()
}

async fn commit(blobs: &Blobs, bytes: &[u8]) -> Digest {
    blobs.commit(stage(blobs, bytes).await).await.unwrap()
}

async fn read(blobs: &Blobs, digest: &Digest) -> Vec<u8> {
    fs::read(blobs.verified(digest).await.unwrap()).unwrap()
}

fn leftovers(blobs: &Blobs) -> usize {
    fs::read_dir(&blobs.inner.folder.temporary).unwrap().count()
}

fn make_older(path: &Path, by: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

/// More than the parts that are on their way at once.
fn large() -> Vec<u8> {
    (0..10_000_000u32).flat_map(u32::to_le_bytes).collect()
}

async fn a_blob_is_found_under_its_digest(world: World) {
    let Process { data, blobs } = world.process().await;
    let staged = stage(&blobs, &[7; 12_345]).await;
    assert_eq!((staged.size, fs::read(&staged.path).unwrap().len()), (12_345, 12_345));
    let digest = blobs.commit(staged).await.unwrap();
    assert_eq!(digest, Digest::from_bytes(&Sha256::digest([7; 12_345]).into()));
    assert_eq!(blobs.verified(&digest).await.unwrap(), blobs.path(&digest));
    assert_eq!(commit(&blobs, &[7; 12_345]).await, digest);
    assert_eq!(leftovers(&blobs), 0);
    drop(blobs);

    let again = world.open(data.path(), u64::MAX).await.unwrap();
    assert_eq!(read(&again, &digest).await, [7; 12_345]);
    for _ in 0..2 {
        again.remove(&digest).await.unwrap();
    }
    assert!(!again.path(&digest).exists());
    let never = Digest::from_bytes(&[1; 32]);
    assert!(matches!(again.verified(&never).await, Err(BlobError::Missing(d)) if d == never));
    if world.shared.is_none() {
        assert!(matches!(again.verified(&digest).await, Err(BlobError::Missing(d)) if d == digest));
    }
}

async fn the_known_digest_of_nothing(world: World) {
    let (one, two) = (world.process().await, world.process().await);
    let digest = commit(&one.blobs, b"").await;
    assert_eq!(digest.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let reader = if world.shared.is_some() { &two.blobs } else { &one.blobs };
    assert_eq!(read(reader, &digest).await, b"");
}

async fn the_cap_counts_every_byte_and_leaves_nothing(world: World) {
    let Process { data: _data, blobs } = world.process().await;
    let mut upload = blobs.begin(10).await.unwrap();
    upload.write(&[0; 10]).await.unwrap();
    assert!(matches!(upload.write(&[0]).await, Err(BlobError::TooLarge { cap: 10 })));
    drop(upload);
    let staged = stage(&blobs, b"never committed").await;
    let digest = staged.digest.clone();
    drop(staged);
    assert_eq!(leftovers(&blobs), 0);
    assert!(matches!(blobs.verified(&digest).await, Err(BlobError::Missing(_))));
    assert!(!world.original(&digest).exists());
}

async fn what_a_killed_process_left_is_removed(world: World) {
    let Process { data, blobs } = world.process().await;
    std::mem::forget(stage(&blobs, b"killed here").await);
    assert_eq!(leftovers(&blobs), 1);
    drop(blobs);
    assert_eq!(leftovers(&world.open(data.path(), u64::MAX).await.unwrap()), 0);
}

async fn a_full_disk_is_an_error_of_its_own(world: World) {
    let Process { data: _data, blobs } = world.process().await;
    let mut upload = blobs.begin(CAP).await.unwrap();
    // Every write to this device fails as on a full disk.
    upload.file = tokio::fs::File::options().write(true).open("/dev/full").await.unwrap();
    let written = upload.write(b"more").await;
    let outcome = if written.is_err() { written } else { upload.finish().await.map(drop) };
    assert!(matches!(outcome, Err(BlobError::Full)), "{outcome:?}");
}

async fn a_folder_has_one_process(world: World) {
    let Process { data, blobs } = world.process().await;
    let second = world.open(data.path(), u64::MAX).await.unwrap_err();
    assert!(matches!(second, BlobError::InUse { .. }), "{second:?}");
    let message = second.to_string();
    assert!(message.contains(&*data.path().join("blobs").to_string_lossy()) && message.contains("of its own"));
    drop(blobs);
    world.open(data.path(), u64::MAX).await.unwrap();
}

async fn what_nothing_names_is_swept_once_it_is_old(world: World) {
    let Process { data, blobs } = world.process().await;
    let mut digests = Vec::new();
    for n in 0..4 {
        digests.push(commit(&blobs, &[n; 10]).await);
    }
    let [live, dead, young, wanted_again] = &digests[..] else { unreachable!() };
    let originals = |digest: &Digest| match world.shared {
        None => vec![blobs.path(digest)],
        Some(_) => vec![blobs.path(digest), world.original(digest)],
    };
    for digest in [live, dead, wanted_again] {
        originals(digest).iter().for_each(|path| make_older(path, YOUNG * 2));
    }
    let paths: Vec<_> = digests.iter().map(originals).collect();
    // What another process left: this one does not know how old the blobs are, but by their files.
    drop(blobs);
    let blobs = world.open(data.path(), u64::MAX).await.unwrap();
    assert_eq!(commit(&blobs, &[3; 10]).await, *wanted_again);
    blobs.sweep(std::slice::from_ref(live)).await.unwrap();
    let there = |paths: &Vec<PathBuf>| paths.iter().map(|path| path.exists()).collect::<Vec<_>>();
    for (paths, stays) in paths.iter().zip([true, false, true, true]) {
        assert_eq!(there(paths), vec![stays; paths.len()], "{paths:?}");
    }
    assert!(matches!(blobs.verified(dead).await, Err(BlobError::Missing(_))));
    blobs.sweep(&[]).await.unwrap();
    assert!(matches!(blobs.verified(live).await, Err(BlobError::Missing(_))), "its last name is gone");
    assert_eq!(read(&blobs, young).await, [2; 10]);
}

async fn damage_is_noticed_even_after_a_first_check(world: World) {
    let Process { data, blobs } = world.process().await;
    let digest = commit(&blobs, b"whole").await;
    blobs.verified(&digest).await.unwrap();
    for damage in [&b"hol"[..], b"whole and more"] {
        fs::write(blobs.path(&digest), damage).unwrap();
        assert!(matches!(blobs.verified(&digest).await, Err(BlobError::Damaged(d)) if d == digest));
    }
    // The same length: the first look of another process reads the bytes.
    fs::write(blobs.path(&digest), b"holes").unwrap();
    drop(blobs);
    let other = world.open(data.path(), u64::MAX).await.unwrap();
    assert!(matches!(other.verified(&digest).await, Err(BlobError::Damaged(_))));
    commit(&other, b"whole").await;
    assert_eq!(read(&other, &digest).await, b"whole");
}

async fn what_one_process_stores_another_fetches(world: World) {
    let (one, two) = (world.process().await, world.process().await);
    for bytes in [b"small".to_vec(), large()] {
        let digest = commit(&one.blobs, &bytes).await;
        assert!(!two.blobs.path(&digest).exists());
        assert!(read(&two.blobs, &digest).await == bytes);
        assert!(fs::read(world.original(&digest)).unwrap() == bytes);
    }
    assert_eq!((leftovers(&one.blobs), leftovers(&two.blobs)), (0, 0));
}

async fn many_that_lack_a_blob_fetch_it_once(world: World) {
    let (one, two) = (world.process().await, world.process().await);
    let digest = commit(&one.blobs, &large()).await;
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let (blobs, digest) = (two.blobs.clone(), digest.clone());
            tokio::spawn(async move { blobs.verified(&digest).await })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().unwrap(), two.blobs.path(&digest));
    }
    assert_eq!(two.blobs.inner.fetches.load(Ordering::Relaxed), 1);
    assert_eq!(one.blobs.inner.fetches.load(Ordering::Relaxed), 0);
}

async fn a_damaged_copy_is_fetched_again(world: World) {
    let Process { data: _data, blobs } = world.process().await;
    let digest = commit(&blobs, b"whole").await;
    for damage in [&b"hol"[..], b"whole and more"] {
        fs::write(blobs.path(&digest), damage).unwrap();
        assert_eq!(read(&blobs, &digest).await, b"whole");
    }
}

async fn a_damaged_original_is_never_used_and_another_upload_mends_it(world: World) {
    let (one, two) = (world.process().await, world.process().await);
    let digest = commit(&one.blobs, b"whole").await;
    for damage in [&b"hol"[..], b"holes", b""] {
        fs::write(world.original(&digest), damage).unwrap();
        let outcome = two.blobs.verified(&digest).await;
        assert!(matches!(&outcome, Err(BlobError::Damaged(d)) if *d == digest), "{damage:?}: {outcome:?}");
        assert!(!two.blobs.path(&digest).exists());
        assert_eq!(leftovers(&two.blobs), 0);
    }
    assert_eq!(read(&one.blobs, &digest).await, b"whole", "the copy is none the worse");
    commit(&one.blobs, b"whole").await;
    assert_eq!(read(&two.blobs, &digest).await, b"whole");
}

async fn a_lost_original_is_missing(world: World) {
    let (one, two) = (world.process().await, world.process().await);
    let digest = commit(&one.blobs, b"here").await;
    fs::remove_file(world.original(&digest)).unwrap();
    assert!(matches!(two.blobs.verified(&digest).await, Err(BlobError::Missing(d)) if d == digest));
    assert_eq!(leftovers(&two.blobs), 0);
}

async fn what_is_removed_here_stays_for_the_others(world: World) {
    let (one, two) = (world.process().await, world.process().await);
    let digest = commit(&one.blobs, b"here").await;
    one.blobs.remove(&digest).await.unwrap();
    assert!(!one.blobs.path(&digest).exists());
    assert_eq!(read(&two.blobs, &digest).await, b"here");
    make_older(&world.original(&digest), YOUNG * 2);
    one.blobs.sweep(&[]).await.unwrap();
    assert!(!world.original(&digest).exists());
}

async fn a_store_that_is_away_is_unavailable_and_comes_back(mut world: World) {
    let (one, two) = (world.process().await, world.process().await);
    let digest = commit(&one.blobs, b"here").await;
    world.goes_away();
    let new = stage(&one.blobs, b"new").await;
    let new_digest = new.digest.clone();
    let (fetched, stored, swept) =
        tokio::join!(two.blobs.verified(&digest), one.blobs.commit(new), one.blobs.sweep(&[]));
    for error in [fetched.unwrap_err(), stored.unwrap_err(), swept.unwrap_err()] {
        assert!(matches!(error, BlobError::Unavailable(_)), "{error:?}");
    }
    assert!(!one.blobs.path(&new_digest).exists(), "what the others cannot have has no place here either");
    assert_eq!((leftovers(&one.blobs), leftovers(&two.blobs)), (0, 0));
    assert_eq!(read(&one.blobs, &digest).await, b"here", "a copy needs nobody");
    world.comes_back();
    assert_eq!(read(&two.blobs, &digest).await, b"here");
    commit(&one.blobs, b"new").await;
    assert_eq!(read(&two.blobs, &new_digest).await, b"new");
}

async fn the_cache_loses_nothing_in_use(world: World) {
    let (one, two) = (world.process().await, world.process_with_cache(2500).await);
    let mut digests = Vec::new();
    for n in 0..5 {
        digests.push(commit(&one.blobs, &[n; 1000]).await);
    }
    let blobs = &two.blobs;
    for digest in &digests[..3] {
        read(blobs, digest).await;
    }
    let kept = || digests.iter().map(|digest| blobs.path(digest).exists()).collect::<Vec<_>>();
    assert_eq!(kept(), [true, true, true, false, false], "over the bound, but all of it is in use");

    for (digest, ago) in digests[..3].iter().zip([IN_USE * 2, IN_USE * 3, IN_USE * 2]) {
        blobs.inner.folder.last_used(digest, ago);
    }
    // Asking is using, whether or not a file is read for it.
    read(blobs, &digests[2]).await;
    read(blobs, &digests[3]).await;
    assert_eq!(kept(), [false, false, true, true, false]);
    read(blobs, &digests[1]).await;
    assert_eq!(kept(), [false, true, true, true, false], "over the bound again, all of it in use");

    blobs.inner.folder.last_used(&digests[1], IN_USE * 2);
    blobs.inner.folder.last_used(&digests[2], IN_USE * 3);
    // An upload takes room too, and one that has room takes nobody's.
    commit(blobs, &[4; 1000]).await;
    assert_eq!(kept(), [false, false, false, true, true]);
    assert_eq!(commit(blobs, b"").await.hex().len(), 64);
    assert_eq!(kept(), [false, false, false, true, true]);
    for n in 0..5 {
        assert_eq!(read(&one.blobs, &digests[usize::from(n)]).await, [n; 1000], "the store keeps all of it");
    }
}

async fn the_cache_loses_what_was_used_longest_ago(world: World) {
    let one = world.process().await;
    let mut digests = Vec::new();
    for n in 0..4 {
        digests.push(commit(&one.blobs, &[n; 1000]).await);
    }
    for oldest in 0..3 {
        let Process { data: _data, blobs } = world.process_with_cache(3500).await;
        for (n, digest) in digests[..3].iter().enumerate() {
            read(&blobs, digest).await;
            blobs.inner.folder.last_used(digest, if n == oldest { IN_USE * 3 } else { IN_USE * 2 });
        }
        read(&blobs, &digests[3]).await;
        let lost: Vec<_> = (0..4).filter(|n| !blobs.path(&digests[*n]).exists()).collect();
        assert_eq!(lost, [oldest]);
    }
}

async fn a_cache_is_kept_over_a_restart(mut world: World) {
    let Process { data, blobs } = world.process().await;
    let digest = commit(&blobs, b"here").await;
    drop(blobs);
    let again = world.open(data.path(), u64::MAX).await.unwrap();
    world.goes_away();
    assert_eq!(read(&again, &digest).await, b"here");
}

#[tokio::test]
async fn parts_of_an_upload_to_a_folder_are_swept_once_they_are_old() {
    let world = World::shared_folder();
    let Process { data: _data, blobs } = world.process().await;
    let digest = commit(&blobs, b"whole").await;
    let beside = |suffix: &str| {
        let path = world.original(&digest).with_file_name(format!("{}{suffix}", digest.hex()));
        fs::write(&path, "part").unwrap();
        path
    };
    let (old, young, no_part) = (beside("#1"), beside("#2"), world.root().join("sha256/note#1"));
    fs::write(&no_part, "not ours").unwrap();
    for path in [&old, &no_part] {
        make_older(path, YOUNG * 2);
    }
    blobs.sweep(std::slice::from_ref(&digest)).await.unwrap();
    assert_eq!([&old, &young, &no_part].map(|path| path.exists()), [false, true, true]);
}

/// The way [`object_store`] names what is not complete is its own business: a version that does it otherwise
/// fails here.
#[tokio::test]
async fn an_upload_to_a_folder_that_is_cut_off_leaves_what_is_swept() {
    use tokio::io::AsyncWriteExt as _;
    let world = World::shared_folder();
    let Process { data: _data, blobs } = world.process().await;
    let digest = Digest::from_bytes(&[1; 32]);
    let remote = blobs.inner.remote.as_ref().unwrap();
    let mut writer = remote.writer(&digest);
    writer.write_all(&large()).await.unwrap();
    // As in a process that is killed: nothing of it runs any more.
    std::mem::forget(writer);
    let parts = || super::folder::files(&world.root().join("sha256")).unwrap();
    assert!(!world.original(&digest).exists());
    assert_eq!(parts().len(), 1, "{:?}", parts());
    let swept = async {
        while let [part] = &parts()[..] {
            // Until what was under way when it was killed is written: each write makes it young again.
            make_older(part, YOUNG * 2);
            blobs.sweep(&[]).await.unwrap();
        }
    };
    tokio::time::timeout(framehook_tests::DEADLINE, swept).await.expect("in time");
    assert_eq!(parts(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_store_in_the_data_folder_itself_is_not_shared() {
    let data = tempfile::tempdir().unwrap();
    for folder in [data.path().to_owned(), data.path().join("blobs")] {
        let shared = Shared { url: format!("file://{}", folder.display()), cache_bytes: 10 };
        let blobs = Blobs::open(data.path(), Some(shared), Reserve::NONE).await.unwrap();
        let digest = commit(&blobs, &[1; 1000]).await;
        blobs.inner.folder.last_used(&digest, IN_USE * 2);
        commit(&blobs, &[2; 1000]).await;
        assert!(blobs.path(&digest).exists(), "no cache, so nothing has to go");
        blobs.remove(&digest).await.unwrap();
        assert!(matches!(blobs.verified(&digest).await, Err(BlobError::Missing(_))));
    }
}

#[tokio::test]
async fn a_url_that_is_none_is_named_without_its_secrets() {
    for (url, shown) in [
        ("/folder", "`/folder`"),
        ("file://relative", "`file://relative`"),
        ("http://host/folder", "`http://host/folder`"),
        ("s3://", "`s3://`"),
        ("s3://key:canary@bucket/prefix", "`s3://***@bucket/prefix`"),
        ("s3://bucket/prefix?secret=canary", "`s3://bucket/prefix`"),
        ("key:canary@bucket", "`***@bucket`"),
    ] {
        let data = tempfile::tempdir().unwrap();
        let shared = Shared { url: url.into(), cache_bytes: CAP };
        let error = Blobs::open_in(data.path(), Some(shared), Reserve::NONE, vec![]).await.unwrap_err().to_string();
        assert!(error.contains(shown) && error.contains("file:///FOLDER"), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn no_secret_is_shown_whatever_goes_wrong() {
    let s3 = S3::start();
    let environment = |changed: &[(&str, &str)]| {
        let mut all = s3.environment();
        all.retain(|(name, _)| changed.iter().all(|(other, _)| name != other));
        all.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all
    };
    let open = async |environment: Vec<(String, String)>| {
        let data = tempfile::tempdir().unwrap();
        let shared = Shared { url: format!("s3://{}", S3::BUCKET), cache_bytes: CAP };
        Blobs::open_in(data.path(), Some(shared), Reserve::NONE, environment).await.map(|blobs| (data, blobs))
    };
    let endpoint = s3.environment().into_iter().find(|(name, _)| name == "AWS_ENDPOINT_URL").unwrap().1;

    let with_password = endpoint.replace("http://", "http://user:canary@");
    let error = open(environment(&[("AWS_ENDPOINT_URL", &with_password)])).await.unwrap_err();
    assert!(error.to_string().contains("AWS_ENDPOINT_URL"), "{error}");
    let mut shown = vec![format!("{error} {error:?}")];

    let wrong = environment(&[("AWS_SECRET_ACCESS_KEY", "canary"), ("AWS_SESSION_TOKEN", "canary")]);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for environment in [wrong, environment(&[("AWS_ENDPOINT_URL", &nobody)])] {
        let (_data, blobs) = open(environment).await.unwrap();
        let error = blobs.commit(stage(&blobs, b"new").await).await.unwrap_err();
        assert!(matches!(error, BlobError::Unavailable(_)), "{error:?}");
        shown.push(format!("{error} {error:?} {blobs:?}"));
    }
    assert!(shown.last().unwrap().contains("Connection refused"), "{shown:?}");
    let secret = s3.environment().into_iter().find(|(name, _)| name == "AWS_SECRET_ACCESS_KEY").unwrap().1;
    for text in shown {
        assert!(!text.contains("canary") && !text.contains(&secret), "{text}");
    }
}

/// `cargo test --release -p framehook-infra --lib -- --ignored --nocapture measure_blobs`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_blobs() {
    const MIB: usize = 1024;
    for (name, world) in [("folder", World::folder()), ("file://", World::shared_folder()), ("s3://", World::s3())] {
        let (one, two) = (world.process().await, world.process().await);
        let mut upload = one.blobs.begin(u64::MAX).await.unwrap();
        for n in 0..MIB {
            upload.write(&vec![n as u8; 1 << 20]).await.unwrap();
        }
        let staged = upload.finish().await.unwrap();
        let rate = |since: std::time::Instant| MIB as f64 / since.elapsed().as_secs_f64();
        let began = std::time::Instant::now();
        let digest = one.blobs.commit(staged).await.unwrap();
        let commit = rate(began);
        let reader = if world.shared.is_some() { &two.blobs } else { &one.blobs };
        let began = std::time::Instant::now();
        reader.verified(&digest).await.unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        println!("{name}: {MIB} MiB, commit {commit:.0} MiB/s, fetch and verify {:.0} MiB/s, {peak}", rate(began));
    }
}
