//! LayerNorm, alone and after the embedding (`cuda/norm.cu`).

use super::launch::{after_copy, blocks, check, int, launch};
use crate::backend::{Argument, DeviceError};
use crate::batch::{Placed, RowCount};
use crate::device::Device;
use crate::memory::Buffer;

/// The parameters of a LayerNorm: gain, offset and ε.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[columns]`
    pub gamma: Buffer,
    /// `[columns]`
    pub beta: Buffer,
    /// Added to the variance.
    pub eps: f32,
}

/// The embedding tables, each `[rows, columns]`.
#[derive(Debug, Clone)]
pub struct Tables {
    /// One row per token id.
    pub words: Buffer,
    /// One row per position.
    pub positions: Buffer,
    /// One row per token type.
    pub types: Buffer,
}

/// Vectors of 8 values per lane: the smallest number that holds `columns` and that the norm kernels are
/// compiled for.
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
    /// When the shapes do not fit together.
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
        // SAFETY: y has a row of `columns` for each token; ids were checked against the tables' rows when
        // the batch was packed.
        unsafe {
            self.launch(
                &name,
                after_copy(blocks(rows.max, 32, 128), 128),
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
        rows: &RowCount,
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
}
