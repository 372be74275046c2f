//! A device, memory on it, and recorded work for it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::backend::{
    Argument, Backend, Captured, DeviceError, Dtype, Facts, Launch, PinnedRegion, Region, Signal,
};

/// The memory that a graph being recorded will use; none while nothing is recorded.
type Recorded = Option<Vec<Arc<dyn Region>>>;

/// A GPU and its one stream: what is asked of it happens in order, after the call has returned.
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
            region: self.backend.allocate_pinned(bytes.max(1))?,
            bytes,
            touched: self.backend.signal(false)?,
        })
    }

    /// Copies the first bytes of `from` to the whole of `to`.
    ///
    /// # Errors
    /// See [`DeviceError`].
    ///
    /// # Panics
    /// When `from` is shorter than `to`.
    pub fn upload(&self, from: &mut Pinned, to: &Buffer) -> Result<(), DeviceError> {
        assert!(
            to.bytes() <= from.bytes,
            "the pinned memory is large enough"
        );
        // SAFETY: both sides have `to.bytes()` bytes. The host gets at the pinned bytes only
        // through `Pinned`, which first waits for the signal recorded here.
        unsafe {
            self.backend
                .copy_in(to.address, from.region.pointer(), to.bytes())?;
        }
        from.touched.record()
    }

    /// Copies the whole of `from` to the first bytes of `to`.
    ///
    /// # Errors
    /// See [`DeviceError`].
    ///
    /// # Panics
    /// When `to` is shorter than `from`.
    pub fn download(&self, from: &Buffer, to: &mut Pinned) -> Result<(), DeviceError> {
        assert!(
            from.bytes() <= to.bytes,
            "the pinned memory is large enough"
        );
        // SAFETY: as in `upload`.
        unsafe {
            self.backend
                .copy_out(to.region.pointer(), from.address, from.bytes())?;
        }
        to.touched.record()
    }

    /// Records the launches and products of `work` instead of running them.
    ///
    /// Nothing in `work` may allocate, copy or wait.
    ///
    /// # Errors
    /// What `work` or the recording failed with; nothing is recorded then.
    pub fn capture(
        &self,
        work: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<Graph, DeviceError> {
        *self.recorded() = Some(Vec::new());
        let result = self.backend.begin_capture().and_then(|()| {
            let worked = work();
            // A recording that was begun has to be ended, whatever came of it.
            let captured = self.backend.end_capture();
            worked.and(captured)
        });
        let regions = self.recorded().take().unwrap_or_default();
        Ok(Graph {
            captured: result?,
            _regions: regions,
        })
    }

    /// Enqueues the work that `graph` holds.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn replay(&self, graph: &Graph) -> Result<(), DeviceError> {
        graph.captured.replay()
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

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Notes that work using `buffers` is enqueued or recorded.
    pub(crate) fn uses(&self, buffers: &[&Buffer]) {
        if let Some(regions) = self.recorded().as_mut() {
            regions.extend(buffers.iter().map(|buffer| Arc::clone(&buffer.region)));
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

/// A run of elements in device memory; clones and slices share it.
#[derive(Debug, Clone)]
pub struct Buffer {
    region: Arc<dyn Region>,
    address: u64,
    dtype: Dtype,
    len: usize,
}

impl Buffer {
    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.len * self.dtype.bytes()
    }

    /// The elements in `range`.
    ///
    /// # Panics
    /// When `range` reaches beyond the end.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "a range inside the buffer"
        );
        Self {
            region: Arc::clone(&self.region),
            address: self.address + (range.start * self.dtype.bytes()) as u64,
            dtype: self.dtype,
            len: range.len(),
        }
    }

    /// The same bytes read as another type of elements.
    ///
    /// # Panics
    /// When the bytes are no whole number of elements.
    pub fn reinterpret(&self, dtype: Dtype) -> Self {
        assert!(self.bytes().is_multiple_of(dtype.bytes()), "whole elements");
        Self {
            dtype,
            len: self.bytes() / dtype.bytes(),
            ..self.clone()
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn argument(&self) -> Argument {
        Argument::Address(self.address)
    }
}

/// Host memory that the device copies from and to by itself. To look at it is to wait until the
/// device has let go of it.
#[derive(Debug)]
pub struct Pinned {
    region: Box<dyn PinnedRegion>,
    bytes: usize,
    /// After the last copy from or to here.
    touched: Box<dyn Signal>,
}

impl Pinned {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waits for the last copy.
    ///
    /// # Errors
    /// What the device failed with meanwhile.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.touched.wait()
    }

    /// Whether the last copy is done; does not wait.
    ///
    /// # Errors
    /// What the device failed with meanwhile.
    pub fn is_ready(&self) -> Result<bool, DeviceError> {
        self.touched.is_done()
    }

    /// The bytes, for reading.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn read(&self) -> Result<&[u8], DeviceError> {
        self.wait()?;
        // SAFETY: the region has `bytes` initialized bytes, and no copy is under way.
        Ok(unsafe { std::slice::from_raw_parts(self.region.pointer(), self.bytes) })
    }

    /// The bytes, for writing.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn write(&mut self) -> Result<&mut [u8], DeviceError> {
        self.wait()?;
        // SAFETY: as in `read`; `self` is borrowed exclusively.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.region.pointer(), self.bytes) })
    }

    /// The bytes as f32, for reading.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn read_f32(&self) -> Result<&[f32], DeviceError> {
        // SAFETY: every pattern of bits is an f32.
        let (before, values, _) = unsafe { self.read()?.align_to() };
        debug_assert!(before.is_empty(), "pinned memory starts at a page");
        Ok(values)
    }

    /// The bytes as u32, for writing.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn write_u32(&mut self) -> Result<&mut [u32], DeviceError> {
        // SAFETY: every pattern of bits is a u32, and every u32 is four bytes.
        let (before, values, _) = unsafe { self.write()?.align_to_mut() };
        debug_assert!(before.is_empty(), "pinned memory starts at a page");
        Ok(values)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A lost device copies no more, so the error does not matter.
        let _ = self.wait();
    }
}

/// Work recorded once, to be enqueued many times. Keeps the memory it uses.
#[derive(Debug)]
pub struct Graph {
    captured: Box<dyn Captured>,
    _regions: Vec<Arc<dyn Region>>,
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
