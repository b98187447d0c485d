//! The log on stderr and, where a collector is named, the traces.
//!
//! Invariant: a line inside a span has the span's fields, whatever level is logged: what concerns a scenario
//! says so by `scenario_id`, `generation` and `trace_id`. As JSON these stand beside the line's own fields,
//! one object a line. As text, whatever a line quotes, it is one line, and nothing in it moves a cursor.

use std::{fmt::Debug, io::IsTerminal as _};

use framehook_core::text::one_line;
use serde_json::{Map, Value};
use tracing::{Event, Level, Metadata, Subscriber, field::Field, level_filters::LevelFilter};
use tracing_serde::fields::AsMap as _;
use tracing_subscriber::{
    EnvFilter, Layer as _,
    field::MakeExt as _,
    filter::{FilterExt as _, dynamic_filter_fn, filter_fn},
    fmt::{
        self, FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer, debug_fn},
        time::{FormatTime as _, SystemTime},
    },
    layer::{Filter, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{
    settings::{LogFormat, Settings},
    traces::Traces,
};

/// Gives the traces, whose last ones are sent when the process has ended its work.
pub(crate) fn start(role: &str, settings: &Settings) -> anyhow::Result<Option<Traces>> {
    let filter = with_our_spans(EnvFilter::try_new(&settings.log)?);
    let traces = settings.otlp_endpoint.as_deref().map(|endpoint| Traces::new(role, endpoint)).transpose();
    let traces = settings.blame("otlp_endpoint", traces)?;
    let export = traces.as_ref().map(|traces| {
        let is_step = |metadata: &Metadata<'_>| is_our_span(metadata) && *metadata.level() <= Level::INFO;
        traces.layer().with_filter(filter_fn(is_step).with_max_level_hint(LevelFilter::INFO))
    });
    let registry = tracing_subscriber::registry().with(export);
    let log = fmt::layer().with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => {
            let log = log.with_ansi(std::io::stderr().is_terminal()).fmt_fields(one_line_fields());
            registry.with(log.with_filter(filter)).init();
        }
        LogFormat::Json => {
            registry.with(log.fmt_fields(JsonFields::new()).event_format(JsonLine).with_filter(filter)).init();
        }
    }
    Ok(traces)
}

/// Fields as text, which may be that of a plugin, a model, a server or a client, each on one line.
fn one_line_fields() -> impl for<'a> FormatFields<'a> {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", one_line(&value)),
            name => write!(writer, "{name}={}", one_line(&value)),
        }
    };
    debug_fn(field).delimited(" ")
}

/// What `log` lets through, and every span of ours, so that the lines in them have their fields.
fn with_our_spans<S>(log: EnvFilter) -> impl Filter<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let spans = filter_fn(is_our_span).with_max_level_hint(LevelFilter::DEBUG);
    // Asked each time, not once a callsite: sqlx asks through `log` whether a line would be logged and then
    // logs none, and the next line on that thread would be taken to have its answer.
    log.or(spans).and(dynamic_filter_fn(|_, _| true))
}

/// Those of libraries have nothing to say about scenarios.
fn is_our_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with("framehook")
}

/// A line as one flat object.
struct JsonLine;

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>().map(|fields| fields.as_str());
            if let Some(Ok(Value::Object(fields))) = fields.map(serde_json::from_str) {
                line.extend(fields);
            }
        }
        if let Ok(Value::Object(fields)) = serde_json::to_value(event.field_map()) {
            line.extend(fields);
        }
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        line.insert("timestamp".into(), time.into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("target".into(), event.metadata().target().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info_span, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_text_is_one_line_whatever_it_quotes() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_ansi(false).fmt_fields(one_line_fields()).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let forged = "\n2026-01-01T00:00:00Z ERROR forged \u{1b}[31m\u{202e}";
            let _span = info_span!("outer", scenario_id = "s", shown = %forged).entered();
            warn!(plugin = "p@1", error = %forged, text = forged, "said: {forged}");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        for part in
            ["WARN", "scenario_id=\"s\"", "plugin=\"p@1\"", "said: \\n2026-01-01T00:00:00Z ERROR forged \\u{1b}"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_json_line_has_the_fields_of_its_spans_whatever_is_logged() {
        let lines = Lines::default();
        let writer = lines.clone();
        let filter = with_our_spans(EnvFilter::new("warn"));
        let layer = fmt::layer().fmt_fields(JsonFields::new()).event_format(JsonLine);
        let layer = layer.with_writer(move || writer.clone()).with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            // A question without a line.
            let theirs = tracing::debug_span!(target: "sqlx::query", "theirs");
            tracing::dispatcher::get_default(|log| log.enabled(theirs.metadata().unwrap()));
            let outer = info_span!("outer", scenario_id = "s", trace_id = tracing::field::Empty).entered();
            outer.record("trace_id", "t");
            let _inner = info_span!("inner", generation = 2, frames = 1).entered();
            warn!(frames = 3, "a \"word\"\nand another");
            tracing::info!("not asked for");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut line: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert!(line.remove("timestamp").is_some_and(|time| time.as_str().unwrap().ends_with('Z')));
        let expected = serde_json::json!({
            "level": "WARN", "target": module_path!(), "message": "a \"word\"\nand another",
            "scenario_id": "s", "trace_id": "t", "generation": 2, "frames": 3,
        });
        assert_eq!(Value::Object(line), expected);
    }
}
