//! A device, memory on it, and recorded work for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::{
    Argument, Backend, Captured, DeviceError, Dtype, Facts, Launch, PinnedRegion, Region, Signal,
};
use crate::memory::{Buffer, Pinned};

/// The memory that recorded work uses.
#[derive(Debug, Default)]
struct RecordedMemory {
    regions: Vec<Arc<dyn Region>>,
    /// Pinned memory that is copied from or to.
    pinned: Vec<Arc<dyn PinnedRegion>>,
}

/// A complete recording.
struct Capture {
    captured: Box<dyn Captured>,
    memory: RecordedMemory,
}

/// A GPU and its one stream. Calls enqueue work and return; the stream executes it in order.
///
/// Kernels may overlap. The caller sees this in one place: operands that are a model's weights (tables,
/// `w`, bias, gain and offset) must come from a copy or a conversion, not from another kernel.
///
/// Clones are the same device.
#[derive(Debug, Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
    /// The memory that the graph will use; none while no graph is recorded.
    recorded: Arc<Mutex<Option<RecordedMemory>>>,
}

impl Device {
    /// Opens CUDA device number `ordinal` with a new stream.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] when the package was built without CUDA, when the driver or cuBLASLt is
    /// missing or too old, or when the device does not exist.
    pub fn cuda(ordinal: usize) -> Result<Self, DeviceError> {
        #[cfg(feature = "driver")]
        return Ok(Self::new(Arc::new(crate::cuda::CudaDevice::open(ordinal)?)));
        #[cfg(not(feature = "driver"))]
        Err(DeviceError::Unavailable(format!(
            "this build has no CUDA (device {ordinal} was asked for)"
        )))
    }

    /// The CUDA device of `stream`; work is enqueued on that stream, which another library such as candle
    /// may have created.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] when cuBLASLt is missing or has the wrong version.
    #[cfg(feature = "driver")]
    pub fn on_stream(stream: Arc<cudarc::driver::CudaStream>) -> Result<Self, DeviceError> {
        Ok(Self::new(Arc::new(crate::cuda::CudaDevice::on_stream(
            stream,
        )?)))
    }

    /// A device that runs the kernels on the CPU.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] when the package was built without a C++ compiler.
    #[cfg(feature = "emulator")]
    pub fn emulator(emulation: crate::Emulation) -> Result<Self, DeviceError> {
        #[cfg(has_emulator)]
        return Ok(Self::new(Arc::new(crate::emulated::Emulator::new(
            emulation,
        ))));
        #[cfg(not(has_emulator))]
        Err(DeviceError::Unavailable(format!(
            "no C++ compiler when the kernels were built, hence no emulator for {emulation:?}"
        )))
    }

    /// Counts of the emulator's operations so far; zeros for a real device.
    #[cfg(feature = "emulator")]
    pub fn counters(&self) -> crate::Counters {
        self.backend.counters()
    }

