//! Compares products and attention with plain sums, in all formats, for all instruction sets of this
//! machine.

use std::num::NonZeroUsize;
use std::ops::Range;

use super::*;
use crate::activation::Activation;

fn team(threads: usize) -> Team {
    Team::new(NonZeroUsize::new(threads).unwrap(), || ()).unwrap()
}

/// A pseudo-random number between -1 and 1.
fn value(n: usize) -> f32 {
    let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 40) as f32) / (1 << 23) as f32 - 1.0
}

/// All rows as one part.
fn one_part(rows: usize) -> Vec<Range<usize>> {
    std::iter::once(0..rows).collect()
}

/// A dense layer and its input.
struct LayerCase {
    inputs: usize,
    outputs: usize,
    rows: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    x: Vec<f32>,
}

impl LayerCase {
    fn new(inputs: usize, outputs: usize, rows: usize) -> Self {
        Self {
            inputs,
            outputs,
            rows,
            weight: (0..inputs * outputs).map(value).collect(),
            bias: (0..outputs).map(|n| value(n + 13)).collect(),
            x: (0..rows * inputs).map(|n| 3.0 * value(n + 77)).collect(),
        }
    }

    fn run(&self, isa: Isa, form: Form, threads: usize, activation: Activation) -> Vec<f32> {
        let mut team = team(threads);
        let row = |output: usize, row: &mut [f32]| -> Result<(), ()> {
            row.copy_from_slice(&self.weight[output * self.inputs..][..self.inputs]);
            Ok(())
        };
        let bias = self.bias.clone();
        let panels = Panels::pack(&mut team, (isa, form), self.inputs, bias, row).unwrap();
        let mut x = Activations::new(isa, self.inputs, form);
        x.resize(self.rows);
        x.write(&mut team, &one_part(self.rows), |_, part, rows| {
            for (index, row) in part.zip(rows.iter_mut()) {
                row.copy_from_slice(&self.x[index * self.inputs..][..self.inputs]);
            }
        });
        let mut y = Activations::new(isa, self.outputs, Form::F32);
        // Earlier values must not matter.
        y.resize(self.rows);
        y.write(&mut team, &one_part(self.rows), |_, _, rows| {
            rows.iter_mut().for_each(|row| row.fill(f32::NAN));
        });
        panels.multiply(&mut team, &x, &mut y, activation);
        y.rows().iter().flatten().copied().collect()
    }

    /// The result in f64, from weights and inputs rounded to `form`.
    fn expected(&self, form: Form) -> Vec<f64> {
        let mut expected = Vec::new();
        for x in self.x.chunks_exact(self.inputs) {
            for (weight, bias) in self.weight.chunks_exact(self.inputs).zip(&self.bias) {
                let sum: f64 = round(x, form_of_activations(form))
                    .zip(round(weight, form))
                    .map(|(x, w)| x * w)
                    .sum();
                expected.push(sum + f64::from(*bias));
            }
        }
        expected
    }
}

/// The format of activations for weights of format `weights`.
fn form_of_activations(weights: Form) -> Form {
    match weights {
        Form::F32 | Form::Bf16 => Form::F32,
        Form::Int8 => Form::Int8,
    }
}

fn round(values: &[f32], form: Form) -> impl Iterator<Item = f64> {
    let largest = values.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
    values.iter().map(move |value| match form {
        Form::F32 => f64::from(*value),
        Form::Bf16 => half::bf16::from_f32(*value).to_f64(),
        Form::Int8 if largest == 0.0 => 0.0,
        Form::Int8 => {
            let code = (value * (127.0 / largest)).round_ties_even();
            f64::from(code) * f64::from(largest / 127.0)
        }
    })
}

/// The instruction sets of this machine, the widest first.
fn isas() -> Vec<Isa> {
    [IsaLimit::Avx512, IsaLimit::Avx2, IsaLimit::Generic]
        .map(Isa::up_to)
        .to_vec()
}

