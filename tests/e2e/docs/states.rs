//! `docs/states.md`, from the transition tables and the reason codes of core.

use framehook_core::state::{SCENARIO_TRANSITIONS, ScenarioState, WORKER_TRANSITIONS, WorkerState, diagram};

use super::{head, header, row, source, variants};

const STATES: &str = "core/src/state.rs";
const REASONS: &str = "core/src/reason.rs";

pub(super) fn document() -> String {
    let text = source(STATES);
    let scenario = ScenarioState::ALL.iter().map(|s| (s.as_str(), s.is_live(), s.is_ended()));
    let worker = WorkerState::ALL.iter().map(|s| (s.as_str(), s.is_live(), !s.is_live()));
    [
        head("States", &format!("`{STATES}` and `{REASONS}`")),
        "A scenario and each deployment of it, its worker, have a state. The tables in `core` are the only transitions \
         there are: the code asks them, the database checks the names, and each transition is a line of history in the \
         same transaction. What the user wants (`running`, `stopped` or `deleted`) is kept apart, as `desired`.\n\n"
            .to_owned(),
        section("Scenario", &diagram(SCENARIO_TRANSITIONS), &table(&text, "ScenarioState {", scenario)),
        section("Worker", &diagram(WORKER_TRANSITIONS), &table(&text, "WorkerState {", worker)),
        "## Reasons\n\nA state comes with a reason, where there is one: a code for programs and a sentence for people.\n\n"
            .to_owned(),
        reasons(),
    ]
    .concat()
}

fn section(title: &str, diagram: &str, table: &str) -> String {
    format!("## {title}\n\n```mermaid\n{diagram}```\n\n{table}\n")
}

fn table<'a>(text: &str, start: &str, states: impl Iterator<Item = (&'a str, bool, bool)>) -> String {
    let documented = variants(text, start);
    let rows = states.zip(documented).map(|((name, is_live, is_ended), (variant, comment))| {
        assert_eq!(variant.to_lowercase(), name, "the table and the enum have one order");
        let kind = if is_live {
            "live"
        } else if is_ended {
            "at rest"
        } else {
            "waits"
        };
        row(&[&format!("`{name}`"), kind, &comment])
    });
    header(&["state", "kind", "meaning"]) + &rows.collect::<String>()
}

fn reasons() -> String {
    let rows = reason_codes().into_iter().map(|(code, meaning, _)| row(&[&format!("`{code}`"), &meaning]));
    header(&["code", "meaning"]) + &rows.collect::<String>()
}

/// Each code, what it means and what to do: the comment's two paragraphs.
pub(super) fn reason_codes() -> Vec<(String, String, String)> {
    let told = variants(&source(REASONS), "pub enum ReasonCode {").into_iter().map(|(variant, comment)| {
        // The blank line between them is an empty word.
        let (meaning, advice) = comment.split_once("  ").unwrap_or((&comment, ""));
        (snake_case(&variant), meaning.to_owned(), advice.to_owned())
    });
    told.collect()
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(c.to_lowercase());
    }
    text
}
