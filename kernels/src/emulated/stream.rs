//! The emulated stream: work in order, run when the host waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use super::kernel::Kernel;
use super::product::product;
use crate::backend::{DeviceError, ProductOperands, ProductShape};
use crate::emulation::{Counters, Emulation};

/// The most kernels that have begun while an earlier one is still to run.
const BEGUN_MAX: usize = 3;

/// One item in the stream.
#[derive(Debug, Clone)]
pub(super) enum QueuedWork {
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Kernel(Kernel),
    Product {
        shape: ProductShape,
        operands: ProductOperands,
    },
    Graph(Arc<Vec<QueuedWork>>),
}

/// The stream, shared between the device, its memory, its signals and its graphs.
#[derive(Debug, Clone)]
pub(super) struct SharedStream(Arc<Mutex<EmulatedStream>>);

impl SharedStream {
    pub(super) fn new(emulation: Emulation) -> Self {
        Self(Arc::new(Mutex::new(EmulatedStream {
            emulation,
            allocated: 0,
            overlaps: true,
            recording: None,
            queue: VecDeque::new(),
            enqueued: 0,
            done: 0,
            launched: 0,
            lost: None,
            counters: Counters::default(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, EmulatedStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the emulated device: its memory, its queue and its progress.
#[derive(Debug)]
pub(super) struct EmulatedStream {
    pub(super) emulation: Emulation,
    /// Bytes of device memory in use.
    pub(super) allocated: usize,
    /// Whether kernels begin as early as they may.
    pub(super) overlaps: bool,
    recording: Option<ThreadRecording>,
    queue: VecDeque<QueuedWork>,
    /// Number of items enqueued since the start.
    pub(super) enqueued: u64,
    /// Number of items completed since the start.
    pub(super) done: u64,
    /// Number of kernels and products run since the start.
    launched: u64,
    lost: Option<DeviceError>,
    pub(super) counters: Counters,
}

/// The work that one thread has recorded so far.
#[derive(Debug)]
struct ThreadRecording {
    thread: ThreadId,
    work: Vec<QueuedWork>,
}

impl EmulatedStream {
    /// Adds `work` to the stream, or to the recording of this thread.
    pub(super) fn enqueue(&mut self, work: QueuedWork) -> Result<(), DeviceError> {
        if let Some(error) = &self.lost {
            return Err(error.clone());
        }
        if let Some(recording) = self.recording_here() {
            if matches!(work, QueuedWork::Graph(_)) {
                return Err(DeviceError::Failed("a graph inside a recording".into()));
            }
            recording.push(work);
            return Ok(());
        }
        match &work {
            QueuedWork::Graph(_) => self.counters.replays += 1,
            QueuedWork::Copy { .. } => {}
            QueuedWork::Kernel(_) | QueuedWork::Product { .. } => self.counters.launches += 1,
        }
        self.queue.push_back(work);
        self.enqueued += 1;
        Ok(())
    }

    /// Starts to record the work of this thread.
    pub(super) fn begin_recording(&mut self) -> Result<(), DeviceError> {
        if let Some(error) = &self.lost {
            return Err(error.clone());
        }
        if self.recording.is_some() {
            return Err(DeviceError::Failed("a recording is in progress".into()));
        }
        self.recording = Some(ThreadRecording {
            thread: std::thread::current().id(),
            work: Vec::new(),
        });
        Ok(())
    }

    /// Ends the recording; its work is empty when there was none.
    pub(super) fn end_recording(&mut self) -> Vec<QueuedWork> {
        self.counters.captures += 1;
        let recording = self.recording.take();
        recording.map_or_else(Vec::new, |recording| recording.work)
    }

    /// Whether this thread is recording.
    pub(super) fn is_recording_here(&mut self) -> bool {
        self.recording_here().is_some()
    }

    fn recording_here(&mut self) -> Option<&mut Vec<QueuedWork>> {
        let recording = self.recording.as_mut()?;
        (recording.thread == std::thread::current().id()).then_some(&mut recording.work)
    }

    /// Runs all enqueued items.
    pub(super) fn run_all_enqueued(&mut self) -> Result<(), DeviceError> {
        self.run_until(self.enqueued)
    }

    /// Runs the items up to number `target`, and counts a wait when there was anything to run.
    pub(super) fn run_until(&mut self, target: u64) -> Result<(), DeviceError> {
        if self.done < target {
            self.counters.waits += 1;
        }
        self.advance(target)
    }

    /// Runs the items up to number `target`.
    pub(super) fn advance(&mut self, target: u64) -> Result<(), DeviceError> {
        if self.lost.is_none() {
            let left = target.saturating_sub(self.done) as usize;
            let works: Vec<QueuedWork> = self.queue.drain(..left.min(self.queue.len())).collect();
            if let Err(error) = self.run_all(&works, |stream| stream.done += 1) {
                self.lost = Some(error);
            }
        }
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Runs items in order and calls `begin` before each. A kernel that may overlap begins as early as it
    /// could on a device, so a kernel that reads results too early reads wrong ones here, too.
    fn run_all(
        &mut self,
        works: &[QueuedWork],
        begin: impl Fn(&mut Self),
    ) -> Result<(), DeviceError> {
        // Index of the next item to begin.
        let mut next = 0;
        for (index, work) in works.iter().enumerate() {
            begin(self);
            let begun = (next > index).then_some(index);
            next = next.max(index + 1);
            while next <= index + BEGUN_MAX
                && let (QueuedWork::Kernel(_), Some(QueuedWork::Kernel(kernel))) =
                    (&works[next - 1], works.get(next))
                && kernel.launch.overlaps
                && self.overlaps
            {
                kernel.begin(slot(next))?;
                next += 1;
            }
            self.run(work, begun.map_or(0, slot))?;
        }
        Ok(())
    }

    fn run(&mut self, work: &QueuedWork, slot: u32) -> Result<(), DeviceError> {
        if !matches!(work, QueuedWork::Copy { .. } | QueuedWork::Graph(_)) {
            self.launched += 1;
            if self
                .emulation
                .lost_after
                .is_some_and(|launches| self.launched > launches)
            {
                return Err(DeviceError::Lost(
                    "an illegal address, as asked for".to_owned(),
                ));
            }
        }
        match work {
            QueuedWork::Copy { to, from, bytes } => {
                // SAFETY: the contract of `copy_in` and `copy_out`; both sides are still allocated,
                // since a region runs all enqueued work before it is freed.
                unsafe {
                    std::ptr::copy_nonoverlapping(*from as *const u8, *to as *mut u8, *bytes);
                }
                Ok(())
            }
            QueuedWork::Kernel(kernel) => {
                self.emulation.seed = self.emulation.seed.wrapping_add(1);
                kernel.run(slot, self.emulation.seed)
            }
            QueuedWork::Product { shape, operands } => {
                product(shape, *operands);
                Ok(())
            }
            QueuedWork::Graph(works) => self.run_all(works, |_| {}),
        }
    }
}

/// The slot of the emulator for a kernel that has begun; 0 stands for kernels that have not.
fn slot(index: usize) -> u32 {
    (index % (BEGUN_MAX + 1)) as u32 + 1
}
