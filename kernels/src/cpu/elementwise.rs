//! Element-wise and row-wise operations: plain loops that the compiler vectorizes when they are inlined
//! into a `pulp` dispatch. Each dispatch is a type of its own, not a closure: the compiler may outline the
//! code of a closure into a function that lacks the instruction set.

use pulp::{Simd, WithSimd};

use super::isa::Isa;
use crate::activation::Activation;

/// Number of independent sums; enough to fill the vector units of all supported machines.
pub(super) const LANES: usize = 16;

/// Sum of `f` over a row, in [`LANES`] independent parts.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f(*value);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| f(*value)).sum::<f32>()
}

/// LayerNorm over the last axis (Ba et al. 2016, arXiv:1607.06450).
#[derive(Debug)]
pub struct Norm {
    /// The gain of each value, `[width]`.
    pub weight: Vec<f32>,
    /// The offset of each value, `[width]`.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

impl Norm {
    /// Normalizes one row in place. The variance is that of the population, as in BERT.
    #[inline(always)]
    fn row(&self, row: &mut [f32]) {
        let count = row.len() as f32;
        let mean = sum(row, |value| value) / count;
        let variance = sum(row, |value| (value - mean) * (value - mean)) / count;
        let scale = 1.0 / (variance + self.eps).sqrt();
        for ((value, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
            *value = (*value - mean) * scale * weight + bias;
        }
    }

    /// `x = norm(x + a + b)` for one row.
    ///
    /// # Panics
    /// When their widths differ.
    pub fn of_sum(&self, isa: Isa, x: &mut [f32], a: &[f32], b: &[f32]) {
        let norm = self;
        isa.dispatch(NormOfSum {
            norm,
            x,
            a,
            b: Some(b),
        });
    }

    /// `x = norm(x + residual)` for one row.
    ///
    /// # Panics
    /// When their widths differ.
    pub fn add(&self, isa: Isa, x: &mut [f32], residual: &[f32]) {
        let (norm, a) = (self, residual);
        isa.dispatch(NormOfSum {
            norm,
            x,
            a,
            b: None,
        });
    }
}

struct NormOfSum<'a> {
    norm: &'a Norm,
    x: &'a mut [f32],
    a: &'a [f32],
    b: Option<&'a [f32]>,
}

impl WithSimd for NormOfSum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.x.len();
        assert_eq!(
            [self.norm.weight.len(), self.norm.bias.len()],
            [width; 2],
            "width of the norm"
        );
        for part in std::iter::once(self.a).chain(self.b) {
            assert_eq!(part.len(), width, "width of what is added");
            for (x, part) in self.x.iter_mut().zip(part) {
                *x += part;
            }
        }
        self.norm.row(self.x);
    }
}

/// The largest magnitude in a row; 0 for an empty row, NaN when the row holds a NaN or an infinity.
#[inline(always)]
pub(super) fn largest_magnitude(row: &[f32]) -> f32 {
    // 0 if all values are finite, otherwise NaN, which `max` alone would ignore.
    let poison = sum(row, |value| value * 0.0);
    let mut maxima = [0.0_f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (max, value) in maxima.iter_mut().zip(chunk) {
            *max = max.max(value.abs());
        }
    }
    let rest = rest.iter().map(|value| value.abs());
    maxima.into_iter().chain(rest).fold(0.0, f32::max) + poison
}

/// `values = activation(x)` for the first `values.len()` sums of `x`.
#[inline(always)]
pub(super) fn activate(activation: Activation, x: &[f32; 32], values: &mut [f32]) {
    // Most panels are whole; a loop of constant length has no remainder.
    match values.len() {
        32 => of_length::<32>(activation, x, values),
        8 => of_length::<8>(activation, x, values),
        16 => of_length::<16>(activation, x, values),
        _ => {
            let mut all = [0.0; 32];
            of_length::<32>(activation, x, &mut all);
            for (value, x) in values.iter_mut().zip(all) {
                *value = x;
            }
        }
    }
}

#[inline(always)]
fn of_length<const N: usize>(activation: Activation, x: &[f32; 32], values: &mut [f32]) {
    let (Some(x), Some(values)) = (x.first_chunk::<N>(), values.first_chunk_mut::<N>()) else {
        return;
    };
    match activation {
        Activation::None => *values = *x,
        Activation::Gelu => *values = each(*x, gelu),
        Activation::GeluTanh => *values = each(*x, gelu_tanh),
        // Not `max`, which would replace NaN with a number.
        Activation::Relu => *values = each(*x, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::Tanh => *values = each(*x, tanh),
    }
}

#[inline(always)]
fn each<const N: usize>(mut x: [f32; N], f: impl Fn(f32) -> f32) -> [f32; N] {
    for x in &mut x {
        *x = f(*x);
    }
    x
}

/// `x·Φ(x)`.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`, written with `1 + tanh(u) = 2/(1 + e^{-2u})`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let u = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-2.0 * u))
}

