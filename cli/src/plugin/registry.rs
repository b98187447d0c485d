//! `framehook plugin pull`, and `push` where it goes to a registry.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_core::signature::PluginSignature;
use framehook_engine::interface_names;
use framehook_infra::{
    registry::{Component, Credentials, Reference, Registries},
    signing::TrustedKeys,
};
use tempfile::NamedTempFile;

use super::{
    keys::{self, signature_of},
    local::block_on,
};

/// How a registry is spoken to.
#[derive(Args)]
pub(super) struct Speak {
    /// Speak to the registry without TLS; one on this machine is spoken to so anyway
    #[arg(long)]
    plain_http: bool,
    /// File with the passwords of registries [default: Docker's, as `docker login` writes it]
    #[arg(long, env = "FRAMEHOOK_REGISTRY_AUTH", value_name = "FILE")]
    registry_auth: Option<PathBuf>,
}

impl Speak {
    fn registries(&self) -> Registries {
        Registries::any(self.plain_http, Credentials::Docker(self.registry_auth.clone()))
    }
}

/// Stores a component, with its signature, under a tag.
pub(super) fn push(
    wasm: Vec<u8>,
    signature: Option<PluginSignature>,
    to: &Reference,
    speak: &Speak,
) -> anyhow::Result<ExitCode> {
    let names = interface_names(&wasm);
    let (imports, exports) = names.context("this is no WebAssembly component; `framehook plugin check` says more")?;
    let by = signature.as_ref().map(|signature| format!(", signed with {}", signature.key));
    let component = Component { wasm, imports, exports, signature };
    let digest = block_on(async { Ok(speak.registries().push(to, component).await?) })?;
    println!("{to} is {}{}", to.pinned(digest), by.unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

#[derive(Args)]
pub(crate) struct Pull {
    /// oci://HOST/REPOSITORY:TAG, or oci://HOST/REPOSITORY@sha256:...
    from: Reference,
    /// Where the component goes; its signature goes beside it, with `.sig` behind the name [default: the last
    /// part of the repository, and `.wasm`]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Public key, or folder of public keys (*.pem): take only what one of them has signed [default: take
    /// anything]
    #[arg(long, value_name = "PATH")]
    trusted_keys: Option<PathBuf>,
    #[command(flatten)]
    speak: Speak,
}

impl Pull {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let trusted = self.trusted_keys.as_deref().map(TrustedKeys::read).transpose()?;
        let last = self.from.repository.rsplit('/').next().unwrap_or_default();
        let path = self.output.clone().unwrap_or_else(|| format!("{last}.wasm").into());
        block_on(self.fetch(&path, trusted))
    }

    /// The component is there once it is whole, and what it should be.
    async fn fetch(&self, path: &Path, trusted: Option<TrustedKeys>) -> anyhow::Result<ExitCode> {
        let mut pulled = self.speak.registries().pull(&self.from).await?;
        let by = match (&pulled.signature, trusted) {
            (Some(signature), Some(trusted)) => {
                let by = trusted.verify(signature, &pulled.digest)?;
                format!("{}@{}, signed by {} ({})", signature.name, signature.version, by.name, by.key)
            }
            (Some(signature), None) => {
                format!("has a signature with {}, which was not judged: name --trusted-keys", signature.key)
            }
            (None, Some(_)) => bail!("{} has no signature", self.from),
            (None, None) => "has no signature".to_owned(),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let cannot = || format!("cannot write {}", path.display());
        let mut file = NamedTempFile::new_in(folder).with_context(cannot)?;
        while let Some(bytes) = pulled.chunk().await? {
            file.write_all(&bytes).with_context(cannot)?;
        }
        // What is made here is read by everybody, as what is built is.
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).with_context(cannot)?;
        file.persist(path).with_context(cannot)?;
        let beside = signature_of(path);
        match &pulled.signature {
            Some(signature) => keys::write(&beside, signature)?,
            // One of what was there before would be of other bytes.
            None if beside.exists() => {
                fs::remove_file(&beside).with_context(|| format!("cannot remove {}", beside.display()))?
            }
            None => {}
        }
        println!("{}: {} bytes, {}\n  from {}\n  {by}", path.display(), pulled.size, pulled.digest, pulled.reference);
        Ok(ExitCode::SUCCESS)
    }
}
