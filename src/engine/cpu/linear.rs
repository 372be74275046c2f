//! Dense layers: weights cut into panels once, at load.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::product::{Output, Panels, Rows, multiply, panel_width};

/// Products below this many multiply-adds are not worth waking another thread (measured: a
/// hand-over to the pool costs about as much as 200,000 of them).
const PARALLEL_MULTIPLY_ADDS: usize = 1 << 20;

/// A dense layer, prepared for this machine's vector width.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[panels][inputs][width]`, zero where the last panel exceeds the outputs.
    panels: Vec<f32>,
    /// `[panels · width]`.
    bias: Vec<f32>,
    width: usize,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Packs `weight`, `[outputs, inputs]` row-major, and `bias`, `[outputs]`.
    pub(super) fn pack(weight: &[f32], bias: &[f32], inputs: usize) -> Self {
        let outputs = bias.len();
        let width = panel_width();
        let panel_count = outputs.div_ceil(width);
        let mut panels = vec![0.0; panel_count * inputs * width];
        for (output, row) in weight.chunks_exact(inputs).enumerate() {
            let (panel, column) = (output / width, output % width);
            let panel = &mut panels[panel * inputs * width..][..inputs * width];
            for (values, weight) in panel.chunks_exact_mut(width).zip(row) {
                values[column] = *weight;
            }
        }
        let mut padded_bias = bias.to_vec();
        padded_bias.resize(panel_count * width, 0.0);
        Self {
            panels,
            bias: padded_bias,
            width,
            inputs,
            outputs,
        }
    }

    /// Width of an input row.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of an output row.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = x · weightᵀ + bias` for `x` `[rows, inputs]` and `y` `[rows, outputs]`, on this
    /// thread.
    pub(super) fn apply(&self, arch: Arch, x: &[f32], y: &mut [f32]) {
        let output = Output {
            values: y,
            stride: self.outputs,
        };
        multiply(
            arch,
            self.rows(x),
            self.panels(),
            0..self.panel_count(),
            output,
        );
    }

    /// As [`apply`](Self::apply), with the panels shared out over the current rayon pool when
    /// the product is large enough to pay for it. The sums are the same to the last bit: no sum
    /// is split.
    pub(super) fn apply_parallel(&self, arch: Arch, x: &[f32], y: &mut [f32]) {
        let rows = self.rows(x);
        let threads = rayon::current_num_threads();
        if threads == 1 || rows.count * self.inputs * self.outputs < PARALLEL_MULTIPLY_ADDS {
            return self.apply(arch, x, y);
        }
        let share = self.panel_count().div_ceil(threads);
        let parts: Vec<(Range<usize>, Vec<f32>)> = (0..self.panel_count())
            .into_par_iter()
            .step_by(share)
            .map(|first| {
                let part = first..(first + share).min(self.panel_count());
                let columns = self.columns(&part);
                let mut values = vec![0.0; rows.count * columns.len()];
                let output = Output {
                    values: &mut values,
                    stride: columns.len(),
                };
                multiply(arch, rows, self.panels(), part, output);
                (columns, values)
            })
            .collect();
        for (columns, part) in parts {
            let width = columns.len();
            for (row, part) in y
                .chunks_exact_mut(self.outputs)
                .zip(part.chunks_exact(width))
            {
                row[columns.clone()].copy_from_slice(part);
            }
        }
    }

    fn rows<'a>(&self, x: &'a [f32]) -> Rows<'a> {
        Rows {
            values: x,
            stride: self.inputs,
            count: x.len() / self.inputs,
        }
    }

    fn panels(&self) -> Panels<'_> {
        Panels {
            values: &self.panels,
            bias: Some(&self.bias),
            inputs: self.inputs,
            columns: self.outputs,
        }
    }

    fn panel_count(&self) -> usize {
        self.bias.len() / self.width
    }

    /// The output columns of a range of panels.
    fn columns(&self, panels: &Range<usize>) -> Range<usize> {
        panels.start * self.width..(panels.end * self.width).min(self.outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tile height, partial panels, and both ways of sharing the work, against a plain sum.
    #[test]
    fn products_equal_a_plain_sum_for_every_shape() {
        let arch = Arch::new();
        let value = |n: usize| ((n * 7919) % 1000) as f32 / 500.0 - 1.0;
        for inputs in [1, 3, 16, 65] {
            for outputs in [1, 5, 8, 16, 31, 32, 33, 70] {
                let weight: Vec<f32> = (0..inputs * outputs).map(value).collect();
                let bias: Vec<f32> = (0..outputs).map(|n| value(n + 13)).collect();
                let layer = Linear::pack(&weight, &bias, inputs);
                for rows in 0..30 {
                    let x: Vec<f32> = (0..rows * inputs).map(|n| value(n + 5)).collect();
                    let mut y = vec![f32::NAN; rows * outputs];
                    layer.apply(arch, &x, &mut y);
                    for (index, found) in y.iter().enumerate() {
                        let (row, output) = (index / outputs, index % outputs);
                        let expected: f32 = bias[output]
                            + (0..inputs)
                                .map(|i| x[row * inputs + i] * weight[output * inputs + i])
                                .sum::<f32>();
                        assert!(
                            (expected - found).abs() < 1e-4,
                            "{rows}x{inputs}x{outputs} at {row},{output}: {found} for {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn sharing_the_panels_changes_no_bit() {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(3)
            .build()
            .unwrap();
        let (inputs, outputs, rows) = (128, 1000, 13);
        let value = |n: usize| ((n * 104_729) % 1000) as f32 / 500.0 - 1.0;
        let weight: Vec<f32> = (0..inputs * outputs).map(value).collect();
        let bias: Vec<f32> = (0..outputs).map(value).collect();
        let x: Vec<f32> = (0..rows * inputs).map(value).collect();
        let layer = Linear::pack(&weight, &bias, inputs);
        assert!(
            rows * inputs * outputs >= PARALLEL_MULTIPLY_ADDS,
            "the test shares the work"
        );
        let (mut alone, mut shared) = (vec![0.0; rows * outputs], vec![0.0; rows * outputs]);
        layer.apply(Arch::new(), &x, &mut alone);
        pool.install(|| layer.apply_parallel(Arch::new(), &x, &mut shared));
        assert_eq!(alone, shared);
    }
}
