//! What is SQLite's own; what every store and bus must do is in the conformance suites.

use std::{collections::BTreeSet, time::Instant};

use framehook_core::{
    artifact::ArtifactKind,
    ids::{Digest, ScenarioId},
    planner::Action,
    prediction::{Detection, FrameTimings, Prediction, Provenance, Skipped},
    prediction_record::PredictionRecord,
    state::{Desired, ScenarioState, WorkerState},
    topic::Topic,
};

use framehook_tests::disk::SmallDisk;

use super::{sql_store::orchestrator, *};
use crate::{
    bus::Record,
    sql::unsigned,
    store::{DeadLetter, Limit, PredictionQuery, ResultBatch, StoreError, StoreOutcome},
};

/// The values that the check of a column allows.
async fn checked(sqlite: &Sqlite, table: &str, column: &str) -> BTreeSet<String> {
    let sql: String = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?")
        .bind(table)
        .fetch_one(&sqlite.store.reader)
        .await
        .unwrap();
    let check = format!("CHECK ({column} IN (");
    let list = sql.split_once(&check).unwrap_or_else(|| panic!("{table} has no `{check}`")).1;
    let values = list.split_once(')').unwrap().0;
    values.split(',').map(|value| value.trim().trim_matches('\'').to_owned()).collect()
}

#[tokio::test]
async fn checks_allow_exactly_the_states_there_are() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    let names = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let states = names(ScenarioState::ALL.iter().map(|s| s.as_str()).collect());
    let desired = names(Desired::ALL.iter().map(|s| s.as_str()).collect());
    let workers = names(WorkerState::ALL.iter().map(|s| s.as_str()).collect());
    let kinds = names(ArtifactKind::ALL.iter().map(|s| s.as_str()).collect());
    for (table, column, expected) in [
        ("scenarios", "state", &states),
        ("scenarios", "desired", &desired),
        ("scenario_history", "from_state", &states),
        ("scenario_history", "to_state", &states),
        ("scenario_history", "desired", &desired),
        ("workers", "state", &workers),
        ("artifacts", "kind", &kinds),
    ] {
        assert_eq!(&checked(&sqlite, table, column).await, expected, "{table}.{column}");
    }
}

/// The lists of ended and of live states in the statements and in the indices are core's.
#[test]
fn the_sql_knows_which_states_are_ended_and_live() {
    let ended: Vec<_> = ScenarioState::ALL.iter().filter(|s| s.is_ended()).map(|s| s.as_str()).collect();
    assert_eq!(ended, ["stopped", "completed", "failed"]);
    let live: Vec<_> = WorkerState::ALL.iter().filter(|s| s.is_live()).map(|s| s.as_str()).collect();
    assert_eq!(live, ["pending", "deployed", "running"]);
}

#[tokio::test]
async fn the_snapshot_uses_its_index() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    for statement in [orchestrator::UNSETTLED, orchestrator::UNSETTLED_BY_STATE] {
        let statement = format!("EXPLAIN QUERY PLAN {statement}");
        let plan = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(&sqlite.store.reader).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| sqlx::Row::get(row, "detail")).collect();
        assert!(plan.iter().any(|step| step.contains("scenarios_not_at_rest")), "{plan:?}");
    }
}

#[tokio::test]
async fn a_folder_has_one_owner() {
    let data = tempfile::tempdir().unwrap();
    let first = Sqlite::open(data.path()).await.unwrap();
    let error = Sqlite::open(data.path()).await.err().unwrap();
    assert!(
        matches!(&error, OpenError::InUse { path, process } if path == data.path() && *process == std::process::id().to_string()),
        "{error}"
    );
    drop(first);
    Sqlite::open(data.path()).await.unwrap();
}

#[tokio::test]
async fn a_newer_or_foreign_database_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    const FROM_THE_FUTURE: &str = "
        INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, '', 1, x'00', 0)";
    sqlx::query(FROM_THE_FUTURE).execute(&sqlite.store.writer).await.unwrap();
    drop(sqlite);
    assert!(matches!(Sqlite::open(data.path()).await, Err(OpenError::Newer { .. })));

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("framehook.db"), "this is not a database, but it is long enough to be one").unwrap();
    let error = Sqlite::open(other.path()).await.err().unwrap();
    assert!(matches!(&error, OpenError::Database { path, .. } if path.ends_with("framehook.db")), "{error}");
    let file = other.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Sqlite::open(&file).await, Err(OpenError::Folder { .. })));
}

