//! Anything may happen to anything, every two seconds, while scenarios come in; in the end all of them are
//! complete, with the rows of an undisturbed run.
//!
//! A minute of it by default; `FRAMEHOOK_CHAOS_S` says how many seconds (`make chaos`: 600). The seed is
//! printed, and `FRAMEHOOK_TEST_SEED` takes it: the same events, though never at quite the same moments.

use std::{
    env,
    time::{Duration, Instant},
};

use framehook_tests::{
    client::slow_scenario,
    cluster::{APIS, Cluster, ORCHESTRATORS, RUNNERS},
    process::signal,
    seed,
    servers::Redis,
    wait_for,
};
use rustix::process::Signal;

/// Between two events.
const PERIOD: Duration = Duration::from_secs(2);
/// Scenarios that are wanted to run at a time: fewer than one runner can take, so that one suffices.
const RUNNING: usize = 3;
/// Five seconds a run and more.
const FRAME_MS: u64 = 10;
/// Longer than every lease.
const LONGEST: u64 = 15;

/// What was done, and is to be undone at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Undo {
    Start(&'static str),
    Continue(&'static str),
    Mend,
    ContinueKafka,
    ResumeRedis,
}

struct Chaos {
    cluster: Cluster,
    redis: Redis,
    random: fastrand::Rng,
    undo: Vec<(Instant, Undo)>,
}

#[test]
fn whatever_happens_in_whatever_order_everything_completes() {
    let seconds = env::var("FRAMEHOOK_CHAOS_S").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    println!("FRAMEHOOK_CHAOS_S={seconds}");
    let redis = Redis::start();
    let cluster = Cluster::start_with_servers(&[("FRAMEHOOK_FRAME_TIMEOUT_S", "3"), ("REDIS_URL", &redis.url())]);
    let mut chaos = Chaos { cluster, redis, random: fastrand::Rng::with_seed(seed()), undo: Vec::new() };

    let end = Instant::now() + Duration::from_secs(seconds);
    let mut ids: Vec<String> = Vec::new();
    while Instant::now() < end {
        chaos.undo_what_is_due(Instant::now());
        chaos.cluster.revive();
        chaos.event();
        let next = Instant::now() + PERIOD;
        // Somebody must be there to be asked.
        if chaos.api_answers() {
            let live = ids.iter().filter(|id| chaos.cluster.scenario(id)["state"] != "completed").count();
            ids.extend((live..RUNNING).map(|_| chaos.cluster.post_scenario(&slow_scenario(FRAME_MS))));
        }
        wait_for("the next event", PERIOD * 2, || (Instant::now() >= next).then_some(()));
    }
    println!("{} scenarios; now everything is mended", ids.len());
    chaos.undo_what_is_due(end + Duration::from_secs(2 * LONGEST));
    chaos.cluster.all_up();
    chaos.cluster.settle(&ids);
}

impl Chaos {
    fn undo_what_is_due(&mut self, now: Instant) {
        let (due, later) = self.undo.drain(..).partition(|(at, _)| *at <= now);
        self.undo = later;
        let due: Vec<(Instant, Undo)> = due;
        for (_, undo) in due {
            println!("   {undo:?}");
            match undo {
                Undo::Start(name) => self.cluster.up(name),
                Undo::Continue(name) => self.cluster.signal(name, Signal::CONT),
                Undo::Mend => self.cluster.kafka().proxy().mend(),
                Undo::ContinueKafka => self.cluster.kafka().signal(Signal::CONT),
                Undo::ResumeRedis => self.redis.resume(),
            }
        }
    }

    /// Does one thing to something that nothing else is being done to.
    fn event(&mut self) {
        let name = *self.random.choice([APIS, ORCHESTRATORS, RUNNERS].as_flattened()).expect("there are some");
        let until = Instant::now() + Duration::from_secs(self.random.u64(1..=LONGEST));
        let is_whole = !self.undo.iter().any(|(_, undo)| [Undo::Start(name), Undo::Continue(name)].contains(undo));
        let what = self.random.u32(0..100);
        println!("-- {what} {name}");
        match what {
            0..25 if is_whole => {
                self.cluster.kill(name);
                self.undo.push((until, Undo::Start(name)));
            }
            25..45 if is_whole => {
                self.cluster.signal(name, Signal::STOP);
                self.undo.push((until, Undo::Continue(name)));
            }
            45..55 if is_whole => {
                self.cluster.stop(name);
                self.undo.push((until, Undo::Start(name)));
            }
            55..75 if self.cluster.runs(name) => {
                let how = *self.random.choice(&[Signal::KILL, Signal::STOP]).expect("there are some");
                self.cluster.workers(name).into_iter().for_each(|worker| signal(worker, how));
            }
            75..83 if !self.undo.iter().any(|(_, undo)| *undo == Undo::Mend) => {
                self.cluster.kafka().proxy().cut();
                self.undo.push((until, Undo::Mend));
            }
            83..88 if !self.undo.iter().any(|(_, undo)| *undo == Undo::ContinueKafka) => {
                self.cluster.kafka().signal(Signal::STOP);
                self.undo.push((until, Undo::ContinueKafka));
            }
            88..92 if !self.undo.iter().any(|(_, undo)| *undo == Undo::ContinueKafka) => {
                self.cluster.kafka().kill();
                self.cluster.kafka().start_again();
            }
            92..94 if !self.undo.iter().any(|(_, undo)| *undo == Undo::ResumeRedis) => {
                self.redis.hang();
                self.undo.push((until, Undo::ResumeRedis));
            }
            94..96 if !self.undo.iter().any(|(_, undo)| *undo == Undo::ResumeRedis) => {
                self.redis.kill();
                self.redis.start_again();
            }
            96.. => {
                self.cluster.postgres().kill();
                self.cluster.postgres().start_again();
            }
            _ => {}
        }
    }

    fn api_answers(&self) -> bool {
        APIS.iter().any(|api| self.cluster.answers(api))
    }
}
