//! What runs a model: an execution provider of ONNX Runtime, and the precision that it computes in.
//!
//! Invariant: what ran the stored frames of a scenario runs the next ones, too, wherever it goes on.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An execution provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// ONNX Runtime's own, which every runner has.
    #[default]
    Cpu,
    /// OpenVINO on the processor.
    Openvino,
    /// CUDA on a GPU of NVIDIA.
    Cuda,
    /// TensorRT on a GPU of NVIDIA.
    Tensorrt,
}

impl Provider {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Openvino => "openvino",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
        }
    }

    /// In which precisions it computes where the hardware can.
    pub const fn precisions(self) -> &'static [Precision] {
        match self {
            Self::Cpu | Self::Cuda => &[Precision::F32],
            Self::Openvino | Self::Tensorrt => &Precision::ALL,
        }
    }

    /// Whether it needs a GPU of NVIDIA.
    pub const fn has_gpu(self) -> bool {
        matches!(self, Self::Cuda | Self::Tensorrt)
    }
}

impl FromStr for Provider {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let known = ProviderChoice::ALL.into_iter().find(|choice| choice.as_str() == text);
        known.and_then(ProviderChoice::provider).ok_or("expected cpu, openvino, cuda or tensorrt")
    }
}

/// Which provider somebody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProviderChoice {
    /// The one that is fastest for the model on its runner, as measured there once. TensorRT is not among
    /// those that are tried: it takes minutes to prepare a model.
    #[default]
    Auto,
    Cpu,
    Openvino,
    Cuda,
    Tensorrt,
}

impl ProviderChoice {
    pub const ALL: [Self; 5] = [Self::Auto, Self::Cpu, Self::Openvino, Self::Cuda, Self::Tensorrt];

    /// `None`: whichever is fastest.
    pub const fn provider(self) -> Option<Provider> {
        match self {
            Self::Auto => None,
            Self::Cpu => Some(Provider::Cpu),
            Self::Openvino => Some(Provider::Openvino),
            Self::Cuda => Some(Provider::Cuda),
            Self::Tensorrt => Some(Provider::Tensorrt),
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self.provider() {
            None => "auto",
            Some(provider) => provider.as_str(),
        }
    }
}

/// What a model of float32 is computed in. A model that is quantised to 8 bits already stays so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub enum Precision {
    #[default]
    F32,
    Bf16,
    F16,
}

impl Precision {
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl FromStr for Precision {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|precision| precision.as_str() == text);
        known.ok_or_else(|| match text {
            "int8" => "a model is made int8 when it is exported: upload it quantised, and leave the precision \
                       out; it runs as it is"
                .to_owned(),
            _ => "it is `f32`, `bf16` or `f16`".to_owned(),
        })
    }
}

impl TryFrom<String> for Precision {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Execution {
    pub provider: Provider,
    pub precision: Precision,
}

impl Execution {
    /// The label that a runner must have for it; `None`: every runner can.
    pub fn label(self) -> Option<String> {
        (self != Self::default()).then(|| format!("provider.{}.{}", self.provider.as_str(), self.precision.as_str()))
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.provider.as_str(), self.precision.as_str())
    }
}

/// What a runner has of one provider, as it found out at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProviderStatus {
    pub provider: Provider,
    /// In which precisions it runs models here; none if it cannot be used.
    pub precisions: Vec<Precision>,
    /// Its version; if it cannot be used, why.
    pub why: String,
}

impl ProviderStatus {
    pub fn executions(&self) -> impl Iterator<Item = Execution> {
        self.precisions.iter().map(|precision| Execution { provider: self.provider, precision: *precision })
    }
}

/// What a provider gave on the first frames of a video, in turns with ONNX Runtime's own on the same frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Measured {
    pub execution: Execution,
    /// Median milliseconds of an inference.
    pub ms: f64,
    /// The same of the `cpu` provider in f32.
    pub cpu_ms: f64,
    /// How many frames that was.
    pub frames: u32,
    /// Mean and largest absolute difference of an output's numbers from those of the `cpu` provider in f32.
    pub mean_deviation: f64,
    pub max_deviation: f64,
}

/// A provider must save this share of the time of the processor, or more, to be preferred to it: less is
/// within what two measurements differ by.
const WORTH: f64 = 0.05;

/// The fastest of what was measured, each compared with what ran beside it.
pub fn fastest(measured: &[Measured]) -> Option<&Measured> {
    measured.iter().min_by(|a, b| (a.ms / a.cpu_ms).total_cmp(&(b.ms / b.cpu_ms)))
}

