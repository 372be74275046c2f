//! Which engine runs where, from what was asked for and what there is.

use std::num::NonZeroUsize;
use std::str::FromStr;

use intentd_kernels::DeviceError;
use intentd_kernels::cpu::IsaLimit;

/// Which engine runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineKind {
    /// Our own forward pass, for the CPU or for CUDA: ragged, nothing computed for padding.
    Native,
    /// candle-transformers' BERT, padded: the plain path, f32.
    Candle,
    /// candle-transformers' BERT, one text at a time on the CPU: the definition of correct, slow.
    Reference,
}

/// Where the model is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// On a GPU where there is one, else on the CPU.
    Auto,
    /// On the CPU.
    Cpu,
    /// On the CUDA device of this number.
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

    /// What it is on a GPU, if anything.
    pub fn on_cuda(self) -> Option<intentd_kernels::Dtype> {
        match self {
            Self::F32 => Some(intentd_kernels::Dtype::F32),
            Self::F16 => Some(intentd_kernels::Dtype::F16),
            Self::Bf16 => Some(intentd_kernels::Dtype::Bf16),
            Self::Int8 => None,
        }
    }
}

/// What an engine is made from, besides a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Which engine.
    pub kind: EngineKind,
    /// Where.
    pub device: DeviceChoice,
    /// Type of weights and activations; f16 on CUDA and f32 elsewhere when not given.
    pub dtype: Option<Dtype>,
    /// Cores that a CPU engine computes on.
    pub threads: NonZeroUsize,
    /// Instructions that the native CPU engine uses at most.
    pub cpu_isa: IsaLimit,
    /// Tokens in the largest batch that will come.
    pub batch_tokens_max: usize,
    /// Sequences in the largest batch that will come.
    pub batch_sequences_max: usize,
    /// Sizes of batch kept as CUDA graphs at once; 0 for none.
    pub graphs_max: usize,
}

impl EngineOptions {
    /// On the CPU, for batches of up to 4096 tokens.
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

/// What this program was built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Build {
    /// Our own CUDA engine.
    pub(super) cuda: bool,
    /// candle with CUDA.
    pub(super) candle_cuda: bool,
}

impl Build {
    pub(super) const THIS: Self = Self {
        cuda: cfg!(any(
            feature = "cuda",
            feature = "cuda-12",
            feature = "candle-cuda"
        )),
        candle_cuda: cfg!(feature = "candle-cuda"),
    };

    fn has_cuda(self, kind: EngineKind) -> Result<(), String> {
        match kind {
            EngineKind::Native if self.cuda => Ok(()),
            EngineKind::Candle if self.candle_cuda => Ok(()),
            EngineKind::Native => Err("this build has no CUDA (build with --features cuda)".into()),
            EngineKind::Candle => {
                Err("candle has no CUDA in this build (build with --features candle-cuda)".into())
            }
            EngineKind::Reference => Err("the reference engine runs on the CPU only".into()),
        }
    }
}

/// Where an engine will run, and why there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<D> {
    /// An opened CUDA device with its number, or the CPU.
    pub(super) cuda: Option<(usize, D)>,
    pub(super) dtype: Dtype,
    /// For people: `cuda:0, since --device is auto and there is a GPU`.
    pub(super) why: String,
}

