//! The store's traits: each method is a function of the module its tables belong to. What gives space back,
//! and what nobody could give space back without, is `transact_despite_full`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use framehook_core::{
    artifact::{ArtifactKind, ArtifactRef},
    delivery::Delivery,
    ids::{Digest, Epoch, RunnerId, ScenarioId},
    message::{Envelope, RunnerStatus},
    planner::{Action, Snapshot},
    state::Desired,
};
use uuid::Uuid;

use super::{
    Database, actions, artifacts, delivery, history, housekeeping, now_us, orchestrator, outbox, relay, results,
    scenarios,
};
use crate::store::*;

pub(in super::super) struct SqlStore(pub(in super::super) Arc<Database>);

#[async_trait]
impl Scenarios for SqlStore {
    async fn create_scenario(&self, new: NewScenario) -> Result<Created> {
        self.0.transact(|| scenarios::create(&self.0, &new)).await
    }

    async fn created_before(&self, idempotency: &Idempotency) -> Result<Option<Created>> {
        let mut conn = self.0.reader().acquire().await?;
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
        self.0.transact_despite_full(|| scenarios::set_desired(&self.0, id, desired)).await
    }

    async fn is_purged(&self, id: ScenarioId) -> Result<bool> {
        scenarios::is_purged(&self.0, id).await
    }

    async fn history(&self, id: ScenarioId, after: Option<i64>, limit: u32) -> Result<Vec<HistoryEntry>> {
        history::page(&self.0, id, after, limit).await
    }

    async fn predictions(&self, id: ScenarioId, query: PredictionQuery) -> Result<Option<Rows<StoredPrediction>>> {
        results::range(&self.0, id, query).await
    }

    async fn delivery(&self, id: ScenarioId) -> Result<Option<Delivery>> {
        delivery::read(&self.0, id).await
    }
}

#[async_trait]
impl Artifacts for SqlStore {
    async fn put_artifact(&self, artifact: Artifact) -> Result<PutArtifact> {
        self.0.transact(|| artifacts::put(&self.0, &artifact)).await
    }

    async fn artifact(&self, kind: ArtifactKind, reference: &ArtifactRef) -> Result<Option<Artifact>> {
        artifacts::find(&self.0, kind, reference).await
    }

    async fn artifacts(&self, kind: ArtifactKind, query: ArtifactQuery) -> Result<Vec<ArtifactSummary>> {
        artifacts::list(&self.0, kind, query).await
    }

    async fn delete_artifact(&self, kind: ArtifactKind, name: &str, version: &str) -> Result<DeleteArtifact> {
        self.0.transact_despite_full(|| artifacts::delete(&self.0, kind, name, version)).await
    }

    async fn live_digests(&self) -> Result<Vec<Digest>> {
        artifacts::live_digests(&self.0).await
    }
}

#[async_trait]
impl Outbox for SqlStore {
    async fn outbox(&self, limit: u32) -> Result<Vec<Envelope>> {
        outbox::unpublished(&self.0, limit).await
    }

    async fn claim_outbox(&self, limit: u32, lease: Duration) -> Result<Vec<Envelope>> {
        relay::claim(&self.0, limit, lease).await
    }

    async fn mark_published(&self, ids: &[Uuid]) -> Result<()> {
        self.0.transact_despite_full(|| relay::mark_published(&self.0, ids)).await
    }

    async fn outbox_filled(&self) {
        self.0.outbox.notified().await;
    }
}

#[async_trait]
impl Results for SqlStore {
    async fn consumer_offset(&self, consumer: &str, topic: &str, partition: i32) -> Result<i64> {
        results::consumer_offset(&self.0, consumer, topic, partition).await
    }

    async fn store_results(&self, batch: &ResultBatch) -> Result<StoreOutcome> {
        self.0.transact(|| results::store(&self.0, batch)).await
    }
}

#[async_trait]
impl Orchestration for SqlStore {
    async fn lead(
        &self,
        holder: Uuid,
        fresh: bool,
        lease_time: Duration,
        runner_lease_time: Duration,
    ) -> Result<Option<Epoch>> {
        self.0.transact_despite_full(|| orchestrator::lead(&self.0, holder, fresh, lease_time, runner_lease_time)).await
    }

    async fn resign(&self, holder: Uuid) -> Result<()> {
        orchestrator::resign(&self.0, holder).await
    }

    async fn record_heartbeats(
        &self,
        epoch: Epoch,
        heartbeats: &[RunnerStatus],
        arrived_after_us: i64,
        lease_time: Duration,
    ) -> Result<Fenced<()>> {
        let record = || orchestrator::record_heartbeats(&self.0, epoch, heartbeats, arrived_after_us, lease_time);
        self.0.transact_despite_full(record).await
    }

    async fn now_us(&self) -> Result<i64> {
        Ok(now_us(&mut *self.0.reader().acquire().await?).await?)
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        orchestrator::snapshot(&self.0).await
    }

    async fn apply(&self, epoch: Epoch, action: &Action) -> Result<Fenced<()>> {
        self.0.transact_despite_full(|| actions::apply(&self.0, epoch, action)).await
    }

    async fn trim(&self, keep: Keep) -> Result<()> {
        self.0.transact_despite_full(|| housekeeping::trim(&self.0, keep)).await
    }

    async fn drop_results(&self, age: Duration) -> Result<()> {
        self.0.transact_despite_full(|| housekeeping::drop_results(&self.0, age)).await
    }
}

#[async_trait]
impl Operation for SqlStore {
    async fn runners(&self) -> Result<Vec<RunnerRecord>> {
        orchestrator::runners(&self.0).await
    }

    async fn runner(&self, id: &RunnerId) -> Result<Option<RunnerRecord>> {
        orchestrator::runner(&self.0, id).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn counts(&self) -> Result<Counts> {
        orchestrator::counts(&self.0).await
    }
}
