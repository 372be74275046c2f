//! The emulated device.

use std::ffi::CString;
use std::sync::Arc;

use super::kernel::Kernel;
use super::memory::{EmulatedMemory, GuardedMemory};
use super::signal::EmulatedSignal;
use super::stream::{QueuedWork, SharedStream};
use crate::backend::{
    Argument, Backend, Captured, DeviceError, Facts, Launch, PinnedRegion, ProductOperands,
    ProductShape, Region, Signal,
};
use crate::emulation::{Counters, Emulation};

/// The device that [`Emulation`] describes.
#[derive(Debug)]
pub(crate) struct Emulator {
    facts: Facts,
    stream: SharedStream,
}

impl Emulator {
    pub(crate) fn new(emulation: Emulation) -> Self {
        let facts = Facts {
            name: "emulator".to_owned(),
            compute_capability: emulation.compute_capability,
            // As an H200, so that the same kernels are chosen.
            multiprocessors: 132,
            memory_bytes: emulation.memory_bytes,
            driver_version: (0, 0),
        };
        Self {
            facts,
            stream: SharedStream::new(emulation),
        }
    }

    fn enqueue(&self, work: QueuedWork) -> Result<(), DeviceError> {
        self.stream.lock().enqueue(work)
    }
}

impl Backend for Emulator {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn Region>, DeviceError> {
        let mut stream = self.stream.lock();
        if stream.is_recording_here() {
            return Err(DeviceError::Failed(
                "an allocation while a graph is recorded".into(),
            ));
        }
        if stream.allocated + bytes > stream.emulation.memory_bytes {
            return Err(DeviceError::OutOfMemory { bytes });
        }
        let memory = GuardedMemory::new(bytes).ok_or(DeviceError::OutOfMemory { bytes })?;
        stream.allocated += bytes;
        stream.counters.allocations += 1;
        Ok(Box::new(EmulatedMemory {
            memory,
            stream: self.stream.clone(),
        }))
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<Box<dyn PinnedRegion>, DeviceError> {
        let memory = GuardedMemory::new(bytes).ok_or(DeviceError::OutOfMemory { bytes })?;
        Ok(Box::new(memory))
    }

    fn signal(&self, _timed: bool) -> Result<Box<dyn Signal>, DeviceError> {
        Ok(Box::new(EmulatedSignal::new(self.stream.clone())))
    }

    unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize) -> Result<(), DeviceError> {
        self.enqueue(QueuedWork::Copy {
            to,
            from: from as u64,
            bytes,
        })
    }

    unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize) -> Result<(), DeviceError> {
        self.enqueue(QueuedWork::Copy {
            to: to as u64,
            from,
            bytes,
        })
    }

    unsafe fn launch(
        &self,
        name: &str,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        let name = CString::new(name).map_err(|error| DeviceError::Failed(error.to_string()))?;
        let expected = Kernel::arguments(&name);
        if expected != arguments.len() {
            return Err(DeviceError::Failed(format!(
                "{name:?} takes {expected} arguments (0: there is no such kernel), not {}",
                arguments.len()
            )));
        }
        let words = arguments.iter().map(|argument| argument.word()).collect();
        self.enqueue(QueuedWork::Kernel(Kernel {
            name,
            launch,
            words,
        }))
    }

    unsafe fn product(
        &self,
        shape: &ProductShape,
        operands: ProductOperands,
    ) -> Result<(), DeviceError> {
        self.enqueue(QueuedWork::Product {
            shape: *shape,
            operands,
        })
    }

    unsafe fn tune(&self, _: &ProductShape, _: ProductOperands) -> Result<bool, DeviceError> {
        // There is one algorithm.
        Ok(true)
    }

    fn trim(&self) -> Result<(), DeviceError> {
        self.synchronize()
    }

    fn begin_capture(&self) -> Result<(), DeviceError> {
        self.stream.lock().begin_recording()
    }

    fn is_capturing(&self) -> bool {
        self.stream.lock().is_recording_here()
    }

    fn end_capture(&self) -> Result<Box<dyn Captured>, DeviceError> {
        let work = self.stream.lock().end_recording();
        Ok(Box::new(EmulatedGraph {
            work: Arc::new(work),
            stream: self.stream.clone(),
        }))
    }

    fn allow_overlap(&self, allowed: bool) {
        self.stream.lock().overlaps = allowed;
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.stream.lock().run_all_enqueued()
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        let stream = self.stream.lock();
        Ok(stream.emulation.memory_bytes - stream.allocated)
    }

    fn counters(&self) -> Counters {
        self.stream.lock().counters
    }
}

/// Recorded work of the emulated stream.
#[derive(Debug)]
struct EmulatedGraph {
    work: Arc<Vec<QueuedWork>>,
    stream: SharedStream,
}

impl Captured for EmulatedGraph {
    fn replay(&self) -> Result<(), DeviceError> {
        let work = QueuedWork::Graph(Arc::clone(&self.work));
        self.stream.lock().enqueue(work)
    }
}
