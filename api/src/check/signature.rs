//! Whose word counts for a plugin.
//!
//! With `require_signed`, a plugin comes in only with a signature of a trusted key, and a new scenario takes
//! only plugins that came in so and whose key is trusted still. What runs goes on running: a key is withdrawn
//! for what comes, and scenarios that must not go on are stopped by whoever withdraws it.

use framehook_core::{
    error_code::ErrorCode,
    ids::Digest,
    signature::{PluginSignature, SignedBy},
};
use framehook_infra::{signing::TrustedKeys, store::Artifact};

use crate::http::problem::Problem;

/// The name of the form's field.
pub(crate) const FIELD: &str = "signature";

/// Which signatures are worth something, and whether there must be one.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    pub trusted: TrustedKeys,
    pub is_required: bool,
}

impl Signing {
    /// Who vouches for the plugin with this digest. Where no key is trusted and none is asked for, nobody
    /// judges a signature, and nobody vouches.
    ///
    /// # Errors
    /// `unsigned_plugin`, `invalid_signature`.
    pub(crate) fn judge(
        &self,
        signature: Option<&PluginSignature>,
        digest: &Digest,
    ) -> Result<Option<SignedBy>, Problem> {
        match signature {
            None if self.is_required => {
                let detail = "the plugin comes with no signature, and this installation asks for one (require_signed)";
                Err(Problem::new(ErrorCode::UnsignedPlugin, detail).field(FIELD))
            }
            Some(signature) if !self.trusted.is_empty() => {
                let verified = self.trusted.verify(signature, digest);
                verified.map(Some).map_err(|untrusted| invalid(untrusted.to_string()))
            }
            _ => Ok(None),
        }
    }

    /// Why a new scenario may not use this plugin.
    pub(crate) fn objection(&self, plugin: &Artifact) -> Option<String> {
        let Artifact { name, version, signed_by, .. } = plugin;
        let lacking = match signed_by {
            _ if !self.is_required => return None,
            Some(SignedBy { key, .. }) if self.trusted.holds(key) => return None,
            Some(SignedBy { name, key, .. }) => {
                format!("was signed with `{name}` ({key}), which is not trusted any more")
            }
            None => "is not signed".to_owned(),
        };
        let advice = "upload it again with a signature of a trusted key";
        Some(format!("`{name}@{version}` {lacking}, and this installation asks for that (require_signed); {advice}"))
    }
}

/// A plugin may call itself what it likes, but not something else than it was signed as.
///
/// # Errors
/// `invalid_signature`.
pub(crate) fn check_name(signature: &PluginSignature, name: &str, version: &str) -> Result<(), Problem> {
    let PluginSignature { name: signed, version: of_version, .. } = signature;
    if (signed.as_str(), of_version.as_str()) == (name, version) {
        return Ok(());
    }
    Err(invalid(format!(
        "the signature is for `{signed}@{of_version}`, and the plugin calls itself `{name}@{version}`"
    )))
}

pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidSignature, detail).field(FIELD)
}
