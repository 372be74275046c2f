//! The product for few rows, with its fused LayerNorm, activation and residual.

use intentd_kernels::{Activation, Capacity, Dtype, Limits, Norm, Skinny, oracle};

use crate::support::{Bench, assert_close, assert_untouched, ranges, round};

const LIMITS: Limits = Limits {
    words: 10,
    types: 1,
    positions: 64,
};

/// A batch and the shape of a product.
struct ProductCase {
    lengths: &'static [usize],
    /// Capacity of the batch.
    tokens: usize,
    /// Columns of x.
    inner: usize,
    /// Columns of y.
    outer: usize,
}

const fn case(lengths: &'static [usize], tokens: usize, [inner, outer]: [usize; 2]) -> ProductCase {
    ProductCase {
        lengths,
        tokens,
        inner,
        outer,
    }
}

/// All widths of a block, both heights of tiles, inner dimensions of one round of loads and of several.
const CASES: [ProductCase; 10] = [
    case(&[1], 16, [32, 8]),
    case(&[12], 16, [768, 24]),
    case(&[5, 11], 16, [288, 2048]),
    case(&[2, 7], 16, [96, 3072]),
    case(&[3], 16, [1312, 4096]),
    case(&[16], 16, [3104, 8]),
    case(&[9, 3, 14], 32, [128, 2064]),
    case(&[17, 15], 32, [64, 3072]),
    case(&[17], 32, [2080, 16]),
    case(&[30, 1], 32, [1056, 1064]),
];

#[test]
fn a_product_with_activation() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        for case in CASES {
            let ProductCase {
                lengths,
                tokens,
                inner,
                outer,
            } = case;
            for activation in [Activation::None, Activation::Gelu] {
                let mut bench = Bench::new(inner as u64);
                let capacity = Capacity {
                    tokens,
                    sequences: 4,
                };
                let batch = bench.batch(lengths, capacity, LIMITS);
                let (x, x_buffer) = bench.values(tokens * inner, dtype);
                let (w, w_buffer) = bench.values(outer * inner, dtype);
                let (bias, bias_buffer) = bench.values(outer, dtype);
                let y = bench.poisoned(tokens * outer, dtype);
                let skinny = Skinny {
                    x: &x_buffer,
                    x_rows: None,
                    norm: None,
                    w: &w_buffer,
                    bias: &bias_buffer,
                    activation,
                    residual: None,
                    y: &y,
                };
                bench.device.skinny(&batch.placed.tokens, &skinny).unwrap();
                let rows: usize = lengths.iter().sum();
                let expected: Vec<f32> = oracle::linear(&x[..rows * inner], &w, &bias)
                    .iter()
                    .map(|v| oracle::activate(*v, activation))
                    .collect();
                let found = bench.read(&y);
                assert_close(&found[..expected.len()], &expected, dtype, 4.0);
                assert_untouched(&found[expected.len()..]);
            }
        }
    }
}

#[test]
fn a_product_of_normalized_rows_with_residual() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        for case in CASES {
            let ProductCase {
                lengths,
                tokens,
                inner,
                outer,
            } = case;
            let mut bench = Bench::new(outer as u64);
            let capacity = Capacity {
                tokens,
                sequences: 4,
            };
            let batch = bench.batch(lengths, capacity, LIMITS);
            let (x, x_buffer) = bench.values(tokens * inner, dtype);
            let (gamma, gamma_buffer) = bench.values(inner, dtype);
            let (beta, beta_buffer) = bench.values(inner, dtype);
            let (w, w_buffer) = bench.values(outer * inner, dtype);
            let (bias, bias_buffer) = bench.values(outer, dtype);
            let (residual, residual_buffer) = bench.values(tokens * outer, dtype);
            let normalized = bench.poisoned(tokens * inner, dtype);
            let y = bench.poisoned(tokens * outer, dtype);
            let norm = Norm {
                gamma: gamma_buffer,
                beta: beta_buffer,
                eps: 1e-5,
            };
            let skinny = Skinny {
                x: &x_buffer,
                x_rows: None,
                norm: Some((&norm, Some(&normalized))),
                w: &w_buffer,
                bias: &bias_buffer,
                activation: Activation::None,
                residual: Some((&residual_buffer, None)),
                y: &y,
            };
            bench.device.skinny(&batch.placed.tokens, &skinny).unwrap();
            let rows: usize = lengths.iter().sum();
            let normal: Vec<f32> = x[..rows * inner]
                .chunks_exact(inner)
                .flat_map(|row| oracle::norm(row, &gamma, &beta, 1e-5))
                .collect();
            let found = bench.read(&normalized);
            assert_close(&found[..normal.len()], &normal, dtype, 8.0);
            assert_untouched(&found[normal.len()..]);
            // The product reads rounded rows: hundreds of rounding errors of either sign.
            let rounded: Vec<f32> = normal.iter().map(|v| round(*v, dtype)).collect();
            let expected: Vec<f32> = oracle::linear(&rounded, &w, &bias)
                .iter()
                .zip(&residual)
                .map(|(v, residual)| v + residual)
                .collect();
            let found = bench.read(&y);
            let tolerance = 4.0 + (inner as f32).sqrt() / 2.0;
            assert_close(&found[..expected.len()], &expected, dtype, tolerance);
            assert_untouched(&found[expected.len()..]);
        }
    }
}

