//! One life of a runner of the model, and its worker of the scenario.

use framehook_core::{
    fences::{Fences, Verdict},
    ids::Generation,
    message::WorkerPhase,
};

use crate::{
    guard::{Guard, Without},
    store::{FRAMES, Order, Report, SCENARIO},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) name: usize,
    pub(crate) alive: bool,
    fences: Fences,
    /// The highest generation it was told to stop.
    pub(crate) stopped: Generation,
    next_frame: u64,
    /// What the worker's hooks keep.
    pub(crate) count: u64,
    /// A frame that the worker has done and the bus has not.
    pub(crate) held: Option<u64>,
    pub(crate) published: Option<u64>,
    /// The heartbeat heard last, and all since that say something new.
    pub(crate) reports: Vec<Option<Report>>,
}

impl Host {
    pub(crate) fn new(name: usize) -> Self {
        Self {
            name,
            alive: true,
            fences: Fences::default(),
            stopped: 0,
            next_frame: 0,
            count: 0,
            held: None,
            published: None,
            reports: vec![None],
        }
    }

    /// What it said before may still be heard.
    pub(crate) fn die(&mut self) {
        let reports = std::mem::take(&mut self.reports);
        *self = Self { alive: false, reports, ..Self::new(self.name) };
    }

    /// What its worker says, if one runs.
    pub(crate) fn worker(&self) -> Option<Report> {
        let report = self.reports.last().copied().flatten();
        report.filter(|r| self.alive && !r.phase.is_ended())
    }

    /// As `Runner::take`; the generation that it starts.
    pub(crate) fn take(&mut self, without: Without, order: Order) -> Option<Generation> {
        let Order { generation, is_stop, resume_after, count, .. } = order;
        let mut fences = self.fences.clone();
        let verdict = match is_stop {
            true => fences.stop(SCENARIO, generation),
            false if without.has(Guard::GenerationOfOrder) => fences.deploy(SCENARIO, generation),
            false => Verdict::Start,
        };
        if is_stop {
            self.stopped = self.stopped.max(generation);
        }
        if !is_stop || without.has(Guard::StopRemembered) {
            self.fences = fences;
        }
        match verdict {
            Verdict::Start => {
                (self.held, self.published) = (None, None);
                (self.next_frame, self.count) = (resume_after.map_or(0, |frame| frame + 1), count);
                self.report(generation, WorkerPhase::Running);
                return Some(generation);
            }
            Verdict::Stop if self.worker().is_some_and(|w| w.generation == generation) => {
                self.report(generation, WorkerPhase::Stopped);
            }
            Verdict::StopUnknown => {
                self.published = None;
                self.report(generation, WorkerPhase::Stopped);
            }
            _ => {}
        }
        None
    }

    /// Its end is noted. A late repetition of the order makes the real one tell of a stopped worker once
    /// more, which no plan looks at and which is noted again; here it stays silent.
    pub(crate) fn forget(&mut self, generation: Generation) {
        if self.tells_the_end_of(generation) {
            self.reports.push(None);
        }
    }

    pub(crate) fn tells_the_end_of(&self, generation: Generation) -> bool {
        let report = self.reports.last().copied().flatten();
        self.alive && report.is_some_and(|r| r.generation == generation && r.phase.is_ended())
    }

    /// The order changes nothing any more.
    pub(crate) fn is_deaf_to(&self, order: Order) -> bool {
        let mut fences = self.fences.clone();
        let is_moot = match order.is_stop {
            true => fences.stop(SCENARIO, order.generation) != Verdict::StopUnknown && self.worker().is_none(),
            false => fences.deploy(SCENARIO, order.generation) != Verdict::Start,
        };
        !self.alive || is_moot
    }

    /// The next frame to publish; or the file has come to its end.
    pub(crate) fn work(&mut self, without: Without) -> Option<u64> {
        let Report { generation, .. } = self.worker()?;
        let is_sent = self.held.is_none();
        if self.next_frame < FRAMES && (is_sent || !without.has(Guard::PublishedInOrder)) {
            self.next_frame += 1;
            return Some(self.next_frame - 1);
        }
        if self.next_frame == FRAMES && (is_sent || !without.has(Guard::FinishedWhenPublished)) {
            self.report(generation, WorkerPhase::Finished);
        }
        None
    }

    pub(crate) fn hold(&mut self) {
        if self.held.is_none() && self.next_frame < FRAMES {
            self.held = Some(self.next_frame);
            self.next_frame += 1;
        }
    }

    fn report(&mut self, generation: Generation, phase: WorkerPhase) {
        // The planner looks at what was published only when the worker has ended.
        let published = self.published.filter(|_| phase.is_ended());
        self.reports.push(Some(Report { generation, phase, published }));
        if phase.is_ended() {
            (self.next_frame, self.count, self.held, self.published) = (0, 0, None, None);
        }
    }
}