/// `1 - 2/(1 + e^{2x})`; |error| < 3e-7.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(2.0 * x))
}

/// The error function as an odd rational function on [-4, 4], outside of which it is ±1 in f32;
/// |error| < 1e-6 (with the coefficients of Eigen and XLA).
#[inline(always)]
fn erf(x: f32) -> f32 {
    const P: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_5e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const Q: [f32; 5] = [
        -1.456_607_2e-5,
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_473_9e-2,
    ];
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let polynomial = |c: &[f32]| c.iter().fold(0.0, |sum, c| sum * square + c);
    x * polynomial(&P) / polynomial(&Q)
}

/// `eˣ` as 2ᵏ times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes `expf`); relative error < 3e-7 from -87
/// to 88, clamped outside.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5·2²³ puts the nearest integer into the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    const P: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    // ln 2 is split into two parts so that k times the first is exact.
    let r = x - k * 0.693_359_4 + k * 2.121_944_4e-4;
    let polynomial = P.iter().fold(0.0, |sum, c| sum * r + c);
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127)
        << 23;
    (polynomial * r * r + r + 1.0) * f32::from_bits(exponent)
}

/// Softmax of one row in place.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32]) {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (max, value) in maxima.iter_mut().zip(chunk) {
            *max = max.max(*value);
        }
    }
    let max = maxima
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = exp(*value - max));
    let scale = 1.0 / sum(row, |value| value);
    row.iter_mut().for_each(|value| *value *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_the_exponential() {
        for step in -8700..=8800 {
            let x = step as f32 / 100.0;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (found / exact - 1.0).abs() < 3e-7,
                "exp({x}) = {found}, not {exact}"
            );
        }
        assert!(exp(-1e30) < 1e-37);
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    /// Simpson's rule on the derivative: an independent computation of erf.
    fn erf_by_integration(x: f64) -> f64 {
        let (steps, mut sum) = (4000, 0.0);
        let h = x / f64::from(steps);
        for step in 0..=steps {
            let t = f64::from(step) * h;
            let weight = if step == 0 || step == steps {
                1.0
            } else {
                f64::from(2 + 2 * (step % 2))
            };
            sum += weight * (-t * t).exp();
        }
        sum * h / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn erf_is_the_error_function() {
        for step in -100..=100 {
            let x = step as f32 / 20.0;
            let (found, exact) = (f64::from(erf(x)), erf_by_integration(f64::from(x)));
            assert!(
                (found - exact).abs() < 1e-6,
                "erf({x}) = {found}, not {exact}"
            );
        }
    }

    #[test]
    fn tanh_is_the_hyperbolic_tangent() {
        for step in -2000..=2000 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).tanh();
            assert!((f64::from(tanh(x)) - exact).abs() < 3e-7, "at {x}");
        }
        assert_eq!((tanh(1e30), tanh(-1e30)), (1.0, -1.0));
    }

    #[test]
    fn gelu_tanh_is_its_formula() {
        for step in -200..=200 {
            let x = f64::from(step) / 20.0;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            let exact = 0.5 * x * (1.0 + u.tanh());
            assert!(
                (f64::from(gelu_tanh(x as f32)) - exact).abs() < 2e-6,
                "at {x}"
            );
        }
    }

    #[test]
    fn softmax_sums_to_one_for_every_length_and_range() {
        for length in 1..70 {
            let mut row: Vec<f32> = (0..length).map(|n| (n * 37 % 23) as f32 * 8.0).collect();
            let largest = row.iter().copied().fold(0.0, f32::max);
            let most = row.iter().position(|value| *value == largest).unwrap();
            softmax(&mut row);
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(row.iter().all(|value| *value <= row[most]));
        }
    }

    #[test]
    fn norm_gives_mean_bias_and_unit_variance_for_every_width() {
        for width in [2, 15, 16, 17, 96, 100] {
            let norm = Norm {
                weight: vec![1.0; width],
                bias: vec![0.5; width],
                eps: 1e-12,
            };
            let mut x: Vec<f32> = (0..2 * width).map(|n| (n * 31 % 17) as f32).collect();
            for row in x.chunks_mut(width) {
                norm.add(Isa::best(), row, &vec![3.0; width]);
                let mean = row.iter().sum::<f32>() / width as f32;
                let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / width as f32;
                assert!((mean - 0.5).abs() < 1e-4 && (variance - 1.0).abs() < 1e-3);
            }
        }
    }
}
