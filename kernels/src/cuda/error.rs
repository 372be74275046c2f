//! Classifies the errors of CUDA and cuBLASLt by what the caller can still do.

use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::sys::cublasStatus_t;
use cudarc::driver::{CudaStream, DriverError, sys};

use crate::backend::DeviceError;

/// Error codes after which the context returns nothing but errors: those of the CUDA driver API, "Data
/// types used by CUDA driver", whose text says "the context cannot be used" or "must be terminated". They
/// are numbers because not every version of the bindings has names for all of them.
const STICKY: [u32; 19] = [
    4,   // deinitialized
    46,  // device unavailable
    201, // invalid context
    214, // uncorrectable ECC error
    220, // uncorrectable NVLink error
    226, // contained error
    700, // illegal address
    702, // launch timeout
    709, // context is destroyed
    710, // device-side assert
    714, // hardware stack error
    715, // illegal instruction
    716, // misaligned address
    717, // invalid address space
    718, // invalid program counter
    719, // launch failed
    721, // tensor memory leak
    810, // MPS client terminated
    999, // unknown
];

const OUT_OF_MEMORY: u32 = 2;

/// Converts an error of the driver.
pub(super) fn device_error(error: DriverError) -> DeviceError {
    let code = error.0 as u32;
    let text = |error: DriverError| {
        let name = error
            .error_name()
            .map(|name| name.to_string_lossy().into_owned());
        let text = error
            .error_string()
            .map(|text| text.to_string_lossy().into_owned());
        match (name, text) {
            (Ok(name), Ok(text)) => format!("{name}: {text}"),
            _ => format!("CUDA error {code}"),
        }
    };
    classify(code, || text(error))
}

fn classify(code: u32, text: impl FnOnce() -> String) -> DeviceError {
    match code {
        OUT_OF_MEMORY => DeviceError::OutOfMemory { bytes: 0 },
        code if STICKY.contains(&code) => DeviceError::Lost(text()),
        _ => DeviceError::Failed(text()),
    }
}

/// Converts an error of cuBLASLt; `stream` must not be recording.
pub(super) fn product_error(error: CublasError, stream: &CudaStream) -> DeviceError {
    let sticky = || {
        // "The GPU program failed to execute" may mean a lost context or no memory for the program's
        // code; the driver knows which.
        // SAFETY: queries the state of an existing stream.
        let state = unsafe { sys::cuStreamQuery(stream.cu_stream()) };
        let busy = state == sys::CUresult::CUDA_ERROR_NOT_READY;
        state.result().err().filter(|_| !busy).map(device_error)
    };
    product_error_with(error, sticky)
}

fn product_error_with(
    error: CublasError,
    sticky: impl FnOnce() -> Option<DeviceError>,
) -> DeviceError {
    let failed = || DeviceError::Failed(format!("cuBLASLt: {error}"));
    match error.0 {
        cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => DeviceError::OutOfMemory { bytes: 0 },
        cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED
        | cublasStatus_t::CUBLAS_STATUS_INTERNAL_ERROR => sticky().unwrap_or_else(failed),
        _ => failed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classified_by_what_can_still_be_done() {
        let classify = |code| classify(code, || "text".to_owned());
        assert_eq!(classify(2), DeviceError::OutOfMemory { bytes: 0 });
        assert_eq!(classify(700), DeviceError::Lost("text".to_owned()));
        assert_eq!(classify(719), DeviceError::Lost("text".to_owned()));
        // Invalid value, invalid image, too many resources requested: the context remains usable.
        for code in [1, 200, 701] {
            assert_eq!(classify(code), DeviceError::Failed("text".to_owned()));
        }
    }

    #[test]
    fn a_failed_product_means_a_lost_device_only_if_the_driver_says_so() {
        let lost = || Some(DeviceError::Lost("an illegal address".to_owned()));
        let error = |status, sticky: Option<DeviceError>| {
            product_error_with(CublasError(status), || sticky)
        };
        let failed = cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED;
        assert_eq!(Some(error(failed, lost())), lost());
        assert!(matches!(error(failed, None), DeviceError::Failed(_)));
        let unsupported = cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED;
        assert!(matches!(error(unsupported, lost()), DeviceError::Failed(_)));
    }
}
