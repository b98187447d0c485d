//! What the heartbeat says: one status a scenario, of the newest generation heard of.
//!
//! Invariants: an ended worker never comes to life again; an older generation never overwrites a newer one;
//! an ended worker is told of until its end is noted, or until nobody has done so for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use parking_lot::Mutex;

use framehook_core::{
    execution::ProviderStatus,
    ids::{Generation, Incarnation, ScenarioId},
    message::{RunnerStatus, WorkerKey, WorkerPhase, WorkerStatus},
    reason::Reason,
    revision::RevisionStatus,
    size::json_bytes,
};
use tokio::{sync::Notify, time::Instant};

use crate::{config::RunnerConfig, metrics};

/// Ended workers in a heartbeat, at most: the oldest leave first. 256 keep it below about 100 KiB, without
/// what became of hooks' calls.
const MAX_ENDED: usize = 256;

/// Bytes of JSON of what became of hooks' calls in a heartbeat: enough for some 200 workers with two hooks,
/// and for any one worker. Where there is more, workers take turns; who reads them keeps what was told
/// before.
const MAX_HOOKS: usize = 256 << 10;

/// The pure part.
#[derive(Debug)]
pub(crate) struct Roster {
    status: RunnerStatus,
    entries: BTreeMap<ScenarioId, Entry>,
    keep_ended: Duration,
}

#[derive(Debug)]
struct Entry {
    status: WorkerStatus,
    /// The heartbeat that last told of its hooks; 0: none did.
    hooks_told: u64,
    ended_at: Option<Instant>,
}

impl Roster {
    pub(crate) fn new(
        config: &RunnerConfig,
        incarnation: Incarnation,
        memory_mib: Option<u32>,
        providers: Vec<ProviderStatus>,
    ) -> Self {
        let status = RunnerStatus {
            runner_id: config.runner_id.clone(),
            incarnation,
            sequence: 0,
            capacity: config.max_workers,
            memory_mib,
            draining: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: config.labels.clone(),
            confinement: config.confinement.clone(),
            providers,
            workers: Vec::new(),
        };
        Self { status, entries: BTreeMap::new(), keep_ended: config.keep_ended }
    }

    fn workers(&self) -> impl Iterator<Item = &WorkerStatus> + Clone {
        self.entries.values().map(|entry| &entry.status)
    }

    fn knows(&self, scenario: ScenarioId, generation: Generation) -> bool {
        self.entries.get(&scenario).is_some_and(|e| e.status.generation == generation)
    }

    /// Puts a new generation in the place of an older one.
    fn insert(&mut self, status: WorkerStatus, now: Instant) {
        let is_newer = self.entries.get(&status.scenario_id).is_none_or(|e| e.status.generation < status.generation);
        if is_newer {
            let ended_at = status.phase.is_ended().then_some(now);
            self.entries.insert(status.scenario_id, Entry { status, hooks_told: 0, ended_at });
        }
    }

    /// Changes the status of a worker that has not ended. Says whether the change is worth a heartbeat at
    /// once.
    fn update(
        &mut self,
        scenario: ScenarioId,
        generation: Generation,
        now: Instant,
        change: impl FnOnce(&mut WorkerStatus),
    ) -> bool {
        let entry = self.entries.get_mut(&scenario).filter(|e| e.status.generation == generation);
        let Some(entry) = entry.filter(|e| e.ended_at.is_none()) else { return false };
        let told = |status: &WorkerStatus| {
            let is_fetching = status.progress.fetching.is_some();
            let failed = |revision: &RevisionStatus| revision.rolled_back.as_ref().map(|failed| failed.revision);
            let revision = status.revision.as_ref().map(|revision| (revision.running, failed(revision)));
            (status.phase, status.reason.clone(), status.retry_at, is_fetching, revision)
        };
        let before = told(&entry.status);
        change(&mut entry.status);
        if entry.status.phase.is_ended() {
            entry.ended_at = Some(now);
        }
        before != told(&entry.status)
    }

    /// Their ends are noted. One that has not ended cannot be.
    fn forget(&mut self, noted: &[WorkerKey]) {
        for WorkerKey { scenario_id, generation } in noted {
            let is_meant = |e: &Entry| e.status.generation == *generation && e.ended_at.is_some();
            if self.entries.get(scenario_id).is_some_and(is_meant) {
                self.entries.remove(scenario_id);
            }
        }
    }

    fn forget_old(&mut self, now: Instant) {
        self.entries.retain(|_, e| e.ended_at.is_none_or(|at| now.duration_since(at) < self.keep_ended));
        let mut ended: Vec<_> = self.entries.iter().filter_map(|(id, e)| e.ended_at.map(|at| (at, *id))).collect();
        ended.sort_unstable();
        for (_, id) in ended.iter().take(ended.len().saturating_sub(MAX_ENDED)) {
            self.entries.remove(id);
        }
    }

