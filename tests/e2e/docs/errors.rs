//! `docs/errors.md`, from the table of error codes and the comments of the reason codes.

use framehook_core::error_code::ErrorCode;

use super::{head, states::reason_codes};

pub(super) fn document() -> String {
    [
        head("Errors and reasons", "`core/src/error_code.rs` and `core/src/reason.rs`"),
        "Programs match on codes: one that is here keeps its meaning, and new ones may be added.\n\n\
         ## Error codes\n\nThe `code` of a problem (`application/problem+json`), which the API answers with when it cannot do \
         what it was asked for. The problem's `detail` says what happened this time, `field` what of the request is wrong, and \
         `request_id` names the request in the service's log, whose line has the `code` too.\n"
            .to_owned(),
        ErrorCode::ALL.iter().map(|&code| error(code)).collect(),
        "\n## Reason codes\n\nThe `reason` of a scenario's state, of a line of its history, and of a hook that failed on a frame.\n"
            .to_owned(),
        reason_codes().into_iter().map(|(code, meaning, advice)| section(&code, &meaning, &advice)).collect(),
    ]
    .concat()
}

fn error(code: ErrorCode) -> String {
    section(code.as_str(), &format!("{} (HTTP {}).", code.title(), code.status()), code.advice())
}

fn section(code: &str, meaning: &str, advice: &str) -> String {
    assert!(!meaning.is_empty() && !advice.is_empty(), "{code} has no meaning or no advice");
    format!("\n### `{code}`\n\n{meaning}\n\n**What to do:** {advice}\n")
}