/// What the first release wrote is counted when it is opened.
#[tokio::test]
async fn an_older_database_is_brought_up_to_date() {
    let data = tempfile::tempdir().unwrap();
    let writer = pool(1).connect_with(options(&data.path().join("framehook.db"), SYNCHRONOUS)).await.unwrap();
    MIGRATIONS.run_to(1, &writer).await.unwrap();
    let id = ScenarioId::generate();
    const SCENARIO: &str = "
        INSERT INTO scenarios (id, name, spec, resolved, desired, state, created_at, updated_at)
        VALUES (?, '', '', '', 'running', 'completed', 0, 0)";
    const ROW: &str = "INSERT INTO scenario_results VALUES (?, ?, 1, ?, 0, ?)";
    const PROGRESS: &str = "INSERT INTO scenario_progress VALUES (?, 80000, 2)";
    sqlx::query(SCENARIO).bind(id.to_string()).execute(&writer).await.unwrap();
    sqlx::query(PROGRESS).bind(id.to_string()).execute(&writer).await.unwrap();
    for frame in 0..3 {
        let by = Skipped { by: "gate@1.0.0".into(), reason: "still".into() };
        let row = Prediction { skipped: (frame == 1).then_some(by), ..prediction(id, frame) };
        let row = serde_json::to_string(&row).unwrap();
        let insert = sqlx::query(ROW).bind(id.to_string()).bind(frame * 40_000).bind(frame).bind(row);
        insert.execute(&writer).await.unwrap();
    }
    writer.close().await;
    let delivery = Sqlite::open(data.path()).await.unwrap().store().delivery(id).await.unwrap().unwrap();
    assert_eq!((delivery.decoded, delivery.stored, delivery.skipped), (3, 2, 1));
}

/// SQLite reports a database at its page limit as it reports a full disk. The limit is that of the
/// connection.
async fn fill(sqlite: &Sqlite) {
    sqlx::query("PRAGMA max_page_count = 1").execute(&sqlite.store.writer).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_an_error_of_its_own_and_passes() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    let (store, bus) = (sqlite.store(), sqlite.bus());
    let letter =
        DeadLetter { offset: 0, key: String::new(), payload: vec![7; 1 << 20], reason: String::new(), position: None };
    let big = ResultBatch { dead_letters: vec![letter], ..batch(0, 1, vec![]) };
    fill(&sqlite).await;
    let error = store.store_results(&big).await.unwrap_err();
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert_eq!(store.consumer_offset("inbox", "results", 0).await.unwrap(), 0);
    // There is room again: the same call succeeds.
    assert_eq!(store.store_results(&big).await.unwrap(), StoreOutcome::Stored);

    let record = Record { payload: vec![7; 1 << 20], ..Record::default() };
    fill(&sqlite).await;
    let error = bus.publish(Topic::Results, vec![record.clone()]).await.unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    assert_eq!(bus.end_offset(Topic::Results, 0).await.unwrap(), 0);
    bus.publish(Topic::Results, vec![record]).await.unwrap();
    assert_eq!(bus.end_offset(Topic::Results, 0).await.unwrap(), 1);
    bus.ping().await.unwrap();
}

fn batch(expected: i64, next: i64, predictions: Vec<Prediction>) -> ResultBatch {
    let rows = predictions.iter().map(PredictionRecord::from).collect();
    let (consumer, topic) = ("inbox".into(), "results".into());
    ResultBatch { consumer, topic, expected, next, rows, ..ResultBatch::default() }
}

#[tokio::test]
async fn an_unreadable_row_is_named() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    let id = insert_scenario(&sqlite).await;
    const ROW: &str = "INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction)
        VALUES (?, 0, 1, 0, 0, '{\"from\": \"another release\"}')";
    sqlx::query(ROW).bind(id.to_string()).execute(&sqlite.store.writer).await.unwrap();
    let query = PredictionQuery {
        after_pts_us: None,
        from_pts_us: None,
        until_pts_us: None,
        limit: Limit { rows: 10, bytes: 9 },
    };
    let rows = sqlite.store().predictions(id, query).await.unwrap().unwrap().rows;
    let error = rows[0].read().unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt(message) if message.contains("column prediction")), "{error}");
}

async fn pragma(sqlite: &Sqlite, name: &str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("PRAGMA {name}"));
    sqlx::query_scalar(query).fetch_one(&sqlite.store.writer).await.unwrap()
}

