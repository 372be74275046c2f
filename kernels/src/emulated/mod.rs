//! The emulator behind [`Device`](crate::Device): the kernels' own sources, run as C++ on the CPU.
//!
//! It keeps the asynchrony of a GPU: what is enqueued runs only when somebody waits for it, so a
//! host that reads too early or overwrites too soon gets wrong results here, too. Device memory
//! ends at a page that nobody may touch, so a kernel that reads beyond it crashes.

mod kernel;
mod memory;
mod product;
mod signal;

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use self::kernel::Kernel;
use self::memory::Memory;
use self::product::product;
use self::signal::Point;
use crate::backend::{
    Argument, Backend, Captured, DeviceError, Facts, Launch, PinnedRegion, ProductOperands,
    ProductShape, Region, Signal,
};
use crate::emulation::{Counters, Emulation};

/// Kernels that begin while one is still to run, as far as they may come by then.
const BEGUN_MAX: usize = 3;

#[derive(Debug, Clone)]
enum Work {
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
    Graph(Arc<Vec<Work>>),
}

#[derive(Debug)]
struct State {
    emulation: Emulation,
    allocated: usize,
    /// Whether kernels begin as early as they may.
    overlaps: bool,
    /// What the thread has recorded so far.
    recording: Option<(ThreadId, Vec<Work>)>,
    queue: VecDeque<Work>,
    /// Numbers of work items enqueued and done since the start.
    enqueued: u64,
    done: u64,
    run: u64,
    lost: Option<DeviceError>,
    counters: Counters,
}

