//! Softmax of attention scores.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::rows::{last_dim, slice, values};

/// Softmax over the last dimension of attention scores after scaling, with keys masked out.
/// Arguments: scores `[batch, heads, queries, keys]`, mask `[batch, keys]` added to the scores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskedSoftmax {
    /// Multiplies the scores before the mask is added.
    pub(crate) scale: f32,
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
