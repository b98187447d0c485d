//! A cluster on this machine: two processes of each role on a real PostgreSQL and a real Kafka.
//!
//! Processes are called by name, keep their port and their folder over restarts, and end with the test.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use framehook_core::{
    prediction::{Detection, Event, Prediction},
    topic::{Layout, Topic},
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::{Client, light_scenario},
    compiled_plugins, executables,
    platform::Place,
    process::{children_of, is_alive, signal, workers_of},
    release,
    servers::{self, Kafka, Postgres, Session, free_port, kafka_brokers, postgres_url},
    wait_for,
    witness::Witness,
};

pub const APIS: [&str; 2] = ["api-1", "api-2"];
pub const ORCHESTRATORS: [&str; 2] = ["orchestrator-1", "orchestrator-2"];
pub const RUNNERS: [&str; 2] = ["runner-1", "runner-2"];

/// Frames of the demo clip.
pub const FRAMES: u64 = 500;

/// Leases end after 5 and 10 s, a mass expiry is honoured for 30 s, and several of them may follow each other
/// on a busy machine.
pub const CLUSTER_DEADLINE: Duration = Duration::from_secs(180);

/// An API that is stopped in its tracks does not answer for this long before the next is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running cluster. Dropping it ends its processes; the folder goes with it.
pub struct Cluster {
    processes: BTreeMap<&'static str, Process>,
    client: Client,
    witness: Witness,
    reference: Vec<Found>,
    folder: TempDir,
    database_url: String,
    brokers: String,
    prefix: String,
    settings: BTreeMap<String, String>,
    servers: Option<(Postgres, Kafka)>,
    _place: Place,
}

struct Process {
    port: u16,
    child: Option<Child>,
}

