//! Loading a model into the engine that was asked for.

use std::time::{Duration, Instant};

use intentd_kernels::{Capacity, Device, DeviceError};

use super::batch::RaggedBatch;
use super::candle::Candle;
use super::choice::{self, Build, ChosenDevice};
use super::cpu::{Cpu, CpuOptions};
use super::cuda::{Cuda, CudaOptions};
use super::error::{EngineError, LoadError};
use super::interface::Engine;
use super::options::{DeviceChoice, DeviceRequest, EngineKind, EngineOptions};
use super::reference::Reference;
use intentd_model::{Checkpoint, CheckpointError, Text, TooLong};

/// A model that is ready to run.
#[derive(Debug)]
pub struct Loaded {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// The chosen device and the reason, for people.
    pub place: String,
    /// Durations of the phases of loading, in order.
    pub phases: Vec<(&'static str, Duration)>,
}

/// Chooses a device, prepares `checkpoint` for it and runs one forward pass as a self-test.
///
/// # Errors
/// [`LoadError::Device`] when the requested device is not available, [`LoadError::Checkpoint`] when
/// a tensor cannot be read or a logit of the self-test is not finite.
pub fn load(checkpoint: &Checkpoint, options: EngineOptions) -> Result<Loaded, LoadError> {
    let start = Instant::now();
    let chosen = choice::choose(options.request(), Build::THIS, Device::cuda)?;
    let device = start.elapsed();
    let place = chosen.reason.clone();
    let mut engine = build(checkpoint, options, chosen)?;
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
        place,
        phases,
    })
}

fn build(
    checkpoint: &Checkpoint,
    options: EngineOptions,
    chosen: ChosenDevice<Device>,
) -> Result<Box<dyn Engine>, LoadError> {
    let dtype = chosen.dtype;
    Ok(match (options.kind, chosen.cuda) {
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
            let options = CpuOptions {
                dtype,
                threads: options.threads,
                isa: options.cpu_isa,
            };
            Box::new(Cpu::load(checkpoint, options)?)
        }
        (EngineKind::Candle, _) => Box::new(Candle::cpu(checkpoint)?),
        (EngineKind::Reference, _) => Box::new(Reference::load(checkpoint)?),
    })
}

/// The device on which the native engine would run, the reason, and the type, for people.
///
/// # Errors
/// Never for `auto`; as [`load`] for other choices.
pub fn place(device: DeviceChoice) -> Result<String, DeviceError> {
    let request = DeviceRequest {
        kind: EngineKind::Native,
        device,
        dtype: None,
    };
    let ChosenDevice {
        cuda,
        dtype,
        reason,
    } = choice::choose(request, Build::THIS, Device::cuda)?;
    let dtype = dtype.name();
    let Some((_, device)) = cuda else {
        return Ok(format!("{reason} ({dtype})"));
    };
    let facts = device.facts();
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    Ok(format!(
        "{reason}: {}, {:.1} of {:.1} GiB free ({dtype})",
        facts.name,
        gib(device.free_bytes()?),
        gib(facts.memory_bytes)
    ))
}

/// Runs one forward pass, so that damaged weights are found before the first request.
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
