//! One function a kernel: shapes checked here, arithmetic in `cuda/*.cu`, meaning in `oracle`.
//!
//! `x[rows, columns]` is row-major. Every function enqueues and returns.

mod attention;
mod product;

pub use attention::{Attention, QueryRows};
pub use product::{Product, SKINNY_ROWS_MAX, Skinny};

use crate::backend::{Argument, DeviceError, Dtype, Launch};
use crate::batch::Placed;
use crate::device::Device;
use crate::memory::Buffer;

/// The activations the kernels know, numbered as `cuda/device.cuh` numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Activation {
    /// `x`.
    None = 0,
    /// `x·Φ(x)` with the error function (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    Gelu = 1,
    /// Its tanh approximation.
    GeluTanh = 2,
    /// `max(x, 0)`.
    Relu = 3,
    /// `tanh(x)`, the pooler's.
    Tanh = 4,
}

/// A number of rows that only the device knows, and a bound that the host knows.
#[derive(Debug, Clone)]
pub struct Rows {
    /// One u32.
    pub(crate) count: Buffer,
    /// The largest the count may be.
    pub max: usize,
}

/// Gain, offset and ε of a LayerNorm.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[columns]`
    pub gamma: Buffer,
    /// `[columns]`
    pub beta: Buffer,
    /// Added to the variance.
    pub eps: f32,
}

/// The embedding tables, `[rows, columns]` each.
#[derive(Debug, Clone)]
pub struct Tables {
    /// One row a token id.
    pub words: Buffer,
    /// One row a position.
    pub positions: Buffer,
    /// One row a token type.
    pub types: Buffer,
}

/// Rows that a thread of `bias_activation` does (`cuda/elementwise.cu`).
const BIAS_ROWS: usize = 4;

fn check(condition: bool, what: &str) {
    assert!(condition, "kernel arguments: {what}");
}

/// Blocks of `threads` for `items` of `each` threads.
fn blocks(items: usize, each: usize, threads: u32) -> u32 {
    (items * each).div_ceil(threads as usize) as u32
}

fn launch(blocks: u32, threads: u32) -> Launch {
    Launch {
        blocks,
        threads,
        shared_bytes: 0,
        overlaps: true,
    }
}

/// For a kernel that does not begin before what is in front of it has ended: it reads what a copy has
/// written.
fn alone(blocks: u32, threads: u32) -> Launch {
    Launch {
        overlaps: false,
        ..launch(blocks, threads)
    }
}

fn int(value: usize) -> Argument {
    Argument::I32(i32::try_from(value).expect("sizes of a model fit 31 bits"))
}

/// Vectors of 8 a lane that the norm kernels are compiled for, and fit `columns`.
fn vectors(columns: usize) -> usize {
    check(
        columns.is_multiple_of(8) && columns <= 2048,
        "rows of up to 2048 values, a multiple of 8",
    );
    match columns.div_ceil(256) {
        1 => 1,
        2 | 3 => 3,
        4 => 4,
        _ => 8,
    }
}

impl Device {
    /// `y[token] = LayerNorm(words[id] + positions[position] + types[type])`.
    ///
    /// # Errors
    /// See [`DeviceError`].
    ///
    /// # Panics
    /// Here and below: when the shapes do not fit together.
    pub fn embed_norm(
        &self,
        placed: &Placed,
        tables: &Tables,
        norm: &Norm,
        y: &Buffer,
    ) -> Result<(), DeviceError> {
        let (columns, dtype, rows) = (norm.gamma.len(), y.dtype(), &placed.tokens);
        check(
            y.len() >= rows.max * columns && norm.beta.len() == columns,
            "embed_norm",
        );
        let name = format!("embed_norm_{}_{}", dtype.name(), vectors(columns));
        let buffers = [
            &rows.count,
            &placed.ids,
            &placed.type_ids,
            &placed.positions,
            &tables.words,
            &tables.positions,
            &tables.types,
            &norm.gamma,
            &norm.beta,
            y,
        ];
        check(buffers[4..].iter().all(|b| b.dtype() == dtype), "one type");
        let mut arguments = buffers.map(Buffer::argument).to_vec();
        arguments.insert(9, Argument::F32(norm.eps));
        arguments.push(int(columns));
        // SAFETY: one row of `columns` a token in y; ids were checked against the tables' rows
        // when the batch was laid out.
        unsafe {
            self.launch(
                &name,
                alone(blocks(rows.max, 32, 128), 128),
                &buffers,
                &arguments,
            )
        }
    }

