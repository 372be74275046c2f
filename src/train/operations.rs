//! The differentiable operations of the network that candle has no fast backward pass for.
//!
//! Candle's fused layer norm and softmax cannot be differentiated, and the same built from its
//! elementary operations walks memory a dozen times a step; each of these walks it once a direction.
//! Rows are shared out over the cores; every row is computed by one thread in a fixed order, so the
//! result does not depend on how many cores there are.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail,
};
use rayon::prelude::*;

/// Rows below which sharing out costs more than it saves.
const ROWS_PER_TASK: usize = 64;

/// Normalises each row to mean 0 and variance 1, then scales and shifts it.
/// Arguments: `x` `[rows, width]`, `gain` `[width]`, `shift` `[width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNorm {
    /// Added to the variance.
    pub(crate) epsilon: f32,
}

/// The Gaussian error linear unit in its exact form, `x·Φ(x)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gelu;

/// Softmax over the last dimension of attention scores after scaling, with keys masked out.
/// Arguments: scores `[batch, heads, queries, keys]`, mask `[batch, keys]` added to the scores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskedSoftmax {
    /// Multiplies the scores before the mask is added.
    pub(crate) scale: f32,
}

/// Adds `bias` `[width]` to every row of `x` `[rows, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddBias;

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("this operation needs a contiguous argument")
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Copies a tensor's values out, in row order.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1::<f32>()
}

fn last_dim(shape: &Shape) -> Result<usize> {
    match shape.dims().last() {
        Some(width) if *width > 0 => Ok(*width),
        _ => bail!("this operation needs a last dimension"),
    }
}

/// Sums over rows. Fixed chunks are summed apart and then added in order: deterministic.
fn column_sums(rows: &[f32], width: usize) -> Vec<f32> {
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

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (slice(x, x_layout)?, slice(bias, bias_layout)?);
        let mut out = x.to_vec();
        for row in out.chunks_exact_mut(bias.len()) {
            row.iter_mut()
                .zip(bias)
                .for_each(|(value, bias)| *value += bias);
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = bias.elem_count();
        let sums = column_sums(&values(grad)?, width);
        Ok((
            Some(grad.clone()),
            Some(Tensor::from_vec(sums, width, grad.device())?),
        ))
    }
}

/// The standard normal's distribution function and density at `x`.
fn normal(x: f32) -> (f32, f32) {
    // Abramowitz and Stegun 7.1.26 for erf; |error| < 1.5e-7, as good as f32 sums around 1.
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let gauss = (-z * z).exp();
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series = t
        * (0.254_829_6
            + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let upper_tail = 0.5 * series * gauss;
    let distribution = if x >= 0.0 {
        1.0 - upper_tail
    } else {
        upper_tail
    };
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    (distribution, gauss * INV_SQRT_TAU)
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = slice(x, layout)?
            .par_iter()
            .with_min_len(4096)
            .map(|x| x * normal(*x).0)
            .collect::<Vec<f32>>();
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut out = values(grad)?;
        out.par_iter_mut()
            .with_min_len(4096)
            .zip(values(x)?.par_iter())
            .for_each(|(grad, x)| {
                let (distribution, density) = normal(*x);
                *grad *= distribution + x * density;
            });
        Ok(Some(Tensor::from_vec(out, x.shape(), x.device())?))
    }
}

