//! The product for few rows, with everything that surrounds it.

use intentd_kernels::{Activation, Capacity, Dtype, Limits, Norm, Skinny, oracle};

use crate::support::{Bench, assert_close, assert_untouched, ranges, round};

const LIMITS: Limits = Limits {
    words: 10,
    types: 1,
    positions: 64,
};

/// Lengths of the sequences, room for how many tokens, columns of x and of y.
type Case = (&'static [usize], usize, usize, usize);

const CASES: [Case; 7] = [
    (&[1], 16, 32, 8),
    (&[12], 16, 768, 24),
    (&[5, 11], 16, 288, 2048),
    (&[9, 3, 14], 32, 128, 2064),
    (&[17, 20], 48, 256, 40),
    (&[64], 64, 64, 16),
    (&[30, 31], 64, 1056, 8),
];

#[test]
fn a_product_with_activation() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        for (lengths, tokens, inner, outer) in CASES {
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
        for (lengths, tokens, inner, outer) in CASES {
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
            // The product sees rounded rows: hundreds of roundings, each of either sign.
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
fn rows_may_be_chosen() {
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
