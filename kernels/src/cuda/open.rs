//! Opens a device and loads the kernels, or says what is missing.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use cudarc::nvrtc::Ptx;

use super::device::{CudaDevice, OVERLAPS_FROM};
use super::error::device_error;
use super::product::Products;
use crate::backend::{DeviceError, Facts};

/// Machine code and PTX of `cuda/*.cu`.
static FAT_BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/intentd.fatbin"));

/// The oldest compute capability that the kernels are compiled for: Turing.
const OLDEST: (u32, u32) = (7, 5);

/// The CUDA version of the bindings, and the oldest that the driver has to support.
const CUDA: (u32, u32) = (sys::CUDA_VERSION / 1000, sys::CUDA_VERSION % 1000 / 10);

fn unavailable(what: impl Into<String>) -> DeviceError {
    DeviceError::Unavailable(what.into())
}

impl CudaDevice {
    /// Opens device number `ordinal` and loads the kernels.
    pub(crate) fn open(ordinal: usize) -> Result<Self, DeviceError> {
        check_libraries()?;
        check_driver()?;
        let count = CudaContext::device_count().map_err(no_device)?;
        if ordinal >= usize::try_from(count).unwrap_or(0) {
            return Err(unavailable(format!(
                "there is no CUDA device {ordinal}: the driver shows {count} (numbered from 0; \
                 CUDA_VISIBLE_DEVICES and the container runtime decide which)"
            )));
        }
        let context = CudaContext::new(ordinal).map_err(device_error)?;
        // One stream executes everything in order, so no events between streams are needed, and waits for
        // them would break the recording of a graph.
        // SAFETY: all memory of this context is used on that stream only.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(device_error)?;
        Self::on_stream(stream)
    }

    /// Uses the stream's device. The owner of the stream has disabled event tracking.
    pub(crate) fn on_stream(stream: Arc<CudaStream>) -> Result<Self, DeviceError> {
        let context = Arc::clone(stream.context());
        let facts = facts(&context)?;
        let (major, minor) = facts.compute_capability;
        if facts.compute_capability < OLDEST {
            return Err(unavailable(format!(
                "{} has compute capability {major}.{minor}; the kernels need {}.{} (Turing) or \
                 newer",
                facts.name, OLDEST.0, OLDEST.1
            )));
        }
        keep_memory(&context).map_err(device_error)?;
        let module = context.load_module(Ptx::from_binary(FAT_BINARY.to_vec()));
        let module = module.map_err(|error| {
            unavailable(format!("the kernels do not load: {}", device_error(error)))
        })?;
        Ok(Self {
            overlaps: AtomicBool::new(facts.compute_capability >= OVERLAPS_FROM),
            facts,
            recorder: context.new_stream().map_err(device_error)?,
            products: Products::new(&stream)?,
            recording: Mutex::new(None),
            functions: Mutex::new(HashMap::new()),
            context,
            stream,
            module,
        })
    }
}

/// Checks that the libraries can be loaded and fit: cudarc panics when it calls into a missing one.
fn check_libraries() -> Result<(), DeviceError> {
    #[cfg(any(feature = "cuda-12", feature = "cuda-13"))]
    {
        // SAFETY: loads a library and runs its initializers, as a call into it would.
        if !unsafe { sys::is_culib_present() } {
            return Err(unavailable(
                "no NVIDIA driver: libcuda.so.1 cannot be loaded (on Kubernetes, ask for the \
                 resource nvidia.com/gpu; with Docker, use --gpus)",
            ));
        }
        // SAFETY: as above.
        if !unsafe { cudarc::cublaslt::sys::is_culib_present() } {
            return Err(unavailable(format!(
                "libcublasLt.so.{} cannot be loaded; install the CUDA {} runtime libraries or put \
                 their folder into LD_LIBRARY_PATH",
                CUDA.0, CUDA.0
            )));
        }
    }
    // The loader takes the first library it finds, which may belong to another toolkit.
    // SAFETY: the function only returns a number.
    let version = unsafe { cudarc::cublaslt::sys::cublasLtGetVersion() };
    if version / 10_000 != CUDA.0 as usize {
        return Err(unavailable(format!(
            "the cuBLASLt that is loaded has version {}.{}, this program needs that of CUDA {}; put \
             its folder first in LD_LIBRARY_PATH",
            version / 10_000,
            version / 100 % 100,
            CUDA.0
        )));
    }
    Ok(())
}

fn no_device(error: DriverError) -> DeviceError {
    unavailable(format!(
        "the NVIDIA driver finds no usable device: {}",
        device_error(error)
    ))
}

fn check_driver() -> Result<(), DeviceError> {
    result::init().map_err(no_device)?;
    let found = driver_version().map_err(no_device)?;
    if found < CUDA {
        return Err(unavailable(format!(
            "the NVIDIA driver speaks CUDA {}.{}, this program needs {}.{}; update the driver{}",
            found.0,
            found.1,
            CUDA.0,
            CUDA.1,
            if CUDA.0 > 12 {
                " or take the build for CUDA 12"
            } else {
                ""
            }
        )));
    }
    Ok(())
}

fn driver_version() -> Result<(u32, u32), DriverError> {
    let mut version = 0;
    // SAFETY: writes one int.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    let version = u32::try_from(version).unwrap_or(0);
    Ok((version / 1000, version % 1000 / 10))
}

fn facts(context: &Arc<CudaContext>) -> Result<Facts, DeviceError> {
    let (major, minor) = context.compute_capability().map_err(device_error)?;
    let count = Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let multiprocessors = context.attribute(count).map_err(device_error)?;
    let positive = |value: i32| u32::try_from(value).unwrap_or(0);
    Ok(Facts {
        name: context.name().map_err(device_error)?,
        compute_capability: (positive(major), positive(minor)),
        multiprocessors: positive(multiprocessors),
        memory_bytes: context.total_mem().map_err(device_error)?,
        driver_version: driver_version().map_err(device_error)?,
    })
}

/// Keeps freed memory in the process's pool; by default the pool returns it at each synchronization.
fn keep_memory(context: &Arc<CudaContext>) -> Result<(), DriverError> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut threshold = u64::MAX;
    // SAFETY: the pool of an existing device; the attribute is a u64.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result()
    }
}
