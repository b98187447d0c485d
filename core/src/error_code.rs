//! Every error the API can answer with: one table of stable codes, HTTP statuses and titles.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

// `tt` and not `literal`: derive macros see a `literal` wrapped in a group, and utoipa then ignores the rename.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:tt, $status:literal, $title:literal;)+) => {
        /// A stable code: programs match on it, so it never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        pub enum ErrorCode { $($(#[$doc])* #[serde(rename = $code)] $variant),+ }

        impl ErrorCode {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }

            /// The same sentence for every occurrence, as RFC 9457 asks.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }
        }
    };
}

error_codes! {
    InvalidJson = "invalid_json", 400, "The body is not JSON";
    InvalidScenario = "invalid_scenario", 422, "The scenario is not valid";
    InvalidParameter = "invalid_parameter", 400, "A parameter of the request is not valid";
    UnknownModel = "unknown_model", 422, "No such model was uploaded";
    UnknownPlugin = "unknown_plugin", 422, "No such plugin was uploaded";
    UnknownVideo = "unknown_video", 422, "No such video was uploaded";
    InvalidPluginConfig = "invalid_plugin_config", 422, "The plugin does not accept its configuration";
    PluginHookMismatch = "plugin_hook_mismatch", 422, "The plugin does not have this hook";
    ModelInputMismatch = "model_input_mismatch", 422, "The model's input does not fit";
    SourceNotAllowed = "source_not_allowed", 422, "The source is outside the allowed folders";
    SecretNotAccepted = "secret_not_accepted", 422, "The service has no key to seal secrets with";
    InvalidPlugin = "invalid_plugin", 422, "The upload is not a usable plugin";
    InvalidModel = "invalid_model", 422, "The upload is not a usable model";
    InvalidVideo = "invalid_video", 422, "The upload is not a usable video";
    RequestTimeout = "request_timeout", 408, "The request came too slowly";
    UnsupportedMediaType = "unsupported_media_type", 415, "The body's content type is not one that is taken here";
    HostNotAllowed = "host_not_allowed", 421, "The service is not called by this name";
    CrossSite = "cross_site", 403, "A page of another site may not change anything";
    TooBusy = "too_busy", 429, "Too much is asked for at a time";
    UploadTooLarge = "upload_too_large", 413, "The upload is over the size limit";
    InvalidUpload = "invalid_upload", 400, "The upload could not be read";
    VersionExists = "version_exists", 409, "This name and version hold other content";
    ArtifactInUse = "artifact_in_use", 409, "A scenario still uses it";
    IdempotencyKeyReused = "idempotency_key_reused", 409, "The idempotency key was used with another body";
    ScenarioNotFound = "scenario_not_found", 404, "No such scenario";
    ArtifactNotFound = "artifact_not_found", 404, "No such artifact";
    RunnerNotFound = "runner_not_found", 404, "No such runner";
    RouteNotFound = "route_not_found", 404, "No such route";
    NotAcceptable = "not_acceptable", 406, "The answer has no such format";
    MethodNotAllowed = "method_not_allowed", 405, "The route does not have this method";
    StorageFull = "storage_full", 507, "The disk is full";
    TooManyConnections = "too_many_connections", 503, "Too many connections are open";
    Unavailable = "unavailable", 503, "The service is not ready";
    Internal = "internal", 500, "Something went wrong on our side";
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