    #[cfg(any(feature = "driver", has_emulator))]
    fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            recorded: Arc::default(),
        }
    }

    /// Properties of the device.
    pub fn facts(&self) -> &Facts {
        self.backend.facts()
    }

    /// Returns memory that was freed but kept for later allocations to the system.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn trim(&self) -> Result<(), DeviceError> {
        self.backend.trim()
    }

    /// Free bytes of device memory.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.backend.free_bytes()
    }

    /// Allocates `len` zeros in device memory.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when there is no room.
    pub fn zeros(&self, dtype: Dtype, len: usize) -> Result<Buffer, DeviceError> {
        // An empty allocation has no address; one element costs nothing.
        let region = self.backend.allocate(len.max(1) * dtype.bytes())?;
        Ok(Buffer {
            address: region.address(),
            region: region.into(),
            dtype,
            len,
        })
    }

    /// Allocates `bytes` zeros in pinned host memory.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when there is no room.
    pub fn pinned(&self, bytes: usize) -> Result<Pinned, DeviceError> {
        Ok(Pinned {
            region: self.backend.allocate_pinned(bytes.max(1))?.into(),
            bytes,
            backend: Arc::clone(&self.backend),
            touched: self.backend.signal(false)?,
        })
    }

    /// Copies the first bytes of `from` to the whole of `to`. May be recorded.
    ///
    /// # Errors
    /// See [`DeviceError`].
    ///
    /// # Panics
    /// When `from` is shorter than `to` or belongs to another device.
    pub fn upload(&self, from: &mut Pinned, to: &Buffer) -> Result<(), DeviceError> {
        self.check_copy(from, to);
        // SAFETY: both sides have `to.bytes()` bytes. The host accesses the pinned bytes only through
        // `Pinned`, which first waits for the signal recorded here.
        unsafe {
            self.backend
                .copy_in(to.address, from.region.pointer(), to.bytes())?;
        }
        self.note_copy(from, to)
    }

    /// Copies the whole of `from` to the first bytes of `to`. May be recorded.
    ///
    /// # Errors
    /// See [`DeviceError`].
    ///
    /// # Panics
    /// When `to` is shorter than `from` or belongs to another device.
    pub fn download(&self, from: &Buffer, to: &mut Pinned) -> Result<(), DeviceError> {
        self.check_copy(to, from);
        // SAFETY: as in `upload`.
        unsafe {
            self.backend
                .copy_out(to.region.pointer(), from.address, from.bytes())?;
        }
        self.note_copy(to, from)
    }

    /// Asserts that all of `buffer` can be copied to or from `pinned`.
    fn check_copy(&self, pinned: &Pinned, buffer: &Buffer) {
        assert!(
            buffer.bytes() <= pinned.bytes,
            "the pinned memory is large enough"
        );
        // Nothing would wait for another device's copy.
        assert!(
            Arc::ptr_eq(&self.backend, &pinned.backend),
            "pinned memory of this device"
        );
    }

    /// Notes that a copy between the two was enqueued or recorded.
    fn note_copy(&self, pinned: &Pinned, buffer: &Buffer) -> Result<(), DeviceError> {
        self.note_use(&[buffer]);
        if !self.backend.is_capturing() {
            return pinned.touched.record();
        }
        if let Some(memory) = self.recorded().as_mut() {
            memory.pinned.push(Arc::clone(&pinned.region));
        }
        Ok(())
    }

    /// Records the copies, launches and products of `work` instead of running them.
    ///
    /// `work` must neither allocate nor wait.
    ///
    /// # Errors
    /// The error of `work` or of the recording; nothing is recorded then.
    pub fn capture(
        &self,
        work: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<Graph, DeviceError> {
        // Begin first: a failure then leaves no list behind, and keeps the list of a recording in progress.
        self.backend.begin_capture()?;
        *self.recorded() = Some(RecordedMemory::default());
        let guard = CaptureGuard { device: Some(self) };
        let worked = work();
        // A recording has to be ended even when its work failed.
        let capture = guard.end();
        worked?;
        let Capture { captured, memory } = capture?;
        Ok(Graph {
            captured,
            memory,
            backend: Arc::clone(&self.backend),
        })
    }

    /// Enqueues the work in `graph`, which copies from and to `pinned`.
    ///
    /// # Errors
    /// See [`DeviceError`].
    ///
    /// # Panics
    /// When the graph was recorded on another device, or copies from or to other pinned memory.
    pub fn replay(&self, graph: &Graph, pinned: &mut [&mut Pinned]) -> Result<(), DeviceError> {
        assert!(
            Arc::ptr_eq(&self.backend, &graph.backend),
            "a graph of this device"
        );
        let given = |region: &Arc<dyn PinnedRegion>| {
            let same = |pinned: &&mut Pinned| Arc::ptr_eq(&pinned.region, region);
            pinned.iter().any(same)
        };
        assert!(
            graph.memory.pinned.iter().all(given),
            "the pinned memory that the graph was recorded with"
        );
        graph.captured.replay()?;
        pinned.iter().try_for_each(|pinned| pinned.touched.record())
    }

    /// Sets whether kernels enqueued or recorded from now on may begin while their predecessor is running,
    /// on devices that support it. The default is true; false is for measuring the difference.
    pub fn allow_overlap(&self, allowed: bool) {
        self.backend.allow_overlap(allowed);
    }

    /// Marks the point in the stream after everything enqueued so far.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn mark(&self) -> Result<Mark, DeviceError> {
        let signal = self.backend.signal(true)?;
        signal.record()?;
        Ok(Mark { signal })
    }

    /// Waits until all enqueued work is done.
    ///
    /// # Errors
    /// The error of the work.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.backend.synchronize()
    }

    fn end_capture(&self) -> Result<Capture, DeviceError> {
        let captured = self.backend.end_capture();
        let memory = self.recorded().take().unwrap_or_default();
        Ok(Capture {
            captured: captured?,
            memory,
        })
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Notes that work using `buffers` is enqueued or recorded.
    pub(crate) fn note_use(&self, buffers: &[&Buffer]) {
        if let Some(memory) = self.recorded().as_mut() {
            let regions = buffers.iter().map(|buffer| Arc::clone(&buffer.region));
            memory.regions.extend(regions);
        }
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// As for [`Backend::launch`]; `buffers` contain everything that `arguments` address.
    pub(crate) unsafe fn launch(
        &self,
        name: &str,
        launch: Launch,
        buffers: &[&Buffer],
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        self.note_use(buffers);
        // SAFETY: the caller's promise.
        unsafe { self.backend.launch(name, launch, arguments) }
    }

    fn recorded(&self) -> MutexGuard<'_, Option<RecordedMemory>> {
        // The list is consistent after every operation on it.
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the recording in progress when dropped, also after a panic.
struct CaptureGuard<'a> {
    device: Option<&'a Device>,
}

impl CaptureGuard<'_> {
    fn end(mut self) -> Result<Capture, DeviceError> {
        let device = self.device.take().expect("a recording is ended once");
        device.end_capture()
    }
}

impl Drop for CaptureGuard<'_> {
    fn drop(&mut self) {
        if let Some(device) = self.device {
            // Incomplete work is discarded.
            drop(device.end_capture());
        }
    }
}

/// Work recorded once and enqueued many times. It keeps the memory and the code that it uses.
#[derive(Debug)]
pub struct Graph {
    captured: Box<dyn Captured>,
    memory: RecordedMemory,
    backend: Arc<dyn Backend>,
}

/// A point in the stream, from which and to which device time is measured.
#[derive(Debug)]
pub struct Mark {
    signal: Box<dyn Signal>,
}

impl Mark {
    /// Moves the mark to after everything enqueued so far.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn record(&self) -> Result<(), DeviceError> {
        self.signal.record()
    }

    /// Device time from this mark to `end`; waits for both.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn until(&self, end: &Self) -> Result<Duration, DeviceError> {
        self.signal.until(&*end.signal)
    }
}
