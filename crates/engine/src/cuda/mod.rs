//! The CUDA engine: our own kernels, products of cuBLASLt, and graphs of both.
//!
//! One stream runs everything in order: copy in, forward pass, copy out. Two batches may be
//! enqueued, each with its own pinned memory for input and output, so the device continues with the next one without
//! the host. Batches are rounded up to buckets. The first batch of a bucket runs launch by launch. After it is
//! answered, its products are tuned, and copy in, pass and copy out are recorded as one graph per slot of pinned
//! memory; every later batch of the bucket replays it. The kernels read on the device how much of the bucket is used.

mod buckets;
mod forward;
mod graphs;
mod slots;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use intentd_kernels::{
    Capacity, Device, DeviceError, Dtype, InputError, Inputs, Limits, ProductShape, TokenIds,
};

use self::forward::Forward;
use self::graphs::Graphs;
use self::slots::{BatchBuffers, DEPTH, PinnedSlot};
use self::weights::DeviceModel;
use super::batch::{Logits, RaggedBatch};
use super::error::{EngineError, LoadError};
use super::interface::Engine;
use intentd_model::Checkpoint;

/// Products are tuned and graphs recorded only while this much device memory is free. The driver does not report
/// what they take (some hundred kilobytes each), and running out of memory would fail batches.
const FREE_BYTES_MIN: usize = 256 << 20;

/// Settings of a [`Cuda`] engine.
#[derive(Debug, Clone, Copy)]
pub struct CudaOptions {
    /// Type of weights and activations. Sums are always f32.
    pub dtype: Dtype,
    /// The largest batch. Its buffers are allocated at load.
    pub largest: Capacity,
    /// Most buckets kept as graphs. With 0, everything runs launch by launch.
    pub graphs_max: usize,
}

/// The CUDA engine.
#[derive(Debug)]
pub struct Cuda {
    forward: Forward,
    largest: Capacity,
    inputs: Inputs,
    slots: [PinnedSlot; DEPTH],
    next: usize,
    in_flight: VecDeque<InFlight>,
    graphs: Graphs,
    tuned: HashSet<ProductShape>,
    /// Device time of the last batch of each bucket.
    expected: HashMap<Capacity, Duration>,
    phases: Vec<(&'static str, Duration)>,
    device_time: Duration,
}

/// A submitted batch.
#[derive(Debug)]
struct InFlight {
    slot: usize,
    bucket: Capacity,
    sequences: usize,
    tokens: usize,
}

impl Cuda {
    /// Copies the weights to `device` and allocates the buffers.
    ///
    /// If the buffers for `options.largest` do not fit, the largest batch is halved until they
    /// do. Larger batches then fail with [`EngineError::OutOfMemory`].
    ///
    /// # Errors
    /// When a tensor cannot be read, the kernels do not support the model's shape, or
    /// the device has too little memory.
    pub fn load(
        checkpoint: &Checkpoint,
        device: Device,
        options: CudaOptions,
    ) -> Result<Self, LoadError> {
        check_dtype(&device, options.dtype)?;
        let mut phases = Vec::new();
        let mut start = Instant::now();
        let mut phase = |name| {
            phases.push((
                name,
                std::mem::replace(&mut start, Instant::now()).elapsed(),
            ))
        };
        let model = DeviceModel::load(checkpoint, &device, options.dtype)?;
        phase("weights");
        let config = &checkpoint.config;
        let longest = config.max_positions;
        let mut largest = Capacity {
            tokens: options.largest.tokens.max(longest),
            sequences: options
                .largest
                .sequences
                .min(options.largest.tokens.max(longest)),
        };
        let limits = Limits {
            words: config.vocab_size,
            types: config.type_vocab_size,
            positions: longest,
        };
        let buffers = loop {
            match BatchBuffers::new(&device, &model, largest, limits) {
                Err(DeviceError::OutOfMemory { bytes }) if largest.tokens > longest => {
                    tracing::warn!(
                        bytes,
                        tokens = largest.tokens,
                        "no device memory for batches of this size; halving it"
                    );
                    largest.tokens = (largest.tokens / 2).max(longest);
                    largest.sequences = largest.sequences.min(largest.tokens);
                    device.trim()?;
                }
                other => break other?,
            }
        };
        // Leaves the memory that loading has freed to graphs and the library's code.
        device.trim()?;
        phase("buffers");
        Ok(Self {
            forward: Forward {
                device,
                model,
                arena: buffers.arena,
            },
            largest,
            inputs: buffers.inputs,
            slots: buffers.slots,
            next: 0,
            in_flight: VecDeque::with_capacity(DEPTH),
            graphs: Graphs::new(options.graphs_max, DEPTH),
            tuned: HashSet::new(),
            expected: HashMap::new(),
            phases,
            device_time: Duration::ZERO,
        })
    }

