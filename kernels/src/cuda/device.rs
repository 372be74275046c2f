//! The device and its work.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DevicePtr, result, sys};

use super::error::device_error;
use super::graph::CudaRecording;
use super::memory::{CudaMemory, CudaPinned};
use super::product::Products;
use super::signal::CudaSignal;
use crate::backend::{
    Argument, Backend, Captured, DeviceError, Facts, Launch, PinnedRegion, ProductOperands,
    ProductShape, Region, Signal,
};

/// The first compute capability whose kernels can wait for their predecessor (Hopper).
pub(super) const OVERLAPS_FROM: (u32, u32) = (9, 0);

/// A GPU, its stream, and the code loaded onto it.
#[derive(Debug)]
pub(crate) struct CudaDevice {
    pub(super) facts: Facts,
    pub(super) context: Arc<CudaContext>,
    pub(super) stream: Arc<CudaStream>,
    pub(super) recorder: Arc<CudaStream>,
    /// The thread whose work is being recorded.
    pub(super) recording: Mutex<Option<ThreadId>>,
    pub(super) module: Arc<CudaModule>,
    pub(super) functions: Mutex<HashMap<String, CudaFunction>>,
    pub(super) products: Products,
    /// Whether a kernel may begin while its predecessor is running.
    pub(super) overlaps: AtomicBool,
}

/// The launch attribute that lets a kernel begin while its predecessor is running (CUDA driver API,
/// "Programmatic Stream Serialization").
fn overlap() -> sys::CUlaunchAttribute {
    let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
    value.programmaticStreamSerializationAllowed = 1;
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value,
    }
}

impl CudaDevice {
    /// The stream for this thread's work.
    fn current(&self) -> &Arc<CudaStream> {
        if self.is_recording() {
            &self.recorder
        } else {
            &self.stream
        }
    }

    fn is_recording(&self) -> bool {
        *self.recording() == Some(std::thread::current().id())
    }

    fn recording(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn bind(&self) -> Result<(), DeviceError> {
        self.context.bind_to_thread().map_err(device_error)
    }

    fn functions(&self) -> MutexGuard<'_, HashMap<String, CudaFunction>> {
        self.functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn function(&self, name: &str) -> Result<sys::CUfunction, DeviceError> {
        let mut functions = self.functions();
        if let Some(function) = functions.get(name) {
            return Ok(function.cu_function());
        }
        let function = self.module.load_function(name).map_err(device_error)?;
        let raw = function.cu_function();
        functions.insert(name.to_owned(), function);
        Ok(raw)
    }
}

impl Backend for CudaDevice {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn Region>, DeviceError> {
        let slice = self.stream.alloc_zeros::<u8>(bytes);
        let slice = slice.map_err(|error| match device_error(error) {
            DeviceError::OutOfMemory { .. } => DeviceError::OutOfMemory { bytes },
            other => other,
        })?;
        let (address, _) = slice.device_ptr(&self.stream);
        Ok(Box::new(CudaMemory {
            address,
            _slice: slice,
        }))
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<Box<dyn PinnedRegion>, DeviceError> {
        self.bind()?;
        // Not write-combined, because the host reads results from this memory.
        // SAFETY: the bytes are initialized below, before anything reads them.
        let slice = unsafe { self.context.alloc_pinned_with_flags::<u8>(bytes, 0) };
        let mut slice = slice.map_err(|error| match device_error(error) {
            DeviceError::OutOfMemory { .. } => DeviceError::OutOfMemory { bytes },
            other => other,
        })?;
        let pointer = slice.as_mut_ptr().map_err(device_error)?;
        // SAFETY: the allocation has `bytes` bytes.
        unsafe { pointer.write_bytes(0, bytes) };
        Ok(Box::new(CudaPinned {
            pointer,
            _slice: slice,
        }))
    }

