//! The Gaussian error linear unit.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::rows::{slice, values};

/// The Gaussian error linear unit in its exact form, `x·Φ(x)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gelu;

/// The standard normal distribution at one point.
struct StandardNormal {
    /// The distribution function Φ.
    distribution: f32,
    /// The density φ.
    density: f32,
}

fn normal(x: f32) -> StandardNormal {
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
    StandardNormal {
        distribution,
        density: gauss * INV_SQRT_TAU,
    }
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = slice(x, layout)?
            .par_iter()
            .with_min_len(4096)
            .map(|x| x * normal(*x).distribution)
            .collect::<Vec<f32>>();
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut out = values(grad)?;
        out.par_iter_mut()
            .with_min_len(4096)
            .zip(values(x)?.par_iter())
            .for_each(|(grad, x)| {
                let StandardNormal {
                    distribution,
                    density,
                } = normal(*x);
                *grad *= distribution + x * density;
            });
        Ok(Some(Tensor::from_vec(out, x.shape(), x.device())?))
    }
}
