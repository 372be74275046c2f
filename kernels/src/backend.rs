//! What a device has to be able to do: implemented by a CUDA stream and by the emulator.
//!
//! Everything goes in order on one stream. Nothing here waits for the device, except
//! [`Signal::wait`], [`Signal::until`] and [`Backend::synchronize`].

#![cfg_attr(
    not(any(feature = "driver", has_emulator)),
    allow(
        dead_code,
        reason = "without a backend nobody looks at what is launched"
    )
)]

use std::fmt::Debug;
use std::time::Duration;

/// What went wrong on a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no such device to be had; the text says why and what to do.
    #[error("{0}")]
    Unavailable(String),
    /// The device (or pinned host memory) has no room for so many bytes.
    #[error("out of memory for {bytes} bytes")]
    OutOfMemory {
        /// Size of the allocation that failed; 0 where the library does not tell.
        bytes: usize,
    },
    /// This operation failed; the device is as good as before.
    #[error("{0}")]
    Failed(String),
    /// The context cannot be used any more: every later operation fails as well (an illegal
    /// address, a failed launch, a device that fell off the bus). Only a new process helps.
    #[error("the device is lost: {0}")]
    Lost(String),
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// As the driver calls it: `NVIDIA H200`.
    pub name: String,
    /// Compute capability, major and minor: (7, 5) is Turing, (9, 0) Hopper.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory_bytes: usize,
    /// Version of CUDA that the driver speaks: (13, 0).
    pub driver_version: (u32, u32),
}

/// Type of the elements of a [`Buffer`](crate::Buffer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// Unsigned 32-bit integers.
    U32,
}

impl Dtype {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// As the kernels' names and the command line have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::U32 => "u32",
        }
    }
}

/// A matrix product's shape: `y[rows, outer] = x[rows, inner] · w[outer, inner]ᵀ (+ bias[outer])
/// (+ residual[rows, outer])`, all row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProductShape {
    /// Type of x, w, bias and y; sums are f32.
    pub dtype: Dtype,
    /// Rows of x and y.
    pub rows: usize,
    /// Columns of x and w.
    pub inner: usize,
    /// Rows of w, columns of y.
    pub outer: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Whether a matrix like y is added, before rounding.
    pub residual: bool,
}

/// The operands of a product, as addresses of device memory; `bias` and `residual` are 0 where there
/// are none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProductOperands {
    pub(crate) x: u64,
    pub(crate) w: u64,
    pub(crate) bias: u64,
    pub(crate) residual: u64,
    pub(crate) y: u64,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    Address(u64),
    U32(u32),
    I32(i32),
    I64(i64),
    U64(u64),
    F32(f32),
}

impl Argument {
    /// The value's bytes at the start of a word; kernels read as many as their parameter has.
    pub(crate) fn word(self) -> u64 {
        let low = |bytes: [u8; 4]| u64::from(u32::from_ne_bytes(bytes));
        // Little-endian machines only (the crate refuses others): the value comes first.
        match self {
            Self::Address(value) | Self::U64(value) => value,
            Self::I64(value) => value.cast_unsigned(),
            Self::U32(value) => u64::from(value),
            Self::I32(value) => low(value.to_ne_bytes()),
            Self::F32(value) => low(value.to_ne_bytes()),
        }
    }
}

/// How a kernel is started: one-dimensional, as all ours are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch {
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
    /// Whether it may begin while the kernel in front is running, on devices that can do that:
    /// see `wait_for_kernel_before` in `cuda/device.cuh`.
    pub(crate) overlaps: bool,
}

/// Device memory, given back when dropped (in stream order).
pub(crate) trait Region: Debug + Send + Sync {
    fn address(&self) -> u64;
}

/// Host memory that the device can read and write by itself.
pub(crate) trait PinnedRegion: Debug + Send + Sync {
    fn pointer(&self) -> *mut u8;
}

