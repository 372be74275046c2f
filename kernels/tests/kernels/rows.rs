//! Row-wise kernels: LayerNorm, activation, gathering, the classifier and type conversion.

use intentd_kernels::{Activation, Capacity, Dtype, Limits, Norm, Tables, oracle};

use crate::support::{Bench, assert_close, assert_untouched, ranges};

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];
const LIMITS: Limits = Limits {
    words: 50,
    types: 2,
    positions: 40,
};
const CAPACITY: Capacity = Capacity {
    tokens: 24,
    sequences: 4,
};
const LENGTHS: [usize; 3] = [7, 1, 11];

/// A LayerNorm on the device, and its parameters on the host.
struct RandomNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    on_device: Norm,
}

impl RandomNorm {
    fn new(bench: &mut Bench, columns: usize, dtype: Dtype) -> Self {
        let (gamma, gamma_buffer) = bench.values(columns, dtype);
        let (beta, beta_buffer) = bench.values(columns, dtype);
        let on_device = Norm {
            gamma: gamma_buffer,
            beta: beta_buffer,
            eps: 1e-5,
        };
        Self {
            gamma,
            beta,
            on_device,
        }
    }

    fn expected(&self, row: &[f32]) -> Vec<f32> {
        oracle::norm(row, &self.gamma, &self.beta, self.on_device.eps)
    }
}

#[test]
fn embeddings_are_added_and_normalized() {
    for dtype in DTYPES {
        for columns in [8, 128, 264, 768, 1024, 2048] {
            let mut bench = Bench::new(columns as u64);
            let batch = bench.batch(&LENGTHS, CAPACITY, LIMITS);
            let (words, words_buffer) = bench.values(LIMITS.words * columns, dtype);
            let (positions, positions_buffer) = bench.values(LIMITS.positions * columns, dtype);
            let (types, types_buffer) = bench.values(LIMITS.types * columns, dtype);
            let norm = RandomNorm::new(&mut bench, columns, dtype);
            let tables = Tables {
                words: words_buffer,
                positions: positions_buffer,
                types: types_buffer,
            };
            let y = bench.poisoned(CAPACITY.tokens * columns, dtype);
            bench
                .device
                .embed_norm(&batch.placed, &tables, &norm.on_device, &y)
                .unwrap();

            let mut expected = Vec::new();
            for range in ranges(&LENGTHS) {
                for (position, token) in range.enumerate() {
                    let row =
                        |table: &[f32], index: usize| table[index * columns..][..columns].to_vec();
                    let word = row(&words, batch.ids[token] as usize);
                    let position = row(&positions, position);
                    let kind = row(&types, batch.type_ids[token] as usize);
                    let sum: Vec<f32> = (0..columns)
                        .map(|i| word[i] + position[i] + kind[i])
                        .collect();
                    expected.extend(norm.expected(&sum));
                }
            }
            let found = bench.read(&y);
            let (real, beyond) = found.split_at(expected.len());
            assert_close(real, &expected, dtype, 8.0);
            assert_untouched(beyond);
        }
    }
}

#[test]
fn rows_are_normalized() {
    for dtype in DTYPES {
        for columns in [40, 128, 768, 1536] {
            let mut bench = Bench::new(columns as u64);
            let batch = bench.batch(&LENGTHS, CAPACITY, LIMITS);
            let rows = &batch.placed.tokens;
            let (x, x_buffer) = bench.values(CAPACITY.tokens * columns, dtype);
            let norm = RandomNorm::new(&mut bench, columns, dtype);
            let y = bench.poisoned(CAPACITY.tokens * columns, dtype);
            let device = &bench.device;
            device.norm(rows, &x_buffer, &norm.on_device, &y).unwrap();

            let tokens: usize = LENGTHS.iter().sum();
            let expected: Vec<f32> = x[..tokens * columns]
                .chunks_exact(columns)
                .flat_map(|row| norm.expected(row))
                .collect();
            let found = bench.read(&y);
            assert_close(&found[..expected.len()], &expected, dtype, 8.0);
            assert_untouched(&found[expected.len()..]);
        }
    }
}

#[test]
fn norm_keeps_its_precision_around_a_large_mean() {
    // A one-pass variance (mean of squares minus square of the mean) would lose all digits.
    let mut bench = Bench::new(3);
    let columns = 256;
    let batch = bench.batch(&[1], CAPACITY, LIMITS);
    let x: Vec<f32> = bench
        .random(columns, Dtype::F32)
        .iter()
        .map(|v| v + 10_000.0)
        .collect();
    let mut whole = x.clone();
    whole.resize(CAPACITY.tokens * columns, 0.0);
    let x_buffer = bench.upload(&whole, Dtype::F32);
    let norm = RandomNorm::new(&mut bench, columns, Dtype::F32);
    let y = bench.poisoned(CAPACITY.tokens * columns, Dtype::F32);
    let rows = &batch.placed.tokens;
    let device = &bench.device;
    device.norm(rows, &x_buffer, &norm.on_device, &y).unwrap();
    let expected = norm.expected(&x);
    // The mean is accurate to a few roundings of 10,000: 1e-2 for values of about 1.
    let worst = bench.read(&y)[..columns]
        .iter()
        .zip(&expected)
        .map(|(found, expected)| (found - expected).abs())
        .fold(0.0, f32::max);
    assert!(worst < 1e-2, "{worst}");
}

