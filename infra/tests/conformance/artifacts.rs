//! Names and versions of blobs.

use framehook_core::{
    artifact::{ArtifactKind, ArtifactRef, Manifest, ModelManifest, ModelMetadata, VideoManifest},
    signature::{KeyId, SignedBy},
    state::{Desired, ScenarioState},
};
use framehook_infra::store::{Artifact, ArtifactQuery, ArtifactSummary, DeleteArtifact, PutArtifact, SharedStore};
use jiff::Timestamp;

use crate::fixtures::{StoreBackend, World, digest};

pub(crate) fn artifact(kind: ArtifactKind, name: &str, version: &str, byte: u8) -> Artifact {
    let manifest = match kind {
        ArtifactKind::Video => Manifest::Video(VideoManifest { width: 320, height: 192, fps: 25.0, frames: Some(500) }),
        _ => Manifest::Model(ModelManifest {
            inputs: vec![],
            outputs: vec![],
            input: None,
            warnings: vec![],
            metadata: ModelMetadata::default(),
        }),
    };
    let (name, version) = (name.into(), version.into());
    // All have the same time: the order of uploading decides which one is newest.
    let created_at = Timestamp::from_second(1_700_000_000).unwrap();
    Artifact { kind, name, version, digest: digest(byte), size_bytes: 42, manifest, created_at, signed_by: None }
}

pub(crate) async fn names_are_never_re_pointed(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let first = artifact(ArtifactKind::Model, "street", "1", 1);
    assert_eq!(store.put_artifact(first.clone()).await.unwrap(), PutArtifact::Created);
    assert_eq!(store.put_artifact(first.clone()).await.unwrap(), PutArtifact::Unchanged(first.clone()));
    let other = artifact(ArtifactKind::Model, "street", "1", 2);
    assert_eq!(store.put_artifact(other).await.unwrap(), PutArtifact::Conflict(first.clone()));
    let video = artifact(ArtifactKind::Video, "street", "1", 2);
    assert_eq!(store.put_artifact(video.clone()).await.unwrap(), PutArtifact::Created);
    let listed = async |kind| list(&store, kind, None, None, 9).await.into_iter().map(|a| a.digest).collect::<Vec<_>>();
    assert_eq!(listed(ArtifactKind::Model).await, [first.digest]);
    assert_eq!(listed(ArtifactKind::Video).await, [video.digest]);
    assert_eq!(listed(ArtifactKind::Plugin).await, []);
}

/// A signature that comes later, or another one, takes the place of what was there, and nothing takes it
/// away.
pub(crate) async fn the_last_signature_counts(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let by = |name: &str| {
        let (key, signature) = (KeyId::of(&digest(9)), "c2ln".to_owned());
        Some(SignedBy { name: name.into(), key, signature })
    };
    let plain = artifact(ArtifactKind::Plugin, "zones", "1", 1);
    let signed = |name: &str| Artifact { signed_by: by(name), ..plain.clone() };
    let stored = async || {
        let reference = "zones@1".parse().unwrap();
        store.artifact(ArtifactKind::Plugin, &reference).await.unwrap().unwrap()
    };
    assert_eq!(store.put_artifact(plain.clone()).await.unwrap(), PutArtifact::Created);
    assert_eq!(stored().await.signed_by, None);
    for name in ["alice", "bob"] {
        assert_eq!(store.put_artifact(signed(name)).await.unwrap(), PutArtifact::Unchanged(signed(name)));
        assert_eq!(stored().await, signed(name));
    }
    assert_eq!(store.put_artifact(plain.clone()).await.unwrap(), PutArtifact::Unchanged(signed("bob")));
    let other = Artifact { digest: digest(2), ..signed("alice") };
    assert_eq!(store.put_artifact(other).await.unwrap(), PutArtifact::Conflict(signed("bob")));
    store.delete_artifact(ArtifactKind::Plugin, "zones", "1").await.unwrap();
    assert_eq!(store.put_artifact(signed("alice")).await.unwrap(), PutArtifact::Created);
    assert_eq!(stored().await, signed("alice"));
}

pub(crate) async fn references_resolve(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let [b1, a2, a1] = [("b", "1", 1), ("a", "2", 2), ("a", "1", 1)]
        .map(|(name, version, byte)| artifact(ArtifactKind::Model, name, version, byte));
    for artifact in [&b1, &a2, &a1] {
        store.put_artifact(artifact.clone()).await.unwrap();
    }
    let find =
        async |kind, reference: &str| store.artifact(kind, &reference.parse::<ArtifactRef>().unwrap()).await.unwrap();
    assert_eq!(find(ArtifactKind::Model, "a@2").await, Some(a2.clone()));
    assert_eq!(find(ArtifactKind::Model, "a").await, Some(a1.clone()));
    assert_eq!(find(ArtifactKind::Model, digest(2).as_str()).await, Some(a2));
    assert_eq!(find(ArtifactKind::Model, digest(1).as_str()).await, Some(a1));
    for missing in ["a@3", "c", digest(9).as_str()] {
        assert_eq!(find(ArtifactKind::Model, missing).await, None);
    }
    assert_eq!(find(ArtifactKind::Video, "a@2").await, None);
}

async fn list(
    store: &SharedStore,
    kind: ArtifactKind,
    name: Option<&str>,
    after: Option<(String, i64)>,
    limit: u32,
) -> Vec<ArtifactSummary> {
    let name = name.map(str::to_owned);
    store.artifacts(kind, ArtifactQuery { name, after, limit }).await.unwrap()
}

