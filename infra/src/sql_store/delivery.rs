//! What became of a scenario's frames: read from counts that are kept with the rows, never by counting rows.

use framehook_core::{
    delivery::{Delivery, Drops, InboxLag},
    ids::ScenarioId,
    message::WorkerStatus,
};

use super::{Database, key, outbox};
use crate::{row::RowExt as _, sql::unsigned, store::Result};

const COUNTED: &str = "
    SELECT p.stored, p.skipped, p.left_out, p.pts_us AS stored_pts_us, p.frame AS stored_frame
    FROM scenarios s LEFT JOIN scenario_progress p ON p.scenario_id = s.id
    WHERE s.id = $1 AND s.desired <> 'deleted'";
/// One row a deployment.
pub(in super::super) const REPORTED: &str = "SELECT status FROM workers WHERE scenario_id = $1 AND status IS NOT NULL";
/// Frames that only unreadable records tell of.
pub(in super::super) const DROPPED: &str = "
    SELECT count(DISTINCT d.pts_us) FROM dead_letters d WHERE d.key = $1
      AND NOT EXISTS (SELECT 1 FROM scenario_results r WHERE r.scenario_id = $2 AND r.pts_us = d.pts_us)";
/// Those of another topic are about no frame.
const UNREADABLE: &str = "SELECT count(*) FROM dead_letters WHERE key = $1 AND topic = 'results' AND pts_us IS NULL";

pub(super) async fn read(db: &Database, id: ScenarioId) -> Result<Option<Delivery>> {
    // One read transaction: all see the same commit.
    let mut tx = db.read().await?;
    let Some(counted) = sqlx::query(COUNTED).bind(key(id.0)).fetch_optional(&mut *tx).await? else { return Ok(None) };
    let (letters, count) = (id.to_string(), |n: Option<i64>| n.map_or(0, unsigned));
    let dropped = sqlx::query_scalar(DROPPED).bind(&letters).bind(key(id.0)).fetch_one(&mut *tx).await?;
    let unreadable = sqlx::query_scalar(UNREADABLE).bind(&letters).fetch_one(&mut *tx).await?;
    let delivery = Delivery {
        decoded: 0,
        damaged: 0,
        stored: count(counted.col("stored")?),
        skipped: count(counted.col("skipped")?),
        left_out: count(counted.col("left_out")?),
        dropped: Drops { unreadable: unsigned(dropped) },
        inbox: InboxLag { frames: 0, unreadable: unsigned(unreadable) },
        outbox: outbox::lag(&mut tx, Some(id)).await?,
    };
    let reported = sqlx::query(REPORTED).bind(key(id.0)).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    let reported: Vec<WorkerStatus> = reported.iter().map(|row| row.json("status")).collect::<Result<_>>()?;
    Ok(Some(delivery.witnessed(counted.stored()?, reported.iter().map(|status| status.progress))))
}
