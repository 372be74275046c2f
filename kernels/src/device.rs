//! A device, memory on it, and recorded work for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::backend::{
    Argument, Backend, Captured, DeviceError, Dtype, Facts, Launch, PinnedRegion, Region, Signal,
};
use crate::memory::{Buffer, Pinned};

/// The memory that recorded work uses.
#[derive(Debug, Default)]
struct Used {
    regions: Vec<Arc<dyn Region>>,
    /// What is copied from and to.
    pinned: Vec<Arc<dyn PinnedRegion>>,
}

/// The same while it is being recorded; none while nothing is.
type Recorded = Option<Used>;

/// What a recording gives.
type Recording = Result<(Box<dyn Captured>, Used), DeviceError>;

/// A GPU and its one stream: what is asked of it happens in order, after the call has returned.
///
/// Kernels may overlap, which shows in one place: operands that are a model's weights (tables, `w`, bias,
/// gain and offset) must come from a copy or a conversion, not from another kernel.
///
/// Clones are the same device.
#[derive(Debug, Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
    /// While a graph is recorded: the memory it will use.
    recorded: Arc<Mutex<Recorded>>,
}

impl Device {
    /// The CUDA device number `ordinal`, with a stream of its own.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] when the package was built without CUDA, when the driver or
    /// cuBLASLt is missing or too old, or when there is no such device.
    pub fn cuda(ordinal: usize) -> Result<Self, DeviceError> {
        #[cfg(feature = "driver")]
        return Ok(Self::new(Arc::new(crate::cuda::Cuda::open(ordinal)?)));
        #[cfg(not(feature = "driver"))]
        Err(DeviceError::Unavailable(format!(
            "this build has no CUDA (device {ordinal} was asked for)"
        )))
    }

    /// The CUDA device that `stream` belongs to; work is enqueued there. For a stream that another
    /// library made, candle's for example.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] when cuBLASLt is missing or does not fit.
    #[cfg(feature = "driver")]
    pub fn on_stream(stream: Arc<cudarc::driver::CudaStream>) -> Result<Self, DeviceError> {
        Ok(Self::new(Arc::new(crate::cuda::Cuda::on_stream(stream)?)))
    }

    /// The kernels on the CPU.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] when there was no C++ compiler to build them with.
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

    /// What the emulator has been asked for so far; zeros for a real device.
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

    /// What the device is.
    pub fn facts(&self) -> &Facts {
        self.backend.facts()
    }

    /// Gives memory that was freed, and is kept for later allocations, back to the system.
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

    /// `len` zeros in device memory.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when there is no room.
    pub fn zeros(&self, dtype: Dtype, len: usize) -> Result<Buffer, DeviceError> {
        // Nobody can address an empty allocation; one element costs nothing.
        let region = self.backend.allocate(len.max(1) * dtype.bytes())?;
        Ok(Buffer {
            address: region.address(),
            region: region.into(),
            dtype,
            len,
        })
    }

    /// `bytes` zeros in pinned host memory.
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
    /// When `from` is shorter than `to`, or another device's.
    pub fn upload(&self, from: &mut Pinned, to: &Buffer) -> Result<(), DeviceError> {
        self.check(from, to);
        // SAFETY: both sides have `to.bytes()` bytes. The host gets at the pinned bytes only
        // through `Pinned`, which first waits for the signal recorded here.
        unsafe {
            self.backend
                .copy_in(to.address, from.region.pointer(), to.bytes())?;
        }
        self.touches(from, to)
    }

    /// Copies the whole of `from` to the first bytes of `to`. May be recorded.
    ///
    /// # Errors
    /// See [`DeviceError`].
    ///
    /// # Panics
    /// When `to` is shorter than `from`, or another device's.
    pub fn download(&self, from: &Buffer, to: &mut Pinned) -> Result<(), DeviceError> {
        self.check(to, from);
        // SAFETY: as in `upload`.
        unsafe {
            self.backend
                .copy_out(to.region.pointer(), from.address, from.bytes())?;
        }
        self.touches(to, from)
    }

    /// Whether all of `buffer` can be copied to or from `pinned`.
    fn check(&self, pinned: &Pinned, buffer: &Buffer) {
        assert!(
            buffer.bytes() <= pinned.bytes,
            "the pinned memory is large enough"
        );
        // A copy of another device would not be waited for.
        assert!(
            Arc::ptr_eq(&self.backend, &pinned.backend),
            "pinned memory of this device"
        );
    }

