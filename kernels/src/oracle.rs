//! Reference implementations of the kernels in plain f32, against which the tests compare them.
//!
//! `x[rows, columns]` is row-major.

use std::ops::Range;

use crate::activation::Activation;

/// The dot product Σ a·b.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight partial sums, which the compiler keeps in one vector.
    let mut sums = [0.0_f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `activation(x)`. The error function is accurate to 1e-7; it is summed as a series, because Abramowitz
/// and Stegun 7.1.26 is too coarse.
pub fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::None => x,
        Activation::Gelu => 0.5 * x * (1.0 + erf(f64::from(x) / std::f64::consts::SQRT_2) as f32),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
    }
}

/// The error function: 2/√π Σ (-1)ⁿ x²ⁿ⁺¹ / (n! (2n+1)) (DLMF 7.6.1).
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut sum, mut term) = (x, x);
    for n in 1..200 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// LayerNorm of one row (Ba et al. 2016).
pub fn norm(row: &[f32], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<f32> {
    let len = row.len() as f64;
    let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / len;
    let variance = row
        .iter()
        .map(|v| (f64::from(*v) - mean).powi(2))
        .sum::<f64>()
        / len;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    let parts = row.iter().zip(gamma).zip(beta);
    parts
        .map(|((v, g), b)| ((f64::from(*v) - mean) * scale) as f32 * g + b)
        .collect()
}

/// A dense layer: `x[rows, inner] · w[outer, inner]ᵀ + bias[outer]`, `[rows, outer]`.
pub fn linear(x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
    let inner = w.len() / bias.len();
    let row = |x: &[f32]| -> Vec<f32> {
        let columns = w.chunks_exact(inner).zip(bias);
        columns.map(|(w, bias)| dot(x, w) + bias).collect()
    };
    x.chunks_exact(inner).flat_map(row).collect()
}

/// Attention of one head over one sequence: `softmax(q·kᵀ/√d)·v` for each row of `q`.
///
/// `q`, `k` and `v` are values and the stride from row to row; the head is `columns` of each row.
pub fn attention(
    q: (&[f32], usize),
    k: (&[f32], usize),
    v: (&[f32], usize),
    columns: Range<usize>,
) -> Vec<f32> {
    let rows = |(values, stride): (&[f32], usize)| -> Vec<Vec<f32>> {
        let row = |row: &[f32]| row[columns.clone()].to_vec();
        values.chunks_exact(stride).map(row).collect()
    };
    let (q, k, v) = (rows(q), rows(k), rows(v));
    let scale = 1.0 / (columns.len() as f32).sqrt();
    let mut context = Vec::with_capacity(q.len() * columns.len());
    for q in &q {
        let scores: Vec<f32> = k.iter().map(|k| dot(q, k) * scale).collect();
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f32 = weights.iter().sum();
        for d in 0..columns.len() {
            let parts = weights.iter().zip(&v).map(|(weight, v)| weight * v[d]);
            context.push(parts.sum::<f32>() / sum);
        }
    }
    context
}
