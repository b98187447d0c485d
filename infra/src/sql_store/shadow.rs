//! What scenarios' shadows found: the inbox's write and the API's read.

use std::collections::BTreeMap;

use framehook_core::{
    ids::ScenarioId,
    shadow::{self, ShadowFindings},
};

use super::{
    Conn, Database, Row, key,
    ring::{self, Ring, ring_in},
};
use crate::{
    row::RowExt as _,
    sql::{signed, to_json, unsigned},
    store::{DifferenceEntry, Result, ShadowRecord, StoredSummary},
};

const DIFFERENCES: Ring = ring_in!("shadow_differences", "difference", shadow::RING);
/// Within a deployment, frames are only added.
const TELL: &str = "
    INSERT INTO shadows (scenario_id, generation, frames, summary) VALUES ($1, $2, $3, $4)
    ON CONFLICT (scenario_id) DO UPDATE
    SET generation = excluded.generation, frames = excluded.frames, summary = excluded.summary
    WHERE shadows.generation < excluded.generation
        OR shadows.generation = excluded.generation AND shadows.frames <= excluded.frames";
const SUMMARY: &str = "
    SELECT generation, summary, (SELECT count(*) FROM shadow_differences WHERE scenario_id = $1
        AND generation = shadows.generation) AS kept
    FROM shadows WHERE scenario_id = $1";

/// Stores what is new of these, in the order of the scenarios, as lines of logs are.
pub(super) async fn store(conn: &mut Conn, found: &[ShadowFindings]) -> Result<()> {
    let mut of_scenarios = BTreeMap::<_, Vec<_>>::new();
    for findings in found {
        of_scenarios.entry(findings.scenario_id).or_default().push(findings);
    }
    for (id, found) in of_scenarios {
        if !ring::takes_items(conn, id).await? {
            continue;
        }
        for ShadowFindings { generation, summary, .. } in &found {
            let tell = sqlx::query(TELL).bind(key(id.0)).bind(*generation).bind(signed(summary.counts.frames()));
            tell.bind(to_json(summary)?).execute(&mut *conn).await?;
        }
        ring::append(conn, &DIFFERENCES, id, found).await?;
    }
    Ok(())
}

pub(super) async fn read(db: &Database, id: ScenarioId, after: i64) -> Result<Option<ShadowRecord>> {
    let Some(differences) = ring::read(db, &DIFFERENCES, id, after, entry).await? else { return Ok(None) };
    let row = sqlx::query(SUMMARY).bind(key(id.0)).fetch_optional(db.reader()).await?;
    let summary = row.as_ref().map(summary).transpose()?;
    Ok(Some(ShadowRecord { summary, differences }))
}

fn summary(row: &Row) -> Result<StoredSummary> {
    let kept = unsigned(row.col("kept")?);
    Ok(StoredSummary { generation: row.col("generation")?, kept, summary: row.json("summary")? })
}

fn entry(row: &Row) -> Result<DifferenceEntry> {
    let difference = row.json("item")?;
    Ok(DifferenceEntry { sequence: row.col("sequence")?, generation: row.col("generation")?, difference })
}
