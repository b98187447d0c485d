//! The measured times in `docs/data-flow.md`, from the results of the benchmark.

use serde_json::Value;

use super::{header, row, source};

const DOCUMENT: &str = "docs/data-flow.md";
const RESULTS: &str = "bench/results.json";
const BEGIN: &str = "from bench/results.json -->\n";
const END: &str = "<!-- end -->";

/// Steps as the benchmark names them, in their order.
const STEPS: [(&str, &str); 8] = [
    ("answered", "POST answered"),
    ("init_published", "`init_scenario` published"),
    ("deploy_written", "deploy order written"),
    ("deploy_published", "deploy order published"),
    ("taken", "order taken by the runner"),
    ("ready", "worker ready"),
    ("first_frame", "first frame given to `results`"),
    ("readable", "first prediction readable"),
];

pub(super) fn document() -> String {
    let text = source(DOCUMENT);
    let (head, rest) = text.split_once(BEGIN).expect("the place of the table is marked");
    let (_, tail) = rest.split_once(END).expect("the end of the table is marked");
    [head, BEGIN, &measured(), END, tail].concat()
}

fn measured() -> String {
    let results: Value = serde_json::from_str(&source(RESULTS)).unwrap();
    let latency = &results["latency"];
    let (date, processor, rounds) = (&latency["date"], &latency["processor"], &latency["rounds"]);
    let others = 100.0 * latency["disturbance"].as_f64().unwrap();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let intro = format!(
        "Milliseconds since the POST, of {rounds} runs on {}, {}, of which other processes used {others:.0} %. A runner keeps a pre-warmed \
         worker ready; *cold* is without one. A message is noted as published a moment after it is on Kafka, so the next step may \
         come before.\n\n",
        text(processor),
        text(date),
    );
    let rows = STEPS.map(|(step, name)| {
        let time = |worker: &str, quantile: &str| {
            let ms = latency["medians"][worker][step][quantile].as_f64();
            format!("{:.0}", ms.unwrap_or_else(|| panic!("{RESULTS} has no {quantile} of {worker} {step}")))
        };
        row(&[
            name,
            &time("spare", "p50_ms"),
            &time("spare", "p99_ms"),
            &time("cold", "p50_ms"),
            &time("cold", "p99_ms"),
        ])
    });
    intro + &header(&["step", "p50", "p99", "cold p50", "cold p99"]) + &rows.concat()
}
