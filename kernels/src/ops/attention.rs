//! Attention over ragged batches.

use super::{blocks, check, int, launch};
use crate::backend::{Argument, DeviceError, Dtype, Launch};
use crate::batch::Placed;
use crate::device::Device;
use crate::memory::Buffer;

/// Tiles of queries, and warps, in a block of `attention_tiles` (`ATTENTION_WARPS` in
/// `cuda/attention.cu`).
const TILES_A_BLOCK: usize = 8;
/// Keys, and values, that such a block has in shared memory at a time (`CHUNK` tiles of 16 there).
const KEYS_A_CHUNK: usize = 128;

/// Heads of an attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Number of heads.
    pub heads: usize,
    /// Width of a head; a multiple of 8, at most 256.
    pub head_size: usize,
}

impl Attention {
    /// Whether the matrix unit's kernel takes this head size and type.
    pub fn has_tiles(self, dtype: Dtype) -> bool {
        matches!(dtype, Dtype::F16 | Dtype::Bf16) && matches!(self.head_size, 32 | 64)
    }

    fn scale(self) -> Argument {
        Argument::F32(1.0 / (self.head_size as f32).sqrt())
    }
}

/// Which queries [`Device::attention_rows`] answers, and where they stand.
#[derive(Debug, Clone, Copy)]
pub enum QueryRows<'a> {
    /// Every token's; token t's query starts at `t · stride`.
    All {
        /// Starts at the first token's query.
        q: &'a Buffer,
        /// Values from one token's query to the next.
        stride: usize,
    },
    /// Each sequence's first token's, standing as with `All`; one row of context a sequence.
    First {
        /// Starts at the first token's query.
        q: &'a Buffer,
        /// Values from one token's query to the next.
        stride: usize,
    },
    /// One query a sequence, `[sequences, hidden]`; one row of context a sequence.
    Packed {
        /// `[sequences, hidden]`
        q: &'a Buffer,
    },
}

impl Device {
    /// `context[token] = attention of the token over its sequence`, all heads, with queries, keys
    /// and values of a token side by side: `qkv[tokens, 3 · hidden]`. On the matrix unit; f16 and
    /// bf16, heads of 32 or 64.
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
        let chunk = KEYS_A_CHUNK * attention.head_size * qkv.dtype().bytes();
        let grid = Launch {
            // Keys and values.
            shared_bytes: (2 * chunk) as u32,
            ..launch(
                (attention.heads * placed.tiles.max.div_ceil(TILES_A_BLOCK)) as u32,
                32 * TILES_A_BLOCK as u32,
            )
        };
        // SAFETY: tiles and offsets come from a laid-out batch; the buffers hold all its tokens.
        unsafe { self.launch(&name, grid, &buffers, &arguments) }
    }

    /// Attention in f32 arithmetic, for every type and head size; `rows` says which queries.
    ///
    /// Keys and values of a token stand side by side: `kv` starts at the first token's keys, and
    /// the next token's are `stride` values on. The values are `hidden` further than the keys.
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