/// A point in the stream.
pub(crate) trait Signal: Debug + Send {
    /// Marks the point after everything enqueued so far.
    fn record(&self) -> Result<(), DeviceError>;
    /// Waits until the device has come to the point; at once when it was never recorded. Asks again
    /// and again for the time of `spin`, and sleeps after that: waking up costs tens of microseconds.
    fn wait(&self, spin: Duration) -> Result<(), DeviceError>;
    /// Whether the device has come to the point; does not wait.
    fn is_done(&self) -> Result<bool, DeviceError>;
    /// Device time from this point to `end`; waits for both.
    fn until(&self, end: &dyn Signal) -> Result<Duration, DeviceError>;
    /// For `until` to get at its own type.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// A recorded sequence of launches.
pub(crate) trait Captured: Debug + Send {
    /// Enqueues the whole sequence.
    fn replay(&self) -> Result<(), DeviceError>;
}

/// A device with its one stream.
pub(crate) trait Backend: Debug + Send + Sync {
    fn facts(&self) -> &Facts;

    /// `bytes` of device memory, all zero.
    fn allocate(&self, bytes: usize) -> Result<Box<dyn Region>, DeviceError>;

    /// `bytes` of pinned host memory, all zero.
    fn allocate_pinned(&self, bytes: usize) -> Result<Box<dyn PinnedRegion>, DeviceError>;

    /// A point in the stream; `timed` ones can be asked for the time between them.
    fn signal(&self, timed: bool) -> Result<Box<dyn Signal>, DeviceError>;

    /// Enqueues or records a copy from pinned host memory.
    ///
    /// # Safety
    /// `from` is pinned memory of at least `bytes`, not written before the copy is done; `to` lies
    /// in a region with room for `bytes`.
    unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize) -> Result<(), DeviceError>;

    /// Enqueues or records a copy to pinned host memory.
    ///
    /// # Safety
    /// As for [`copy_in`](Self::copy_in), the other way round; `to` is not touched before the copy
    /// is done.
    unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize) -> Result<(), DeviceError>;

    /// Enqueues a kernel.
    ///
    /// # Safety
    /// `arguments` are what the kernel `name` takes, and their addresses have room for what it
    /// reads and writes.
    unsafe fn launch(
        &self,
        name: &str,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError>;

    /// Enqueues a matrix product. The algorithm is chosen at the shape's first use and kept.
    ///
    /// # Safety
    /// The addresses have room for the shape, and `y` overlaps no other operand.
    unsafe fn product(
        &self,
        shape: &ProductShape,
        operands: ProductOperands,
    ) -> Result<(), DeviceError>;

    /// Tries some more of the algorithms there are for the shape, for a few milliseconds, waiting
    /// for the device; true when all have been tried and the fastest is kept.
    ///
    /// # Safety
    /// As for [`product`](Self::product); `y` is overwritten.
    unsafe fn tune(
        &self,
        shape: &ProductShape,
        operands: ProductOperands,
    ) -> Result<bool, DeviceError>;

    /// Gives memory that was freed and kept for later back to the system; waits for the device.
    fn trim(&self) -> Result<(), DeviceError>;

    /// From here on copies, launches and products of this thread are recorded instead of enqueued.
    fn begin_capture(&self) -> Result<(), DeviceError>;

    /// Whether this thread's work is being recorded.
    fn is_capturing(&self) -> bool;

    /// Ends the recording that `begin_capture` began.
    fn end_capture(&self) -> Result<Box<dyn Captured>, DeviceError>;

    /// Whether kernels launched or recorded from here on may overlap; they may unless told otherwise.
    fn allow_overlap(&self, allowed: bool);

    /// Waits until everything enqueued is done.
    fn synchronize(&self) -> Result<(), DeviceError>;

    /// Free bytes of device memory.
    fn free_bytes(&self) -> Result<usize, DeviceError>;

    /// What the device has been asked for; only the emulator counts.
    #[cfg(feature = "emulator")]
    fn counters(&self) -> crate::Counters {
        crate::Counters::default()
    }
}
