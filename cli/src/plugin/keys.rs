//! `framehook plugin keygen`, `sign` and `verify`: who vouches for a plugin.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use framehook_api::judge;
use framehook_core::{
    artifact::PluginManifest,
    probe::Verdict,
    signature::{PluginSignature, SignedBy},
};
use framehook_infra::signing::{SigningKey, TrustedKeys};

use super::{
    check::wrong,
    local::{Local, Named, block_on, named},
};

#[derive(Args)]
pub(crate) struct Keygen {
    /// What the key is called: NAME.pem, for you alone, and NAME.pub.pem, for those who trust you
    name: PathBuf,
}

impl Keygen {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let [private, public] = [".pem", ".pub.pem"].map(|end| beside(&self.name, end));
        let key = SigningKey::generate(&private, &public)?;
        let (private, public) = (private.display(), public.display());
        println!(
            "{private}: the private key, which signs: keep it where nobody else reads it\n{public}: the public key, {}: \
             operators name it with --trusted-keys",
            key.id()
        );
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Sign {
    /// The component, a `.wasm` file
    file: PathBuf,
    /// The private key, as `framehook plugin keygen` or `openssl genpkey -algorithm ed25519` makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the signature goes [default: beside the component, with `.sig` behind its name]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Sign {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let key = SigningKey::read(&self.key)?;
        let (file, PluginManifest { name, version, .. }) = described(&self.file)?;
        let signature = key.sign(&name, &version, &file.digest);
        let path = self.output.unwrap_or_else(|| signature_of(&self.file));
        write(&path, &signature)?;
        println!("{}: {name}@{version}, {}, signed with {}", path.display(), file.digest, key.id());
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Verify {
    /// The component, a `.wasm` file
    file: PathBuf,
    /// Public key, or folder of public keys (*.pem)
    #[arg(long, value_name = "PATH")]
    trusted_keys: PathBuf,
    /// The signature [default: beside the component, with `.sig` behind its name]
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

impl Verify {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let trusted = TrustedKeys::read(&self.trusted_keys)?;
        let signature = read(&self.signature.unwrap_or_else(|| signature_of(&self.file)))?;
        let SignedBy { name: by, key, .. } = trusted.verify(&signature, &named(&self.file)?.digest)?;
        let (_, PluginManifest { name, version, .. }) = described(&self.file)?;
        let PluginSignature { name: signed, version: of_version, .. } = &signature;
        if (signed, of_version) != (&name, &version) {
            bail!("the signature is for {signed}@{of_version}, and the plugin calls itself {name}@{version}");
        }
        println!("{name}@{version} is signed by {by} ({key})");
        Ok(ExitCode::SUCCESS)
    }
}

/// What a plugin says it is, as an upload is asked.
fn described(file: &Path) -> anyhow::Result<(Named, PluginManifest)> {
    let local = Local::open()?;
    let of = named(file)?;
    let verdict = block_on(async { Ok(judge::plugin(&local.api, &of.digest, &of.path).await?) })?;
    match verdict {
        Verdict::Ok(manifest) => Ok((of, manifest)),
        Verdict::Findings(findings) => bail!("no platform takes it\n{}", wrong(&findings, &file.display().to_string())),
    }
}

/// Where a component's signature is, if nobody says otherwise.
pub(super) fn signature_of(component: &Path) -> PathBuf {
    beside(component, ".sig")
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

pub(super) fn read(path: &Path) -> anyhow::Result<PluginSignature> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    PluginSignature::parse(&text).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
}

pub(super) fn write(path: &Path, signature: &PluginSignature) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(signature)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