#[tokio::test]
async fn a_database_of_an_earlier_release_gives_space_back_from_now_on() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("framehook.db");
    let options = options(&path, SYNCHRONOUS).auto_vacuum(SqliteAutoVacuum::None);
    let earlier = pool(1).connect_with(options).await.unwrap();
    MIGRATIONS.run(&earlier).await.unwrap();
    const ROW: &str = "INSERT INTO write_check (id, at) VALUES (1, 7)";
    sqlx::query(ROW).execute(&earlier).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>("PRAGMA auto_vacuum").fetch_one(&earlier).await.unwrap(), 0);
    // No room for a copy: it stays as it is.
    shrink::convert(&earlier, 0).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>("PRAGMA auto_vacuum").fetch_one(&earlier).await.unwrap(), 0);
    earlier.close().await;

    let sqlite = Sqlite::open(data.path()).await.unwrap();
    assert_eq!(pragma(&sqlite, "auto_vacuum").await, 2);
    let at: i64 = sqlx::query_scalar("SELECT at FROM write_check").fetch_one(&sqlite.store.reader).await.unwrap();
    assert_eq!(at, 7);
}

#[tokio::test]
async fn free_pages_go_back_to_the_disk() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    let size = || fs::metadata(data.path().join("framehook.db")).unwrap().len();
    let record = Record { key: "k".into(), payload: vec![7; 8 << 20], ..Record::default() };
    sqlite.bus().publish(Topic::Results, vec![record]).await.unwrap();
    assert_eq!(pragma(&sqlite, "wal_checkpoint(RESTART)").await, 0);
    let full = size();
    assert!(full > 8 << 20, "{full}");
    sqlite.bus().forget(Topic::Results, 0, 1).await.unwrap();
    shrink::shrink(&sqlite.store.writer, i64::MAX).await.unwrap();
    assert!(size() <= 1 << 20, "{} of {full}", size());
}

/// The writes that give space back, and those without which nobody could.
#[test]
fn deletions_and_heartbeats_need_no_room_on_the_disk() {
    let name = "sqlite::tests::deletions_and_heartbeats_need_no_room_on_the_disk";
    let Some(disk) = SmallDisk::of(name, 32 << 20, &[]) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let data = disk.folder.join("data");
        let sqlite = Sqlite::open_with(&data, Reserve::Share, HISTORY_LINES).await.unwrap();
        let (store, bus) = (sqlite.store(), sqlite.bus());
        let ids = [insert_scenario(&sqlite).await, insert_scenario(&sqlite).await];
        let rows = (0..2_000).map(|n| prediction(ids[0], n)).collect();
        assert_eq!(store.store_results(&batch(0, 1, rows)).await.unwrap(), StoreOutcome::Stored);
        const DELETED: &str = "UPDATE scenarios SET desired = 'deleted', state = 'stopped'";
        sqlx::query(DELETED).execute(&sqlite.store.writer).await.unwrap();
        while !data.join("ballast").exists() {
            tokio::task::yield_now().await;
        }
        disk.fill_but(0);
        let long = Duration::from_secs(3600);
        let record = Record { key: "k".into(), payload: vec![7; 20_000], ..Record::default() };
        for n in 0..200 {
            store.lead(uuid::Uuid::nil(), false, long, long).await.unwrap_or_else(|e| panic!("lease {n}: {e}"));
            bus.publish(Topic::ToDeploy, vec![record.clone()]).await.unwrap_or_else(|e| panic!("order {n}: {e}"));
        }
        let refused = bus.publish(Topic::Results, vec![record]).await.unwrap_err().to_string();
        assert!(refused.contains("disk_reserve_mib"), "{refused}");
        let epoch = store.lead(uuid::Uuid::nil(), false, long, long).await.unwrap().unwrap();
        for scenario_id in ids {
            while !store.is_purged(scenario_id).await.unwrap() {
                store.apply(epoch, &Action::Purge { scenario_id }).await.unwrap();
            }
        }
    });
}

#[test]
fn a_full_disk_is_told_from_a_database_that_is_away() {
    let name = "sqlite::tests::a_full_disk_is_told_from_a_database_that_is_away";
    let Some(disk) = SmallDisk::of(name, 32 << 20, &[]) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let sqlite = Sqlite::open_with(&disk.folder.join("data"), Reserve::Share, HISTORY_LINES).await.unwrap();
        sqlite.store().ping().await.unwrap();
        // As long as somebody reads from it, the log does not begin anew in the room it has.
        let mut reader = sqlite.store.reader.begin().await.unwrap();
        sqlx::query("SELECT * FROM write_check").execute(&mut *reader).await.unwrap();
        disk.fill_but(0);
        while sqlite.store.check().await.is_ok() {}
        // Until the next look at the disk its numbers are those from before.
        let tell = async {
            while let Err(StoreError::Full(_)) = sqlite.store().ping().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(framehook_tests::DEADLINE, tell).await.expect("the numbers are told");
        let outcome = sqlite.store().ping().await;
        assert!(matches!(outcome, Err(StoreError::Short(_))), "{outcome:?}");
    });
}

