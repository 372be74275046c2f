//! Ragged batches of token ids to logits.
//!
//! An [`Engine`] is owned by one thread. It takes batches in order and gives their logits back
//! in the same order; how many may be under way at once is the engine's to say
//! ([`Engine::depth`]): one for an engine that computes on the caller's thread, two for a device
//! that can copy the next batch while it runs one. [`Reference`] defines what is correct;
//! [`Cpu`], [`Cuda`] and [`Candle`] are tested against it.

mod batch;
mod candle;
mod choice;
mod cpu;
mod cuda;
mod reference;

use std::time::{Duration, Instant};

pub use batch::{Logits, RaggedBatch};
pub use candle::Candle;
use choice::{Build, Place};
pub use intentd_kernels::cpu::IsaLimit;

pub use choice::{DeviceChoice, Dtype, EngineKind, EngineOptions};
pub use cpu::{Cpu, CpuOptions};
pub use cuda::{Cuda, CudaOptions};
pub use reference::Reference;

use intentd_kernels::{Capacity, Device, DeviceError};

use crate::model::{Checkpoint, CheckpointError, Text, TooLong};

/// A batch that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The device has no memory for a batch of this size; a smaller one may pass.
    #[error("out of memory for {tokens} tokens")]
    OutOfMemory {
        /// Tokens of the batch.
        tokens: usize,
    },
    /// This batch failed; the engine is as good as before.
    #[error("the batch failed: {0}")]
    Batch(String),
    /// The engine cannot be used any more.
    #[error("the engine is lost: {0}")]
    Lost(String),
}

/// Why a model could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Something that runs a BERT classifier.
pub trait Engine: Send + std::fmt::Debug {
    /// What runs where, for logs and `inspect`: `cpu f32, 2 threads`.
    fn description(&self) -> String;

    /// The type that it computes in, as PyTorch calls it.
    fn dtype(&self) -> &'static str {
        "float32"
    }

    /// How many batches may be submitted and not yet collected.
    fn depth(&self) -> usize {
        1
    }

    /// The largest batch that can be submitted, where the engine knows of one.
    fn largest(&self) -> Option<Capacity> {
        None
    }

    /// Whether a device computes, which may hang; on the caller's thread a batch takes as long as it
    /// takes.
    fn is_on_device(&self) -> bool {
        self.depth() > 1
    }

    /// Whether a batch is computed by the calling thread and no other, so that what it takes is this
    /// thread's CPU time, whatever else the machine is busy with.
    fn computes_alone(&self) -> bool {
        false
    }

    /// Takes a batch. The engine has copied what it needs when this returns, and may return
    /// before anything is computed. Called with at most `depth() - 1` batches under way.
    ///
    /// # Errors
    /// See [`EngineError`]; nothing is then added to the batches under way.
    fn submit(&mut self, batch: &RaggedBatch) -> Result<(), EngineError>;

    /// Waits for the oldest batch under way and gives its logits, `[sequences, labels]`.
    ///
    /// # Errors
    /// See [`EngineError`]; the batch is then no longer under way.
    fn collect(&mut self) -> Result<Logits, EngineError>;

    /// Whether [`collect`](Self::collect) would return at once. An engine that computes on the
    /// caller's thread has nothing to wait for.
    ///
    /// # Errors
    /// [`EngineError::Lost`] when the engine cannot be used any more.
    fn is_done(&mut self) -> Result<bool, EngineError> {
        Ok(true)
    }

    /// Time that the device has spent on the batches collected so far, for an engine with a clock
    /// on its device.
    fn device_time(&self) -> Option<Duration> {
        None
    }

    /// Work that the engine wants done off the requests' path, such as recording a graph; called
    /// after a batch has been answered. Takes a few milliseconds at most.
    ///
    /// # Errors
    /// [`EngineError::Lost`] when the engine cannot be used any more.
    fn upkeep(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// How long the parts of loading took, in their order.
    fn startup_phases(&self) -> &[(&'static str, Duration)] {
        &[]
    }

    /// One batch from start to end, with nothing else under way.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn forward(&mut self, batch: &RaggedBatch) -> Result<Logits, EngineError> {
        self.submit(batch)?;
        self.collect()
    }
}

