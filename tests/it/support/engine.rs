//! Engines that wait, fail or remember, around a real one.

use std::sync::{Arc, Condvar, Mutex};

use intentd::engine::{Engine, EngineError, Logits, RaggedBatch};

/// A gate that holds an engine back, and the batches that came through it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    waiting: bool,
    seen: Vec<RaggedBatch>,
}

impl Gate {
    pub(crate) fn closed() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Whether a batch stands before the gate.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state.lock().unwrap().waiting
    }

    /// Batches that reached the engine, the one before the gate included.
    pub(crate) fn seen(&self) -> Vec<RaggedBatch> {
        self.state.lock().unwrap().seen.clone()
    }
}

/// An engine behind a gate.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) gate: Arc<Gate>,
}

impl Engine for Gated {
    fn description(&self) -> String {
        format!("gated {}", self.engine.description())
    }

    fn is_on_device(&self) -> bool {
        true
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        let mut state = self.gate.state.lock().unwrap();
        state.seen.push(batch.clone());
        state.waiting = true;
        while !state.open {
            state = self.gate.changed.wait(state).unwrap();
        }
        state.waiting = false;
        drop(state);
        self.engine.submit(batch)
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        self.engine.collect()
    }
}

/// An engine that does what `fault` says with each batch before the real one gets it.
pub(crate) struct Faulty<F> {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) fault: F,
}

impl<F> std::fmt::Debug for Faulty<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl<F: FnMut(&RaggedBatch) -> Result<(), EngineError> + Send> Engine for Faulty<F> {
    fn description(&self) -> String {
        format!("faulty {}", self.engine.description())
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        (self.fault)(batch)?;
        self.engine.submit(batch)
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        self.engine.collect()
    }
}

/// An engine that runs one batch ahead, as a device does: results wait until they are collected.
#[derive(Debug)]
pub(crate) struct TwoDeep {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) ahead_max: Arc<std::sync::atomic::AtomicUsize>,
    pub(crate) under_way: usize,
}

impl Engine for TwoDeep {
    fn description(&self) -> String {
        format!("two deep {}", self.engine.description())
    }

    fn depth(&self) -> usize {
        2
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        self.under_way += 1;
        self.ahead_max
            .fetch_max(self.under_way, std::sync::atomic::Ordering::Relaxed);
        self.engine.submit(batch)
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        self.under_way -= 1;
        self.engine.collect()
    }
}

/// An engine whose logits are not numbers.
#[derive(Debug)]
pub(crate) struct Nan {
    pub(crate) engine: Box<dyn Engine>,
}

impl Engine for Nan {
    fn description(&self) -> String {
        format!("nan {}", self.engine.description())
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        self.engine.submit(batch)
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        let logits = self.engine.collect()?;
        let labels = logits.row(0).len();
        Ok(Logits::new(
            vec![f32::NAN; logits.rows().len() * labels],
            labels,
        ))
    }
}

/// A device under a test's control: it has two batches at most and is done with one only when
/// told so.
#[derive(Debug)]
pub(crate) struct Manual {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) device: Arc<ManualDevice>,
}

/// What the test sees and says.
#[derive(Debug, Default)]
pub(crate) struct ManualDevice {
    /// Sizes of the batches submitted, in texts.
    submitted: Mutex<Vec<usize>>,
    /// Batches that the device may be done with.
    allowed: Mutex<usize>,
    collected: std::sync::atomic::AtomicUsize,
}

impl ManualDevice {
    pub(crate) fn submitted(&self) -> Vec<usize> {
        self.submitted.lock().unwrap().clone()
    }

    /// The device gets done with so many batches more.
    pub(crate) fn finish(&self, batches: usize) {
        *self.allowed.lock().unwrap() += batches;
    }

    fn is_done(&self) -> bool {
        let collected = self.collected.load(std::sync::atomic::Ordering::Relaxed);
        *self.allowed.lock().unwrap() > collected
    }
}

impl Engine for Manual {
    fn description(&self) -> String {
        format!("manual {}", self.engine.description())
    }

    fn depth(&self) -> usize {
        2
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        self.device
            .submitted
            .lock()
            .unwrap()
            .push(batch.sequences());
        self.engine.submit(batch)
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        while !self.device.is_done() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.device
            .collected
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.engine.collect()
    }

    fn is_done(&mut self) -> Result<bool, EngineError> {
        Ok(self.device.is_done())
    }
}

/// An engine that fails at its upkeep.
#[derive(Debug)]
pub(crate) struct BadUpkeep {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) fault: fn() -> Result<(), EngineError>,
}

impl Engine for BadUpkeep {
    fn description(&self) -> String {
        format!("bad upkeep of {}", self.engine.description())
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        self.engine.submit(batch)
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        self.engine.collect()
    }

    fn upkeep(&mut self) -> Result<(), EngineError> {
        (self.fault)()
    }
}