    /// The next heartbeat.
    pub(crate) fn heartbeat(&mut self, now: Instant) -> RunnerStatus {
        self.forget_old(now);
        self.status.sequence += 1;
        let tells_of_hooks = self.take_turns();
        let told = |(id, entry): (&ScenarioId, &Entry)| {
            if tells_of_hooks.contains(id) { entry.status.clone() } else { entry.status.without_hooks() }
        };
        RunnerStatus { workers: self.entries.iter().map(told).collect(), ..self.status.clone() }
    }

    /// Whose hooks the next heartbeat tells of: those first that have waited longest.
    fn take_turns(&mut self) -> BTreeSet<ScenarioId> {
        let mut waiting: Vec<_> = self.entries.iter_mut().filter(|(_, e)| !e.status.hooks.is_empty()).collect();
        waiting.sort_by_key(|(_, e)| e.hooks_told);
        let mut room = MAX_HOOKS;
        let mut told = BTreeSet::new();
        for (id, entry) in waiting {
            let bytes = json_bytes(&entry.status.hooks);
            if bytes <= room {
                room -= bytes;
                entry.hooks_told = self.status.sequence;
                told.insert(*id);
            }
        }
        told
    }
}

/// The roster as the supervisors and the heartbeat share it.
#[derive(Debug)]
pub(crate) struct Board {
    roster: Mutex<Roster>,
    changed: Notify,
}

impl Board {
    pub(crate) fn new(roster: Roster) -> Self {
        Self { roster: Mutex::new(roster), changed: Notify::new() }
    }

