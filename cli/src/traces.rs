//! Spans to a collector, as OTLP (protobuf over HTTP).
//!
//! Invariant: a collector that is slow, dead or wrong costs spans and nothing else: they wait in a bounded
//! queue for a thread of their own, and an outage is one line in the log, not one a batch. What else can be
//! set (headers, sampling, the size and pace of batches) is OpenTelemetry's own `OTEL_*` variables.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::{Subscriber, info, warn};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// For the last spans of a process; a collector that does not answer must not keep it.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// To the collector at `endpoint`, such as `http://127.0.0.1:4318`.
    pub(crate) fn new(role: &str, endpoint: &str) -> anyhow::Result<Self> {
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let builder = opentelemetry_otlp::SpanExporter::builder().with_http();
        let exporter = builder.with_protocol(Protocol::HttpBinary).with_endpoint(url).build();
        let exporter = exporter.context("expected a URL such as http://127.0.0.1:4318")?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(format!("framehook-{role}"));
        }
        let exporter = Patient { exporter, is_lost: AtomicBool::new(false) };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
        Ok(Self(provider.build()))
    }

    pub(crate) fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let tracer = self.0.tracer("framehook");
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
    }

    /// Sends what is left.
    pub(crate) fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_WORDS) {
            warn!("the last spans were not sent: {error}");
        }
    }
}

/// An exporter that speaks of its failures once.
struct Patient<E> {
    exporter: E,
    is_lost: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Patient<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        let was_lost = self.is_lost.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Ok(()) if was_lost => info!("spans reach the collector again"),
            Err(error) if !was_lost => warn!("spans do not reach the collector and are dropped: {error}"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Without its headers: they may hold a token.
impl<E> fmt::Debug for Patient<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patient").finish_non_exhaustive()
    }
}
