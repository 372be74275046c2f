//! Settings of an engine.

use std::num::NonZeroUsize;
use std::str::FromStr;

use intentd_kernels::cpu::IsaLimit;

/// The engine that runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineKind {
    /// Our own forward pass, for the CPU or for CUDA: ragged, nothing computed for padding.
    Native,
    /// candle-transformers' BERT, padded: the plain path, f32.
    Candle,
    /// candle-transformers' BERT, one text at a time on the CPU: the definition of correct, slow.
    Reference,
}

/// The requested device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let ordinal = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                let expected = "expected auto, cpu, cuda or cuda:N (the device's number)";
                ordinal.map(Self::Cuda).ok_or_else(|| expected.to_owned())
            }
        }
    }
}

/// Type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: on a GPU of Ampere (compute capability 8.0) or newer; on the CPU the weights,
    /// with f32 arithmetic.
    Bf16,
    /// 8-bit whole numbers, on the CPU: weights with a scale for each output, activations with a
    /// scale for each token.
    Int8,
}

impl Dtype {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The same type of the CUDA kernels, if they have it.
    pub fn on_cuda(self) -> Option<intentd_kernels::Dtype> {
        match self {
            Self::F32 => Some(intentd_kernels::Dtype::F32),
            Self::F16 => Some(intentd_kernels::Dtype::F16),
            Self::Bf16 => Some(intentd_kernels::Dtype::Bf16),
            Self::Int8 => None,
        }
    }
}

/// Settings of an engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// The engine.
    pub kind: EngineKind,
    /// The device.
    pub device: DeviceChoice,
    /// Type of weights and activations. `None` means f16 on CUDA and f32 elsewhere.
    pub dtype: Option<Dtype>,
    /// Threads of a CPU engine.
    pub threads: NonZeroUsize,
    /// The largest instruction set that the native CPU engine may use.
    pub cpu_isa: IsaLimit,
    /// Most tokens in a batch.
    pub batch_tokens_max: usize,
    /// Most sequences in a batch.
    pub batch_sequences_max: usize,
    /// Most batch sizes kept as CUDA graphs; 0 for none.
    pub graphs_max: usize,
}

impl EngineOptions {
    /// The part of the options that determines the device.
    pub(super) fn request(&self) -> DeviceRequest {
        DeviceRequest {
            kind: self.kind,
            device: self.device,
            dtype: self.dtype,
        }
    }

    /// Options for the CPU, for batches of up to 4096 tokens.
    pub fn cpu(kind: EngineKind, threads: NonZeroUsize) -> Self {
        Self {
            kind,
            device: DeviceChoice::Cpu,
            dtype: None,
            threads,
            cpu_isa: IsaLimit::Avx512,
            batch_tokens_max: 4096,
            batch_sequences_max: 256,
            graphs_max: 0,
        }
    }
}

/// The options that determine the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceRequest {
    pub(super) kind: EngineKind,
    pub(super) device: DeviceChoice,
    /// `None` for the default of the device.
    pub(super) dtype: Option<Dtype>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_choices_are_parsed_from_text() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        for text in ["gpu", "cuda:", "cuda:x", "cuda3", ""] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
