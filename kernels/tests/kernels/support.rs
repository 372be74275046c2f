//! An emulated device with random values, and comparisons of results.

use half::{bf16, f16};
use intentd_kernels::{
    Buffer, Capacity, Device, Dtype, Emulation, Inputs, Limits, Placed, TokenIds,
};

/// An emulated device and a random number generator.
pub(crate) struct Bench {
    pub(crate) device: Device,
    state: u64,
}

impl Bench {
    pub(crate) fn new(seed: u64) -> Self {
        let emulation = Emulation {
            seed,
            ..Emulation::default()
        };
        Self {
            device: Device::emulator(emulation).unwrap(),
            state: seed,
        }
    }

    /// Values from -1 to 1, rounded to the type.
    pub(crate) fn random(&mut self, len: usize, dtype: Dtype) -> Vec<f32> {
        let mut value = || {
            // Knuth's linear congruential generator (MMIX); the upper bits are random enough.
            let next = self.state.wrapping_mul(6_364_136_223_846_793_005);
            self.state = next.wrapping_add(1_442_695_040_888_963_407);
            round(((self.state >> 40) as f32 / (1 << 23) as f32) - 1.0, dtype)
        };
        (0..len).map(|_| value()).collect()
    }

    /// Random values, on the host and on the device.
    pub(crate) fn values(&mut self, len: usize, dtype: Dtype) -> (Vec<f32>, Buffer) {
        let values = self.random(len, dtype);
        let buffer = self.upload(&values, dtype);
        (values, buffer)
    }

    pub(crate) fn upload(&self, values: &[f32], dtype: Dtype) -> Buffer {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| match dtype {
                Dtype::F32 => value.to_le_bytes().to_vec(),
                Dtype::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
                Dtype::Bf16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
                Dtype::U32 => (*value as u32).to_le_bytes().to_vec(),
            })
            .collect();
        let buffer = self.device.zeros(dtype, values.len()).unwrap();
        let mut pinned = self.device.pinned(bytes.len()).unwrap();
        pinned.write().unwrap().copy_from_slice(&bytes);
        self.device.upload(&mut pinned, &buffer).unwrap();
        buffer
    }

    /// A buffer of NaN, which no kernel computes.
    pub(crate) fn poisoned(&self, len: usize, dtype: Dtype) -> Buffer {
        self.upload(&vec![f32::NAN; len], dtype)
    }

    pub(crate) fn read(&self, buffer: &Buffer) -> Vec<f32> {
        let mut pinned = self.device.pinned(buffer.bytes()).unwrap();
        self.device.download(buffer, &mut pinned).unwrap();
        let bytes = pinned.read().unwrap();
        let values = bytes.chunks_exact(buffer.dtype().bytes());
        values
            .map(|b| match buffer.dtype() {
                Dtype::F32 => f32::from_le_bytes(b.try_into().unwrap()),
                Dtype::F16 => f16::from_le_bytes(b.try_into().unwrap()).to_f32(),
                Dtype::Bf16 => bf16::from_le_bytes(b.try_into().unwrap()).to_f32(),
                Dtype::U32 => u32::from_le_bytes(b.try_into().unwrap()) as f32,
            })
            .collect()
    }

    /// A batch of sequences with these lengths and random ids and types, laid out for `capacity`.
    pub(crate) fn batch(&mut self, lengths: &[usize], capacity: Capacity, limits: Limits) -> Batch {
        let tokens: usize = lengths.iter().sum();
        let mut below = |rows: usize| -> Vec<u32> {
            let values = self.random(tokens, Dtype::F32);
            values
                .iter()
                .map(|v| ((v.abs() * rows as f32) as u32).min(rows as u32 - 1))
                .collect()
        };
        let (ids, type_ids) = (below(limits.words), below(limits.types));
        let inputs = Inputs::new(&self.device, capacity, limits).unwrap();
        let mut pinned = self.device.pinned(capacity.words() * 4).unwrap();
        let lengths = lengths.iter().copied();
        let tokens = TokenIds {
            ids: &ids,
            type_ids: &type_ids,
        };
        inputs.pack(capacity, tokens, lengths, &mut pinned).unwrap();
        inputs.upload(&self.device, capacity, &mut pinned).unwrap();
        let placed = inputs.placed(capacity);
        Batch {
            ids,
            type_ids,
            placed,
        }
    }
}

pub(crate) struct Batch {
    pub(crate) ids: Vec<u32>,
    pub(crate) type_ids: Vec<u32>,
    pub(crate) placed: Placed,
}

/// The range of tokens of each sequence.
pub(crate) fn ranges(lengths: &[usize]) -> Vec<std::ops::Range<usize>> {
    let mut start = 0;
    let range = |length: &usize| {
        start += length;
        start - length..start
    };
    lengths.iter().map(range).collect()
}

pub(crate) fn round(value: f32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_f32(value).to_f32(),
        Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        Dtype::F32 | Dtype::U32 => value,
    }
}

/// Asserts that every value is within `tolerance` rounding errors of the type, relative to the larger of 1
/// and the value.
#[track_caller]
pub(crate) fn assert_close(found: &[f32], expected: &[f32], dtype: Dtype, tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "lengths");
    let unit = match dtype {
        Dtype::F16 => f16::EPSILON.to_f32(),
        Dtype::Bf16 => bf16::EPSILON.to_f32(),
        Dtype::F32 | Dtype::U32 => f32::EPSILON,
    };
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let bound = tolerance * unit * expected.abs().max(1.0);
        // In this form the comparison fails for NaN.
        assert!(
            (found - expected).abs() <= bound,
            "{dtype:?} value {index}: {found}, expected {expected} within {bound}"
        );
    }
}

/// Asserts that all values are still those of [`Bench::poisoned`].
#[track_caller]
pub(crate) fn assert_untouched(values: &[f32]) {
    assert!(
        values.iter().all(|value| value.is_nan()),
        "rows beyond the last were written"
    );
}
