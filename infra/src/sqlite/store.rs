//! The store's trait on SQLite: each method is a function of the module its tables belong to. Those that give space back, and
//! those without which nobody could, work on a full disk.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use framehook_core::{
    artifact::{ArtifactKind, ArtifactRef},
    delivery::Delivery,
    ids::{Digest, Epoch, RunnerId, ScenarioId},
    message::{Envelope, RunnerStatus},
    planner::{Action, Snapshot},
    prediction::Prediction,
    state::Desired,
};
use uuid::Uuid;

use super::{Database, actions, artifacts, delivery, housekeeping, now_us, orchestrator, outbox, results, scenarios};
use crate::store::*;

pub(super) struct SqliteStore(pub(super) Arc<Database>);

#[async_trait]
impl Store for SqliteStore {
    async fn create_scenario(&self, new: NewScenario) -> Result<Created> {
        scenarios::create(&self.0, new).await
    }

    async fn created_before(&self, idempotency: &Idempotency) -> Result<Option<Created>> {
        let mut conn = self.0.reader.acquire().await?;
        scenarios::created_before(&mut conn, idempotency).await
    }

    async fn scenario(&self, id: ScenarioId) -> Result<Option<ScenarioRecord>> {
        scenarios::find(&self.0, id).await
    }

    async fn scenarios(
        &self,
        filter: ScenarioFilter,
        after: Option<ScenarioId>,
        limit: Limit,
    ) -> Result<Rows<ScenarioRecord>> {
        scenarios::page(&self.0, filter, after, limit).await
    }

    async fn set_desired(&self, id: ScenarioId, desired: Desired) -> Result<Option<ScenarioRecord>> {
        self.0.room.despite_full(|| scenarios::set_desired(&self.0, id, desired)).await
    }

    async fn is_purged(&self, id: ScenarioId) -> Result<bool> {
        scenarios::is_purged(&self.0, id).await
    }

    async fn history(&self, id: ScenarioId, after: Option<i64>, limit: u32) -> Result<Vec<HistoryEntry>> {
        scenarios::history(&self.0, id, after, limit).await
    }

    async fn predictions(&self, id: ScenarioId, query: PredictionQuery) -> Result<Rows<Prediction>> {
        results::range(&self.0, id, query).await
    }

    async fn delivery(&self, id: ScenarioId) -> Result<Option<Delivery>> {
        delivery::read(&self.0, id).await
    }

    async fn put_artifact(&self, artifact: Artifact) -> Result<PutArtifact> {
        artifacts::put(&self.0, artifact).await
    }

    async fn artifact(&self, kind: ArtifactKind, reference: &ArtifactRef) -> Result<Option<Artifact>> {
        artifacts::find(&self.0, kind, reference).await
    }

    async fn artifacts(&self, kind: ArtifactKind, query: ArtifactQuery) -> Result<Vec<ArtifactSummary>> {
        artifacts::list(&self.0, kind, query).await
    }

    async fn delete_artifact(&self, kind: ArtifactKind, name: &str, version: &str) -> Result<DeleteArtifact> {
        self.0.room.despite_full(|| artifacts::delete(&self.0, kind, name, version)).await
    }

    async fn live_digests(&self) -> Result<Vec<Digest>> {
        artifacts::live_digests(&self.0).await
    }

    async fn outbox(&self, limit: u32) -> Result<Vec<Envelope>> {
        outbox::unpublished(&self.0, limit).await
    }

    /// One process, one relay: nobody to keep it from.
    async fn claim_outbox(&self, limit: u32, _lease: Duration) -> Result<Vec<Envelope>> {
        outbox::unpublished(&self.0, limit).await
    }

    async fn mark_published(&self, ids: &[Uuid]) -> Result<()> {
        self.0.room.despite_full(|| outbox::mark_published(&self.0, ids)).await
    }

    async fn outbox_filled(&self) {
        self.0.outbox.notified().await;
    }

    async fn consumer_offset(&self, consumer: &str, topic: &str, partition: i32) -> Result<i64> {
        results::consumer_offset(&self.0, consumer, topic, partition).await
    }

    async fn store_results(&self, batch: &ResultBatch) -> Result<StoreOutcome> {
        results::store(&self.0, batch).await
    }

    async fn lead(&self, holder: Uuid, fresh: bool, term: Duration, runner_term: Duration) -> Result<Option<Epoch>> {
        self.0.room.despite_full(|| orchestrator::lead(&self.0, holder, fresh, term, runner_term)).await
    }

    async fn resign(&self, holder: Uuid) -> Result<()> {
        orchestrator::resign(&self.0, holder).await
    }

    async fn record_heartbeats(
        &self,
        epoch: Epoch,
        heartbeats: &[RunnerStatus],
        arrived_after_us: i64,
        term: Duration,
    ) -> Result<Fenced<()>> {
        let record = || orchestrator::heartbeats(&self.0, epoch, heartbeats, arrived_after_us, term);
        self.0.room.despite_full(record).await
    }

    async fn now_us(&self) -> Result<i64> {
        Ok(now_us())
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        orchestrator::snapshot(&self.0).await
    }

    async fn apply(&self, epoch: Epoch, action: &Action) -> Result<Fenced<()>> {
        self.0.room.despite_full(|| actions::apply(&self.0, epoch, action)).await
    }

    async fn runners(&self) -> Result<Vec<RunnerRecord>> {
        orchestrator::runners(&self.0).await
    }

    async fn runner(&self, id: &RunnerId) -> Result<Option<RunnerRecord>> {
        orchestrator::runner(&self.0, id).await
    }

    async fn ping(&self) -> Result<()> {
        let checked = self.0.check().await.map_err(StoreError::from);
        if matches!(checked, Ok(()) | Err(StoreError::Full(_))) {
            // It has the numbers.
            self.0.room.disk.admit(1)?;
        }
        checked
    }

    async fn trim(&self, keep: Keep) -> Result<()> {
        self.0.room.despite_full(|| housekeeping::trim(&self.0, keep)).await
    }

    async fn drop_results(&self, age: Duration) -> Result<()> {
        self.0.room.despite_full(|| housekeeping::drop_results(&self.0, age)).await
    }
}
