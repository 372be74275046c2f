//! Access to the values of tensors by rows, and sums over rows.

use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Rows of a task; fewer would cost more to share out than they save.
pub(super) const ROWS_PER_TASK: usize = 64;

/// The values of a contiguous tensor.
pub(super) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("this operation needs a contiguous argument")
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Copies a tensor's values out, in row order.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1::<f32>()
}

/// The size of the last dimension.
pub(super) fn last_dim(shape: &Shape) -> Result<usize> {
    match shape.dims().last() {
        Some(width) if *width > 0 => Ok(*width),
        _ => bail!("this operation needs a last dimension"),
    }
}

/// Sums over rows. Fixed chunks are summed separately and added in order, so the result is deterministic.
pub(super) fn column_sums(rows: &[f32], width: usize) -> Vec<f32> {
    let partial: Vec<Vec<f32>> = rows
        .par_chunks(width * ROWS_PER_TASK)
        .map(|chunk| {
            let mut sums = vec![0.0; width];
            for row in chunk.chunks_exact(width) {
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, value)| *sum += value);
            }
            sums
        })
        .collect();
    partial
        .into_iter()
        .fold(vec![0.0; width], |mut total, sums| {
            total
                .iter_mut()
                .zip(&sums)
                .for_each(|(total, sum)| *total += sum);
            total
        })
}
