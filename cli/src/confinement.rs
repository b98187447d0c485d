//! How this process confines its children, and what it says of it at its start.

use anyhow::{Context as _, bail};
use framehook_confine::{REQUIRED, Sandbox};
use framehook_core::message::Confinement;
use tracing::{info, warn};

use crate::{library, process::this_executable, settings::Settings};

/// What the children of a process are confined by.
pub(crate) struct Confined {
    pub(crate) sandbox: Sandbox,
    pub(crate) table: Vec<Confinement>,
}

/// Tries it in a child, and tells. Then tries, in another one, what most of them load.
///
/// # Errors
/// When no child can be started, or something is missing and the settings require it,
/// or when ONNX Runtime cannot be loaded.
pub(crate) fn confine(settings: &Settings) -> anyhow::Result<Confined> {
    let sandbox = Sandbox::with_user(settings.child_user).in_cgroups();
    let table = sandbox.table(&this_executable()?).context("no child process could be started and confined")?;
    let on: Vec<_> = table.iter().filter(|row| row.on).map(|row| row.name.as_str()).collect();
    info!("children are confined by {}", on.join(", "));
    for row in table.iter().filter(|row| !row.on) {
        // Expected of most machines: nobody has to do anything about it.
        if REQUIRED.contains(&&*row.name) {
            warn!("children are not confined by {}: {}", row.name, row.why);
        } else {
            info!("children are not confined by {}: {}", row.name, row.why);
        }
    }
    if settings.require_sandbox {
        check(&table)?;
    }
    library::check(settings, &sandbox)?;
    Ok(Confined { sandbox, table })
}

fn check(table: &[Confinement]) -> anyhow::Result<()> {
    let missing = |name: &&str| match table.iter().find(|row| row.name == *name) {
        Some(row) if row.on => None,
        row => Some(format!("{name} ({})", row.map_or("not tried", |row| &row.why))),
    };
    let missing: Vec<_> = REQUIRED.iter().filter_map(missing).collect();
    if !missing.is_empty() {
        bail!("require_sandbox is set, and children would not be confined by {}", missing.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_sandbox_may_lack_only_its_second_lines() {
        let row = |name: &str, on| Confinement { name: name.into(), on, why: "why".into() };
        let mut table: Vec<_> = REQUIRED.iter().map(|name| row(name, true)).collect();
        table.push(row("cgroup", false));
        check(&table).unwrap();
        for k in 0..REQUIRED.len() {
            let mut lacking = table.clone();
            lacking[k].on = false;
            let error = check(&lacking).unwrap_err().to_string();
            assert!(error.contains(&format!("{} (why)", REQUIRED[k])), "{error}");
        }
        assert!(check(&table[1..]).unwrap_err().to_string().contains("not tried"));
    }
}
