//! The trace a thing belongs to: from the `traceparent` (W3C) of a request through every message to the spans
//! of each role.
//!
//! Invariants: a `traceparent` that cannot be read counts as none, and is never an error; one that is
//! handed on is always valid, whether or not this process exports spans. The spans themselves are
//! `tracing`'s: a process that exports some installs a layer for it, and nobody else needs to know.
//!
//! Deliberately absent: `tracestate` and baggage, which nothing here reads.

use std::collections::HashMap;

use opentelemetry::{
    Context,
    propagation::TextMapPropagator as _,
    trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{IdGenerator as _, RandomIdGenerator},
};
use tracing::{Span, field::display};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header of a request and of a record.
pub const TRACEPARENT: &str = "traceparent";

/// Makes `span`, which nobody has entered yet, part of the trace that `traceparent` names, or the beginning
/// of a new one. Gives what follows from the span its `traceparent`. The span's field `trace_id` is filled in
/// if it has one.
#[must_use]
pub fn begin(span: &Span, traceparent: Option<&str>) -> String {
    let given = traceparent.and_then(parse);
    if let Some(parent) = &given {
        set_parent(span, parent);
    }
    let exported = span.context().span().span_context().clone();
    let context = if exported.is_valid() { exported } else { given.unwrap_or_else(generate) };
    span.record("trace_id", display(context.trace_id()));
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
}

/// Makes `span`, which nobody has entered yet, part of the trace that `traceparent` names, if it names one.
pub fn follow(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        set_parent(span, &parent);
        span.record("trace_id", display(parent.trace_id()));
    }
}

fn set_parent(span: &Span, parent: &SpanContext) {
    // An error says that this span is not exported.
    span.set_parent(Context::new().with_remote_span_context(parent.clone())).ok();
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let headers = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Sampled, so that whoever exports spans has those of the whole way.
fn generate() -> SpanContext {
    let ids = RandomIdGenerator::default();
    SpanContext::new(ids.new_trace_id(), ids.new_span_id(), TraceFlags::SAMPLED, false, TraceState::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is exported here.
    #[test]
    fn a_valid_traceparent_is_handed_on_and_any_other_is_replaced() {
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for flags in ["00", "01"] {
            let given = format!("00-{trace}-{parent}-{flags}");
            assert_eq!(begin(&Span::none(), Some(&given)), given);
        }
        // A version to come: what is known of it is kept.
        let future = format!("cc-{trace}-{parent}-ff-more");
        assert_eq!(begin(&Span::none(), Some(&future)), format!("00-{trace}-{parent}-01"));

        let zeros = |n| "0".repeat(n);
        for bad in [
            String::new(),
            "00-x-y-01".into(),
            format!("00-{}-{parent}-01", zeros(32)),
            format!("00-{trace}-{}-01", zeros(16)),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{trace}-{parent}-01-more"),
            format!("00-{trace}{trace}-{parent}-01"),
            format!("00-{trace}\u{e9}-{parent}-01"),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
            let made = begin(&Span::none(), Some(&bad));
            assert!(parse(&made).is_some() && made.ends_with("-01"), "{bad}: {made}");
        }
        assert_ne!(begin(&Span::none(), None), begin(&Span::none(), None));
    }
}
