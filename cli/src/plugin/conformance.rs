//! `framehook plugin conformance`: whether a component keeps to the contract, for authors of plugins in any
//! language.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;
use framehook_api::judge;
use framehook_core::{input::TensorInfo, probe::Verdict as Judged};
use framehook_engine::conformance::{Check, ModelOutput, Subject, Verdict};
use serde_json::json;

use super::{
    check::wrong,
    local::{Local, Named, block_on, named},
    scenario,
};

/// Where a model leaves a side of an output open: a number of objects that it could find.
const OPEN_SIDE: u32 = 100;

#[derive(Args)]
pub(crate) struct Conformance {
    /// The component, a `.wasm` file
    file: PathBuf,
    /// The configuration to try it with, if its defaults do not do: JSON, or a file behind an `@`. The only
    /// further model that there is has the name `synthetic`
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// The model whose outputs its post hook reads, an ONNX file; otherwise outputs of the usual kinds are
    /// tried
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Conformance {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let checks = block_on(self.checks())?;
        let passes = checks.iter().all(|check| check.verdict != Verdict::Fail);
        if self.json {
            println!("{}", json!({ "conforms": passes, "checks": checks }));
        } else {
            checks.iter().for_each(|check| println!("{}", line(check)));
        }
        Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn checks(&self) -> anyhow::Result<Vec<Check>> {
        const ACCEPTED: &str = "accepted";
        let config = self.config.as_deref().map(|text| scenario::json(text, "the configuration")).transpose()?;
        let local = if self.model.is_some() { Local::with_worker()? } else { Local::open()? };
        let file = named(&self.file)?;
        let accepted = match judge::plugin(&local.api, &file.digest, &file.path).await? {
            Judged::Ok(_) => Check::new(ACCEPTED, Verdict::Pass, "as an upload is"),
            Judged::Findings(findings) => {
                let why = wrong(&findings, &self.file.display().to_string());
                return Ok(vec![Check::new(ACCEPTED, Verdict::Fail, why)]);
            }
        };
        let compiled = local.compiled.compiled(&file.digest, &file.path).await?;
        let outputs = self.outputs(&local).await?;
        let subject = Subject { compiled: compiled.path, digest: compiled.digest, config, outputs };
        let rest: Vec<Check> = judge::conformance(&local.api, &serde_json::to_value(&subject)?).await?;
        Ok([accepted].into_iter().chain(rest).collect())
    }

    async fn outputs(&self, local: &Local) -> anyhow::Result<Vec<ModelOutput>> {
        let Some(model) = &self.model else { return Ok(Vec::new()) };
        let Named { path, size, .. } = named(model)?;
        match judge::model(&local.api, &path, size).await? {
            Judged::Ok(model) => Ok(model.outputs.iter().filter_map(output).collect()),
            Judged::Findings(findings) => bail!("{}", wrong(&findings, &model.display().to_string())),
        }
    }
}

/// As hooks see it; those of text are not made up.
fn output(of: &TensorInfo) -> Option<ModelOutput> {
    let TensorInfo { name, element, shape } = of;
    let is_integer = element.contains("int") || element == "bool";
    let side = |(at, side): (usize, &Option<u32>)| side.unwrap_or(if at == 0 { 1 } else { OPEN_SIDE });
    let shape = shape.iter().enumerate().map(side).collect();
    (element != "string").then(|| ModelOutput { name: name.clone(), shape, is_integer })
}

fn line(Check { name, verdict, message }: &Check) -> String {
    let verdict = match verdict {
        Verdict::Pass => "ok",
        Verdict::Fail => "FAIL",
        Verdict::Skip => "skip",
    };
    format!("{verdict:<5} {name:<14} {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_a_model_leaves_open_has_some_length() {
        let of = |element: &str, shape: &[Option<u32>]| {
            output(&TensorInfo { name: "o".into(), element: element.into(), shape: shape.to_vec() })
        };
        let boxes = of("float32", &[None, Some(7), None]).unwrap();
        assert_eq!((boxes.shape, boxes.is_integer), (vec![1, 7, OPEN_SIDE], false));
        assert!(of("int64", &[Some(3)]).unwrap().is_integer);
        assert_eq!(of("string", &[Some(3)]), None);
    }

    #[test]
    fn a_check_is_a_line() {
        let check = Check::new("state", Verdict::Fail, "it forgets");
        assert_eq!(line(&check), "FAIL  state          it forgets");
    }
}
