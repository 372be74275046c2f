//! The CUDA engine: our own kernels, the library's products, and graphs of both.
//!
//! One stream does everything in order: a batch's copy in, its pass, its copy out. Two batches may
//! be enqueued, each with its own pinned memory on either side, so the device goes from one to the
//! next without the host. All three of a bucket (a shape that batches are rounded up to) run launch
//! by launch at first; once its batch is answered its products are tuned and everything is recorded
//! as a graph for either pinned memory, which every later batch of the bucket replays. How much of
//! the bucket is real the kernels read on the device.

mod buckets;
mod forward;
mod graphs;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use intentd_kernels::{
    Capacity, Device, DeviceError, Dtype, InputError, Inputs, Limits, Mark, Pinned, ProductShape,
    TokenIds,
};

use self::forward::{Arena, Forward};
use self::graphs::Graphs;
use self::weights::Model;
use super::{Engine, EngineError, LoadError, Logits, RaggedBatch};
use crate::model::Checkpoint;

/// Batches enqueued at once: one that runs and one that waits behind it.
const DEPTH: usize = 2;

/// Products are only tuned and graphs only recorded while so much device memory is free: what these
/// take is the driver's secret, some hundred kilobytes each, and running out would fail batches.
const FREE_BYTES_MIN: usize = 256 << 20;

/// Settings of a [`Cuda`] engine.
#[derive(Debug, Clone, Copy)]
pub struct CudaOptions {
    /// Type of weights and activations; sums are f32 whatever it is.
    pub dtype: Dtype,
    /// The largest batch. Buffers are made for it at load.
    pub largest: Capacity,
    /// Buckets that are kept as graphs at once; 0 runs everything launch by launch.
    pub graphs_max: usize,
}

/// Our own BERT forward pass on an NVIDIA GPU.
#[derive(Debug)]
pub struct Cuda {
    forward: Forward,
    largest: Capacity,
    inputs: Inputs,
    slots: [Slot; DEPTH],
    next: usize,
    under_way: VecDeque<UnderWay>,
    graphs: Graphs,
    tuned: HashSet<ProductShape>,
    /// What the last batch of a bucket took on the device.
    expected: HashMap<Capacity, Duration>,
    phases: Vec<(&'static str, Duration)>,
    device_time: Duration,
}

/// Pinned memory of a batch on its way.
#[derive(Debug)]
struct Slot {
    input: Pinned,
    logits: Pinned,
    start: Mark,
    end: Mark,
}

#[derive(Debug)]
struct UnderWay {
    slot: usize,
    bucket: Capacity,
    sequences: usize,
    tokens: usize,
}

impl Cuda {
    /// Copies the weights onto `device` and makes the buffers.
    ///
    /// When the buffers for `options.largest` do not fit, the largest batch is halved until they
    /// do; larger ones fail with [`EngineError::OutOfMemory`] then.
    ///
    /// # Errors
    /// When a tensor cannot be read, when the model has a shape that the kernels do not take, or
    /// when the device has no room for it.
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
        let model = Model::load(checkpoint, &device, options.dtype)?;
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
        let (arena, inputs, slots) = loop {
            let limits = Limits {
                words: config.vocab_size,
                types: config.type_vocab_size,
                positions: longest,
            };
            match buffers(&device, &model, largest, limits) {
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
        // What loading has used and left is for graphs and the library's code.
        device.trim()?;
        phase("buffers");
        Ok(Self {
            forward: Forward {
                device,
                model,
                arena,
            },
            largest,
            inputs,
            slots,
            next: 0,
            under_way: VecDeque::with_capacity(DEPTH),
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

    /// Device time of a batch's kernels without its copies, from one replay to the next, the mean of
    /// `runs`. Nothing may be under way.
    ///
    /// # Errors
    /// See [`EngineError`]; [`EngineError::Batch`] when something is under way.
    pub fn time_kernels(
        &mut self,
        batch: &RaggedBatch,
        runs: u32,
    ) -> Result<Duration, EngineError> {
        if !self.under_way.is_empty() {
            return Err(EngineError::Batch("batches are under way".to_owned()));
        }
        // Lays the batch out on the device, and has the library choose its algorithms.
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
            // The graph has to live until its last replay is done, whatever went wrong.
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
            None => whole(&self.forward, &self.inputs, bucket, slot)?,
        }
        slot.end.record()?;
        Ok(())
    }

    /// One step towards the graphs of `bucket`: a product tuned, or one of the recordings.
    fn prepare(&mut self, bucket: Capacity) -> Result<(), DeviceError> {
        let device = &self.forward.device;
        let products = self.forward.products(bucket);
        if device.free_bytes()? < FREE_BYTES_MIN {
            return Err(DeviceError::OutOfMemory {
                bytes: FREE_BYTES_MIN,
            });
        }
        if let Some(product) = products.iter().find(|p| !self.tuned.contains(&p.shape)) {
            // Overwrites activations, which belong to no batch: those enqueued come before in the
            // stream or write theirs anew.
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
        let graph = device.capture(|| whole(&self.forward, &self.inputs, bucket, slot))?;
        self.graphs.add(bucket, graph);
        Ok(())
    }
}

/// A batch of a bucket from pinned memory to pinned memory.
fn whole(
    forward: &Forward,
    inputs: &Inputs,
    bucket: Capacity,
    slot: &mut Slot,
) -> Result<(), DeviceError> {
    inputs.upload(&forward.device, bucket, &mut slot.input)?;
    forward.enqueue(bucket, &inputs.placed(bucket))?;
    let logits = &forward.arena.logits;
    let logits = logits.slice(0..bucket.sequences * forward.model.labels);
    forward.device.download(&logits, &mut slot.logits)
}

/// How long to stay awake for a batch that should take `expected`. Beyond a millisecond the wake-up
/// is a small part of it, and a core is worth more.
fn awake(expected: Option<Duration>) -> Duration {
    const AWAKE_MAX: Duration = Duration::from_millis(1);
    const MARGIN: Duration = Duration::from_micros(100);
    match expected {
        Some(expected) if expected <= AWAKE_MAX => expected * 3 / 2 + MARGIN,
        Some(_) => Duration::ZERO,
        None => AWAKE_MAX / 5,
    }
}

fn buffers(
    device: &Device,
    model: &Model,
    largest: Capacity,
    limits: Limits,
) -> Result<(Arena, Inputs, [Slot; DEPTH]), DeviceError> {
    let arena = Arena::new(device, model, largest)?;
    let inputs = Inputs::new(device, largest, limits)?;
    let slot = || -> Result<Slot, DeviceError> {
        Ok(Slot {
            // A smaller bucket never has more words: all its parts are smaller.
            input: device.pinned(largest.words() * Dtype::U32.bytes())?,
            logits: device.pinned(largest.sequences * model.labels * Dtype::F32.bytes())?,
            start: device.mark()?,
            end: device.mark()?,
        })
    };
    Ok((arena, inputs, [slot()?, slot()?]))
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
        self.under_way.push_back(UnderWay {
            slot: self.next,
            bucket,
            sequences: batch.sequences(),
            tokens,
        });
        self.next = (self.next + 1) % DEPTH;
        Ok(())
    }

    fn collect(&mut self) -> Result<Logits, EngineError> {
        let Some(batch) = self.under_way.pop_front() else {
            return Err(EngineError::Batch("nothing was submitted".to_owned()));
        };
        let labels = self.forward.model.labels;
        let slot = &self.slots[batch.slot];
        let awake = awake(self.expected.get(&batch.bucket).copied());
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
        let Some(batch) = self.under_way.front() else {
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
