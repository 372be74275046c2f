//! The choice of device and type, from the flags, the build and the hardware. Pure, except that it opens a device.

use intentd_kernels::DeviceError;

use super::options::{DeviceChoice, DeviceRequest, Dtype, EngineKind};

/// The device support that is compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Build {
    /// Our own CUDA engine.
    pub(super) cuda: bool,
    /// candle's CUDA backend.
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

/// The device and type of an engine, with the reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChosenDevice<D> {
    /// An opened CUDA device with its number. `None` for the CPU.
    pub(super) cuda: Option<(usize, D)>,
    pub(super) dtype: Dtype,
    /// For people: `cuda:0, since there is a GPU`.
    pub(super) reason: String,
}

/// Chooses device and type. `open` opens the CUDA device of a number.
///
/// # Errors
/// [`DeviceError::Unavailable`], with a remedy, when the request cannot be met.
pub(super) fn choose<D>(
    request: DeviceRequest,
    build: Build,
    open: impl FnOnce(usize) -> Result<D, DeviceError>,
) -> Result<ChosenDevice<D>, DeviceError> {
    let DeviceRequest {
        kind,
        device,
        dtype,
    } = request;
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
    let (cuda, reason) = match device {
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
            let obstacle = match kind {
                EngineKind::Native if on_gpu => "there is no int8 on the GPU: take f16",
                EngineKind::Native => "the CPU has no f16 arithmetic: take f32, bf16 or int8",
                EngineKind::Candle => {
                    "candle's BERT computes in f32 (in f16 and bf16 it gives NaN)"
                }
                EngineKind::Reference => "the reference engine computes in f32",
            };
            let text = format!("--dtype {}: {obstacle} (running on {reason})", dtype.name());
            return Err(DeviceError::Unavailable(text));
        }
    };
    Ok(ChosenDevice {
        cuda,
        dtype,
        reason,
    })
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
        let request = DeviceRequest {
            kind,
            device,
            dtype,
        };
        let chosen = choose(request, build, open).map_err(|error| error.to_string())?;
        Ok((
            chosen.cuda.map(|(ordinal, ())| ordinal),
            chosen.dtype,
            chosen.reason,
        ))
    }

    #[test]
    fn auto_takes_a_gpu_if_there_is_one_and_gives_the_reason() {
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
    fn cuda_without_a_gpu_is_an_error_with_a_remedy() {
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
    fn an_unsupported_type_is_an_error() {
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
