//! Artifacts: names and versions of blobs.

use std::time::Duration;

use async_trait::async_trait;
use framehook_core::{
    artifact::{ArtifactKind, ArtifactRef, DEV},
    ids::{Digest, ScenarioId},
};

use super::{Conn, Database, Row, identity, one_artifact_at_a_time, recorded, revisions};
use crate::{
    row::RowExt as _,
    sql::{signed, to_json, unsigned},
    store::{Artifact, ArtifactQuery, ArtifactSummary, Artifacts, DeleteArtifact, PutArtifact, Result},
};

macro_rules! select_artifact {
    ($condition:literal) => {
        concat!(
            "SELECT kind, name, version, digest, size_bytes, manifest, created_at, signed_by FROM artifacts ",
            $condition
        )
    };
}

const BY_VERSION: &str = select_artifact!("WHERE kind = $1 AND name = $2 AND version = $3");
/// What is in development is never meant by a name alone.
const NEWEST: &str = select_artifact!(
    "WHERE kind = $1 AND name = $2 AND (kind <> 'plugin' OR version <> 'dev') ORDER BY sequence DESC LIMIT 1"
);
const BY_DIGEST: &str = select_artifact!("WHERE kind = $1 AND digest = $2 ORDER BY sequence DESC LIMIT 1");
/// A cursor is a place in the order, so that what is deleted meanwhile makes no page lose another.
const LIST: &str = "
    SELECT sequence, kind, name, version, digest, size_bytes, created_at FROM artifacts
    WHERE kind = $1 AND (name = $2 OR $2 IS NULL)
      AND (name > $3 OR (name = $3 AND sequence < $4) OR $3 IS NULL)
    ORDER BY name, sequence DESC LIMIT $5";
