//! One request, one trace: from the POST to the first stored result, in the spans that a collector gets and
//! in the log.

use std::{collections::BTreeSet, sync::mpsc, thread, time::Duration};

use axum::{Router, body::Bytes, routing::post};
use framehook_tests::{
    DEADLINE,
    client::light_scenario,
    cluster::{APIS, Cluster, ORCHESTRATORS, RUNNERS},
    platform::Platform,
    servers::free_port,
    wait_for,
};
use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use prost::Message as _;
use serde_json::Value;

const FRAMES: u64 = 500;

/// What a request names that is part of a trace already.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// The spans of a scenario, and which role each is of.
const STEPS: [(&str, &[&str]); 7] = [
    ("POST /scenario/init", &["framehook-api"]),
    // Both have a relay.
    ("publish", &["framehook-api", "framehook-orchestrator"]),
    ("deploy", &["framehook-orchestrator"]),
    ("prepare", &["framehook-runner"]),
    ("start worker", &["framehook-runner"]),
    ("publish first frame", &["framehook-runner"]),
    ("store first result", &["framehook-api"]),
];

/// Receives OTLP over HTTP for as long as the test process lives.
struct Collector {
    url: String,
    spans: mpsc::Receiver<(String, Span)>,
}

impl Collector {
    fn start() -> Self {
        let (sender, spans) = mpsc::channel();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let receive = move |body: Bytes| async move {
            for resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
                let service = text(&resource.resource.unwrap().attributes, "service.name").unwrap();
                for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    sender.send((service.clone(), span)).ok();
                }
            }
        };
        let router = Router::new().route("/v1/traces", post(receive));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || {
            runtime.block_on(async {
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
            });
        });
        Self { url, spans }
    }
}

fn text(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    match attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        other => panic!("{key} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Posts the demo scenario as part of a trace; gives its id.
fn post_traced(api: &str, traceparent: &str) -> String {
    let request = ureq::post(format!("{api}/scenario/init")).header("traceparent", traceparent);
    let request = request.content_type("application/json");
    let answer = request.send(light_scenario().to_string()).unwrap().into_body().read_to_string().unwrap();
    serde_json::from_str::<Value>(&answer).unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn one_post_is_one_trace_through_every_role_and_in_the_log() {
    let collector = Collector::start();
    let mut platform = Platform::with_demo(&["--otlp-endpoint", &collector.url, "--log-format", "json"]);
    let given = post_traced(platform.url(), &format!("00-{TRACE}-{PARENT}-01"));
    // Replaced: it begins a trace of its own.
    let replaced = post_traced(platform.url(), "00-nonsense");
    for id in [&given, &replaced] {
        platform.completed(id, FRAMES);
    }
    // The end sends what is left.
    assert_eq!(platform.interrupt(), Some(0), "{}", platform.log());
    let spans: Vec<_> = collector.spans.try_iter().collect();
    assert!(spans.iter().all(|(service, _)| service == "framehook-up"));
    let of = |id: &str| -> Vec<_> {
        let is_about = |span: &&Span| text(&span.attributes, "scenario_id").as_deref() == Some(id);
        spans.iter().map(|(_, span)| span).filter(is_about).collect()
    };
    let steps = STEPS.map(|(step, _)| step);
    let mut traces = BTreeSet::new();
    for id in [&given, &replaced] {
        let spans = of(id);
        let names: BTreeSet<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, steps.into(), "{names:?}");
        let root = spans.iter().find(|span| span.name == steps[0]).unwrap();
        assert!(spans.iter().all(|span| span.trace_id == root.trace_id), "{spans:#?}");
        for child in spans.iter().filter(|span| span.name != steps[0]) {
            assert_eq!(child.parent_span_id, root.span_id, "{child:#?}");
        }
        // One frame in five hundred has spans.
        assert!(spans.len() < 20, "{} spans", spans.len());
        let expected = if *id == given { PARENT.to_owned() } else { String::new() };
        assert_eq!(hex(&root.parent_span_id), expected);
        check_log(&platform.log(), id, &hex(&root.trace_id));
        traces.insert(hex(&root.trace_id));
    }
    assert!(traces.len() == 2 && traces.contains(TRACE), "{traces:?}");
}

#[test]
fn in_a_cluster_the_trace_leads_from_process_to_process() {
    let collector = Collector::start();
    let mut cluster = Cluster::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]);
    let id = post_traced(&cluster.url_of("api-1"), &format!("00-{TRACE}-{PARENT}-01"));
    cluster.settle(&[id]);
    // The end of each sends what is left.
    for name in [RUNNERS, ORCHESTRATORS, APIS].into_iter().flatten() {
        assert_eq!(cluster.stop(name), Some(0), "{name}: {}", cluster.log(name));
    }
    let spans = collector.spans.try_iter().filter(|(_, span)| hex(&span.trace_id) == TRACE);
    let found: BTreeSet<_> = spans.map(|(service, span)| (span.name, service)).collect();
    for (step, services) in STEPS {
        let of_step = found.iter().filter(|(name, _)| name == step).map(|(_, service)| service.as_str());
        let of_step: Vec<_> = of_step.collect();
        assert!(
            !of_step.is_empty() && of_step.iter().all(|s| services.contains(s)),
            "{step} is of {of_step:?}: {found:?}"
        );
    }
}

/// Every line about a scenario names it, its trace and, from its deployment on, its generation.
#[track_caller]
fn check_log(log: &str, id: &str, trace: &str) {
    let lines: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|_| panic!("{l}"))).collect();
    let about: Vec<_> = lines.iter().filter(|line| line.to_string().contains(id)).collect();
    for line in &about {
        assert_eq!((&line["scenario_id"], &line["trace_id"]), (&id.into(), &trace.into()), "{line}");
        assert!(line["message"] == "request" || line["generation"].is_i64(), "{line}");
    }
    for message in ["request", "deployed", "deployment ended"] {
        assert!(about.iter().any(|line| line["message"] == message), "no line says `{message}`: {about:#?}");
    }
}

#[test]
fn a_dead_collector_costs_one_line_of_the_log() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let mut platform = Platform::with_demo(&["--otlp-endpoint", &nobody]);
    let lost = |platform: &Platform| platform.log().matches("spans do not reach the collector").count();
    wait_for("the first batch to be lost", DEADLINE, || (lost(&platform) > 0).then_some(()));
    let id = platform.post_scenario(&light_scenario());
    platform.completed(&id, FRAMES);
    let start = std::time::Instant::now();
    assert_eq!(platform.interrupt(), Some(0), "{}", platform.log());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(lost(&platform), 1, "{}", platform.log());
}
