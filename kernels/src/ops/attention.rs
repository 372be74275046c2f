//! Attention over ragged batches.

use super::launch::{blocks, check, int, launch};
use crate::backend::{Argument, DeviceError, Dtype, Launch};
use crate::batch::Placed;
use crate::device::Device;
use crate::memory::Buffer;

/// Tiles of queries, and warps, per block of `attention_tiles` (`ATTENTION_WARPS` in
/// `cuda/attention.cu`).
const TILES_PER_BLOCK: usize = 8;
/// Keys, and values, that a block has in shared memory at a time (`CHUNK` tiles of 16 in the kernel).
const KEYS_PER_CHUNK: usize = 128;

/// The heads of multi-head attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Number of heads.
    pub heads: usize,
    /// Width of a head; a multiple of 8, at most 256.
    pub head_size: usize,
}

impl Attention {
    /// Whether [`Device::attention_tiles`] supports this head size and type.
    pub fn has_tiles(self, dtype: Dtype) -> bool {
        matches!(dtype, Dtype::F16 | Dtype::Bf16) && matches!(self.head_size, 32 | 64)
    }

    fn scale(self) -> Argument {
        Argument::F32(1.0 / (self.head_size as f32).sqrt())
    }
}

/// The queries of [`Device::attention_rows`], and where they lie.
#[derive(Debug, Clone, Copy)]
pub enum QueryRows<'a> {
    /// The queries of all tokens; that of token t starts at `t · stride`.
    All {
        /// Starts at the first token's query.
        q: &'a Buffer,
        /// Values from one token's query to the next.
        stride: usize,
    },
    /// The query of each sequence's first token, laid out as for `All`; one row of context per sequence.
    First {
        /// Starts at the first token's query.
        q: &'a Buffer,
        /// Values from one token's query to the next.
        stride: usize,
    },
    /// One query per sequence, `[sequences, hidden]`; one row of context per sequence.
    Packed {
        /// `[sequences, hidden]`
        q: &'a Buffer,
    },
}

impl Device {
    /// `context[token] = attention of the token over its sequence`, all heads, on the matrix unit.
    ///
    /// `qkv[tokens, 3 · hidden]` has the query, the key and the value of a token side by side. Supports f16
    /// and bf16, heads of 32 or 64.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn attention_tiles(
        &self,
        placed: &Placed,
        attention: Attention,
        qkv: &Buffer,
        context: &Buffer,
    ) -> Result<(), DeviceError> {
        let hidden = attention.heads * attention.head_size;
        check(attention.has_tiles(qkv.dtype()), "head size and type");
        check(qkv.len() >= placed.tokens.max * 3 * hidden, "qkv");
        check(context.len() >= placed.tokens.max * hidden, "context");
        check(context.dtype() == qkv.dtype(), "one type");
        let buffers = [
            &placed.tiles.count,
            &placed.tile_list,
            &placed.offsets,
            qkv,
            context,
        ];
        let mut arguments = buffers.map(Buffer::argument).to_vec();
        arguments.extend([attention.scale(), int(attention.heads)]);
        let name = format!(
            "attention_tiles_{}_{}",
            qkv.dtype().name(),
            attention.head_size
        );
        let chunk = KEYS_PER_CHUNK * attention.head_size * qkv.dtype().bytes();
        let grid = Launch {
            // Keys and values.
            shared_bytes: (2 * chunk) as u32,
            ..launch(
                (attention.heads * placed.tiles.max.div_ceil(TILES_PER_BLOCK)) as u32,
                32 * TILES_PER_BLOCK as u32,
            )
        };
        // SAFETY: tiles and offsets come from a packed batch; the buffers hold all its tokens.
        unsafe { self.launch(&name, grid, &buffers, &arguments) }
    }

    /// Attention in f32 arithmetic, for every type and head size; `rows` selects the queries.
    ///
    /// `kv` starts at the first token's key; the key of the next token is `stride` elements further. The
    /// value of a token is `hidden` elements behind its key.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn attention_rows(
        &self,
        placed: &Placed,
        attention: Attention,
        rows: QueryRows<'_>,
        (kv, stride): (&Buffer, usize),
        context: &Buffer,
    ) -> Result<(), DeviceError> {
        let Attention { heads, head_size } = attention;
        let (hidden, tokens) = (heads * head_size, placed.tokens.max);
        let (q, q_stride, mode, items) = match rows {
            QueryRows::All { q, stride } => (q, stride, 0, &placed.tiles),
            QueryRows::First { q, stride } => (q, stride, 1, &placed.sequences),
            QueryRows::Packed { q } => (q, hidden, 2, &placed.sequences),
        };
        let query_rows = if mode == 2 {
            placed.sequences.max
        } else {
            tokens
        };
        let out_rows = if mode == 0 {
            tokens
        } else {
            placed.sequences.max
        };
        check(head_size.is_multiple_of(8) && head_size <= 256, "head size");
        check(
            stride >= 2 * hidden && kv.len() + stride >= tokens * stride + 2 * hidden,
            "kv",
        );
        check(
            q_stride >= hidden && q.len() + q_stride >= query_rows * q_stride + hidden,
            "q",
        );
        check(
            stride.is_multiple_of(8) && q_stride.is_multiple_of(8),
            "16-byte rows",
        );
        check(context.len() >= out_rows * hidden, "context");
        check(
            context.dtype() == q.dtype() && kv.dtype() == q.dtype(),
            "one type",
        );
        let values = kv.slice(hidden..kv.len());
        let arguments = [
            items.count.argument(),
            placed.tile_list.argument(),
            placed.offsets.argument(),
            q.argument(),
            Argument::I64(q_stride as i64),
            kv.argument(),
            values.argument(),
            Argument::I64(stride as i64),
            context.argument(),
            attention.scale(),
            int(heads),
            int(head_size),
            Argument::U32(mode),
        ];
        let buffers = [
            &items.count,
            &placed.tile_list,
            &placed.offsets,
            q,
            kv,
            context,
        ];
        let name = format!("attention_rows_{}", q.dtype().name());
        let grid = launch(blocks(items.max * heads, 32, 128), 128);
        // SAFETY: as in `attention_tiles`.
        unsafe { self.launch(&name, grid, &buffers, &arguments) }
    }
}
