//! What is PostgreSQL's own; what every store must do is in the conformance suite.

use std::{collections::BTreeSet, time::Instant};

use framehook_core::{
    artifact::ArtifactKind,
    ids::{Digest, Incarnation, RunnerId, ScenarioId},
    message::{Message, StopOrder},
    planner::Action,
    prediction::{Detection, FrameTimings, Prediction, Provenance},
    prediction_record::PredictionRecord,
    state::{Desired, ScenarioState, WorkerState},
};
use framehook_tests::{
    DEADLINE,
    servers::{self, postgres_url},
};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::task::{JoinSet, spawn_blocking};
use uuid::Uuid;

use super::{
    sql_store::{delivery, orchestrator, outbox, results, scenarios},
    *,
};
use crate::store::{Fenced, HISTORY_LINES, Keep, Limit, PredictionQuery, ResultBatch, StoreOutcome};

const LONG: Duration = Duration::from_secs(3600);

/// A new database on `server`.
async fn database(server: &str) -> String {
    let name = format!("framehook_{}", Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(server).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    format!("{}/{name}", server.rsplit_once('/').unwrap().0)
}

async fn fresh() -> String {
    database(&spawn_blocking(postgres_url).await.unwrap()).await
}

async fn open(url: &str) -> Postgres {
    Postgres::connect(url, 8, HISTORY_LINES).await.unwrap()
}

#[tokio::test]
async fn migrations_may_race() {
    let url = fresh().await;
    let opened = futures::future::join_all((0..4).map(|_| Postgres::connect(&url, 2, HISTORY_LINES))).await;
    for store in opened {
        store.unwrap().store().ping().await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_no_password() {
    let url = fresh().await;
    let postgres = open(&url).await;
    const FROM_THE_FUTURE: &str = "
        INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, '', true, '', 0)";
    sqlx::query(FROM_THE_FUTURE).execute(&postgres.store.pool).await.unwrap();
    assert!(matches!(Postgres::connect(&url, 1, HISTORY_LINES).await, Err(OpenError::Newer { .. })));

    let wrong = [
        (url.replace("//postgres@", "//nobody@"), "role \"nobody\" does not exist; check user and password"),
        (format!("{url}_"), "does not exist; create that database, or name another"),
        (url.replace("postgres://", "mysql://"), "expected postgres://"),
        (format!("{url}?sslmode=require"), "check `sslmode`"),
    ];
    for (url, what) in wrong {
        let error = Postgres::connect(&url, 1, HISTORY_LINES).await.err().unwrap().to_string();
        assert!(error.contains(what) && !error.contains(" at line "), "{error}");
    }

    let port = servers::free_port();
    let nobody = format!("postgres://me:canary@127.0.0.1:{port}/x");
    for url in [nobody.as_str(), "postgres://me:canary@[/x"] {
        let error = Postgres::connect(url, 1, HISTORY_LINES).await.err().unwrap();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        assert!(url != nobody || error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}

#[tokio::test]
async fn a_connection_may_be_encrypted_and_check_who_answers() {
    let (server, certificate) = spawn_blocking(|| {
        let server = servers::Postgres::start();
        let certificate = server.encrypt();
        (server, certificate)
    })
    .await
    .unwrap();
    let url = format!("{}?sslmode=verify-full", server.url());
    let trusting = format!("{url}&sslrootcert={}", certificate.display());
    // It reads its settings again in its own time.
    let begin = Instant::now();
    let postgres = loop {
        match Postgres::connect(&trusting, 2, HISTORY_LINES).await {
            Ok(postgres) => break postgres,
            Err(error) => {
                assert!(error.to_string().contains("check `sslmode`") && begin.elapsed() < DEADLINE, "{error}");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    };
    const IS_ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(sqlx::query_scalar::<_, bool>(IS_ENCRYPTED).fetch_one(&postgres.store.pool).await.unwrap());
    let error = Postgres::connect(&url, 2, HISTORY_LINES).await.err().unwrap().to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn checks_allow_exactly_the_states_there_are() {
    let postgres = open(&fresh().await).await;
    let states: BTreeSet<_> = ScenarioState::ALL.iter().map(|s| s.as_str().to_owned()).collect();
    let desired: BTreeSet<_> = Desired::ALL.iter().map(|s| s.as_str().to_owned()).collect();
    let workers: BTreeSet<_> = WorkerState::ALL.iter().map(|s| s.as_str().to_owned()).collect();
    let kinds: BTreeSet<_> = ArtifactKind::ALL.iter().map(|s| s.as_str().to_owned()).collect();
    for (constraint, expected) in [
        ("scenarios_state_check", &states),
        ("scenarios_desired_check", &desired),
        ("scenario_history_from_state_check", &states),
        ("scenario_history_to_state_check", &states),
        ("scenario_history_desired_check", &desired),
        ("workers_state_check", &workers),
        ("artifacts_kind_check", &kinds),
    ] {
        const CHECK: &str = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1";
        let check = sqlx::query_scalar(CHECK).bind(constraint);
        let check: String = check.fetch_one(&postgres.store.pool).await.unwrap();
        // Every second piece is between quotes.
        let allowed: BTreeSet<_> = check.split('\'').skip(1).step_by(2).map(str::to_owned).collect();
        assert_eq!(&allowed, expected, "{constraint}");
    }
}

#[tokio::test]
async fn hot_statements_use_their_index() {
    let postgres = open(&fresh().await).await;
    let mut connection = postgres.store.pool.acquire().await.unwrap();
    // On empty tables a scan is always cheaper; the question is whether the index can serve the statement.
    for setting in ["SET enable_seqscan = off", "SET enable_sort = off", "SET plan_cache_mode = force_generic_plan"] {
        sqlx::query(setting).execute(&mut *connection).await.unwrap();
    }
    let id = "'00000000-0000-0000-0000-000000000000'";
    for (statement, parameters, index) in [
        (results::RANGE, format!("{id}, 0, 9, 9"), "scenario_results_rest_pkey"),
        (outbox::UNPUBLISHED, "9".to_owned(), "outbox_scenario_unpublished"),
        (relay::CLAIM, "9, 9".to_owned(), "outbox_scenario_unpublished"),
        (outbox::LAG, id.to_owned(), "outbox_scenario_unpublished"),
        (orchestrator::UNSETTLED, String::new(), "scenarios_not_at_rest"),
        (orchestrator::UNSETTLED_BY_STATE, String::new(), "scenarios_not_at_rest"),
        (orchestrator::LIVE_WORKERS, String::new(), "workers_one_live"),
        (delivery::REPORTED, id.to_owned(), "workers_pkey"),
        (delivery::DROPPED, format!("'key', {id}"), "dead_letters_by_key"),
        (scenarios::PAGE_OF_NAME, format!("NULL, {id}, 9, 9, 'name'"), "scenarios_by_name"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(format!("PREPARE hot AS {statement}"))).execute(&mut *connection).await.unwrap();
        let parameters = if parameters.is_empty() { parameters } else { format!("({parameters})") };
        let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE hot{parameters}"));
        let plan = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{index}: {plan:#?}");
        sqlx::raw_sql("DEALLOCATE hot").execute(&mut *connection).await.unwrap();
    }
}

const TEN: Limit = Limit { rows: 10, bytes: u64::MAX };

async fn days(postgres: &Postgres) -> i64 {
    const COUNT: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'scenario_results'::regclass";
    sqlx::query_scalar(COUNT).fetch_one(&postgres.store.pool).await.unwrap()
}

#[tokio::test]
async fn days_are_made_ahead_and_dropped() {
    let postgres = open(&fresh().await).await;
    assert_eq!(days(&postgres).await, 5, "today, three more, and the rest");
    const OLD: &str = "
        CREATE TABLE scenario_results_day_20200101 PARTITION OF scenario_results
        FOR VALUES FROM (1577836800000000) TO (1577923200000000)";
    sqlx::query(OLD).execute(&postgres.store.pool).await.unwrap();
    let id = insert_scenario(&postgres).await;
    let at = |us| Timestamp::from_microsecond(us).unwrap();
    let now = Timestamp::now();
    let rows = [at(1_577_836_800_000_000), at(1_500_000_000_000_000), now];
    let rows = (0..).zip(rows).map(|(n, captured_at)| Prediction { captured_at, ..prediction(id, n) }).collect();
    assert_eq!(postgres.store().store_results(&batch(0, 1, rows)).await.unwrap(), StoreOutcome::Stored);
    let store = postgres.store();
    store.trim(Keep { published: LONG, ..Keep::default() }).await.unwrap();
    assert_eq!(days(&postgres).await, 6, "made once");
    store.drop_results(LONG * 48).await.unwrap();
    assert_eq!(days(&postgres).await, 5);
    let query = PredictionQuery { after_pts_us: None, from_pts_us: None, until_pts_us: None, limit: TEN };
    let left = store.predictions(id, query).await.unwrap().unwrap().rows;
    assert_eq!(left.iter().map(|p| p.pts_us).collect::<Vec<_>>(), [80_000]);
}

#[tokio::test]
async fn a_key_twice_in_a_batch_keeps_the_highest_generation() {
    let postgres = open(&fresh().await).await;
    let id = insert_scenario(&postgres).await;
    let of = |generation, frame| Prediction { generation, frame, ..prediction(id, 0) };
    let rows = vec![of(1, 1), of(2, 2), of(2, 3), of(1, 4)];
    postgres.store().store_results(&batch(0, 1, rows)).await.unwrap();
    let query = PredictionQuery { after_pts_us: None, from_pts_us: None, until_pts_us: None, limit: TEN };
    let rows = postgres.store().predictions(id, query).await.unwrap().unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.read().unwrap()).collect::<Vec<_>>(), [of(2, 3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_one_database() {
    let url = fresh().await;
    let (one, two) = (open(&url).await, open(&url).await);
    let id = insert_scenario(&one).await;

    // Two that begin at once: one leads.
    let (first, second) = (one.store(), two.store());
    let (a, b) =
        tokio::join!(first.lead(Uuid::now_v7(), true, LONG, LONG), second.lead(Uuid::now_v7(), true, LONG, LONG));
    assert_eq!([a.unwrap(), b.unwrap()].iter().flatten().collect::<Vec<_>>(), [&1]);

    // Two inboxes on one partition: each batch is stored once.
    let mut inboxes = JoinSet::new();
    for store in [one.store(), two.store()] {
        inboxes.spawn(async move {
            let mut stored = 0;
            for n in 0..50 {
                let outcome = store.store_results(&batch(n, n + 1, vec![prediction(id, n)])).await.unwrap();
                stored += u32::from(outcome == StoreOutcome::Stored);
            }
            stored
        });
    }
    let stored: u32 = inboxes.join_all().await.iter().sum();
    let offset = one.store().consumer_offset("inbox", "results", 0).await.unwrap();
    assert_eq!(i64::from(stored), offset);
}

#[tokio::test]
async fn an_old_epoch_changes_nothing() {
    let url = fresh().await;
    let (one, two) = (open(&url).await, open(&url).await);
    let id = insert_scenario(&one).await;
    let old = one.store().lead(Uuid::now_v7(), true, Duration::ZERO, LONG).await.unwrap().unwrap();
    let new = two.store().lead(Uuid::now_v7(), true, LONG, LONG).await.unwrap().unwrap();
    let (runner_id, incarnation) = (RunnerId("here".into()), Incarnation::generate());
    let action = Action::Stop(StopOrder { scenario_id: id, generation: 1, runner_id, incarnation });
    assert_eq!(one.store().apply(old, &action).await.unwrap(), Fenced::NotLeader);
    assert_eq!(one.store().outbox(9).await.unwrap(), []);
    assert_eq!(two.store().apply(new, &action).await.unwrap(), Fenced::Done);
    assert_eq!(one.store().outbox(9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_claim_keeps_others_away_until_it_ends() {
    let url = fresh().await;
    let (one, two) = (open(&url).await, open(&url).await);
    fill_outbox(&one, 3).await;
    let claimed = one.store().claim_outbox(2, LONG).await.unwrap();
    assert_eq!(claimed, one.store().outbox(2).await.unwrap());
    // A claim of no length: whoever holds it dies at once.
    assert_eq!(two.store().claim_outbox(9, Duration::ZERO).await.unwrap().len(), 1);
    assert_eq!(two.store().claim_outbox(9, LONG).await.unwrap().len(), 1);
    assert_eq!(two.store().claim_outbox(9, LONG).await.unwrap(), []);
    one.store().mark_published(&claimed.iter().map(|e| e.id).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(two.store().outbox(9).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_outlives_a_crash_of_the_server() {
    let mut server = spawn_blocking(servers::Postgres::start).await.unwrap();
    let postgres = open(&database(&server.url()).await).await;
    let store = postgres.store();
    futures::future::join_all((0..8).map(|_| store.ping())).await;
    let id = insert_scenario(&postgres).await;
    store.store_results(&batch(0, 1, vec![prediction(id, 0)])).await.unwrap();
    let server = spawn_blocking(move || {
        server.kill();
        server.start_again();
        server
    });
    let _server = server.await.unwrap();
    futures::future::try_join_all((0..8).map(|_| store.ping())).await.unwrap();
    assert_eq!(store.consumer_offset("inbox", "results", 0).await.unwrap(), 1, "what was answered is there");
}

/// `cargo test --release -p framehook-infra --lib -- --ignored --nocapture postgres::tests::speed`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check"]
async fn speed() {
    const BATCHES: i64 = 100;
    const BARE: &str = "
        INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction, skipped)
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::boolean[])";
    let postgres = open(&fresh().await).await;
    let (id, bare) = (insert_scenario(&postgres).await, Uuid::now_v7());
    let rows = |n: i64| (n * 500..(n + 1) * 500).map(|k| prediction(id, k)).collect::<Vec<_>>();
    let payload = serde_json::to_string(&prediction(id, 0)).unwrap();
    for round in 0..3 {
        let first = round * BATCHES;
        let batches: Vec<_> = (first..first + BATCHES).map(|n| batch(n, n + 1, rows(n))).collect();
        let begin = Instant::now();
        for batch in batches {
            assert_eq!(postgres.store().store_results(&batch).await.unwrap(), StoreOutcome::Stored);
        }
        let stored = 500.0 * BATCHES as f64 / begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        for n in first..first + BATCHES {
            sqlx::query(BARE)
                .bind(vec![bare; 500])
                .bind((n * 500..(n + 1) * 500).map(|k| k * 40_000).collect::<Vec<_>>())
                .bind(vec![1_i64; 500])
                .bind((n * 500..(n + 1) * 500).collect::<Vec<_>>())
                .bind(vec![0_i64; 500])
                .bind(vec![payload.clone(); 500])
                .bind(vec![false; 500])
                .execute(&postgres.store.pool)
                .await
                .unwrap();
        }
        let inserted = 500.0 * BATCHES as f64 / begin.elapsed().as_secs_f64();
        println!("{stored:.0} rows/s, bare insert {inserted:.0}: {:.2}", stored / inserted);
    }
    fill_outbox(&postgres, 20_000).await;
    let (begin, mut count) = (Instant::now(), 0);
    loop {
        let claimed = postgres.store().claim_outbox(500, LONG).await.unwrap();
        if claimed.is_empty() {
            break;
        }
        postgres.store().mark_published(&claimed.iter().map(|e| e.id).collect::<Vec<_>>()).await.unwrap();
        count += claimed.len();
    }
    println!("{:.0} messages/s claimed and marked", count as f64 / begin.elapsed().as_secs_f64());
}

async fn fill_outbox(postgres: &Postgres, messages: u32) {
    let mut tx = postgres.store.write().await.unwrap();
    for _ in 0..messages {
        let id = ScenarioId::generate();
        let message = Message::ScenarioChanged { scenario_id: id };
        outbox::put(&mut tx, id, message, None, 0).await.unwrap();
    }
    tx.commit().await.unwrap();
}

fn batch(expected: i64, next: i64, predictions: Vec<Prediction>) -> ResultBatch {
    let rows = predictions.iter().map(PredictionRecord::from).collect();
    let (consumer, topic) = ("inbox".into(), "results".into());
    ResultBatch { consumer, topic, expected, next, rows, ..ResultBatch::default() }
}

/// Not to be read: its specification is empty.
async fn insert_scenario(postgres: &Postgres) -> ScenarioId {
    let id = ScenarioId::generate();
    const ROW: &str = "
        INSERT INTO scenarios (id, name, spec, resolved, desired, state, created_at, updated_at)
        VALUES ($1, '', '', '', 'running', 'running', 0, 0)";
    sqlx::query(ROW).bind(id.0).execute(&postgres.store.pool).await.unwrap();
    id
}

/// With four detections, as on a street.
fn prediction(scenario_id: ScenarioId, n: i64) -> Prediction {
    let bbox = [0.123_456, 0.234_567, 0.345_678, 0.456_789];
    let detection =
        Detection { class_id: 2, label: Some("car".into()), score: 0.876_543, bbox, ..Detection::default() };
    Prediction {
        scenario_id,
        generation: 1,
        pts_us: n * 40_000,
        frame: crate::sql::unsigned(n),
        left_out: 0,
        size: None,
        captured_at: Timestamp::UNIX_EPOCH,
        detections: vec![detection; 4],
        events: vec![],
        skipped: None,
        hook_failures: vec![],
        timings: FrameTimings { decode_us: 1000, pre_us: 1000, inference_us: 10_000, post_us: 1000 },
        provenance: Provenance {
            model: Digest::from_bytes(&[0; 32]),
            models: Default::default(),
            plugins: vec![],
            revision: 1,
            decoder: None,
            execution: None,
        },
    }
}