#[test]
fn activations_equal_their_formulas() {
    let all = [
        Activation::None,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Tanh,
    ];
    for dtype in DTYPES {
        for activation in all {
            let mut bench = Bench::new(11);
            let columns = 72;
            let batch = bench.batch(&LENGTHS, CAPACITY, LIMITS);
            let x: Vec<f32> = bench.random(CAPACITY.tokens * columns, dtype);
            // Including the tails on both sides.
            let x: Vec<f32> = x.iter().map(|v| v * 8.0).collect();
            let x_buffer = bench.upload(&x, dtype);
            let (bias, bias_buffer) = bench.values(columns, dtype);
            let rows = &batch.placed.tokens;
            bench
                .device
                .bias_activation(rows, &x_buffer, &bias_buffer, activation)
                .unwrap();
            let real = LENGTHS.iter().sum::<usize>() * columns;
            let expected: Vec<f32> = (0..CAPACITY.tokens * columns)
                .map(|i| match i < real {
                    true => oracle::activate(x[i] + bias[i % columns], activation),
                    false => x[i],
                })
                .collect();
            // In f32, the tail of GELU is x·(1 + erf) with erf near -1: the error is a few roundings of x,
            // not of y.
            let tolerance = if dtype == Dtype::F32 { 16.0 } else { 2.0 };
            assert_close(&bench.read(&x_buffer), &expected, dtype, tolerance);
        }
    }
}

#[test]
fn nan_reaches_the_result() {
    // The self-test at load finds damaged weights by NaN in the logits.
    for dtype in DTYPES {
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Tanh] {
            let mut bench = Bench::new(11);
            let batch = bench.batch(&LENGTHS, CAPACITY, LIMITS);
            let x = bench.poisoned(CAPACITY.tokens * 8, dtype);
            let bias = bench.upload(&[0.0; 8], dtype);
            let rows = &batch.placed.tokens;
            bench
                .device
                .bias_activation(rows, &x, &bias, activation)
                .unwrap();
            let found = bench.read(&x);
            assert!(found.iter().all(|v| v.is_nan()), "{dtype:?} {activation:?}");
        }
    }
}

#[test]
fn first_rows_are_gathered() {
    let mut bench = Bench::new(5);
    let columns = 136;
    let batch = bench.batch(&LENGTHS, CAPACITY, LIMITS);
    let (x, x_buffer) = bench.values(CAPACITY.tokens * columns, Dtype::F16);
    let y = bench.poisoned(CAPACITY.sequences * columns, Dtype::F16);
    bench
        .device
        .gather_first(&batch.placed, &x_buffer, &y, columns)
        .unwrap();
    let first = |range: std::ops::Range<usize>| x[range.start * columns..][..columns].to_vec();
    let expected: Vec<f32> = ranges(&LENGTHS).into_iter().flat_map(first).collect();
    let found = bench.read(&y);
    assert_eq!(found[..expected.len()], expected);
    assert_untouched(&found[expected.len()..]);
}

#[test]
fn logits_are_products_in_f32() {
    for dtype in DTYPES {
        for (columns, labels) in [(128, 7), (40, 1), (768, 151)] {
            let mut bench = Bench::new(labels as u64);
            let batch = bench.batch(&LENGTHS, CAPACITY, LIMITS);
            let rows = &batch.placed.sequences;
            let (x, x_buffer) = bench.values(CAPACITY.sequences * columns, dtype);
            let (w, w_buffer) = bench.values(labels * columns, dtype);
            let (bias, bias_buffer) = bench.values(labels, dtype);
            let logits = bench.poisoned(CAPACITY.sequences * labels, Dtype::F32);
            bench
                .device
                .classify(rows, &x_buffer, &w_buffer, &bias_buffer, &logits)
                .unwrap();
            let expected = oracle::linear(&x[..LENGTHS.len() * columns], &w, &bias);
            let found = bench.read(&logits);
            assert_close(&found[..expected.len()], &expected, Dtype::F32, 64.0);
            assert_untouched(&found[expected.len()..]);
        }
    }
}

#[test]
fn conversions_round_as_the_library_does() {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        65_504.0,
        65_519.9,
        65_520.0,
        1e30,
        -1e30,
        6.1e-5,
        6.0e-5,
        5.96e-8,
        2.9e-8,
        1e-10,
        -3.0e-6,
        1.000_488_3,
        1.001_464_9,
        0.333_333_34,
        f32::INFINITY,
        3.3e38,
    ];
    let mut bench = Bench::new(9);
    let mut values = bench.random(1000, Dtype::F32);
    values.extend(special);
    for from in DTYPES {
        let source = bench.upload(&values, from);
        let rounded = bench.read(&source);
        for to in DTYPES {
            let target = bench.device.zeros(to, values.len()).unwrap();
            bench.device.convert(&source, &target).unwrap();
            let expected = bench.read(&bench.upload(&rounded, to));
            assert_eq!(bench.read(&target), expected, "{from:?} to {to:?}");
        }
    }
}