    /// The device it runs on.
    pub fn device(&self) -> &Device {
        &self.forward.device
    }

    /// Number of buckets recorded and kept.
    pub fn graphs(&self) -> usize {
        self.graphs.len()
    }

    /// Mean device time of a batch's kernels without its copies, over `runs` successive replays. Nothing may be in
    /// flight.
    ///
    /// # Errors
    /// See [`EngineError`]. [`EngineError::Batch`] when a batch is in flight.
    pub fn time_kernels(
        &mut self,
        batch: &RaggedBatch,
        runs: u32,
    ) -> Result<Duration, EngineError> {
        if !self.in_flight.is_empty() {
            return Err(EngineError::Batch("batches are under way".to_owned()));
        }
        // Lays the batch out on the device and lets the library choose its algorithms.
        self.forward(batch)?;
        let tokens = batch.tokens();
        let bucket = buckets::bucket(tokens, batch.sequences(), self.largest);
        let bucket = bucket.ok_or(EngineError::OutOfMemory { tokens })?;
        let measure = || -> Result<Duration, DeviceError> {
            let device = &self.forward.device;
            let placed = self.inputs.placed(bucket);
            let graph = device.capture(|| self.forward.enqueue(bucket, &placed))?;
            let replays = || -> Result<Duration, DeviceError> {
                device.replay(&graph, &mut [])?;
                let start = device.mark()?;
                for _ in 0..runs {
                    device.replay(&graph, &mut [])?;
                }
                start.until(&device.mark()?)
            };
            let time = replays();
            // The graph must outlive its last replay, also after an error.
            device.synchronize()?;
            Ok(time? / runs.max(1))
        };
        measure().map_err(|error| engine_error(error, tokens))
    }

    fn enqueue(&mut self, batch: &RaggedBatch, bucket: Capacity) -> Result<(), InputError> {
        let device = &self.forward.device;
        let slot = &mut self.slots[self.next];
        let ids = TokenIds {
            ids: batch.ids(),
            type_ids: batch.type_ids(),
        };
        let lengths = batch.ranges().map(|range| range.len());
        self.inputs.pack(bucket, ids, lengths, &mut slot.input)?;
        slot.start.record()?;
        match self.graphs.get(bucket) {
            Some(graphs) => {
                let pinned = &mut [&mut slot.input, &mut slot.logits];
                device.replay(&graphs[self.next], pinned)?;
            }
            None => slots::run(&self.forward, &self.inputs, bucket, slot)?,
        }
        slot.end.record()?;
        Ok(())
    }