/// Chooses device and type. `open` tries a CUDA device of a number.
///
/// # Errors
/// [`DeviceError::Unavailable`] with what to do, when what was asked for is not to be had.
pub(super) fn choose<D>(
    (kind, device, dtype): (EngineKind, DeviceChoice, Option<Dtype>),
    build: Build,
    open: impl FnOnce(usize) -> Result<D, DeviceError>,
) -> Result<Place<D>, DeviceError> {
    let opened = |ordinal: usize, open: &mut dyn FnMut(usize) -> Result<D, DeviceError>| {
        build
            .has_cuda(kind)
            .and_then(|()| open(ordinal).map_err(|error| error.to_string()))
    };
    let mut open = Some(open);
    let mut open = |ordinal| match open.take() {
        Some(open) => open(ordinal),
        None => Err(DeviceError::Failed("a device is opened once".to_owned())),
    };
    let (cuda, why) = match device {
        DeviceChoice::Cpu => (None, "cpu, as --device says".to_owned()),
        DeviceChoice::Cuda(ordinal) => {
            let device = opened(ordinal, &mut open).map_err(|reason| {
                DeviceError::Unavailable(format!("--device cuda:{ordinal}: {reason}"))
            })?;
            (
                Some((ordinal, device)),
                format!("cuda:{ordinal}, as --device says"),
            )
        }
        DeviceChoice::Auto => match opened(0, &mut open) {
            Ok(device) => (Some((0, device)), "cuda:0, since there is a GPU".to_owned()),
            Err(reason) => (None, format!("cpu, since {reason}")),
        },
    };
    let on_gpu = cuda.is_some();
    let dtype = match (kind, dtype) {
        (EngineKind::Native, None) if on_gpu => Dtype::F16,
        (_, None | Some(Dtype::F32)) => Dtype::F32,
        (EngineKind::Native, Some(dtype)) if on_gpu && dtype != Dtype::Int8 => dtype,
        (EngineKind::Native, Some(dtype)) if !on_gpu && dtype != Dtype::F16 => dtype,
        (_, Some(dtype)) => {
            let reason = match kind {
                EngineKind::Native if on_gpu => "there is no int8 on the GPU: take f16",
                EngineKind::Native => "the CPU has no f16 arithmetic: take f32, bf16 or int8",
                EngineKind::Candle => {
                    "candle's BERT computes in f32 (in f16 and bf16 it gives NaN)"
                }
                EngineKind::Reference => "the reference engine computes in f32",
            };
            let text = format!("--dtype {}: {reason} (running on {why})", dtype.name());
            return Err(DeviceError::Unavailable(text));
        }
    };
    Ok(Place { cuda, dtype, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Build = Build {
        cuda: false,
        candle_cuda: false,
    };
    const NATIVE: Build = Build {
        cuda: true,
        candle_cuda: false,
    };
    const BOTH: Build = Build {
        cuda: true,
        candle_cuda: true,
    };

    fn ask(
        kind: EngineKind,
        device: DeviceChoice,
        dtype: Option<Dtype>,
        build: Build,
        gpus: usize,
    ) -> Result<(Option<usize>, Dtype, String), String> {
        let open = |ordinal| match ordinal < gpus {
            true => Ok(()),
            false => Err(DeviceError::Unavailable("no NVIDIA driver".to_owned())),
        };
        let place =
            choose((kind, device, dtype), build, open).map_err(|error| error.to_string())?;
        Ok((
            place.cuda.map(|(ordinal, ())| ordinal),
            place.dtype,
            place.why,
        ))
    }

    #[test]
    fn devices_are_read_from_text() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        for text in ["gpu", "cuda:", "cuda:x", "cuda3", ""] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn auto_takes_what_there_is_and_says_why() {
        use EngineKind::{Candle, Native, Reference};
        for (kind, build, gpus, cuda, dtype, why) in [
            (Native, NONE, 1, None, Dtype::F32, "--features cuda"),
            (Native, NATIVE, 0, None, Dtype::F32, "no NVIDIA driver"),
            (Native, NATIVE, 1, Some(0), Dtype::F16, "there is a GPU"),
            (
                Candle,
                NATIVE,
                1,
                None,
                Dtype::F32,
                "--features candle-cuda",
            ),
            (Candle, BOTH, 0, None, Dtype::F32, "no NVIDIA driver"),
            (Candle, BOTH, 2, Some(0), Dtype::F32, "there is a GPU"),
            (Reference, BOTH, 1, None, Dtype::F32, "CPU only"),
        ] {
            let (found, found_dtype, text) =
                ask(kind, DeviceChoice::Auto, None, build, gpus).unwrap();
            assert_eq!(
                (found, found_dtype),
                (cuda, dtype),
                "{kind:?} {build:?} {gpus}"
            );
            assert!(text.contains(why), "{text}");
        }
    }

    #[test]
    fn cuda_without_a_gpu_is_an_error_that_says_what_to_do() {
        use EngineKind::{Candle, Native, Reference};
        for (kind, build, ordinal, gpus, text) in [
            (Native, NONE, 0, 1, "--features cuda"),
            (Native, NATIVE, 0, 0, "no NVIDIA driver"),
            (Native, NATIVE, 1, 1, "cuda:1"),
            (Candle, NATIVE, 0, 1, "--features candle-cuda"),
            (Reference, BOTH, 0, 1, "CPU only"),
        ] {
            let error = ask(kind, DeviceChoice::Cuda(ordinal), None, build, gpus).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        let found = ask(Native, DeviceChoice::Cuda(1), None, NATIVE, 2).unwrap();
        assert_eq!(found.0, Some(1));
    }

    #[test]
    fn a_type_that_the_engine_does_not_have_is_an_error() {
        use EngineKind::{Candle, Native, Reference};
        for (kind, device, dtype, build, gpus, text) in [
            (
                Native,
                DeviceChoice::Cpu,
                Dtype::F16,
                NATIVE,
                1,
                "take f32, bf16 or int8",
            ),
            (
                Native,
                DeviceChoice::Auto,
                Dtype::F16,
                NATIVE,
                0,
                "no NVIDIA driver",
            ),
            (
                Native,
                DeviceChoice::Auto,
                Dtype::Int8,
                NATIVE,
                1,
                "take f16",
            ),
            (Candle, DeviceChoice::Auto, Dtype::F16, BOTH, 1, "NaN"),
            (
                Candle,
                DeviceChoice::Cpu,
                Dtype::Int8,
                BOTH,
                0,
                "computes in f32",
            ),
            (
                Reference,
                DeviceChoice::Cpu,
                Dtype::Bf16,
                NATIVE,
                1,
                "computes in f32",
            ),
        ] {
            let error = ask(kind, device, Some(dtype), build, gpus).unwrap_err();
            let flag = format!("--dtype {}", dtype.name());
            assert!(error.contains(&flag) && error.contains(text), "{error}");
        }
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let found = ask(Native, DeviceChoice::Auto, Some(dtype), NATIVE, 1).unwrap();
            assert_eq!(found.1, dtype);
        }
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Int8] {
            let found = ask(Native, DeviceChoice::Cpu, Some(dtype), NATIVE, 1).unwrap();
            assert_eq!((found.0, found.1), (None, dtype));
        }
    }
}
