//! Device memory, and the pinned host memory that a device copies from and to.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Argument, Backend, DeviceError, Dtype, PinnedRegion, Region, Signal};

/// Contiguous elements in device memory; clones and slices share the memory.
#[derive(Debug, Clone)]
pub struct Buffer {
    pub(crate) region: Arc<dyn Region>,
    pub(crate) address: u64,
    pub(crate) dtype: Dtype,
    pub(crate) len: usize,
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
    /// When `range` ends beyond the buffer.
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

    /// The same bytes with another element type.
    ///
    /// # Panics
    /// When the bytes are not a whole number of elements.
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

/// Default time that the host polls before it sleeps.
const SPIN: Duration = Duration::from_micros(200);

/// Page-locked host memory that the device copies from and to. Every access waits for the last copy.
#[derive(Debug)]
pub struct Pinned {
    pub(crate) region: Arc<dyn PinnedRegion>,
    pub(crate) bytes: usize,
    /// The only device that may copy from or to here.
    pub(crate) backend: Arc<dyn Backend>,
    /// The point after the last copy from or to here.
    pub(crate) touched: Box<dyn Signal>,
}

impl Pinned {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waits for the last copy.
    ///
    /// # Errors
    /// The device's error, if it failed in the meantime.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.touched.wait(SPIN)
    }

    /// Waits for the last copy and polls for `spin` before it sleeps: for a host that knows when the copy
    /// should be done.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn wait_awake(&self, spin: Duration) -> Result<(), DeviceError> {
        self.touched.wait(spin)
    }

    /// Whether the last copy is done; does not wait.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn is_ready(&self) -> Result<bool, DeviceError> {
        self.touched.is_done()
    }

    /// The bytes, for reading.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn read(&self) -> Result<&[u8], DeviceError> {
        self.wait()?;
        // SAFETY: the region has `bytes` initialized bytes, and no copy is in flight.
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
        // SAFETY: every bit pattern is an f32.
        let (before, values, _) = unsafe { self.read()?.align_to() };
        debug_assert!(before.is_empty(), "pinned memory starts at a page");
        Ok(values)
    }

    /// The bytes as u32, for writing.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn write_u32(&mut self) -> Result<&mut [u32], DeviceError> {
        // SAFETY: every bit pattern is a u32, and a u32 has no padding.
        let (before, values, _) = unsafe { self.write()?.align_to_mut() };
        debug_assert!(before.is_empty(), "pinned memory starts at a page");
        Ok(values)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A lost device makes no more copies, so the error does not matter.
        let _ = self.wait();
    }
}