    /// Does one step towards the graphs of `bucket`: tunes a product or records a graph.
    fn prepare(&mut self, bucket: Capacity) -> Result<(), DeviceError> {
        let device = &self.forward.device;
        let products = self.forward.products(bucket);
        if device.free_bytes()? < FREE_BYTES_MIN {
            return Err(DeviceError::OutOfMemory {
                bytes: FREE_BYTES_MIN,
            });
        }
        if let Some(product) = products.iter().find(|p| !self.tuned.contains(&p.shape)) {
            // Overwrites activations. No batch needs them: enqueued batches come earlier in the stream, and later
            // ones write their own.
            if device.tune(product)? {
                self.tuned.insert(product.shape);
            }
            return Ok(());
        }
        drop(products);
        if self.graphs.is_full() {
            device.synchronize()?;
            self.graphs.evict();
        }
        let slot = &mut self.slots[self.graphs.recorded()];
        let graph = device.capture(|| slots::run(&self.forward, &self.inputs, bucket, slot))?;
        self.graphs.add(bucket, graph);
        Ok(())
    }
}

fn check_dtype(device: &Device, dtype: Dtype) -> Result<(), DeviceError> {
    let facts = device.facts();
    if dtype == Dtype::Bf16 && facts.compute_capability < (8, 0) {
        let (major, minor) = facts.compute_capability;
        return Err(DeviceError::Unavailable(format!(
            "--dtype bf16 needs compute capability 8.0 (Ampere), and {} has {major}.{minor}; take \
             --dtype f16",
            facts.name
        )));
    }
    Ok(())
}

impl Engine for Cuda {
    fn dtype(&self) -> &'static str {
        match self.forward.model.dtype {
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
            Dtype::F32 | Dtype::U32 => "float32",
        }
    }

    fn description(&self) -> String {
        let facts = self.forward.device.facts();
        let (major, minor) = facts.compute_capability;
        format!(
            "cuda {}, {} (compute capability {major}.{minor}), up to {} tokens a batch",
            self.forward.model.dtype.name(),
            facts.name,
            self.largest.tokens
        )
    }

    fn depth(&self) -> usize {
        DEPTH
    }

    fn largest(&self) -> Option<Capacity> {
        Some(self.largest)
    }

    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError> {
        let tokens = batch.tokens();
        let bucket = buckets::bucket(tokens, batch.sequences(), self.largest);
        let bucket = bucket.ok_or(EngineError::OutOfMemory { tokens })?;
        self.enqueue(batch, bucket).map_err(|error| match error {
            InputError::Invalid(what) => EngineError::Batch(what),
            InputError::Device(error) => engine_error(error, tokens),
        })?;
        self.in_flight.push_back(InFlight {
            slot: self.next,
            bucket,
            sequences: batch.sequences(),
            tokens,
        });
        self.next = (self.next + 1) % DEPTH;
        Ok(())
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        let Some(batch) = self.in_flight.pop_front() else {
            return Err(EngineError::Batch("nothing was submitted".to_owned()));
        };
        let labels = self.forward.model.labels;
        let slot = &self.slots[batch.slot];
        let awake = slots::awake(self.expected.get(&batch.bucket).copied());
        let read = || -> Result<(Vec<f32>, Duration), DeviceError> {
            slot.logits.wait_awake(awake)?;
            let values = slot.logits.read_f32()?[..batch.sequences * labels].to_vec();
            Ok((values, slot.start.until(&slot.end)?))
        };
        let (values, spent) = read().map_err(|error| engine_error(error, batch.tokens))?;
        self.device_time += spent;
        self.expected.insert(batch.bucket, spent);
        Ok(Logits::new(values, labels))
    }

    fn is_done(&mut self) -> Result<bool, EngineError> {
        let Some(batch) = self.in_flight.front() else {
            return Ok(true);
        };
        let done = self.slots[batch.slot].logits.is_ready();
        done.map_err(|error| engine_error(error, batch.tokens))
    }

    fn device_time(&self) -> Option<Duration> {
        Some(self.device_time)
    }

    fn upkeep(&mut self) -> Result<(), EngineError> {
        let Some(bucket) = self.graphs.next_wanted() else {
            return Ok(());
        };
        match self.prepare(bucket) {
            Ok(()) => Ok(()),
            Err(DeviceError::Lost(what)) => Err(EngineError::Lost(what)),
            Err(error) => {
                tracing::warn!(?bucket, %error, "no graph for batches of this size");
                self.graphs.give_up(bucket);
                Ok(())
            }
        }
    }

    fn startup_phases(&self) -> &[(&'static str, Duration)] {
        &self.phases
    }
}

fn engine_error(error: DeviceError, tokens: usize) -> EngineError {
    match error {
        DeviceError::OutOfMemory { .. } => EngineError::OutOfMemory { tokens },
        DeviceError::Lost(what) | DeviceError::Unavailable(what) => EngineError::Lost(what),
        DeviceError::Failed(what) => EngineError::Batch(what),
    }
}