#[test]
fn row_numbers_select_rows() {
    let (lengths, tokens, inner, outer) = ([4, 9, 2], 16, 64, 24);
    let dtype = Dtype::F16;
    let mut bench = Bench::new(1);
    let capacity = Capacity {
        tokens,
        sequences: 5,
    };
    let batch = bench.batch(&lengths, capacity, LIMITS);
    let (x, x_buffer) = bench.values(tokens * inner, dtype);
    let (w, w_buffer) = bench.values(outer * inner, dtype);
    let (bias, bias_buffer) = bench.values(outer, dtype);
    let (residual, residual_buffer) = bench.values(tokens * outer, dtype);
    let y = bench.poisoned(capacity.sequences * outer, dtype);
    let first = &batch.placed.offsets;
    let skinny = Skinny {
        x: &x_buffer,
        x_rows: Some(first),
        norm: None,
        w: &w_buffer,
        bias: &bias_buffer,
        activation: Activation::Tanh,
        residual: Some((&residual_buffer, Some(first))),
        y: &y,
    };
    bench
        .device
        .skinny(&batch.placed.sequences, &skinny)
        .unwrap();
    let mut expected = Vec::new();
    for range in ranges(&lengths) {
        let product = oracle::linear(&x[range.start * inner..][..inner], &w, &bias);
        let residual = &residual[range.start * outer..][..outer];
        let value = |(v, r): (&f32, &f32)| oracle::activate(*v, Activation::Tanh) + r;
        expected.extend(product.iter().zip(residual).map(value));
    }
    let found = bench.read(&y);
    assert_close(&found[..expected.len()], &expected, dtype, 4.0);
    assert_untouched(&found[expected.len()..]);
}

#[test]
fn statistics_keep_their_precision_around_a_large_mean() {
    // The variance is mean square minus squared mean: at a mean of eight sigma, an error of 65 roundings in
    // f32, one in f16.
    let (inner, outer, dtype) = (768, 8, Dtype::F16);
    let mut bench = Bench::new(3);
    let capacity = Capacity {
        tokens: 16,
        sequences: 4,
    };
    let batch = bench.batch(&[1], capacity, LIMITS);
    let mut x = bench.random(16 * inner, Dtype::F32);
    for value in &mut x {
        *value = round(*value * 1.7 + 8.0, dtype);
    }
    let x_buffer = bench.upload(&x, dtype);
    let norm = Norm {
        gamma: bench.upload(&vec![1.0; inner], dtype),
        beta: bench.upload(&vec![0.0; inner], dtype),
        eps: 1e-5,
    };
    let normalized = bench.poisoned(16 * inner, dtype);
    let skinny = Skinny {
        x: &x_buffer,
        x_rows: None,
        norm: Some((&norm, Some(&normalized))),
        w: &bench.upload(&vec![0.0; outer * inner], dtype),
        bias: &bench.upload(&vec![0.0; outer], dtype),
        activation: Activation::None,
        residual: None,
        y: &bench.poisoned(16 * outer, dtype),
    };
    bench.device.skinny(&batch.placed.tokens, &skinny).unwrap();
    let expected = oracle::norm(&x[..inner], &vec![1.0; inner], &vec![0.0; inner], 1e-5);
    assert_close(&bench.read(&normalized)[..inner], &expected, dtype, 1.0);
}