/// Records of a topic in the log.
pub(super) async fn logged(sqlite: &Sqlite, topic: Topic) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM bus_log WHERE topic = ?").bind(topic.name());
    count.fetch_one(&sqlite.store.reader).await.unwrap()
}

#[tokio::test]
async fn what_nobody_will_read_goes_and_what_is_to_be_stored_stays() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    let record = Record { key: "k".into(), payload: vec![1], ..Record::default() };
    for topic in Topic::ALL {
        sqlite.bus().publish(topic, vec![record.clone(); 200]).await.unwrap();
        assert_eq!(logged(&sqlite, topic).await, 200, "{}", topic.name());
    }
    drop(sqlite);
    // Readers of the next process begin at the end.
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    for topic in Topic::ALL {
        assert_eq!(logged(&sqlite, topic).await, if topic.is_stored() { 200 } else { 0 }, "{}", topic.name());
        assert_eq!(sqlite.bus().end_offset(topic, 0).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_commit_takes_with_it_what_its_readers_have_passed() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    let record = Record { key: "k".into(), payload: vec![1], ..Record::default() };
    sqlite.bus().publish(Topic::ToDeploy, vec![record.clone(); 10]).await.unwrap();
    sqlite.bus().publish(Topic::RunnerStatus, vec![record.clone(); 10]).await.unwrap();
    let mut windows = bus::Windows::new();
    let long_ago = Instant::now().checked_sub(Duration::from_secs(11)).unwrap();
    windows.entry(Topic::ToDeploy).or_default().appended(7, 7, long_ago);
    windows.entry(Topic::RunnerStatus).or_default().appended(10, 10, Instant::now());
    // Heartbeats come twice a second, so whatever topic they are for, none has to wait for its own.
    let (done, _outcome) = tokio::sync::oneshot::channel();
    let heartbeat = bus::Publication { topic: Topic::RunnerStatus, records: vec![record], done };
    let ends = [(Topic::RunnerStatus, tokio::sync::watch::Sender::new(10))].into();
    bus::append(&sqlite.store.writer, &[heartbeat], &ends, &windows.into()).await.unwrap();
    assert_eq!((logged(&sqlite, Topic::ToDeploy).await, logged(&sqlite, Topic::RunnerStatus).await), (3, 11));
}

/// The figures beside [`SYNCHRONOUS`]: `cargo test --release -p framehook-infra --lib -- --ignored
/// --nocapture speed`.
#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn speed() {
    for synchronous in [SqliteSynchronous::Full, SqliteSynchronous::Normal] {
        // Beside the executable: a temporary folder may be in memory.
        let folder = std::env::current_exe().unwrap();
        let data = tempfile::tempdir_in(folder.parent().unwrap()).unwrap();
        let sqlite = Sqlite::open_as(data.path(), Reserve::NONE, HISTORY_LINES, synchronous).await.unwrap();
        let id = insert_scenario(&sqlite).await;
        let payload = serde_json::to_vec(&prediction(id, 0)).unwrap();

        let begin = Instant::now();
        for n in 0..200_i64 {
            let rows = (0..64).map(|k| prediction(id, n * 64 + k)).collect();
            assert_eq!(sqlite.store().store_results(&batch(n, n + 1, rows)).await.unwrap(), StoreOutcome::Stored);
        }
        let rows = 12_800.0 / begin.elapsed().as_secs_f64();

        let begin = Instant::now();
        for _ in 0..500 {
            let records = vec![Record { key: id.to_string(), payload: payload.clone(), ..Record::default() }; 16];
            sqlite.bus().publish(Topic::Results, records).await.unwrap();
        }
        let alone = begin.elapsed() / 500;
        let begin = Instant::now();
        let publishers = (0..4).map(|_| async {
            for _ in 0..500 {
                let records = vec![Record { key: id.to_string(), payload: payload.clone(), ..Record::default() }; 16];
                sqlite.bus().publish(Topic::Results, records).await.unwrap();
            }
        });
        futures::future::join_all(publishers).await;
        let together = 32_000.0 / begin.elapsed().as_secs_f64();
        println!(
            "{synchronous:?}: {rows:.0} rows/s in batches of 64 ({} bytes each); a publication of 16 takes {alone:?} alone; \
             {together:.0} records/s from 4 publishers",
            payload.len()
        );
    }
}

async fn insert_scenario(sqlite: &Sqlite) -> ScenarioId {
    let id = ScenarioId::generate();
    const ROW: &str = "
        INSERT INTO scenarios (id, name, spec, resolved, desired, state, created_at, updated_at)
        VALUES (?, '', '', '', 'running', 'running', 0, 0)";
    sqlx::query(ROW).bind(id.to_string()).execute(&sqlite.store.writer).await.unwrap();
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
        frame: unsigned(n),
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
