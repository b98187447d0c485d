//! Where the parts of a scaled deployment find each other: settings, and connections made from them.
//!
//! Invariant: no password reaches a log, an error, `--help` or `--dump-config`.

use std::{
    collections::BTreeMap,
    fmt,
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
use serde::{Deserialize, Serialize};
use tracing::info;

/// Enough for the API's requests and one connection each for relay, inbox and orchestrator; PostgreSQL allows 100 in all
/// by default.
const CONNECTIONS: u32 = 16;

/// Some hundred clips; what does not fit is fetched again.
const BLOB_CACHE_GIB: u32 = 20;

#[derive(Args, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterOptions {
    /// PostgreSQL, as postgres://USER:PASSWORD@HOST:PORT/DATABASE; rather by environment or file than by flag,
    /// where others see it
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    database_url: Option<String>,

    /// Apache Kafka, as HOST:PORT,HOST:PORT
    #[arg(long, env = "KAFKA_BROKERS", value_name = "BROKERS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka_brokers: Option<String>,

    /// In front of the names of topics and groups, so that installations can share a cluster
    #[arg(long, env = "FRAMEHOOK_KAFKA_PREFIX", value_name = "PREFIX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka_prefix: Option<String>,

    /// Copies of each partition [default: 3, or as many as there are brokers]
    #[arg(long, env = "FRAMEHOOK_KAFKA_REPLICATION", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka_replication: Option<i32>,

    /// `consumer`, or `classic` for brokers older than 4.0 [default: consumer]
    #[arg(long, env = "FRAMEHOOK_KAFKA_GROUP_PROTOCOL", value_name = "PROTOCOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka_group_protocol: Option<String>,

    /// librdkafka's own settings, such as `security.protocol=SASL_SSL`; repeat for several
    #[arg(
        long = "kafka-property",
        env = "FRAMEHOOK_KAFKA_PROPERTIES",
        hide_env_values = true,
        value_name = "KEY=VALUE",
        value_delimiter = ','
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kafka_properties: Vec<String>,

    /// Redis, as redis://HOST:PORT: a cache of what is read again and again; optional, nothing depends on it
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_url: Option<String>,

    /// Where all APIs and runners keep what is uploaded: file:///FOLDER on a file system they share, or
    /// s3://BUCKET/PREFIX with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for a server other than
    /// Amazon's, AWS_ENDPOINT_URL in the environment
    #[arg(long, env = "FRAMEHOOK_BLOBS", hide_env_values = true, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    blobs: Option<String>,

    /// Most of it that a process keeps a copy of in its data folder, in GiB [default: 20]
    #[arg(long, env = "FRAMEHOOK_BLOB_CACHE_GIB", value_name = "GIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    blob_cache_gib: Option<u32>,

    /// Seals the credentials of sources: 32 bytes as base64, the same for all APIs and runners; make one with
    /// `openssl rand -base64 32`, and give it rather by environment or file than by flag
    #[arg(long, env = "FRAMEHOOK_KEY", hide_env_values = true, value_name = "KEY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,

    /// The same, read from a file
    #[arg(long, env = "FRAMEHOOK_KEY_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,

    /// Address to listen on; there is no authentication yet, so only where nobody else can call [default: 127.0.0.1]
    #[arg(long, env = "FRAMEHOOK_BIND", value_name = "IP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    bind: Option<IpAddr>,

    /// Name of a runner, the same at each start and different from every other [default: the host's name]
    #[arg(long, env = "FRAMEHOOK_RUNNER_ID", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    runner_id: Option<String>,
}