/// A model that is ready to run, and where.
#[derive(Debug)]
pub struct Loaded {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// Which device was chosen and why, for people.
    pub place: String,
    /// How long the parts of it took, in their order.
    pub phases: Vec<(&'static str, Duration)>,
}

/// Chooses a device, prepares `checkpoint` for it and lets it compute once.
///
/// # Errors
/// [`LoadError::Device`] when what was asked for is not to be had, [`LoadError::Checkpoint`] when
/// a tensor cannot be read or the model's answer is not a number.
pub fn load(checkpoint: &Checkpoint, options: EngineOptions) -> Result<Loaded, LoadError> {
    let EngineOptions { kind, threads, .. } = options;
    let asked = (kind, options.device, options.dtype);
    let start = Instant::now();
    let Place { cuda, dtype, why } = choice::choose(asked, Build::THIS, Device::cuda)?;
    let device = start.elapsed();
    let mut engine: Box<dyn Engine> = match (kind, cuda) {
        (EngineKind::Native, Some((_, device))) => {
            let largest = Capacity {
                tokens: options.batch_tokens_max,
                sequences: options.batch_sequences_max,
            };
            let options = CudaOptions {
                dtype: dtype.on_cuda().ok_or_else(|| {
                    DeviceError::Unavailable(format!("no {} on a GPU", dtype.name()))
                })?,
                largest,
                graphs_max: options.graphs_max,
            };
            Box::new(Cuda::load(checkpoint, device, options)?)
        }
        #[cfg(feature = "candle-cuda")]
        (EngineKind::Candle, Some((ordinal, _))) => Box::new(Candle::cuda(checkpoint, ordinal)?),
        (EngineKind::Native, None) => {
            let isa = options.cpu_isa;
            Box::new(Cpu::load(
                checkpoint,
                CpuOptions {
                    dtype,
                    threads,
                    isa,
                },
            )?)
        }
        (EngineKind::Candle, _) => Box::new(Candle::cpu(checkpoint)?),
        (EngineKind::Reference, _) => Box::new(Reference::load(checkpoint)?),
    };
    let mut phases = vec![("device", device)];
    match engine.startup_phases() {
        [] => phases.push(("weights", start.elapsed() - device)),
        parts => phases.extend_from_slice(parts),
    }
    let start = Instant::now();
    self_test(checkpoint, &mut *engine)?;
    phases.push(("self_test", start.elapsed()));
    Ok(Loaded {
        engine,
        place: why,
        phases,
    })
}

/// Where `--device auto` lets the native engine run on this machine, why there, and in which type.
///
/// # Errors
/// Never for `auto`; as [`load`] for other choices.
pub fn place(device: DeviceChoice) -> Result<String, DeviceError> {
    let asked = (EngineKind::Native, device, None);
    let Place { cuda, dtype, why } = choice::choose(asked, Build::THIS, Device::cuda)?;
    let dtype = dtype.name();
    let Some((_, device)) = cuda else {
        return Ok(format!("{why} ({dtype})"));
    };
    let facts = device.facts();
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    Ok(format!(
        "{why}: {}, {:.1} of {:.1} GiB free ({dtype})",
        facts.name,
        gib(device.free_bytes()?),
        gib(facts.memory_bytes)
    ))
}

/// One forward pass, so that damaged weights show before the first client comes.
fn self_test(checkpoint: &Checkpoint, engine: &mut dyn Engine) -> Result<(), LoadError> {
    let invalid = |found: String| {
        CheckpointError::invalid(&checkpoint.origin, "(self-test)", "finite logits", found)
    };
    let text = Text::Single("a".to_owned());
    let encoded = checkpoint.tokenizer.encode(&text, TooLong::Truncate);
    let encoded = encoded.map_err(|error| invalid(error.to_string()))?;
    let mut batch = RaggedBatch::new();
    batch.push(&encoded.ids, &encoded.type_ids);
    let logits = engine.forward(&batch).map_err(|error| match error {
        EngineError::Lost(what) => LoadError::Device(DeviceError::Lost(what)),
        other => invalid(other.to_string()).into(),
    })?;
    match logits.rows().flatten().find(|logit| !logit.is_finite()) {
        Some(logit) => Err(invalid(format!(
            "{logit}; the weights may be damaged, or too large for f16"
        ))
        .into()),
        None => Ok(()),
    }
}
