//! The layout of a ragged batch in device memory: one block of words, one copy.
//!
//! The block is laid out for a [`Capacity`], not for a particular batch. Kernels recorded in a graph
//! therefore find every part at the same address for every batch, and read the actual counts on the
//! device.

use crate::backend::{DeviceError, Dtype};
use crate::device::Device;
use crate::memory::{Buffer, Pinned};

/// Queries per tile of the attention kernels (`cuda/attention.cu`).
const TILE: usize = 16;
/// The most tiles of a sequence: a tile's number within its sequence has eight bits.
const TILES_MAX: usize = 256;
/// Words for the counts of tokens, sequences and tiles, and one for 16-byte alignment of the next part.
const HEADER: usize = 4;

/// The largest batch that fits a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capacity {
    /// Number of tokens in all sequences.
    pub tokens: usize,
    /// Number of sequences.
    pub sequences: usize,
}

impl Capacity {
    /// The most tiles of 16 queries in a batch of this size.
    pub fn tiles(&self) -> usize {
        self.tokens / TILE + self.sequences
    }

    /// Number of 32-bit words in the block.
    pub fn words(&self) -> usize {
        self.tile_list() + self.tiles()
    }

    fn ids(&self) -> usize {
        HEADER
    }

    fn type_ids(&self) -> usize {
        self.ids() + self.tokens
    }

    fn positions(&self) -> usize {
        self.type_ids() + self.tokens
    }

    fn offsets(&self) -> usize {
        self.positions() + self.tokens
    }

    fn tile_list(&self) -> usize {
        self.offsets() + self.sequences + 1
    }
}

/// The sizes of the model's embedding tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of the word embedding.
    pub words: usize,
    /// Rows of the token type embedding.
    pub types: usize,
    /// Rows of the position embedding, the length of the longest sequence. At most 4096.
    pub positions: usize,
}

/// The tokens of a batch, all sequences end to end.
#[derive(Debug, Clone, Copy)]
pub struct TokenIds<'a> {
    /// The id of each token.
    pub ids: &'a [u32],
    /// The type of each token.
    pub type_ids: &'a [u32],
}

/// The reason why a batch cannot be copied to the device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The batch does not fit the layout, or a token is outside the tables.
    #[error("{0}")]
    Invalid(String),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// The block of a batch's words in device memory.
#[derive(Debug)]
pub struct Inputs {
    block: Buffer,
    limits: Limits,
}

impl Inputs {
    /// Allocates a block for batches of up to `largest`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] when there is no room, [`DeviceError::Failed`] when `limits` allow
    /// longer sequences than the kernels do.
    pub fn new(device: &Device, largest: Capacity, limits: Limits) -> Result<Self, DeviceError> {
        if limits.positions > TILE * TILES_MAX {
            return Err(DeviceError::Failed(format!(
                "sequences of {} tokens; the attention kernels take up to {}",
                limits.positions,
                TILE * TILES_MAX
            )));
        }
        let block = device.zeros(Dtype::U32, largest.words())?;
        Ok(Self { block, limits })
    }

    /// Lays `batch` out in `to`; `lengths` are those of its sequences, in tokens.
    ///
    /// # Errors
    /// [`InputError::Invalid`] when the batch exceeds `capacity`, when a length is zero or exceeds the
    /// number of positions, when the lengths do not add up, or when an id has no row.
    pub fn pack(
        &self,
        capacity: Capacity,
        batch: TokenIds<'_>,
        lengths: impl ExactSizeIterator<Item = usize>,
        to: &mut Pinned,
    ) -> Result<(), InputError> {
        let invalid = |what: String| Err(InputError::Invalid(what));
        let TokenIds { ids, type_ids } = batch;
        let (tokens, sequences) = (ids.len(), lengths.len());
        if tokens > capacity.tokens || sequences > capacity.sequences || type_ids.len() != tokens {
            return invalid(format!(
                "{tokens} tokens ({} types) of {sequences} sequences, for {capacity:?}",
                type_ids.len()
            ));
        }
        let beyond =
            |ids: &[u32], rows: usize| ids.iter().find(|id| **id as usize >= rows).copied();
        if let Some(id) = beyond(ids, self.limits.words) {
            return invalid(format!("token id {id} of {} words", self.limits.words));
        }
        if let Some(id) = beyond(type_ids, self.limits.types) {
            return invalid(format!("token type {id} of {}", self.limits.types));
        }
        let words = &mut to.write_u32()?[..capacity.words()];
        words[capacity.ids()..][..tokens].copy_from_slice(ids);
        words[capacity.type_ids()..][..tokens].copy_from_slice(type_ids);
        words[capacity.offsets()] = 0;
        let (mut start, mut tiles) = (0, 0);
        for (sequence, length) in lengths.enumerate() {
            if length == 0 || length > self.limits.positions || start + length > tokens {
                return invalid(format!(
                    "sequence {sequence} of {length} tokens, after {start} of {tokens}; the \
                     longest may have {}",
                    self.limits.positions
                ));
            }
            let positions = &mut words[capacity.positions() + start..][..length];
            (0..).zip(positions).for_each(|(i, position)| *position = i);
            for tile in 0..length.div_ceil(TILE) {
                words[capacity.tile_list() + tiles] = (sequence * TILES_MAX + tile) as u32;
                tiles += 1;
            }
            start += length;
            words[capacity.offsets() + sequence + 1] = start as u32;
        }
        if start != tokens {
            return invalid(format!("lengths of {start} tokens together, for {tokens}"));
        }
        words[..3].copy_from_slice(&[tokens as u32, sequences as u32, tiles as u32]);
        Ok(())
    }

    /// Enqueues the copy of a batch that [`pack`](Self::pack) laid out for the same `capacity`.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn upload(
        &self,
        device: &Device,
        capacity: Capacity,
        from: &mut Pinned,
    ) -> Result<(), DeviceError> {
        device.upload(from, &self.block.slice(0..capacity.words()))
    }

    /// The parts of a batch that was laid out for `capacity`.
    ///
    /// # Panics
    /// When `capacity` exceeds the block.
    pub fn placed(&self, capacity: Capacity) -> Placed {
        let part = |start: usize, len: usize| self.block.slice(start..start + len);
        let rows = |word: usize, max: usize| RowCount {
            count: part(word, 1),
            max,
        };
        Placed {
            tokens: rows(0, capacity.tokens),
            sequences: rows(1, capacity.sequences),
            tiles: rows(2, capacity.tiles()),
            ids: part(capacity.ids(), capacity.tokens),
            type_ids: part(capacity.type_ids(), capacity.tokens),
            positions: part(capacity.positions(), capacity.tokens),
            offsets: part(capacity.offsets(), capacity.sequences + 1),
            tile_list: part(capacity.tile_list(), capacity.tiles()),
        }
    }
}

/// A number of rows: the count is known to the device only, its upper bound to the host.
#[derive(Debug, Clone)]
pub struct RowCount {
    /// One u32.
    pub(crate) count: Buffer,
    /// Upper bound of the count.
    pub max: usize,
}

/// The parts of a batch in device memory.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The number of tokens.
    pub tokens: RowCount,
    /// The number of sequences.
    pub sequences: RowCount,
    pub(crate) tiles: RowCount,
    pub(crate) ids: Buffer,
    pub(crate) type_ids: Buffer,
    pub(crate) positions: Buffer,
    /// The first token of each sequence, and the end of the last sequence.
    pub offsets: Buffer,
    pub(crate) tile_list: Buffer,
}
