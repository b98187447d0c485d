//! Where the parts of a cluster find each other: settings, and connections made from them.
//!
//! Invariant: no password reaches a log, an error, `--help` or `--dump-config`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_infra::{
    blobs::{Blobs, Shared},
    bus::SharedBus,
    cache::Cache,
    kafka::{GroupProtocol, Kafka, KafkaConfig},
    postgres::Postgres,
    seal::Key,
    space::Reserve,
    store::SharedStore,
};
use tracing::info;

use crate::settings::{
    PARENTS, SERVERS,
    parsers::{a, at_least, pair},
};

/// Enough for the API's requests and one connection each for relay, inbox and orchestrator;
/// PostgreSQL allows 100 in all by default.
const CONNECTIONS: u32 = 16;

/// The table `[cluster]`.
#[derive(Args, Clone)]
#[group(id = "cluster")]
pub(crate) struct Cluster {
    /// PostgreSQL, as postgres://USER:PASSWORD@HOST:PORT/DATABASE; rather by environment or file
    /// than by flag, where others see it
    #[arg(long, env = "DATABASE_URL", value_name = "URL", groups = ["api", "orchestrator", "migrate"])]
    #[arg(hide_env_values = true)]
    database_url: Option<String>,

    /// Apache Kafka, as HOST:PORT,HOST:PORT
    #[arg(long, env = "KAFKA_BROKERS", value_name = "BROKERS", groups = SERVERS)]
    kafka_brokers: Option<String>,

    /// In front of the names of topics and groups, so that installations can share a cluster
    #[arg(long, value_name = "PREFIX", groups = SERVERS)]
    kafka_prefix: Option<String>,

    /// Copies of each partition [default: 3, or as many as there are brokers]
    #[arg(long, value_name = "N", value_parser = a::<i32>("a whole number"), groups = SERVERS)]
    kafka_replication: Option<i32>,

    /// `consumer`, or `classic` for brokers older than 4.0 [default: consumer]
    #[arg(long, value_name = "PROTOCOL", value_parser = a::<GroupProtocol>("consumer or classic"), groups = SERVERS)]
    kafka_group_protocol: Option<GroupProtocol>,

    /// librdkafka's own settings, such as `security.protocol=SASL_SSL`; repeat for several
    #[arg(long = "kafka-property", value_name = "KEY=VALUE", groups = SERVERS)]
    #[arg(hide_env_values = true, value_delimiter = ',', value_parser = pair)]
    kafka_properties: Vec<(String, String)>,

    /// Redis, as redis://HOST:PORT: a cache of what is read again and again; optional, nothing depends on it
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL", group = "api")]
    redis_url: Option<String>,

    /// Where all APIs and runners keep what is uploaded: file:///FOLDER on a file system they
    /// share, or s3://BUCKET/PREFIX with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and,
    /// for a server other than Amazon's, AWS_ENDPOINT_URL in the environment
    #[arg(long, hide_env_values = true, value_name = "URL", groups = PARENTS)]
    blobs: Option<String>,

    // The default: some hundred clips; what does not fit is fetched again.
    /// Largest cache of uploads in the data folder of one process, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 20, value_parser = at_least::<u32>(0), groups = PARENTS)]
    blob_cache_gib: u32,

    /// Seals the credentials of sources: 32 bytes as base64, the same for all APIs and runners; make one with
    /// `openssl rand -base64 32`, and give it rather by environment or file than by flag
    #[arg(long, hide_env_values = true, value_name = "KEY", groups = PARENTS)]
    key: Option<String>,

    /// File with the key that seals the credentials of sources
    #[arg(long, value_name = "FILE", groups = PARENTS)]
    key_file: Option<PathBuf>,

    /// Address to listen on; there is no authentication yet, so only where nobody else can call
    #[arg(long, value_name = "IP", groups = SERVERS)]
    #[arg(default_value_t = Ipv4Addr::LOCALHOST.into(), value_parser = a::<IpAddr>("an IP address"))]
    pub(crate) bind: IpAddr,

    /// Name of a runner, the same at each start and different from every other [default: the host's name]
    #[arg(long, value_name = "NAME", group = "runner")]
    runner_id: Option<String>,
}

impl Cluster {
    pub(crate) fn runner_id(&self) -> anyhow::Result<String> {
        let id = match &self.runner_id {
            Some(id) => id.clone(),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read the host's name")?,
        };
        let id = id.trim();
        if id.is_empty() {
            bail!("the runner's name is empty; set runner_id to one");
        }
        Ok(id.to_owned())
    }

    pub(crate) fn database_url(&self) -> anyhow::Result<&str> {
        let url = self.database_url.as_deref();
        url.context("no database is named; set DATABASE_URL=postgres://USER:PASSWORD@HOST:PORT/DATABASE")
    }

    pub(crate) fn brokers(&self) -> anyhow::Result<&str> {
        let brokers = self.kafka_brokers.as_deref();
        brokers.context("no Kafka cluster is named; set KAFKA_BROKERS=HOST:PORT,HOST:PORT")
    }

