//! An orchestrator that is late harms nobody (I10): with two hundred simulated runners, everything
//! that it needs is stopped in its tracks for a while, and none of their workers is stopped,
//! restarted or told a third time.
//!
//! `make scale` does the same for a minute each.

use std::{
    env,
    time::{Duration, Instant},
};

use framehook_tests::{
    client::{Client, demo_scenario},
    cluster::{APIS, CLUSTER_DEADLINE, Cluster, ORCHESTRATORS},
    fleet::{Fleet, LABEL, Seen},
    wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const RUNNERS: usize = 200;
const CAPACITY: u32 = 8;
/// Workers that run all the time, and those that were just posted when something stops.
const RUNNING: usize = 400;
const NEW: usize = 40;

/// A runner's lease, and a little: what is concluded from a silence is concluded within it.
const LEASE: Duration = Duration::from_secs(12);

#[derive(Clone, Copy, Debug)]
enum What {
    Orchestrators,
    Postgres,
    Kafka,
}

impl What {
    fn signal(self, cluster: &mut Cluster, signal: Signal) {
        match self {
            Self::Orchestrators => ORCHESTRATORS.into_iter().for_each(|name| cluster.signal(name, signal)),
            Self::Postgres => cluster.postgres().signal(signal),
            Self::Kafka => cluster.kafka().signal(signal),
        }
    }
}

/// How long things stop, in seconds.
fn freezes() -> Vec<u64> {
    let given = env::var("FRAMEHOOK_FREEZE_S").unwrap_or_else(|_| "3,15".into());
    given
        .split(',')
        .map(|seconds| seconds.parse().expect("FRAMEHOOK_FREEZE_S is seconds, separated by commas"))
        .collect()
}

#[test]
fn whatever_stops_for_a_while_no_healthy_runner_notices() {
    let mut cluster = Cluster::start_with_servers(&[]);
    let fleet = Fleet::start(cluster.brokers(), &cluster.topic(""), RUNNERS, CAPACITY);
    wait_for("the fleet to be heard of", CLUSTER_DEADLINE, || {
        let runners = cluster.read("/runner?limit=1000")["items"].as_array().cloned().unwrap_or_default();
        let is_there = |runner: &&Value| runner["alive"] == true && runner["labels"][LABEL.0] == LABEL.1;
        (runners.iter().filter(is_there).count() == RUNNERS).then_some(())
    });
    let mut posted = post(&cluster, RUNNING);
    settled(&cluster, &fleet, posted);
    assert_eq!(superfluous(&fleet.seen()), 0, "nothing has stopped yet");

    for seconds in freezes() {
        for what in [What::Orchestrators, What::Postgres, What::Kafka] {
            println!("== {what:?} stopped for {seconds} s");
            posted += post(&cluster, NEW);
            what.signal(&mut cluster, Signal::STOP);
            let begin = Instant::now();
            wait_for("the time to go by", CLUSTER_DEADLINE, || (begin.elapsed().as_secs() >= seconds).then_some(()));
            what.signal(&mut cluster, Signal::CONT);
            settled(&cluster, &fleet, posted);
            heard_for(&cluster, LEASE);
            unharmed(&cluster, &fleet.seen(), posted);
        }
    }
}

/// Posts scenarios that only the fleet takes.
fn post(cluster: &Cluster, count: usize) -> usize {
    let mut scenario = demo_scenario();
    scenario["placement"] = json!({LABEL.0: LABEL.1});
    for _ in 0..count {
        let _id = cluster.post_scenario(&scenario);
    }
    count
}

/// All that were posted run, and the platform knows.
fn settled(cluster: &Cluster, fleet: &Fleet, posted: usize) {
    wait_for("the fleet to run everything", CLUSTER_DEADLINE, || (fleet.seen().running.len() == posted).then_some(()));
    let mut sql = cluster.sql();
    wait_for("the platform to know", CLUSTER_DEADLINE, || {
        let running = sql.number("SELECT count(*) FROM scenarios WHERE state = 'running'");
        (usize::try_from(running) == Ok(posted)).then_some(())
    });
}

/// A leader has heard everything for this long: what there is to conclude it has concluded.
fn heard_for(cluster: &Cluster, time: Duration) {
    let mut sql = cluster.sql();
    let since = sql.number("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
    let until = since + i64::try_from(time.as_micros()).unwrap();
    wait_for("every runner to be heard of later", CLUSTER_DEADLINE, || {
        (sql.number("SELECT min(arrived_after) FROM runners WHERE runner_id LIKE 'simulated-%'") >= until).then_some(())
    });
}

/// Orders beyond one a worker.
fn superfluous(seen: &Seen) -> u32 {
    seen.deploys.values().map(|orders| orders - 1).sum()
}

fn unharmed(cluster: &Cluster, seen: &Seen, posted: usize) {
    println!("{posted} workers, {} superfluous orders, {} stops", superfluous(seen), seen.stops);
    let mut sql = cluster.sql();
    for name in ORCHESTRATORS {
        let log = cluster.log(name);
        let lost: Vec<_> = log.lines().filter(|line| line.contains("runner written off")).collect();
        assert!(lost.is_empty(), "{name} wrote healthy runners off: {lost:#?}");
    }
    assert_eq!(seen.stops, 0, "healthy workers were told to stop");
    assert_eq!(sql.number("SELECT count(*) FROM workers WHERE runner_id LIKE 'simulated-%' AND generation > 1"), 0);
    assert_eq!(seen.deploys.len(), posted, "one deployment a scenario");
    let most = seen.deploys.values().max().copied().unwrap_or_default();
    assert!(most <= 2, "a worker was told {most} times");
}

/// How late the leader says it is: the standby is late with nothing.
#[test]
fn a_leader_says_how_late_it_is() {
    let cluster = Cluster::start(&[]);
    let (leader, _) = cluster.leader();
    for name in ORCHESTRATORS.into_iter().chain([APIS[0]]) {
        let text = Client::of(&cluster.url_of(name)).get("/metrics").body;
        let text = text.as_str().expect("metrics are text");
        let value = |metric: &str| {
            let line = text.lines().find(|line| line.starts_with(metric))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        let ages = ["framehook_heartbeat_lag_seconds ", "framehook_scan_age_seconds "].map(value);
        match ages {
            [None, None] => assert_eq!(name, APIS[0], "an API has none"),
            [Some(lag), Some(age)] if name == leader => assert!(lag > 0.0 && age > 0.0, "{lag} {age}"),
            [Some(lag), Some(age)] => assert!(lag == 0.0 && age == 0.0, "{name} stands by: {lag} {age}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}