    fn signal(&self, timed: bool) -> Result<Box<dyn Signal>, DeviceError> {
        let flags = if timed {
            sys::CUevent_flags::CU_EVENT_DEFAULT
        } else {
            sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC
        };
        let event = self.context.new_event(Some(flags)).map_err(device_error)?;
        Ok(Box::new(CudaSignal {
            event,
            stream: Arc::clone(&self.stream),
        }))
    }

    unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe {
            let from = std::slice::from_raw_parts(from, bytes);
            result::memcpy_htod_async(to, from, self.current().cu_stream()).map_err(device_error)
        }
    }

    unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe {
            let to = std::slice::from_raw_parts_mut(to, bytes);
            result::memcpy_dtoh_async(to, from, self.current().cu_stream()).map_err(device_error)
        }
    }

    unsafe fn launch(
        &self,
        name: &str,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        self.bind()?;
        let function = self.function(name)?;
        let mut words: Vec<u64> = arguments.iter().map(|argument| argument.word()).collect();
        let mut pointers: Vec<*mut c_void> = words
            .iter_mut()
            .map(|word| std::ptr::from_mut(word).cast())
            .collect();
        let mut overlap = overlap();
        let config = sys::CUlaunchConfig {
            gridDimX: launch.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared_bytes,
            hStream: self.current().cu_stream(),
            attrs: &raw mut overlap,
            // The attribute is ignored when overlap is not wanted.
            numAttrs: u32::from(launch.overlaps && self.overlaps.load(Ordering::Relaxed)),
        };
        // SAFETY: the caller's promise about the arguments, which are copied before the call returns.
        unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
        .result()
        .map_err(device_error)
    }

    unsafe fn product(
        &self,
        shape: &ProductShape,
        operands: ProductOperands,
    ) -> Result<(), DeviceError> {
        self.bind()?;
        let recorder = self.is_recording().then_some(&*self.recorder);
        // SAFETY: the caller's promise.
        unsafe { self.products.run(shape, operands, &self.stream, recorder) }
    }

    unsafe fn tune(
        &self,
        shape: &ProductShape,
        operands: ProductOperands,
    ) -> Result<bool, DeviceError> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe { self.products.tune(shape, operands, &self.stream) }
    }

    fn trim(&self) -> Result<(), DeviceError> {
        self.synchronize()?;
        if !self.context.has_async_alloc() {
            return Ok(());
        }
        // SAFETY: the pool of an existing device.
        unsafe {
            let pool = result::device::get_default_mem_pool(self.context.cu_device());
            sys::cuMemPoolTrimTo(pool.map_err(device_error)?, 0)
        }
        .result()
        .map_err(device_error)
    }

    fn begin_capture(&self) -> Result<(), DeviceError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.recorder.begin_capture(mode).map_err(device_error)?;
        *self.recording() = Some(std::thread::current().id());
        Ok(())
    }

    fn is_capturing(&self) -> bool {
        self.is_recording()
    }

    fn end_capture(&self) -> Result<Box<dyn Captured>, DeviceError> {
        *self.recording() = None;
        let flags = sys::CUgraphInstantiate_flags(0);
        let graph = self.recorder.end_capture(flags).map_err(device_error)?;
        let graph = graph.ok_or_else(|| DeviceError::Failed("an empty graph".to_owned()))?;
        // SAFETY: an instantiated graph and a stream of the same context.
        unsafe { result::graph::upload(graph.cu_graph_exec(), self.stream.cu_stream()) }
            .map_err(device_error)?;
        Ok(Box::new(CudaRecording {
            graph,
            stream: Arc::clone(&self.stream),
        }))
    }

    fn allow_overlap(&self, allowed: bool) {
        let possible = self.facts.compute_capability >= OVERLAPS_FROM;
        self.overlaps.store(allowed && possible, Ordering::Relaxed);
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.bind()?;
        self.stream.synchronize().map_err(device_error)
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        let (free, _) = self.context.mem_get_info().map_err(device_error)?;
        Ok(free)
    }
}