/// The device that [`Emulation`] describes.
#[derive(Debug)]
pub(crate) struct Emulator {
    facts: Facts,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Emulator {
    pub(crate) fn new(emulation: Emulation) -> Self {
        let facts = Facts {
            name: "emulator".to_owned(),
            compute_capability: emulation.compute_capability,
            // As an H200, so that kernels are chosen as there.
            multiprocessors: 132,
            memory_bytes: emulation.memory_bytes,
            driver_version: (0, 0),
        };
        let state = State {
            emulation,
            allocated: 0,
            overlaps: true,
            recording: None,
            queue: VecDeque::new(),
            enqueued: 0,
            done: 0,
            run: 0,
            lost: None,
            counters: Counters::default(),
        };
        Self {
            facts,
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn enqueue(&self, work: Work) -> Result<(), DeviceError> {
        let mut state = lock(&self.state);
        if let Some(error) = &state.lost {
            return Err(error.clone());
        }
        if let Some(recording) = state.recording_here() {
            if matches!(work, Work::Graph(_)) {
                return Err(DeviceError::Failed("a graph inside a recording".into()));
            }
            recording.push(work);
            return Ok(());
        }
        match &work {
            Work::Graph(_) => state.counters.replays += 1,
            Work::Copy { .. } => {}
            Work::Kernel(_) | Work::Product { .. } => state.counters.launches += 1,
        }
        state.queue.push_back(work);
        state.enqueued += 1;
        Ok(())
    }
}

impl State {
    /// What this thread has recorded so far, if it is recording.
    fn recording_here(&mut self) -> Option<&mut Vec<Work>> {
        let (thread, recording) = self.recording.as_mut()?;
        (*thread == std::thread::current().id()).then_some(recording)
    }

    /// Does what was enqueued up to item number `target`.
    fn run_until(&mut self, target: u64) -> Result<(), DeviceError> {
        if self.done < target {
            self.counters.waits += 1;
        }
        self.advance(target)
    }

    fn advance(&mut self, target: u64) -> Result<(), DeviceError> {
        if self.lost.is_none() {
            let left = target.saturating_sub(self.done) as usize;
            let works: Vec<Work> = self.queue.drain(..left.min(self.queue.len())).collect();
            if let Err(error) = self.run_all(&works, |state| state.done += 1) {
                self.lost = Some(error);
            }
        }
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Runs one after the other; a kernel that may overlap with those before it begins as early as
    /// it could on a device: so one that then reads their results reads the wrong ones here.
    fn run_all(&mut self, works: &[Work], begin: impl Fn(&mut Self)) -> Result<(), DeviceError> {
        // The next to begin.
        let mut next = 0;
        for (index, work) in works.iter().enumerate() {
            begin(self);
            let begun = (next > index).then_some(index);
            next = next.max(index + 1);
            while next <= index + BEGUN_MAX
                && let (Work::Kernel(_), Some(Work::Kernel(kernel))) =
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

    fn run(&mut self, work: &Work, slot: u32) -> Result<(), DeviceError> {
        if !matches!(work, Work::Copy { .. } | Work::Graph(_)) {
            self.run += 1;
            if self
                .emulation
                .lost_after
                .is_some_and(|launches| self.run > launches)
            {
                return Err(DeviceError::Lost(
                    "an illegal address, as asked for".to_owned(),
                ));
            }
        }
        match work {
            Work::Copy { to, from, bytes } => {
                // SAFETY: the promise of `copy_in` and `copy_out`; both sides still live, since
                // regions run the queue empty before they go.
                unsafe {
                    std::ptr::copy_nonoverlapping(*from as *const u8, *to as *mut u8, *bytes);
                }
                Ok(())
            }
            Work::Kernel(kernel) => {
                self.emulation.seed = self.emulation.seed.wrapping_add(1);
                kernel.run(slot, self.emulation.seed)
            }
            Work::Product { shape, operands } => {
                product(shape, *operands);
                Ok(())
            }
            Work::Graph(works) => self.run_all(works, |_| {}),
        }
    }
}

/// Where the emulator keeps a kernel that has begun: 0 is for those that have not.
fn slot(index: usize) -> u32 {
    (index % (BEGUN_MAX + 1)) as u32 + 1
}

impl Backend for Emulator {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn allocate(&self, bytes: usize) -> Result<Box<dyn Region>, DeviceError> {
        let mut state = lock(&self.state);
        if state.recording_here().is_some() {
            return Err(DeviceError::Failed(
                "an allocation while a graph is recorded".into(),
            ));
        }
        if state.allocated + bytes > state.emulation.memory_bytes {
            return Err(DeviceError::OutOfMemory { bytes });
        }
        let memory = Memory::new(bytes).ok_or(DeviceError::OutOfMemory { bytes })?;
        state.allocated += bytes;
        state.counters.allocations += 1;
        Ok(Box::new(DeviceMemory {
            memory,
            state: Arc::clone(&self.state),
        }))
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<Box<dyn PinnedRegion>, DeviceError> {
        let memory = Memory::new(bytes).ok_or(DeviceError::OutOfMemory { bytes })?;
        Ok(Box::new(memory))
    }

    fn signal(&self, _timed: bool) -> Result<Box<dyn Signal>, DeviceError> {
        Ok(Box::new(Point {
            state: Arc::clone(&self.state),
            target: Mutex::new((0, None)),
        }))
    }

    unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize) -> Result<(), DeviceError> {
        self.enqueue(Work::Copy {
            to,
            from: from as u64,
            bytes,
        })
    }

    unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize) -> Result<(), DeviceError> {
        self.enqueue(Work::Copy {
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
        self.enqueue(Work::Kernel(Kernel {
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
        self.enqueue(Work::Product {
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
        let mut state = lock(&self.state);
        if let Some(error) = &state.lost {
            return Err(error.clone());
        }
        if state.recording.is_some() {
            return Err(DeviceError::Failed("a recording is in progress".into()));
        }
        state.recording = Some((std::thread::current().id(), Vec::new()));
        Ok(())
    }

    fn is_capturing(&self) -> bool {
        lock(&self.state).recording_here().is_some()
    }

    fn end_capture(&self) -> Result<Box<dyn Captured>, DeviceError> {
        let mut state = lock(&self.state);
        state.counters.captures += 1;
        let work = state.recording.take().map(|(_, work)| work);
        let work = work.unwrap_or_default();
        drop(state);
        Ok(Box::new(Recording {
            work: Arc::new(work),
            emulator: Self {
                facts: self.facts.clone(),
                state: Arc::clone(&self.state),
            },
        }))
    }

    fn allow_overlap(&self, allowed: bool) {
        lock(&self.state).overlaps = allowed;
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        let mut state = lock(&self.state);
        let target = state.enqueued;
        state.run_until(target)
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        let state = lock(&self.state);
        Ok(state.emulation.memory_bytes - state.allocated)
    }

    fn counters(&self) -> Counters {
        lock(&self.state).counters
    }
}

#[derive(Debug)]
struct Recording {
    work: Arc<Vec<Work>>,
    emulator: Emulator,
}

impl Captured for Recording {
    fn replay(&self) -> Result<(), DeviceError> {
        self.emulator.enqueue(Work::Graph(Arc::clone(&self.work)))
    }
}

#[derive(Debug)]
struct DeviceMemory {
    memory: Memory,
    state: Arc<Mutex<State>>,
}

impl Region for DeviceMemory {
    fn address(&self) -> u64 {
        self.memory.pointer() as u64
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        // Enqueued work may use the memory. A lost device does no more work.
        let target = state.enqueued;
        let _ = state.run_until(target);
        state.allocated -= self.memory.bytes();
    }
}
