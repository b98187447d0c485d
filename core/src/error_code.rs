//! Every error the API can answer with: one table of stable codes, HTTP statuses, titles and advice.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

// `tt` and not `literal`: derive macros see a `literal` wrapped in a group, and utoipa then ignores the
// rename.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:tt, $status:literal, $title:literal, $advice:literal;)+) => {
        /// A stable code: programs match on it, so it never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        pub enum ErrorCode { $($(#[$doc])* #[serde(rename = $code)] $variant),+ }

        impl ErrorCode {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }

            /// The same sentence for every occurrence, as RFC 9457 asks.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }

            /// What to do, in a sentence or two: `docs/errors.md` has them.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice),+ }
            }
        }
    };
}

error_codes! {
    InvalidJson = "invalid_json", 400, "The body is not JSON",
        "Mend the JSON at the line and column that `detail` names.";
    InvalidScenario = "invalid_scenario", 422, "The scenario is not valid",
        "Change the field that `field` names; `errors`, where it is there, lists everything that is wrong with a body that could be read. `POST /scenario/check` tries a scenario without creating it.";
    InvalidParameter = "invalid_parameter", 400, "A parameter of the request is not valid",
        "Change the parameter or header that `field` names; `/docs` lists what each may be.";
    UnknownModel = "unknown_model", 422, "No such model was uploaded",
        "Upload it with `POST /model`, or name one that `GET /model` lists.";
    UnknownPlugin = "unknown_plugin", 422, "No such plugin was uploaded",
        "Upload it with `POST /plugin`, or name one that `GET /plugin` lists.";
    UnknownVideo = "unknown_video", 422, "No such video was uploaded",
        "Upload it with `POST /video`, or name one that `GET /video` lists.";
    InvalidPluginConfig = "invalid_plugin_config", 422, "The plugin does not accept its configuration",
        "Change the configuration to what the `config_schema` of `GET /plugin/{name}/{version}` describes.";
    PluginHookMismatch = "plugin_hook_mismatch", 422, "The plugin does not have this hook",
        "Move the plugin to `plugins.pre` or `plugins.post`, whichever its manifest says that it has.";
    ModelInputMismatch = "model_input_mismatch", 422, "The model's input does not fit",
        "Change `input` to what the model takes (`GET /model/{name}/{version}` lists its tensors), or export the model again as `detail` says.";
    SourceNotAllowed = "source_not_allowed", 422, "The source is outside the allowed folders",
        "Upload the video instead, or have its folder added to the setting `source_dirs`.";
    SecretNotAccepted = "secret_not_accepted", 422, "The service has no key to seal secrets with",
        "Give the service a key (docs/operate.md), or use a URL without credentials.";
    InvalidPlugin = "invalid_plugin", 422, "The upload is not a usable plugin",
        "Build it for `wasm32-wasip2` against `framehook:plugin` (docs/write-a-plugin.md); `detail` says what is wrong, behind a word for the kind of fault, such as `truncated`.";
    UnsignedPlugin = "unsigned_plugin", 422, "The plugin is not signed by anybody who is trusted",
        "Sign it with `framehook plugin sign` and a key that the operator trusts, and upload it again with the signature in the form's field `signature`.";
    InvalidSignature = "invalid_signature", 422, "The signature is worth nothing here",
        "Sign the very bytes that are uploaded, with one of the keys that the operator trusts; `detail` says what does not fit.";
    RegistryNotAllowed = "registry_not_allowed", 422, "The registry is not one that is fetched from",
        "Pull the plugin and upload it (`framehook plugin pull`), or have the registry added to the setting `registries`.";
    RegistryFailed = "registry_failed", 502, "The registry did not give the plugin",
        "Look at what `detail` says of the registry's answer, and try again if it is one that passes.";
    InvalidModel = "invalid_model", 422, "The upload is not a usable model",
        "Export the model as one self-contained ONNX file; `detail` says what is wrong, behind a word for the kind of fault, such as `truncated`.";
    InvalidVideo = "invalid_video", 422, "The upload is not a usable video",
        "Convert the video to one of docs/media.md, such as H.264 in MP4; `detail` says what is wrong, behind a word for the kind of fault, such as `truncated`.";
    RequestTimeout = "request_timeout", 408, "The request came too slowly",
        "Send the request again over a faster connection, or have the setting raised that `detail` names.";
    UnsupportedMediaType = "unsupported_media_type", 415, "The body's content type is not one that is taken here",
        "Send the `Content-Type` that `expected` names.";
    HostNotAllowed = "host_not_allowed", 421, "The service is not called by this name",
        "Call the service by a name of its own, or have this one added with `--host`.";
    CrossSite = "cross_site", 403, "A page of another site may not change anything",
        "Send the request from a page of the service itself, or from a program that is no browser.";
    TooBusy = "too_busy", 429, "Too much is asked for at a time",
        "Wait for as long as the header `Retry-After` says, then send the request again.";
    UploadTooLarge = "upload_too_large", 413, "The upload is over the size limit",
        "Send less, or have the setting raised that `detail` names.";
    InvalidUpload = "invalid_upload", 400, "The upload could not be read",
        "Send the bytes of the file as the body, or a form with a field `file`; `detail` says what could not be read.";
    VersionExists = "version_exists", 409, "This name and version hold other content",
        "Give the new content another version, or delete the one that is there first.";
    ArtifactInUse = "artifact_in_use", 409, "A scenario still uses it",
        "Delete the scenario that `detail` names first, and with it its predictions.";
    IdempotencyKeyReused = "idempotency_key_reused", 409, "The idempotency key was used with another body",
        "Use a new key for a new scenario.";
    PreconditionRequired = "precondition_required", 428, "The request does not say which revision it changes",
        "Send the header `If-Match` with the scenario's revision in quotes, as the `ETag` of `GET /scenario/{id}` has it.";
    RevisionConflict = "revision_conflict", 412, "The scenario has another revision",
        "Read the scenario again, and send the change with the revision that it has now, if it still makes sense.";
    NotChangeable = "not_changeable", 422, "This cannot be changed in a scenario that exists",
        "Leave the field as it is, or post a new scenario with `POST /scenario/init`.";
    ScenarioEnded = "scenario_ended", 409, "The scenario has ended for good",
        "Post a new scenario: what has completed runs no more.";
    ScenarioNotFound = "scenario_not_found", 404, "No such scenario",
        "Look for it in `GET /scenario`; one that was deleted does not come back.";
    ArtifactNotFound = "artifact_not_found", 404, "No such artifact",
        "Look for it in `GET /plugin`, `GET /model` or `GET /video`.";
    RunnerNotFound = "runner_not_found", 404, "No such runner",
        "Look for it in `GET /runner`.";
    RouteNotFound = "route_not_found", 404, "No such route",
        "Look for the route in `/docs`, which lists all of them.";
    NotAcceptable = "not_acceptable", 406, "The answer has no such format",
        "Ask for one of the formats that `detail` names, or leave the header `Accept` out.";
    MethodNotAllowed = "method_not_allowed", 405, "The route does not have this method",
        "Use one of the methods that the header `Allow` lists.";
    StorageFull = "storage_full", 507, "The disk is full",
        "Delete scenarios or artifacts, or make room on the disk that `detail` names, then send the request again.";
    TooManyConnections = "too_many_connections", 503, "Too many connections are open",
        "Close connections that are not used, or have the limit raised (docs/operate.md), then try again.";
    Unavailable = "unavailable", 503, "The service is not ready",
        "Send the request again in a moment; if that does not help, `/readyz` and the service's log say what is missing.";
    Internal = "internal", 500, "Something went wrong on our side",
        "Look for the problem's `instance` in the service's log, and report what stands there.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        let codes: HashSet<_> = ErrorCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        assert!(ErrorCode::ALL.iter().all(|c| (400..600).contains(&c.status()) && !c.title().ends_with('.')));
    }
}