    /// Waits for a change since the last call that is worth a heartbeat.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn knows(&self, scenario: ScenarioId, generation: Generation) -> bool {
        self.roster.lock().knows(scenario, generation)
    }

    pub(crate) fn insert(
        &self,
        scenario_id: ScenarioId,
        generation: Generation,
        phase: WorkerPhase,
        reason: Option<Reason>,
    ) {
        let status = WorkerStatus { reason, ..WorkerStatus::new(scenario_id, generation, phase) };
        self.roster.lock().insert(status, Instant::now());
        self.changed.notify_one();
    }

    pub(crate) fn update(&self, scenario: ScenarioId, generation: Generation, change: impl FnOnce(&mut WorkerStatus)) {
        let is_worth_a_heartbeat = self.roster.lock().update(scenario, generation, Instant::now(), change);
        if is_worth_a_heartbeat {
            self.changed.notify_one();
        }
    }

    pub(crate) fn forget(&self, noted: &[WorkerKey]) {
        self.roster.lock().forget(noted);
    }

    pub(crate) fn drain(&self) {
        self.roster.lock().status.draining = true;
        self.changed.notify_one();
    }

    pub(crate) fn heartbeat(&self) -> RunnerStatus {
        let mut roster = self.roster.lock();
        metrics::global().workers(roster.workers());
        roster.heartbeat(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::{
        hook_stats::{HookStage, HookStats},
        ids::RunnerId,
        message::Fetching,
        reason::ReasonCode,
    };

    use super::*;

    fn roster() -> Roster {
        let none = std::path::PathBuf::new;
        let config = RunnerConfig::new(RunnerId("r".into()), none(), none(), none(), none());
        Roster::new(&config, Incarnation::generate(), None, Vec::new())
    }

    #[test]
    fn only_changes_that_others_act_on_ask_for_a_heartbeat() {
        let (mut roster, id, now) = (roster(), ScenarioId::generate(), Instant::now());
        roster.insert(WorkerStatus::new(id, 2, WorkerPhase::Starting), now);
        assert!(roster.update(id, 2, now, |s| s.phase = WorkerPhase::Running));
        assert!(!roster.update(id, 2, now, |s| s.phase = WorkerPhase::Running));
        assert!(!roster.update(id, 2, now, |s| s.progress.frames += 1));
        let fetched = |bytes| Some(Fetching { bytes, total: None });
        assert!(roster.update(id, 2, now, |s| s.progress.fetching = fetched(1)));
        assert!(!roster.update(id, 2, now, |s| s.progress.fetching = fetched(2)));
        assert!(roster.update(id, 2, now, |s| s.progress.fetching = None));
        assert!(roster.update(id, 2, now, |s| s.reason = Some(Reason::new(ReasonCode::PluginTrap, "x"))));
        assert!(!roster.update(id, 1, now, |s| s.phase = WorkerPhase::Failed), "an older generation");
        assert_eq!(roster.heartbeat(now).workers[0].phase, WorkerPhase::Running);
        assert_eq!(roster.heartbeat(now).sequence, 2);
    }

    #[test]
    fn the_ended_stay_as_they_are_until_something_newer_or_their_time() {
        let (mut roster, id, now) = (roster(), ScenarioId::generate(), Instant::now());
        roster.insert(WorkerStatus::new(id, 2, WorkerPhase::Running), now);
        roster.insert(WorkerStatus::new(id, 2, WorkerPhase::Stopped), now);
        assert!(roster.update(id, 2, now, |s| s.phase = WorkerPhase::Finished));
        assert!(!roster.update(id, 2, now, |s| s.phase = WorkerPhase::Running));
        roster.insert(WorkerStatus::new(id, 1, WorkerPhase::Running), now);
        let phases = |roster: &mut Roster, at| roster.heartbeat(at).workers.iter().map(|w| w.phase).collect::<Vec<_>>();
        assert_eq!(phases(&mut roster, now + Duration::from_secs(599)), [WorkerPhase::Finished]);
        roster.insert(WorkerStatus::new(id, 3, WorkerPhase::Starting), now);
        assert_eq!(phases(&mut roster, now + Duration::from_secs(599)), [WorkerPhase::Starting]);
        assert!(roster.update(id, 3, now, |s| s.phase = WorkerPhase::Failed));
        assert!(roster.knows(id, 3));
        assert!(phases(&mut roster, now + Duration::from_secs(600)).is_empty());
        assert!(!roster.knows(id, 3));
    }

    #[test]
    fn only_an_end_can_be_noted_and_once_is_enough() {
        let (mut roster, id, now) = (roster(), ScenarioId::generate(), Instant::now());
        let noted = |generation| [WorkerKey { scenario_id: id, generation }];
        roster.insert(WorkerStatus::new(id, 2, WorkerPhase::Running), now);
        roster.forget(&noted(2));
        assert!(roster.knows(id, 2), "it runs");
        roster.update(id, 2, now, |s| s.phase = WorkerPhase::Finished);
        roster.forget(&noted(1));
        assert!(roster.knows(id, 2), "another generation");
        roster.forget(&noted(2));
        roster.forget(&noted(2));
        assert!(roster.heartbeat(now).workers.is_empty());
        roster.insert(WorkerStatus::new(id, 3, WorkerPhase::Starting), now);
        assert!(roster.knows(id, 3));
    }

    #[test]
    fn workers_take_turns_where_there_is_much_to_tell_of_their_hooks() {
        let (mut roster, now) = (roster(), Instant::now());
        let plugin = |n: usize| "p".repeat(MAX_HOOKS / 10 - 1_000 * n);
        let ids: Vec<_> = (0..15).map(|_| ScenarioId::generate()).collect();
        for (n, id) in ids.iter().enumerate() {
            let hooks = vec![HookStats::new(plugin(n % 2), HookStage::Post)];
            roster.insert(WorkerStatus { hooks, ..WorkerStatus::new(*id, 1, WorkerPhase::Running) }, now);
        }
        let large = HookStats::new("p".repeat(MAX_HOOKS), HookStage::Post);
        let never =
            WorkerStatus { hooks: vec![large], ..WorkerStatus::new(ScenarioId::generate(), 1, WorkerPhase::Running) };
        roster.insert(never.clone(), now);
        let mut told = BTreeMap::<_, usize>::new();
        for _ in 0..6 {
            let heartbeat = roster.heartbeat(now);
            assert_eq!(heartbeat.workers.len(), 16);
            let hooks: Vec<_> = heartbeat.workers.iter().filter(|worker| !worker.hooks.is_empty()).collect();
            assert!(hooks.iter().map(|worker| json_bytes(&worker.hooks)).sum::<usize>() <= MAX_HOOKS);
            hooks.iter().for_each(|worker| *told.entry(worker.scenario_id).or_default() += 1);
        }
        assert!(ids.iter().all(|id| told[id] >= 3), "{told:?}");
        assert!(!told.contains_key(&never.scenario_id));
    }

    #[test]
    fn the_oldest_ended_leave_first_and_the_living_never() {
        let (mut roster, living, now) = (roster(), ScenarioId::generate(), Instant::now());
        roster.insert(WorkerStatus::new(living, 1, WorkerPhase::Running), now);
        let ended: Vec<_> = (0..=MAX_ENDED).map(|_| ScenarioId::generate()).collect();
        for (id, second) in ended.iter().zip(0..) {
            roster.insert(WorkerStatus::new(*id, 1, WorkerPhase::Stopped), now + Duration::from_secs(second));
        }
        assert_eq!(roster.heartbeat(now + Duration::from_secs(300)).workers.len(), MAX_ENDED + 1);
        assert!(roster.knows(living, 1) && roster.knows(ended[1], 1) && !roster.knows(ended[0], 1));
    }
}