impl CustomOp2 for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked-softmax"
    }

    fn cpu_fwd(
        &self,
        scores: &CpuStorage,
        layout: &Layout,
        mask: &CpuStorage,
        mask_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [_, heads, queries, keys] = layout.shape().dims() else {
            bail!("attention scores have four dimensions")
        };
        let mask = slice(mask, mask_layout)?;
        let mut out = slice(scores, layout)?.to_vec();
        for (text, rows) in out.chunks_exact_mut(heads * queries * keys).enumerate() {
            let mask = &mask[text * keys..(text + 1) * keys];
            for row in rows.chunks_exact_mut(*keys) {
                let mut highest = f32::NEG_INFINITY;
                for (value, mask) in row.iter_mut().zip(mask) {
                    *value = *value * self.scale + mask;
                    highest = highest.max(*value);
                }
                let mut sum = 0.0;
                for value in row.iter_mut() {
                    *value = (*value - highest).exp();
                    sum += *value;
                }
                row.iter_mut().for_each(|value| *value /= sum);
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(
        &self,
        _scores: &Tensor,
        _mask: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let keys = last_dim(res.shape())?;
        let mut out = values(grad)?;
        for (grad, p) in out
            .chunks_exact_mut(keys)
            .zip(values(res)?.chunks_exact(keys))
        {
            let mean: f32 = grad.iter().zip(p).map(|(grad, p)| grad * p).sum();
            grad.iter_mut()
                .zip(p)
                .for_each(|(grad, p)| *grad = p * (*grad - mean) * self.scale);
        }
        Ok((
            Some(Tensor::from_vec(out, res.shape(), res.device())?),
            None,
        ))
    }
}

/// The mean of a row and one over its standard deviation.
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let width = row.len() as f32;
    let mean = row.iter().sum::<f32>() / width;
    let variance = row
        .iter()
        .map(|value| (value - mean) * (value - mean))
        .sum::<f32>()
        / width;
    (mean, 1.0 / (variance + epsilon).sqrt())
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
                let (mean, scale) = moments(row, self.epsilon);
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
                let (mean, scale) = moments(row, self.epsilon);
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{D, Device, Var};

    const CPU: &Device = &Device::Cpu;

    fn sample(shape: &[usize], phase: f32) -> Var {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count)
            .map(|i| (i as f32 * 0.7 + phase).sin() * 2.0)
            .collect();
        Var::from_vec(values, shape, CPU).expect("values fill the shape")
    }

    /// Compares results and gradients (of a weighted sum) of two ways to compute the same.
    fn compare(variables: &[&Var], one: &Tensor, other: &Tensor, tolerance: f32) {
        let weights = sample(one.dims(), 1.3);
        let gradients = |result: &Tensor| {
            (result * weights.as_tensor())
                .and_then(|t| t.sum_all()?.backward())
                .expect("backward")
        };
        let far = |a: &Tensor, b: &Tensor| {
            assert_eq!(a.dims(), b.dims());
            let pairs = values(a)
                .expect("values")
                .into_iter()
                .zip(values(b).expect("values"));
            // `f32::max` would pass over what is not a number.
            pairs
                .map(|(a, b)| (a - b).abs())
                .max_by(f32::total_cmp)
                .unwrap_or(0.0)
        };
        assert!(far(one, other) < tolerance);
        let (one, other) = (gradients(one), gradients(other));
        for variable in variables {
            let get = |grads: &candle_core::backprop::GradStore| {
                grads.get(variable).expect("has a gradient").clone()
            };
            assert!(far(&get(&one), &get(&other)) < tolerance);
        }
    }

    #[test]
    fn layer_norm_agrees_with_elementary_operations() -> Result<()> {
        let (x, gain, shift) = (sample(&[130, 6], 0.0), sample(&[6], 0.4), sample(&[6], 0.9));
        let ours = x.apply_op3(&gain, &shift, LayerNorm { epsilon: 1e-12 })?;
        let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(1)? + 1e-12)?.sqrt()?;
        let theirs = centred
            .broadcast_div(&deviation)?
            .broadcast_mul(&gain)?
            .broadcast_add(&shift)?;
        compare(&[&x, &gain, &shift], &ours, &theirs, 2e-4);
        Ok(())
    }

    #[test]
    fn gelu_agrees_with_candle() -> Result<()> {
        let x = sample(&[50, 6], 0.2);
        compare(&[&x], &x.apply_op1(Gelu)?, &x.gelu_erf()?, 1e-5);
        Ok(())
    }

    #[test]
    fn add_bias_agrees_with_broadcasting() -> Result<()> {
        let (x, bias) = (sample(&[150, 6], 0.0), sample(&[6], 0.4));
        compare(
            &[&x, &bias],
            &x.apply_op2(&bias, AddBias)?,
            &x.broadcast_add(&bias)?,
            1e-4,
        );
        Ok(())
    }

    #[test]
    fn masked_softmax_agrees_with_elementary_operations() -> Result<()> {
        let scores = sample(&[2, 2, 3, 4], 0.0);
        let off = f32::NEG_INFINITY;
        let mask = Tensor::new(&[[0f32, 0.0, 0.0, 0.0], [0.0, 0.0, off, off]], CPU)?;
        let ours = scores.apply_op2(&mask, MaskedSoftmax { scale: 0.5 })?;
        let shifted = (scores.as_tensor() * 0.5)?.broadcast_add(&mask.reshape((2, 1, 1, 4))?)?;
        let powers = shifted.exp()?;
        let theirs = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
        compare(&[&scores], &ours, &theirs, 1e-5);
        Ok(())
    }
}