#[test]
fn products_equal_a_plain_sum_for_every_shape() {
    for isa in isas() {
        for form in [Form::F32, Form::Bf16, Form::Int8] {
            for (inputs, outputs) in [
                (1, 1),
                (3, 5),
                (4, 8),
                (16, 16),
                (17, 31),
                (64, 32),
                (65, 33),
                (130, 70),
                (512, 40),
            ] {
                for rows in 0..32 {
                    let case = LayerCase::new(inputs, outputs, rows);
                    let found = case.run(isa, form, 1, Activation::None);
                    let expected = case.expected(form);
                    assert_eq!(found.len(), expected.len());
                    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        assert!(
                            (f64::from(*found) - expected).abs() < 1e-6 * (inputs as f64 + 10.0),
                            "{isa} {form:?} {rows}x{inputs}x{outputs} at {index}: \
                             {found} for {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn int8_products_are_equal_for_all_instruction_sets() {
    for (inputs, outputs, rows) in [(70, 45, 29), (768, 64, 13)] {
        let case = LayerCase::new(inputs, outputs, rows);
        let [first, rest @ ..] = &isas()[..] else {
            unreachable!()
        };
        let answer = case.run(*first, Form::Int8, 1, Activation::None);
        for isa in rest {
            let found = case.run(*isa, Form::Int8, 1, Activation::None);
            for (found, answer) in found.iter().zip(&answer) {
                // The sums are equal; a fused multiply-add rounds once less.
                assert!(
                    (found - answer).abs() <= 1e-6 * answer.abs().max(1.0),
                    "{isa}"
                );
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for isa in isas() {
        for form in [Form::F32, Form::Bf16, Form::Int8] {
            let case = LayerCase::new(128, 1000, 23);
            let alone = case.run(isa, form, 1, Activation::Gelu);
            for threads in [2, 3, 8] {
                assert_eq!(
                    alone,
                    case.run(isa, form, threads, Activation::Gelu),
                    "{isa} {form:?}"
                );
            }
        }
    }
}

#[test]
fn a_row_of_zeros_and_an_output_of_zeros_give_the_bias() {
    for isa in isas() {
        let mut case = LayerCase::new(40, 40, 3);
        case.x[40..80].fill(0.0);
        case.weight[..40].fill(0.0);
        let found = case.run(isa, Form::Int8, 1, Activation::None);
        assert_eq!(found[40..80], case.bias);
        assert_eq!([found[0], found[80]], [case.bias[0]; 2]);
    }
}

/// A NaN in a checkpoint used to become a finite number in int8 and under ReLU, so no check of the logits
/// could find it.
#[test]
fn nan_and_infinity_reach_the_result() {
    for isa in isas() {
        for form in [Form::F32, Form::Bf16, Form::Int8] {
            for poison in [f32::NAN, f32::INFINITY] {
                let mut case = LayerCase::new(40, 40, 3);
                case.x[45] = poison;
                case.weight[7 * 40 + 3] = poison;
                let found = case.run(isa, form, 1, Activation::Relu);
                let rows: Vec<&[f32]> = found.chunks_exact(40).collect();
                assert!(
                    !rows[0][7].is_finite() || poison == f32::INFINITY,
                    "{isa} {form:?}"
                );
                assert!(rows[0][8].is_finite(), "{isa} {form:?}");
                if poison.is_nan() {
                    assert!(rows[1].iter().all(|value| value.is_nan()), "{isa} {form:?}");
                }
            }
        }
    }
}

#[test]
fn attention_equals_its_formula() {
    for isa in isas() {
        for (count, size) in [(1, 4), (2, 16), (3, 26), (2, 64)] {
            for tokens in [1, 2, 7, 16, 33, 70] {
                check_attention(isa, Heads { count, size }, tokens);
            }
        }
    }
}

fn check_attention(isa: Isa, heads: Heads, tokens: usize) {
    let Heads { count, size } = heads;
    let hidden = count * size;
    let mut team = Team::solo();
    let mut filled = |width: usize, rows: usize, seed: usize| {
        let mut matrix = Activations::new(isa, width, Form::F32);
        matrix.resize(rows);
        matrix.write(&mut team, &one_part(rows), |_, _, rows| {
            for (index, row) in rows.iter_mut().enumerate() {
                for (column, x) in row.iter_mut().enumerate() {
                    *x = 2.0 * value(seed + index * width + column);
                }
            }
        });
        matrix
    };
    // Two tokens before the sequence and one after it, which must not be read.
    let (query, key_value) = (
        filled(hidden, tokens + 3, 5),
        filled(2 * hidden, tokens + 3, 999),
    );
    let mut context = filled(hidden, tokens, 1);
    context.write(&mut Team::solo(), &one_part(tokens), |_, _, context| {
        let sequence = 2..2 + tokens;
        let (query, key_value) = (
            (query.rows(), sequence.clone()),
            (key_value.rows(), sequence),
        );
        heads.attend(
            isa,
            query,
            key_value,
            context,
            &mut AttentionScratch::default(),
        );
    });
    for row in 0..tokens {
        for head in 0..count {
            let of = |row: &[f32], from: usize| -> Vec<f64> {
                row[from..][..size].iter().map(|v| f64::from(*v)).collect()
            };
            let query = of(query.rows().row(2 + row), head * size);
            let weights: Vec<f64> = (0..tokens)
                .map(|token| {
                    let key = of(key_value.rows().row(2 + token), head * size);
                    query
                        .iter()
                        .zip(&key)
                        .map(|(q, k)| q * k)
                        .sum::<f64>()
                        .exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            for column in 0..size {
                let expected: f64 = (0..tokens)
                    .map(|token| {
                        let value = key_value.rows().row(2 + token)[hidden + head * size + column];
                        weights[token] / sum * f64::from(value)
                    })
                    .sum();
                let found = f64::from(context.rows().row(row)[head * size + column]);
                assert!(
                    (found - expected).abs() < 2e-4,
                    "{isa} {heads:?} {tokens}: {found} for {expected}"
                );
            }
        }
    }
}