impl ClusterOptions {
    /// What is set here, and for the rest what is set in `file`.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            database_url: self.database_url.or(file.database_url),
            kafka_brokers: self.kafka_brokers.or(file.kafka_brokers),
            kafka_prefix: self.kafka_prefix.or(file.kafka_prefix),
            kafka_replication: self.kafka_replication.or(file.kafka_replication),
            kafka_group_protocol: self.kafka_group_protocol.or(file.kafka_group_protocol),
            kafka_properties: if self.kafka_properties.is_empty() {
                file.kafka_properties
            } else {
                self.kafka_properties
            },
            redis_url: self.redis_url.or(file.redis_url),
            blobs: self.blobs.or(file.blobs),
            blob_cache_gib: self.blob_cache_gib.or(file.blob_cache_gib),
            key: self.key.or(file.key),
            key_file: self.key_file.or(file.key_file),
            bind: self.bind.or(file.bind),
            runner_id: self.runner_id.or(file.runner_id),
        }
    }

    pub(crate) fn bind(&self) -> IpAddr {
        self.bind.unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

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
        let postgres = Postgres::connect_with(url, CONNECTIONS, history_lines).await?;
        info!("connected to PostgreSQL at {}", without_secrets(url));
        Ok(postgres.store())
    }

    /// Connects, and makes the topics that are missing.
    pub(crate) async fn bus(&self) -> anyhow::Result<SharedBus> {
        let brokers = self.brokers()?;
        let protocol = self.kafka_group_protocol.as_deref().map(str::parse::<GroupProtocol>).transpose();
        let config = KafkaConfig {
            prefix: self.kafka_prefix.clone().unwrap_or_default(),
            replication: self.kafka_replication,
            protocol: protocol.map_err(anyhow::Error::msg).context("kafka_group_protocol")?.unwrap_or_default(),
            properties: self.properties()?,
            ..KafkaConfig::new(brokers)
        };
        let bus = Kafka::connect(config).await?;
        info!("connected to Kafka at {brokers}");
        Ok(bus)
    }

    /// `None`: there shall be none. It connects when it is first asked.
    pub(crate) fn cache(&self) -> anyhow::Result<Option<Cache>> {
        let Some(url) = &self.redis_url else { return Ok(None) };
        let cache = Cache::new(url).context("redis_url")?;
        info!("caches in Redis at {}", without_secrets(url));
        Ok(Some(cache))
    }

    /// Opens the shared blobs with their cache below `data`.
    pub(crate) async fn blobs(&self, data: &Path, reserve: Reserve) -> anyhow::Result<Blobs> {
        let url = self.blobs_url()?;
        let cache_bytes = u64::from(self.blob_cache_gib.unwrap_or(BLOB_CACHE_GIB)) << 30;
        let blobs = Blobs::open_with(data, Some(Shared { url: url.to_owned(), cache_bytes }), reserve).await?;
        info!("shares the blobs in {url}");
        Ok(blobs)
    }

    /// The platform key, if there is one.
    pub(crate) fn key(&self) -> anyhow::Result<Option<Key>> {
        let key = match (&self.key, &self.key_file) {
            (Some(_), Some(_)) => bail!("there are both a key and a key_file; give one of them"),
            (Some(key), None) => Key::parse(key).context("FRAMEHOOK_KEY is not usable")?,
            (None, Some(file)) => Key::read(file)?,
            (None, None) => {
                info!("has no FRAMEHOOK_KEY: sources with credentials are refused");
                return Ok(None);
            }
        };
        Ok(Some(key))
    }

    fn properties(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let pair = |text: &String| {
            let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            pair.context("a Kafka property has no `=`; expected KEY=VALUE, such as security.protocol=SASL_SSL")
        };
        self.kafka_properties.iter().map(pair).collect()
    }

    /// The same without what is secret, to be shown.
    pub(crate) fn shown(&self) -> Self {
        let key_only = |text: &String| format!("{}=***", text.split('=').next().unwrap_or_default());
        Self {
            database_url: self.database_url.as_deref().map(without_secrets),
            redis_url: self.redis_url.as_deref().map(without_secrets),
            blobs: self.blobs.as_deref().map(|url| if is_folder(url) { url.into() } else { without_secrets(url) }),
            kafka_properties: self.kafka_properties.iter().map(key_only).collect(),
            key: self.key.as_ref().map(|_| "***".into()),
            ..self.clone()
        }
    }
}

impl fmt::Debug for ClusterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shown();
        f.debug_struct("ClusterOptions")
            .field("database_url", &shown.database_url)
            .field("kafka_brokers", &shown.kafka_brokers)
            .field("kafka_properties", &shown.kafka_properties)
            .finish_non_exhaustive()
    }
}

/// A path may hold any character, and no secret.
fn is_folder(url: &str) -> bool {
    url.starts_with("file:")
}

/// A URL with its user's password and its query hidden: either may hold one.
pub(crate) fn without_secrets(url: &str) -> String {
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

    #[test]
    fn nothing_that_is_shown_holds_a_password() {
        for (url, shown) in [
            ("postgres://me:s3cret@db:5432/framehook", "postgres://me:***@db:5432/framehook"),
            ("postgres://me:s3c@ret@db/framehook?password=s3cret", "postgres://me:***@db/framehook"),
            ("postgres://127.0.0.1:5432/postgres", "postgres://127.0.0.1:5432/postgres"),
            ("s3cret", "***"),
        ] {
            assert_eq!(without_secrets(url), shown);
            let options = ClusterOptions {
                database_url: Some(url.into()),
                redis_url: Some(url.into()),
                blobs: Some(url.replace("postgres:", "s3:")),
                kafka_properties: vec!["sasl.password=s3cret".into(), "s3cret-without-a-key".into()],
                key: Some("=s3cret".into()),
                ..ClusterOptions::default()
            };
            let dumped = toml::to_string(&options.shown()).unwrap();
            for text in [format!("{options:?}"), dumped] {
                assert!(!text.contains("=s3cret") && !text.contains(":s3c"), "{text}");
            }
        }
    }

    #[test]
    fn a_key_comes_from_one_place_and_is_not_repeated_when_it_is_wrong() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "ab".repeat(32)).unwrap();
        let key = |key: Option<&str>, file: Option<&Path>| {
            let options =
                ClusterOptions { key: key.map(Into::into), key_file: file.map(Into::into), ..Default::default() };
            options.key().map_err(|error| format!("{error:#}"))
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
        let options =
            |property: &str| ClusterOptions { kafka_properties: vec![property.into()], ..ClusterOptions::default() };
        let properties = options("sasl.password=a=b").properties().unwrap();
        assert_eq!(properties["sasl.password"], "a=b");
        let error = options("s3cret").properties().unwrap_err().to_string();
        assert!(error.contains("KEY=VALUE") && !error.contains("s3cret"), "{error}");
    }
}
