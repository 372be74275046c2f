//! The interface of a device with one stream. A CUDA stream and the emulator implement it.
//!
//! The stream executes work in order. Only [`Signal::wait`], [`Signal::until`], [`Backend::tune`],
//! [`Backend::trim`] and [`Backend::synchronize`] wait for the device.

#![cfg_attr(
    not(any(feature = "driver", has_emulator)),
    allow(dead_code, reason = "without a backend nothing reads what is launched")
)]

use std::fmt::Debug;
use std::time::Duration;

/// An error of a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The device cannot be used; the text says why and what to do.
    #[error("{0}")]
    Unavailable(String),
    /// An allocation of device memory or pinned host memory failed.
    #[error("out of memory for {bytes} bytes")]
    OutOfMemory {
        /// Size of the failed allocation; 0 where the library does not report it.
        bytes: usize,
    },
    /// This operation failed; the device remains usable.
    #[error("{0}")]
    Failed(String),
    /// The context is unusable and every later operation fails as well (an illegal address, a failed
    /// launch, a device that fell off the bus). Only a new process recovers.
    #[error("the device is lost: {0}")]
    Lost(String),
}

/// Properties of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The driver's name for it: `NVIDIA H200`.
    pub name: String,
    /// Compute capability, major and minor: (7, 5) is Turing, (9, 0) Hopper.
    pub compute_capability: (u32, u32),
    /// Number of streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory_bytes: usize,
    /// The CUDA version that the driver supports, major and minor: (13, 0).
    pub driver_version: (u32, u32),
}

/// Element type of a [`Buffer`](crate::Buffer).
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

    /// The type's name in kernel names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::U32 => "u32",
        }
    }
}

/// The shape of a matrix product `y[rows, outer] = x[rows, inner] · w[outer, inner]ᵀ (+ bias[outer])
/// (+ residual[rows, outer])`, all operands row-major.
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

/// Device addresses of a product's operands; `bias` and `residual` are 0 when absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProductOperands {
    pub(crate) x: u64,
    pub(crate) w: u64,
    pub(crate) bias: u64,
    pub(crate) residual: u64,
    pub(crate) y: u64,
}

/// A kernel argument.
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
    /// The value's bytes at the start of a word; a kernel reads as many bytes as its parameter has.
    pub(crate) fn word(self) -> u64 {
        let low = |bytes: [u8; 4]| u64::from(u32::from_ne_bytes(bytes));
        // The crate compiles for little-endian machines only, where the low bytes come first.
        match self {
            Self::Address(value) | Self::U64(value) => value,
            Self::I64(value) => value.cast_unsigned(),
            Self::U32(value) => u64::from(value),
            Self::I32(value) => low(value.to_ne_bytes()),
            Self::F32(value) => low(value.to_ne_bytes()),
        }
    }
}

/// The launch configuration of a kernel; all grids are one-dimensional.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch {
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
    /// Whether the kernel may begin while its predecessor is running, on devices that support it; see
    /// `wait_for_kernel_before` in `cuda/device.cuh`.
    pub(crate) overlaps: bool,
}

/// Device memory, freed in stream order when dropped.
pub(crate) trait Region: Debug + Send + Sync {
    fn address(&self) -> u64;
}

/// Page-locked host memory that the device accesses directly.
pub(crate) trait PinnedRegion: Debug + Send + Sync {
    fn pointer(&self) -> *mut u8;
}

/// A point in the stream.
pub(crate) trait Signal: Debug + Send {
    /// Marks the point after everything enqueued so far.
    fn record(&self) -> Result<(), DeviceError>;
    /// Waits until the device has reached the point; returns at once when it was never recorded. Polls for
    /// `spin` before it sleeps, because waking up costs tens of microseconds.
    fn wait(&self, spin: Duration) -> Result<(), DeviceError>;
    /// Whether the device has reached the point; does not wait.
    fn is_done(&self) -> Result<bool, DeviceError>;
    /// Device time from this point to `end`; waits for both.
    fn until(&self, end: &dyn Signal) -> Result<Duration, DeviceError>;
    /// Allows `until` to downcast `end` to its own type.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// A recorded sequence of work.
pub(crate) trait Captured: Debug + Send {
    /// Enqueues the whole sequence.
    fn replay(&self) -> Result<(), DeviceError>;
}

/// A device with one stream.
pub(crate) trait Backend: Debug + Send + Sync {
    fn facts(&self) -> &Facts;

    /// Allocates `bytes` of zeroed device memory.
    fn allocate(&self, bytes: usize) -> Result<Box<dyn Region>, DeviceError>;

    /// Allocates `bytes` of zeroed pinned host memory.
    fn allocate_pinned(&self, bytes: usize) -> Result<Box<dyn PinnedRegion>, DeviceError>;

    /// Creates a point in the stream. Two `timed` points can measure the time between them.
    fn signal(&self, timed: bool) -> Result<Box<dyn Signal>, DeviceError>;

    /// Enqueues or records a copy from pinned host memory.
    ///
    /// # Safety
    /// `from` is pinned memory of at least `bytes`, not written until the copy is done; `to` lies in a
    /// region with room for `bytes`.
    unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize) -> Result<(), DeviceError>;

    /// Enqueues or records a copy to pinned host memory.
    ///
    /// # Safety
    /// As for [`copy_in`](Self::copy_in), with the roles exchanged; `to` is not accessed until the copy is
    /// done.
    unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize) -> Result<(), DeviceError>;

    /// Enqueues a kernel.
    ///
    /// # Safety
    /// `arguments` match the parameters of the kernel `name`, and everything that it reads and writes
    /// through their addresses is allocated.
    unsafe fn launch(
        &self,
        name: &str,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError>;

    /// Enqueues a matrix product. The algorithm is chosen at the first use of the shape and kept.
    ///
    /// # Safety
    /// The operands have the sizes that the shape implies, and `y` overlaps no other operand.
    unsafe fn product(
        &self,
        shape: &ProductShape,
        operands: ProductOperands,
    ) -> Result<(), DeviceError>;

    /// Tries further algorithms for the shape for a few milliseconds and waits for the device. Returns true
    /// when all have been tried and the fastest has been selected.
    ///
    /// # Safety
    /// As for [`product`](Self::product); `y` is overwritten.
    unsafe fn tune(
        &self,
        shape: &ProductShape,
        operands: ProductOperands,
    ) -> Result<bool, DeviceError>;

    /// Returns memory that was freed but kept for reuse to the system; waits for the device.
    fn trim(&self) -> Result<(), DeviceError>;

    /// Starts to record copies, launches and products of this thread instead of enqueuing them.
    fn begin_capture(&self) -> Result<(), DeviceError>;

    /// Whether this thread's work is being recorded.
    fn is_capturing(&self) -> bool;

    /// Ends the recording that `begin_capture` started.
    fn end_capture(&self) -> Result<Box<dyn Captured>, DeviceError>;

    /// Sets whether kernels launched or recorded from now on may overlap. The default is true.
    fn allow_overlap(&self, allowed: bool);

    /// Waits until all enqueued work is done.
    fn synchronize(&self) -> Result<(), DeviceError>;

    /// Free bytes of device memory.
    fn free_bytes(&self) -> Result<usize, DeviceError>;

    /// Counts of the operations so far; only the emulator counts.
    #[cfg(feature = "emulator")]
    fn counters(&self) -> crate::emulation::Counters {
        crate::emulation::Counters::default()
    }
}