    /// Notes that a copy between the two is enqueued or recorded.
    fn touches(&self, pinned: &Pinned, buffer: &Buffer) -> Result<(), DeviceError> {
        self.uses(&[buffer]);
        if !self.backend.is_capturing() {
            return pinned.touched.record();
        }
        if let Some(used) = self.recorded().as_mut() {
            used.pinned.push(Arc::clone(&pinned.region));
        }
        Ok(())
    }

    /// Records the copies, launches and products of `work` instead of running them.
    ///
    /// Nothing in `work` may allocate or wait.
    ///
    /// # Errors
    /// What `work` or the recording failed with; nothing is recorded then.
    pub fn capture(
        &self,
        work: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<Graph, DeviceError> {
        // Begin first, so that a failure leaves no list behind and keeps the list of a recording in progress.
        self.backend.begin_capture()?;
        *self.recorded() = Some(Used::default());
        let capturing = Capturing { device: Some(self) };
        let worked = work();
        // A recording that was begun has to be ended, whatever came of it.
        let recording = capturing.end();
        worked?;
        let (captured, used) = recording?;
        Ok(Graph {
            captured,
            used,
            backend: Arc::clone(&self.backend),
        })
    }

    /// Enqueues the work that `graph` holds. `pinned` is what it copies from and to.
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
            graph.used.pinned.iter().all(given),
            "the pinned memory that the graph was recorded with"
        );
        graph.captured.replay()?;
        pinned.iter().try_for_each(|pinned| pinned.touched.record())
    }

    /// Whether kernels that are enqueued or recorded from here on may begin while the one in front is
    /// running, on devices that can do that. They may, unless told otherwise: to see what it brings.
    pub fn allow_overlap(&self, allowed: bool) {
        self.backend.allow_overlap(allowed);
    }

    /// A point in the stream, after everything enqueued so far.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn mark(&self) -> Result<Mark, DeviceError> {
        let signal = self.backend.signal(true)?;
        signal.record()?;
        Ok(Mark { signal })
    }

    /// Waits until everything enqueued is done.
    ///
    /// # Errors
    /// What the work failed with.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.backend.synchronize()
    }

    fn end_capture(&self) -> Recording {
        let captured = self.backend.end_capture();
        let used = self.recorded().take().unwrap_or_default();
        Ok((captured?, used))
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Notes that work using `buffers` is enqueued or recorded.
    pub(crate) fn uses(&self, buffers: &[&Buffer]) {
        if let Some(used) = self.recorded().as_mut() {
            let regions = buffers.iter().map(|buffer| Arc::clone(&buffer.region));
            used.regions.extend(regions);
        }
    }

    /// Starts a kernel.
    ///
    /// # Safety
    /// As for [`Backend::launch`]; `buffers` are all that `arguments` address.
    pub(crate) unsafe fn launch(
        &self,
        name: &str,
        launch: Launch,
        buffers: &[&Buffer],
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        self.uses(buffers);
        // SAFETY: the caller's promise.
        unsafe { self.backend.launch(name, launch, arguments) }
    }

    fn recorded(&self) -> std::sync::MutexGuard<'_, Recorded> {
        // The list is whole after every single operation on it.
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A recording under way; ended when dropped, also by a panic.
struct Capturing<'a> {
    device: Option<&'a Device>,
}

impl Capturing<'_> {
    fn end(mut self) -> Recording {
        let device = self.device.take().expect("a recording is ended once");
        device.end_capture()
    }
}

impl Drop for Capturing<'_> {
    fn drop(&mut self) {
        if let Some(device) = self.device {
            // What was recorded is of no use to anybody.
            drop(device.end_capture());
        }
    }
}

/// Work recorded once, to be enqueued many times. Keeps the memory and the code it uses.
#[derive(Debug)]
pub struct Graph {
    captured: Box<dyn Captured>,
    used: Used,
    backend: Arc<dyn Backend>,
}

/// A point in the stream that time is measured from.
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

    /// Device time from here to `end`; waits for both.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn until(&self, end: &Self) -> Result<Duration, DeviceError> {
        self.signal.until(&*end.signal)
    }
}