const INSERT: &str = "
    INSERT INTO artifacts (kind, name, version, digest, size_bytes, manifest, created_at, signed_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const SIGN: &str = "UPDATE artifacts SET signed_by = $4 WHERE kind = $1 AND name = $2 AND version = $3";
const DELETE: &str = "DELETE FROM artifacts WHERE kind = $1 AND name = $2 AND version = $3";
/// A scenario that has ended for good, or is deleted and does nothing any more, does not need its artifacts.
const USED_BY: &str = "
    SELECT s.id, s.state FROM scenario_artifacts a JOIN scenarios s ON s.id = a.scenario_id
    WHERE a.kind = $1 AND a.name = $2 AND a.version = $3
      AND (s.state NOT IN ('stopped', 'completed', 'failed')
           OR (s.state IN ('stopped', 'failed') AND s.desired <> 'deleted'))
    ORDER BY s.id LIMIT 1";
const IS_NAMED: &str = "SELECT EXISTS (SELECT 1 FROM artifacts WHERE digest = $1)";
const LIVE_DIGESTS: &str = "SELECT digest FROM artifacts UNION SELECT digest FROM recorded_outputs ORDER BY digest";

#[async_trait]
impl Artifacts for Database {
    async fn put_artifact(&self, artifact: Artifact) -> Result<PutArtifact> {
        self.transact(|| put(self, &artifact)).await
    }

    async fn artifact(&self, kind: ArtifactKind, reference: &ArtifactRef) -> Result<Option<Artifact>> {
        find(&mut *self.reader().acquire().await?, kind, reference).await
    }

    async fn artifacts_of(&self, wanted: &[(ArtifactKind, ArtifactRef)]) -> Result<Vec<Option<Artifact>>> {
        // One connection for all: the pool pings each connection that it gets back.
        let mut conn = self.reader().acquire().await?;
        let mut found = Vec::with_capacity(wanted.len());
        for (kind, reference) in wanted {
            found.push(find(&mut conn, *kind, reference).await?);
        }
        Ok(found)
    }

    async fn artifacts(&self, kind: ArtifactKind, query: ArtifactQuery) -> Result<Vec<ArtifactSummary>> {
        let (after, sequence) = query.after.unzip();
        let list = sqlx::query(LIST).bind(kind.as_str()).bind(query.name).bind(after).bind(sequence);
        list.bind(i64::from(query.limit)).fetch_all(self.reader()).await?.iter().map(summary).collect()
    }

    async fn delete_artifact(&self, kind: ArtifactKind, name: &str, version: &str) -> Result<DeleteArtifact> {
        self.transact_despite_full(|| delete(self, kind, name, version)).await
    }

    async fn live_digests(&self) -> Result<Vec<Digest>> {
        let named = sqlx::query(LIVE_DIGESTS).fetch_all(self.reader()).await?;
        let mut digests = revisions::digests_in_use(self).await?;
        for row in &named {
            digests.insert(row.parsed("digest")?);
        }
        Ok(digests.into_iter().collect())
    }

    async fn drop_outputs(&self, age: Duration) -> Result<Vec<Digest>> {
        self.transact_despite_full(|| recorded::remove(self, age)).await
    }
}

async fn put(db: &Database, artifact: &Artifact) -> Result<PutArtifact> {
    let mut tx = db.write().await?;
    one_artifact_at_a_time(&mut tx).await?;
    let signed_by = artifact.signed_by.as_ref().map(to_json).transpose()?;
    let present = read(&mut tx, artifact.kind, &artifact.name, &artifact.version).await?;
    let is_there = present.is_some();
    let is_in_development = artifact.kind == ArtifactKind::Plugin && artifact.version == DEV;
    match present {
        Some(mut present) if present.digest == artifact.digest => {
            if signed_by.is_some() && present.signed_by != artifact.signed_by {
                let sign = sqlx::query(SIGN).bind(artifact.kind.as_str()).bind(&artifact.name).bind(&artifact.version);
                sign.bind(signed_by).execute(&mut *tx).await?;
                tx.commit().await?;
                present.signed_by.clone_from(&artifact.signed_by);
            }
            return Ok(PutArtifact::Unchanged(present));
        }
        Some(present) if !is_in_development => return Ok(PutArtifact::Conflict(present)),
        Some(Artifact { name, version, .. }) => {
            let delete = sqlx::query(DELETE).bind(artifact.kind.as_str()).bind(name).bind(version);
            delete.execute(&mut *tx).await?;
        }
        None => {}
    }
    sqlx::query(INSERT)
        .bind(artifact.kind.as_str())
        .bind(&artifact.name)
        .bind(&artifact.version)
        .bind(artifact.digest.as_str())
        .bind(signed(artifact.size_bytes))
        .bind(to_json(&artifact.manifest)?)
        .bind(artifact.created_at.as_microsecond())
        .bind(signed_by)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(if is_there { PutArtifact::Replaced } else { PutArtifact::Created })
}

async fn find(conn: &mut Conn, kind: ArtifactKind, reference: &ArtifactRef) -> Result<Option<Artifact>> {
    let query = match reference {
        ArtifactRef::Version { name, version } => return read(conn, kind, name, version).await,
        ArtifactRef::Newest { name } => sqlx::query(NEWEST).bind(kind.as_str()).bind(name),
        ArtifactRef::Digest(digest) => sqlx::query(BY_DIGEST).bind(kind.as_str()).bind(digest.as_str()),
    };
    query.fetch_optional(conn).await?.as_ref().map(artifact).transpose()
}

async fn read(conn: &mut Conn, kind: ArtifactKind, name: &str, version: &str) -> Result<Option<Artifact>> {
    let query = sqlx::query(BY_VERSION).bind(kind.as_str()).bind(name).bind(version);
    query.fetch_optional(conn).await?.as_ref().map(artifact).transpose()
}

async fn delete(db: &Database, kind: ArtifactKind, name: &str, version: &str) -> Result<DeleteArtifact> {
    let mut tx = db.write().await?;
    one_artifact_at_a_time(&mut tx).await?;
    let Some(Artifact { digest, .. }) = read(&mut tx, kind, name, version).await? else {
        return Ok(DeleteArtifact::NotFound);
    };
    let user = sqlx::query(USED_BY).bind(kind.as_str()).bind(name).bind(version).fetch_optional(&mut *tx).await?;
    if let Some(user) = user {
        return Ok(DeleteArtifact::InUse { by: ScenarioId(identity(&user, "id")?), state: user.parsed("state")? });
    }
    sqlx::query(DELETE).bind(kind.as_str()).bind(name).bind(version).execute(&mut *tx).await?;
    let is_named: bool = sqlx::query_scalar(IS_NAMED).bind(digest.as_str()).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(DeleteArtifact::Deleted { digest, orphaned: !is_named })
}

fn artifact(row: &Row) -> Result<Artifact> {
    Ok(Artifact {
        kind: row.parsed("kind")?,
        name: row.col("name")?,
        version: row.col("version")?,
        digest: row.parsed("digest")?,
        size_bytes: unsigned(row.col("size_bytes")?),
        manifest: row.json("manifest")?,
        created_at: row.time("created_at")?,
        signed_by: row.json_opt("signed_by")?,
    })
}

fn summary(row: &Row) -> Result<ArtifactSummary> {
    Ok(ArtifactSummary {
        sequence: row.col("sequence")?,
        kind: row.parsed("kind")?,
        name: row.col("name")?,
        version: row.col("version")?,
        digest: row.parsed("digest")?,
        size_bytes: unsigned(row.col("size_bytes")?),
        created_at: row.time("created_at")?,
    })
}
