//! Layer normalisation.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::rows::{ROWS_PER_TASK, column_sums, last_dim, slice, values};

/// Normalises each row to mean 0 and variance 1, then scales and shifts it.
/// Arguments: `x` `[rows, width]`, `gain` `[width]`, `shift` `[width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNorm {
    /// Added to the variance.
    pub(crate) epsilon: f32,
}

/// The statistics that normalise a row.
struct RowMoments {
    mean: f32,
    /// One over the standard deviation.
    scale: f32,
}

fn moments(row: &[f32], epsilon: f32) -> RowMoments {
    let width = row.len() as f32;
    let mean = row.iter().sum::<f32>() / width;
    let variance = row
        .iter()
        .map(|value| (value - mean) * (value - mean))
        .sum::<f32>()
        / width;
    RowMoments {
        mean,
        scale: 1.0 / (variance + epsilon).sqrt(),
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gain, shift) = (slice(gain, gain_layout)?, slice(shift, shift_layout)?);
        let mut out = slice(x, x_layout)?.to_vec();
        out.par_chunks_mut(gain.len())
            .with_min_len(ROWS_PER_TASK)
            .for_each(|row| {
                let RowMoments { mean, scale } = moments(row, self.epsilon);
                for ((value, gain), shift) in row.iter_mut().zip(gain).zip(shift) {
                    *value = (*value - mean) * scale * gain + shift;
                }
            });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        _shift: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let width = last_dim(x.shape())?;
        let (mut normed, gain) = (values(x)?, values(gain)?);
        let grad = values(grad)?;
        let shift_grad = column_sums(&grad, width);
        let mut x_grad = grad.clone();
        x_grad
            .par_chunks_mut(width)
            .zip(normed.par_chunks_mut(width))
            .with_min_len(ROWS_PER_TASK)
            .for_each(|(grad, row)| {
                let RowMoments { mean, scale } = moments(row, self.epsilon);
                row.iter_mut()
                    .for_each(|value| *value = (*value - mean) * scale);
                grad.iter_mut()
                    .zip(&gain)
                    .for_each(|(grad, gain)| *grad *= gain);
                let sum: f32 = grad.iter().sum::<f32>() / width as f32;
                let along: f32 = grad
                    .iter()
                    .zip(&*row)
                    .map(|(grad, normed)| grad * normed)
                    .sum::<f32>()
                    / width as f32;
                for (grad, normed) in grad.iter_mut().zip(&*row) {
                    *grad = scale * (*grad - sum - normed * along);
                }
            });
        normed
            .iter_mut()
            .zip(&grad)
            .for_each(|(normed, grad)| *normed *= grad);
        let gain_grad = column_sums(&normed, width);
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(x_grad, x.shape(), device)?),
            Some(Tensor::from_vec(gain_grad, width, device)?),
            Some(Tensor::from_vec(shift_grad, width, device)?),
        ))
    }
}
