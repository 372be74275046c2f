//! Memory of the batches in flight: pinned memory for each, device buffers for all.

use std::time::Duration;

use intentd_kernels::{Capacity, Device, DeviceError, Dtype, Inputs, Limits, Mark, Pinned};

use super::forward::{Arena, Forward};
use super::weights::DeviceModel;

/// Batches enqueued at a time: one that runs and one that waits behind it.
pub(super) const DEPTH: usize = 2;

/// Pinned memory and time marks of one batch in flight.
#[derive(Debug)]
pub(super) struct PinnedSlot {
    pub(super) input: Pinned,
    pub(super) logits: Pinned,
    pub(super) start: Mark,
    pub(super) end: Mark,
}

/// All buffers whose size depends on the largest batch.
#[derive(Debug)]
pub(super) struct BatchBuffers {
    pub(super) arena: Arena,
    pub(super) inputs: Inputs,
    pub(super) slots: [PinnedSlot; DEPTH],
}

impl BatchBuffers {
    /// Allocates buffers for batches of up to `largest`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when they do not fit.
    pub(super) fn new(
        device: &Device,
        model: &DeviceModel,
        largest: Capacity,
        limits: Limits,
    ) -> Result<Self, DeviceError> {
        let arena = Arena::new(device, model, largest)?;
        let inputs = Inputs::new(device, largest, limits)?;
        let slot = || -> Result<PinnedSlot, DeviceError> {
            Ok(PinnedSlot {
                // A smaller bucket never has more words, because all its parts are smaller.
                input: device.pinned(largest.words() * Dtype::U32.bytes())?,
                logits: device.pinned(largest.sequences * model.labels * Dtype::F32.bytes())?,
                start: device.mark()?,
                end: device.mark()?,
            })
        };
        Ok(Self {
            arena,
            inputs,
            slots: [slot()?, slot()?],
        })
    }
}

/// Enqueues a batch of a bucket, from pinned memory to pinned memory.
pub(super) fn run(
    forward: &Forward,
    inputs: &Inputs,
    bucket: Capacity,
    slot: &mut PinnedSlot,
) -> Result<(), DeviceError> {
    inputs.upload(&forward.device, bucket, &mut slot.input)?;
    forward.enqueue(bucket, &inputs.placed(bucket))?;
    let logits = &forward.arena.logits;
    let logits = logits.slice(0..bucket.sequences * forward.model.labels);
    forward.device.download(&logits, &mut slot.logits)
}

/// How long to wait awake for a batch that should take `expected`. For more than a millisecond, waking up
/// is a small part of the latency, and sleeping frees the core.
pub(super) fn awake(expected: Option<Duration>) -> Duration {
    const AWAKE_MAX: Duration = Duration::from_millis(1);
    const MARGIN: Duration = Duration::from_micros(100);
    match expected {
        Some(expected) if expected <= AWAKE_MAX => expected * 3 / 2 + MARGIN,
        Some(_) => Duration::ZERO,
        None => AWAKE_MAX / 5,
    }
}
