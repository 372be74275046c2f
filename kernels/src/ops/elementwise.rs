//! Bias and activation, gathered rows, the classifier and type conversion (`cuda/elementwise.cu`).

use super::launch::{after_copy, blocks, check, int, launch};
use crate::activation::Activation;
use crate::backend::{Argument, DeviceError, Dtype};
use crate::batch::{Placed, RowCount};
use crate::device::Device;
use crate::memory::Buffer;

/// Rows per thread of `bias_activation` (`cuda/elementwise.cu`).
const BIAS_ROWS: usize = 4;

impl Device {
    /// `x[row] = activation(x[row] + bias)`, in place.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn bias_activation(
        &self,
        rows: &RowCount,
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

    /// `y[sequence] = x[first token of the sequence]`, with rows of `columns` values.
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
        // SAFETY: every sequence starts inside the batch, which was checked when it was packed.
        unsafe { self.launch(&name, grid, &buffers, &arguments) }
    }

    /// `logits[row, label] = x[row] · w[label] + bias[label]`, in f32.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn classify(
        &self,
        rows: &RowCount,
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

    /// `to[i] = from[i]`, converted to the type of `to`; f32, f16 and bf16.
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
        // The kernel strides over elements that the grid does not cover.
        let grid = after_copy(blocks(to.len().min(1 << 20), 1, 256).max(1), 256);
        // SAFETY: both buffers have the length.
        unsafe { self.launch(&name, grid, &[from, to], &arguments) }
    }
}