    /// `y[row] = LayerNorm(x[row])`.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn norm(
        &self,
        rows: &Rows,
        x: &Buffer,
        norm: &Norm,
        y: &Buffer,
    ) -> Result<(), DeviceError> {
        let (columns, dtype) = (norm.gamma.len(), y.dtype());
        let whole = |b: &Buffer| b.len() >= rows.max * columns;
        check(whole(x) && whole(y), "norm rows");
        check(norm.beta.len() == columns, "norm columns");
        let buffers = [&rows.count, x, &norm.gamma, &norm.beta, y];
        check(buffers[1..].iter().all(|b| b.dtype() == dtype), "one type");
        let mut arguments = buffers.map(Buffer::argument).to_vec();
        arguments.insert(4, Argument::F32(norm.eps));
        arguments.push(int(columns));
        let name = format!("norm_{}_{}", dtype.name(), vectors(columns));
        // SAFETY: all rows and columns are inside the buffers.
        unsafe {
            self.launch(
                &name,
                launch(blocks(rows.max, 32, 128), 128),
                &buffers,
                &arguments,
            )
        }
    }

    /// `x[row] = activation(x[row] + bias)`, in place.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn bias_activation(
        &self,
        rows: &Rows,
        x: &Buffer,
        bias: &Buffer,
        activation: Activation,
    ) -> Result<(), DeviceError> {
        let columns = bias.len();
        check(
            columns.is_multiple_of(8) && x.len() >= rows.max * columns,
            "bias_activation",
        );
        check(x.dtype() == bias.dtype(), "one type");
        let arguments = [
            rows.count.argument(),
            x.argument(),
            bias.argument(),
            Argument::U32(activation as u32),
            int(columns),
        ];
        let name = format!("bias_activation_{}", x.dtype().name());
        let threads = rows.max.div_ceil(BIAS_ROWS) * columns / 8;
        let grid = launch(blocks(threads, 1, 256), 256);
        // SAFETY: all rows and columns are inside the buffers.
        unsafe { self.launch(&name, grid, &[&rows.count, x, bias], &arguments) }
    }

    /// `y[sequence] = x[first token of the sequence]`, rows of `columns`.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn gather_first(
        &self,
        placed: &Placed,
        x: &Buffer,
        y: &Buffer,
        columns: usize,
    ) -> Result<(), DeviceError> {
        let rows = &placed.sequences;
        check(
            columns.is_multiple_of(8) && x.len() >= placed.tokens.max * columns,
            "gather from",
        );
        check(
            y.len() >= rows.max * columns && x.dtype() == y.dtype(),
            "gather to",
        );
        let buffers = [&rows.count, &placed.offsets, x, y];
        let mut arguments = buffers.map(Buffer::argument).to_vec();
        arguments.push(int(columns));
        let name = format!("gather_rows_{}", x.dtype().name());
        let grid = launch(blocks(rows.max * columns / 8, 1, 256), 256);
        // SAFETY: a sequence starts before the last token, checked when the batch was laid out.
        unsafe { self.launch(&name, grid, &buffers, &arguments) }
    }

    /// `logits[row, label] = x[row] · w[label] + bias[label]`, in f32.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn classify(
        &self,
        rows: &Rows,
        x: &Buffer,
        w: &Buffer,
        bias: &Buffer,
        logits: &Buffer,
    ) -> Result<(), DeviceError> {
        let labels = bias.len();
        check(
            labels > 0 && w.len().is_multiple_of(labels),
            "classify labels",
        );
        let columns = w.len() / labels;
        check(
            columns.is_multiple_of(8) && x.len() >= rows.max * columns,
            "classify columns",
        );
        check(
            logits.dtype() == Dtype::F32 && logits.len() >= rows.max * labels,
            "classify logits",
        );
        check([w, bias].iter().all(|b| b.dtype() == x.dtype()), "one type");
        let buffers = [&rows.count, x, w, bias, logits];
        let mut arguments = buffers.map(Buffer::argument).to_vec();
        arguments.extend([int(columns), int(labels)]);
        let name = format!("classify_{}", x.dtype().name());
        let grid = launch(blocks(rows.max * labels, 32, 128), 128);
        // SAFETY: all rows, columns and labels are inside the buffers.
        unsafe { self.launch(&name, grid, &buffers, &arguments) }
    }

    /// `to[i] = from[i]`, in the type of `to`; f32, f16 and bf16.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn convert(&self, from: &Buffer, to: &Buffer) -> Result<(), DeviceError> {
        check(from.len() == to.len(), "convert lengths");
        let name = format!("convert_{}_{}", from.dtype().name(), to.dtype().name());
        let arguments = [
            from.argument(),
            to.argument(),
            Argument::U64(to.len() as u64),
        ];
        // The kernel strides over what the grid does not cover.
        let grid = alone(blocks(to.len().min(1 << 20), 1, 256).max(1), 256);
        // SAFETY: both buffers have the length.
        unsafe { self.launch(&name, grid, &[from, to], &arguments) }
    }
}

fn optional(buffer: Option<&Buffer>) -> Argument {
    buffer.map_or(Argument::Address(0), Buffer::argument)
}