/// By name, newest upload of each first, and what goes between two pages makes the second one lose
/// nothing.
pub(crate) async fn lists_come_in_pages(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let model = ArtifactKind::Model;
    for (name, version) in [("b", "1"), ("a", "2"), ("a", "1"), ("c", "1"), ("a", "3")] {
        store.put_artifact(artifact(model, name, version, 1)).await.unwrap();
    }
    let called =
        |page: &[ArtifactSummary]| page.iter().map(|a| format!("{}@{}", a.name, a.version)).collect::<Vec<_>>();
    let after = |page: &[ArtifactSummary]| page.last().map(|a| (a.name.clone(), a.sequence));
    let first = list(&store, model, None, None, 2).await;
    assert_eq!(called(&first), ["a@3", "a@1"]);
    let Artifact { digest, size_bytes, created_at, .. } = artifact(model, "a", "1", 1);
    assert_eq!((&first[1].digest, first[1].size_bytes, first[1].created_at), (&digest, size_bytes, created_at));
    store.delete_artifact(model, "a", "1").await.unwrap();
    let second = list(&store, model, None, after(&first), 2).await;
    assert_eq!(called(&second), ["a@2", "b@1"]);
    let third = list(&store, model, None, after(&second), 2).await;
    assert_eq!(called(&third), ["c@1"]);
    assert!(list(&store, model, None, after(&third), 2).await.is_empty());
    assert_eq!(called(&list(&store, model, Some("a"), None, 9).await), ["a@3", "a@2"]);
    assert!(list(&store, model, Some("none"), None, 9).await.is_empty());
}

pub(crate) async fn an_artifact_in_use_is_not_deleted(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    // The fixtures' scenarios name these three.
    let named = [
        artifact(ArtifactKind::Video, "street", "1", 1),
        artifact(ArtifactKind::Model, "street", "1", 2),
        artifact(ArtifactKind::Plugin, "yolo", "0.1.0", 3),
    ];
    for &state in ScenarioState::ALL {
        for is_deleted in [false, true] {
            for artifact in &named {
                world.store.put_artifact(artifact.clone()).await.unwrap();
            }
            let id = world.in_state(state).await.id;
            if is_deleted {
                world.store.set_desired(id, Desired::Deleted).await.unwrap();
            }
            let is_needed = !state.is_ended() || (state != ScenarioState::Completed && !is_deleted);
            for Artifact { kind, name, version, digest, .. } in &named {
                let expected = match is_needed {
                    true => DeleteArtifact::InUse { by: id, state },
                    false => DeleteArtifact::Deleted { digest: digest.clone(), orphaned: true },
                };
                let deleted = world.store.delete_artifact(*kind, name, version).await.unwrap();
                assert_eq!(deleted, expected, "{kind} of a scenario {state}, deleted: {is_deleted}");
            }
            settle(&world, id).await;
        }
    }
}

/// One that completed needs nothing, and is not named in the place of another that does.
pub(crate) async fn a_refusal_names_who_needs_it(backend: &impl StoreBackend) {
    use ScenarioState::{Completed, Stopped};
    let world = World::new(backend).await;
    let Artifact { kind, name, version, digest, .. } = artifact(ArtifactKind::Model, "street", "1", 2);
    world.store.put_artifact(artifact(ArtifactKind::Model, "street", "1", 2)).await.unwrap();
    let delete = async || world.store.delete_artifact(kind, &name, &version).await.unwrap();
    // Whatever was wished of it before it came to its end.
    for desired in [Desired::Running, Desired::Stopped, Desired::Running] {
        let id = world.in_state(Completed).await.id;
        world.store.set_desired(id, desired).await.unwrap();
    }
    let stopped = world.in_state(Stopped).await.id;
    world.in_state(Completed).await;
    assert_eq!(delete().await, DeleteArtifact::InUse { by: stopped, state: Stopped });
    world.store.set_desired(stopped, Desired::Deleted).await.unwrap();
    assert_eq!(delete().await, DeleteArtifact::Deleted { digest, orphaned: true });
}

/// Makes a scenario's artifacts unneeded.
async fn settle(world: &World, id: framehook_core::ids::ScenarioId) {
    use crate::fixtures::{move_scenario, move_worker};
    use framehook_core::state::WorkerState;
    let record = world.store.set_desired(id, Desired::Deleted).await.unwrap().unwrap();
    if let Some(worker) = record.worker.filter(|w| w.state.is_live()) {
        world.done(move_worker(id, worker.generation, worker.state, WorkerState::Stopped)).await;
    }
    let mut state = record.state;
    while !state.is_ended() {
        let next = if state.may_become(ScenarioState::Stopped).is_ok() {
            ScenarioState::Stopped
        } else {
            ScenarioState::Stopping
        };
        world.done(move_scenario(id, state, next)).await;
        state = next;
    }
}

pub(crate) async fn a_blob_is_orphaned_with_its_last_name(backend: &impl StoreBackend) {
    let store = backend.store().await;
    for (kind, name, byte) in [
        (ArtifactKind::Model, "a", 7),
        (ArtifactKind::Model, "b", 7),
        (ArtifactKind::Video, "c", 7),
        (ArtifactKind::Model, "d", 8),
    ] {
        store.put_artifact(artifact(kind, name, "1", byte)).await.unwrap();
    }
    assert_eq!(store.live_digests().await.unwrap(), [digest(7), digest(8)]);
    let delete = async |kind, name| store.delete_artifact(kind, name, "1").await.unwrap();
    let deleted = |orphaned| DeleteArtifact::Deleted { digest: digest(7), orphaned };
    assert_eq!(delete(ArtifactKind::Model, "a").await, deleted(false));
    assert_eq!(delete(ArtifactKind::Model, "a").await, DeleteArtifact::NotFound);
    assert_eq!(delete(ArtifactKind::Model, "b").await, deleted(false));
    assert_eq!(delete(ArtifactKind::Video, "c").await, deleted(true));
    assert_eq!(store.live_digests().await.unwrap(), [digest(8)]);
}