    pub(crate) fn blobs_url(&self) -> anyhow::Result<&str> {
        self.blobs.as_deref().context(
            "no blob store is named; set FRAMEHOOK_BLOBS to file:///FOLDER or s3://BUCKET/PREFIX, the same for all APIs and runners",
        )
    }

    /// Connects, and makes or updates the tables.
    pub(crate) async fn store(&self, history_lines: u32) -> anyhow::Result<SharedStore> {
        let url = self.database_url()?;
        let postgres = Postgres::connect(url, CONNECTIONS, history_lines).await?;
        info!("connected to PostgreSQL at {}", without_secrets(url));
        Ok(postgres.store())
    }

    /// Connects, and makes the topics that are missing.
    pub(crate) async fn bus(&self) -> anyhow::Result<SharedBus> {
        let brokers = self.brokers()?;
        let config = KafkaConfig {
            prefix: self.kafka_prefix.clone().unwrap_or_default(),
            replication: self.kafka_replication,
            protocol: self.kafka_group_protocol.unwrap_or_default(),
            properties: self.kafka_properties.iter().cloned().collect(),
            ..KafkaConfig::new(brokers)
        };
        let bus = Kafka::connect(config).await?;
        info!("connected to Kafka at {brokers}");
        Ok(bus)
    }

    /// `None`: there shall be none. It connects when it is first asked.
    pub(crate) fn cache(&self) -> anyhow::Result<Option<Cache>> {
        let Some(url) = &self.redis_url else { return Ok(None) };
        let cache = Cache::new(url)?;
        info!("caches in Redis at {}", without_secrets(url));
        Ok(Some(cache))
    }

    /// Opens the shared blobs with their cache below `data`.
    pub(crate) async fn blobs(&self, data: &Path, reserve: Reserve) -> anyhow::Result<Blobs> {
        let url = self.blobs_url()?;
        let cache_bytes = u64::from(self.blob_cache_gib) << 30;
        let blobs = Blobs::open(data, Some(Shared { url: url.to_owned(), cache_bytes }), reserve).await?;
        info!("shares the blobs in {url}");
        Ok(blobs)
    }

    /// The platform key, if there is one.
    pub(crate) fn key(&self) -> anyhow::Result<Option<Key>> {
        match (&self.key, &self.key_file) {
            (Some(_), Some(_)) => bail!("there are both a key and a key_file; give one of them"),
            (Some(key), None) => Key::parse(key).context("FRAMEHOOK_KEY is not usable").map(Some),
            (None, Some(file)) => Ok(Some(Key::read(file)?)),
            (None, None) => {
                info!("has no FRAMEHOOK_KEY: sources with credentials are refused");
                Ok(None)
            }
        }
    }
}

/// A URL with its user's password and its query hidden: either may hold one. A folder holds no
/// secret, and any character.
pub(crate) fn without_secrets(url: &str) -> String {
    if url.starts_with("file:") {
        return url.to_owned();
    }
    let url = url.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return "***".into() };
    match rest.rsplit_once('@') {
        Some((user, server)) => format!("{scheme}://{}:***@{server}", user.split(':').next().unwrap_or_default()),
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn nothing_that_is_shown_holds_a_password() {
        for (url, shown) in [
            ("postgres://me:s3cret@db:5432/framehook", "postgres://me:***@db:5432/framehook"),
            ("postgres://me:s3c@ret@db/framehook?password=s3cret", "postgres://me:***@db/framehook"),
            ("postgres://127.0.0.1:5432/postgres", "postgres://127.0.0.1:5432/postgres"),
            ("s3cret", "***"),
            ("file:///a?b@c", "file:///a?b@c"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn a_key_comes_from_one_place_and_is_not_repeated_when_it_is_wrong() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "ab".repeat(32)).unwrap();
        let key = |key: Option<&str>, file: Option<&Path>| {
            let cluster = Cluster { key: key.map(Into::into), key_file: file.map(Into::into), ..settings(&[]).cluster };
            cluster.key().map_err(|error| format!("{error:#}"))
        };
        assert!(key(None, None).unwrap().is_none());
        assert!(key(Some(&"ab".repeat(32)), None).unwrap().is_some());
        assert!(key(None, Some(file.path())).unwrap().is_some());
        assert!(key(Some("x"), Some(file.path())).unwrap_err().contains("one of them"));
        let error = key(Some("s3cret"), None).unwrap_err();
        assert!(error.contains("FRAMEHOOK_KEY") && error.contains("openssl") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_property_is_a_key_and_a_value() {
        let cluster = settings(&["--kafka-property", "sasl.password=a=b,c=d"]).cluster;
        assert_eq!(cluster.kafka_properties, [("sasl.password", "a=b"), ("c", "d")].map(|(k, v)| (k.into(), v.into())));
    }
}