/// What is to run a model, of what may. The processor in f32, if it is among that, is preferred to what is
/// hardly faster and to what could not be measured.
pub fn choose(candidates: &[Execution], measured: &[Measured]) -> Option<Execution> {
    let best = fastest(measured);
    if candidates.contains(&Execution::default()) {
        let worth_it = best.filter(|best| best.ms <= best.cpu_ms * (1.0 - WORTH));
        return Some(worth_it.map_or_else(Execution::default, |best| best.execution));
    }
    best.map(|best| best.execution).or(candidates.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_in_json_and_in_text() {
        for choice in ProviderChoice::ALL {
            assert_eq!(serde_json::to_value(choice).unwrap(), choice.as_str());
            let Some(provider) = choice.provider() else { continue };
            assert_eq!(serde_json::to_value(provider).unwrap(), provider.as_str());
            assert_eq!(choice.as_str(), provider.as_str());
            assert_eq!(provider.as_str().parse(), Ok(provider));
        }
        for precision in Precision::ALL {
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.as_str());
            assert_eq!(precision.as_str().parse(), Ok(precision));
        }
    }

    #[test]
    fn auto_is_a_choice_and_no_provider() {
        assert!("auto".parse::<Provider>().is_err());
        let with_gpu = ProviderChoice::ALL.into_iter().filter_map(ProviderChoice::provider).filter(|p| p.has_gpu());
        assert_eq!(with_gpu.collect::<Vec<_>>(), [Provider::Cuda, Provider::Tensorrt]);
    }

    #[test]
    fn whoever_asks_for_int8_is_told_where_that_is_made() {
        let said = |text| serde_json::from_value::<Precision>(serde_json::json!(text)).unwrap_err().to_string();
        assert!(said("int8").contains("upload it quantised"), "{}", said("int8"));
        assert!(said("f64").contains("`f32`, `bf16` or `f16`"), "{}", said("f64"));
    }

    #[test]
    fn every_provider_computes_in_f32_and_the_processor_in_nothing_else() {
        for provider in ProviderChoice::ALL.into_iter().filter_map(ProviderChoice::provider) {
            let more = provider.precisions().iter().filter(|precision| **precision != Precision::F32).count();
            assert_eq!(provider.precisions().first(), Some(&Precision::F32));
            assert_eq!(more > 0, matches!(provider, Provider::Openvino | Provider::Tensorrt), "{provider:?}");
        }
    }

    #[test]
    fn every_runner_has_the_processor_in_f32_and_nothing_else_for_sure() {
        assert_eq!(Execution::default().label(), None);
        let bf16 = Execution { provider: Provider::Openvino, precision: Precision::Bf16 };
        assert_eq!(bf16.label().unwrap(), "provider.openvino.bf16");
        assert_eq!(bf16.to_string(), "openvino in bf16");
        let bf16 = Execution { precision: Precision::Bf16, ..Execution::default() };
        assert_eq!(bf16.label().unwrap(), "provider.cpu.bf16");
    }

    #[test]
    fn a_provider_runs_models_in_each_of_its_precisions() {
        let precisions = vec![Precision::F32, Precision::Bf16];
        let status = ProviderStatus { provider: Provider::Openvino, precisions, why: String::new() };
        let all: Vec<_> = status.executions().map(|execution| execution.to_string()).collect();
        assert_eq!(all, ["openvino in f32", "openvino in bf16"]);
    }

    #[test]
    fn the_fastest_runs_a_model_if_it_is_worth_it() {
        let of = |provider| Execution { provider, precision: Precision::F32 };
        let [cpu, openvino, cuda] = [Provider::Cpu, Provider::Openvino, Provider::Cuda].map(of);
        let measured = |execution, ms, cpu_ms| Measured {
            execution,
            ms,
            cpu_ms,
            frames: 50,
            mean_deviation: 0.0,
            max_deviation: 0.0,
        };
        let all = [cpu, openvino, cuda];
        let check = |candidates: &[Execution], measured: &[Measured], expected| {
            assert_eq!(choose(candidates, measured), expected, "{measured:?}");
        };
        check(&all, &[], Some(cpu));
        check(&all, &[measured(openvino, 9.5, 10.0)], Some(openvino));
        check(&all, &[measured(openvino, 9.6, 10.0)], Some(cpu));
        check(&all, &[measured(openvino, 5.0, 10.0), measured(cuda, 1.0, 20.0)], Some(cuda));
        // Each is compared with what ran beside it.
        check(&all, &[measured(openvino, 4.0, 20.0), measured(cuda, 3.0, 5.0)], Some(openvino));
        // Where the processor is not asked for, it does not matter whether it is faster.
        check(&[openvino, cuda], &[measured(cuda, 9.0, 3.0)], Some(cuda));
        check(&[openvino, cuda], &[], Some(openvino));
        check(&[], &[], None);
    }
}