impl Cluster {
    /// On the servers that the tests share, in a database and under a prefix of its own, with these further
    /// settings as variables of the environment.
    #[must_use]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_on(postgres_url(), kafka_brokers(), None, &env::temp_dir(), settings)
    }

    /// The same, with everything that its processes keep in a folder below this one.
    #[must_use]
    pub fn start_in(parent: &Path, settings: &[(&str, &str)]) -> Self {
        let compiled = parent.join("compiled").display().to_string();
        let settings = [settings, &[("FRAMEHOOK_COMPILED_DIR", &compiled)]].concat();
        Self::start_on(postgres_url(), kafka_brokers(), None, parent, &settings)
    }

    /// On servers of its own, which may be killed; the road of `runner-2` to Kafka can be cut.
    #[must_use]
    pub fn start_with_servers(settings: &[(&str, &str)]) -> Self {
        let (postgres, kafka) = (Postgres::start(), Kafka::start_with_proxy());
        Self::start_on(postgres.url(), kafka.brokers(), Some((postgres, kafka)), &env::temp_dir(), settings)
    }

    /// With what release 0.1.0 left in PostgreSQL, in Kafka and among the blobs, on the servers that the
    /// tests share. Its runner is gone.
    #[must_use]
    pub fn restore() -> Self {
        let mut cluster = Self::down_on(postgres_url(), kafka_brokers(), None, &env::temp_dir(), &[]);
        cluster.sql().query(&String::from_utf8(release::unpacked("postgres.sql")).expect("SQL is text"));
        for (topic, records) in release::records() {
            let Layout { partitions, .. } =
                Topic::ALL.into_iter().find(|t| t.name() == topic).expect("a topic of ours").layout();
            servers::topics::create(&cluster.brokers, &cluster.topic(&topic), partitions);
            servers::topics::write(&cluster.brokers, &cluster.topic(&topic), &records);
        }
        release::lay_blobs(&cluster.folder().join("blobs"), &release::scenarios("cluster")["completed"].scenario);
        cluster.all_up();
        cluster.witness = Witness::start(&cluster.database_url);
        cluster
    }

    fn start_on(
        server: String,
        brokers: String,
        servers: Option<(Postgres, Kafka)>,
        parent: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut cluster = Self::down_on(server, brokers, servers, parent, settings);
        cluster.all_up();
        cluster.witness = Witness::start(&cluster.database_url);
        cluster.upload_demo();
        let undisturbed = cluster.post_scenario(&light_scenario());
        cluster.reference = found(&cluster.completed(&undisturbed, FRAMES));
        cluster
    }

    /// With a database of its own, empty, and no process that runs.
    fn down_on(
        server: String,
        brokers: String,
        servers: Option<(Postgres, Kafka)>,
        parent: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let place = Place::take();
        let name = format!("framehook_{:016x}", fastrand::u64(..));
        Session::open(&server).query(&format!("CREATE DATABASE {name}"));
        let database_url = format!("{}/{name}", server.rsplit_once('/').expect("a URL names a database").0);
        let processes: BTreeMap<_, _> = [APIS, ORCHESTRATORS, RUNNERS]
            .into_iter()
            .flatten()
            .map(|name| (name, Process { port: free_port(), child: None }))
            .collect();
        let urls = APIS.map(|api| format!("http://127.0.0.1:{}", processes[api].port));
        Self {
            processes,
            client: Client::new(urls.into(), PATIENCE, CLUSTER_DEADLINE),
            witness: Witness::default(),
            reference: Vec::new(),
            folder: tempfile::tempdir_in(parent).expect("a temporary folder"),
            database_url,
            brokers,
            prefix: format!("{name}-"),
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            servers,
            _place: place,
        }
    }

    // ----- processes -----

    /// Starts a process that does not run, and does not wait for it.
    ///
    /// # Panics
    /// When it runs.
    pub fn up(&mut self, name: &'static str) {
        let role = name.split('-').next().unwrap_or_default();
        let mut command = self.command(role);
        command.args(["--port", &self.processes[name].port.to_string(), "--data"]).arg(self.data(name));
        if role == "runner" {
            command.env("FRAMEHOOK_RUNNER_ID", name);
        }
        if let (Some((_, kafka)), "runner-2") = (&self.servers, name) {
            command.env("KAFKA_BROKERS", format!("127.0.0.1:{}", kafka.proxy().port()));
        }
        let log = File::options().create(true).append(true).open(self.log_file(name)).expect("a log file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let process = self.processes.get_mut(name).expect("a process of this name");
        assert!(process.child.is_none(), "{name} runs already");
        process.child = Some(servers::spawn(command).expect("target/release/framehook is missing: run `make build`"));
    }

    /// `framehook`, as a process of this cluster runs it.
    fn command(&self, role: &str) -> Command {
        let mut command = Command::new(executables().join("framehook"));
        command.arg(role);
        command.envs([
            ("DATABASE_URL", self.database_url.clone()),
            ("KAFKA_BROKERS", self.brokers.clone()),
            ("FRAMEHOOK_KAFKA_PREFIX", self.prefix.clone()),
            ("FRAMEHOOK_BLOBS", format!("file://{}", self.folder.path().join("blobs").display())),
            ("FRAMEHOOK_COMPILED_DIR", compiled_plugins().display().to_string()),
            // No hook is ended for the time it keeps busy on a busy machine.
            ("FRAMEHOOK_HOOK_CALL_MS", "5000".to_owned()),
        ]);
        command.envs(&self.settings);
        command
    }

    /// `kill -9`; the workers of a runner end with it. A process that does not run stays as it is.
    pub fn kill(&mut self, name: &str) {
        let process = self.processes.get_mut(name).expect("a process of this name");
        let Some(mut child) = process.child.take() else { return };
        let children = children_of(child.id());
        child.kill().and_then(|()| child.wait()).expect("a child of ours can be killed");
        for child in children {
            wait_for("the workers to end with their runner", CLUSTER_DEADLINE, || (!is_alive(child)).then_some(()));
        }
    }

    /// SIGTERM; gives the exit code.
    pub fn stop(&mut self, name: &str) -> Option<i32> {
        self.signal(name, Signal::TERM);
        self.ended(name)
    }

    /// Waits until a process has ended by itself; gives the exit code.
    pub fn ended(&mut self, name: &str) -> Option<i32> {
        let process = self.processes.get_mut(name).expect("a process of this name");
        let mut child = process.child.take().expect("it runs");
        wait_for("a process to end", CLUSTER_DEADLINE, || child.try_wait().expect("a child of ours")).code()
    }

    /// To a process that runs.
    pub fn signal(&self, name: &str, to_send: Signal) {
        signal(self.pid(name), to_send);
    }

    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        self.processes[name].child.is_some()
    }

    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        self.processes[name].child.as_ref().expect("it runs").id()
    }

    /// The worker processes of a runner.
    #[must_use]
    pub fn workers(&self, runner: &str) -> Vec<u32> {
        workers_of(self.pid(runner))
    }

    /// `framehook runner drain`, until it has.
    #[must_use]
    pub fn drain(&self, runner: &str) -> Output {
        let mut command = self.command("runner");
        command.arg("drain").arg("--data").arg(self.data(runner)).output().expect("framehook can be run")
    }

    /// Starts again what ended by itself, as the service manager of a machine does: a process that finds no
    /// server at its start says so and ends.
    pub fn revive(&mut self) {
        let mut ended = Vec::new();
        for (name, process) in &mut self.processes {
            let child = process.child.as_mut();
            if child.is_some_and(|child| child.try_wait().expect("a child of ours").is_some()) {
                process.child = None;
                ended.push(*name);
            }
        }
        ended.into_iter().for_each(|name| self.up(name));
    }

    /// Starts whatever does not run, and waits until everything is ready.
    pub fn all_up(&mut self) {
        let down: Vec<_> = self.processes.iter().filter(|(_, p)| p.child.is_none()).map(|(name, _)| *name).collect();
        for name in down {
            self.up(name);
        }
        self.all_ready();
    }

    fn all_ready(&mut self) {
        let names: Vec<_> = self.processes.keys().copied().collect();
        for name in names {
            let client = Client::new(vec![self.url_of(name)], PATIENCE, CLUSTER_DEADLINE);
            wait_for(&format!("{name} to be ready"), CLUSTER_DEADLINE, || {
                self.revive();
                (client.answers() && client.get("/readyz").status == 200).then_some(())
            });
        }
        wait_for("the runners to be heard of", CLUSTER_DEADLINE, || {
            let runners = self.read("/runner")["items"].clone();
            let alive = |runner: &&Value| runner["alive"] == true && runner["draining"] == false;
            (runners.as_array()?.iter().filter(alive).count() == RUNNERS.len()).then_some(())
        });
    }

    // ----- where things are -----

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// What a process wrote so far, in all its lives.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    /// Where a process answers to `/healthz`, `/readyz` and `/metrics`.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.processes[name].port)
    }

    /// Whether a process answers at once.
    #[must_use]
    pub fn answers(&self, name: &str) -> bool {
        Client::new(vec![self.url_of(name)], Duration::from_secs(1), CLUSTER_DEADLINE).answers()
    }

    #[must_use]
    pub fn sql(&self) -> Session {
        Session::open(&self.database_url)
    }

    /// Everything in the database, as SQL.
    #[must_use]
    pub fn dump(&self) -> Vec<u8> {
        let dump =
            Command::new("pg_dump").arg(&self.database_url).output().expect("pg_dump is installed with PostgreSQL");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        dump.stdout
    }

    /// Holds the data folders and logs of all processes, and the shared blobs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The full name of a topic.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// # Panics
    /// When it runs on servers that others use.
    pub fn postgres(&mut self) -> &mut Postgres {
        &mut self.servers.as_mut().expect("servers of its own").0
    }

    /// # Panics
    /// When it runs on servers that others use.
    pub fn kafka(&mut self) -> &mut Kafka {
        &mut self.servers.as_mut().expect("servers of its own").1
    }

    /// Kafka loses everything, and each process is started again, as an operator would do.
    ///
    /// # Panics
    /// When it runs on servers that others use.
    pub fn lose_the_log(&mut self) {
        // As after a long life: no partition is new.
        const ALL_READ: &str = "
            INSERT INTO consumer_offsets (consumer, topic, partition, next_offset)
            SELECT 'results-inbox', 'results', partition, 100000 FROM generate_series(0, 23) AS partition
            ON CONFLICT (consumer, topic, partition) DO UPDATE SET next_offset = 100000";
        self.witness.expect_another_log();
        let names: Vec<_> = self.processes.keys().copied().collect();
        names.iter().for_each(|name| self.kill(name));
        self.sql().query(ALL_READ);
        self.kafka().lose_everything();
        self.all_up();
    }

    /// The orchestrator that leads, and its epoch.
    #[must_use]
    pub fn leader(&self) -> (&'static str, i64) {
        const IN_FORCE: &str = "SELECT epoch FROM leader_lease
            WHERE expires_at > extract(epoch FROM clock_timestamp()) * 1000000";
        let mut sql = self.sql();
        wait_for("a leader", CLUSTER_DEADLINE, || {
            let epoch: i64 = sql.query(IN_FORCE).first()?.parse().ok()?;
            let leads = |name: &&str| {
                self.log(name).lines().any(|line| line.contains("leading") && line.ends_with(&format!("epoch={epoch}")))
            };
            ORCHESTRATORS.into_iter().find(leads).map(|name| (name, epoch))
        })
    }

    /// Lets `api-1` die at a chosen statement: in its turn alone, it runs into `lock`, is killed there, and
    /// nothing of its transaction is ever committed. `then` says what leads it there, and `at` looks while it
    /// waits.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn dies_at<T>(&mut self, lock: &str, then: impl FnOnce(&Self) -> T, at: impl FnOnce(&Self, &T)) -> T {
        const WAITING: &str = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.kill("api-2");
        let (mut sql, mut holder) = (self.sql(), self.sql());
        holder.query(&format!("BEGIN; {lock}"));
        let given = then(self);
        wait_for("api-1 to wait for the lock", CLUSTER_DEADLINE, || {
            (sql.number(&format!("SELECT count(*) {WAITING}")) > 0).then_some(())
        });
        at(self, &given);
        self.kill("api-1");
        // The server would notice only at its next word to it, which could be that the commit is done.
        sql.query(&format!("SELECT pg_terminate_backend(pid) {WAITING}"));
        wait_for("its transaction to be gone", CLUSTER_DEADLINE, || {
            (sql.number(&format!("SELECT count(*) {WAITING}")) == 0).then_some(())
        });
        holder.query("ROLLBACK");
        given
    }

    /// How often a message with this key is in a topic.
    #[must_use]
    pub fn times_published(&self, topic: &str, key: &str) -> usize {
        let records = servers::topics::read(&self.brokers, &self.topic(topic));
        records.iter().filter(|record| record.key == key.as_bytes()).count()
    }

    /// The runner that a scenario runs on.
    #[must_use]
    pub fn runner_of(&self, id: &str) -> &'static str {
        wait_for("the scenario to be placed", CLUSTER_DEADLINE, || {
            let runner = self.scenario(id)["runner"].clone();
            RUNNERS.into_iter().find(|name| runner == *name)
        })
    }

    // ----- what must hold -----

    /// All complete, each with the rows of the undisturbed run; then what must hold of the whole, holds.
    pub fn settle(&mut self, ids: &[String]) {
        for id in ids {
            let rows = found(&self.completed(id, FRAMES));
            assert!(rows == self.reference, "the rows of scenario {id} are not those of the undisturbed run");
        }
        self.at_rest();
    }

    /// Nothing is under way: every message is published, every result is stored, and no invariant was ever
    /// broken.
    pub fn at_rest(&mut self) {
        let mut sql = self.sql();
        wait_for("the outbox to be empty", CLUSTER_DEADLINE, || {
            (sql.number("SELECT count(*) FROM outbox_scenario WHERE published_at IS NULL") == 0).then_some(())
        });
        let topic = self.topic("results");
        wait_for("the inbox to have read everything", CLUSTER_DEADLINE, || {
            let read: BTreeMap<_, _> = sql
                .query("SELECT partition, next_offset FROM consumer_offsets WHERE topic = 'results'")
                .iter()
                .filter_map(|row| row.split_once('\t'))
                .map(|(partition, next)| (partition.parse().unwrap_or(-1), next.parse().unwrap_or(-1)))
                .collect();
            let ends = servers::topics::ends(&self.brokers, &topic);
            ends.iter().all(|(partition, end)| read.get(partition).copied().unwrap_or(0) >= *end).then_some(())
        });
        wait_for("every worker to have ended", CLUSTER_DEADLINE, || {
            (sql.number("SELECT count(*) FROM workers WHERE state IN ('pending', 'deployed', 'running')") == 0)
                .then_some(())
        });
        self.witness.check();
    }
}

/// What was found on a frame, and what happened on it.
type Found = (i64, Vec<Detection>, Vec<Event>);

/// What was found on each frame.
#[must_use]
pub fn found(rows: &[Prediction]) -> Vec<Found> {
    rows.iter().map(|row| (row.pts_us, row.detections.clone(), row.events.clone())).collect()
}

impl Deref for Cluster {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let names: Vec<_> = self.processes.keys().copied().collect();
        for name in &names {
            self.kill(name);
        }
        if std::thread::panicking() {
            // Too long for a terminal, and gone with the folder otherwise.
            let keep = env::temp_dir().join(format!("framehook-test-{}", std::process::id()));
            fs::create_dir_all(&keep).ok();
            for name in &names {
                fs::copy(self.log_file(name), keep.join(format!("{name}.log"))).ok();
            }
            eprintln!("what the processes said is in {}", keep.display());
        }
    }
}
