//! Dense layers, whose weights are packed into panels once, at load.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::activations::Activations;
use super::buffer::{Buffer, checked_product, row_stride};
use super::float::{self, FloatProduct, FloatWeights};
use super::form::Form;
use super::int8::{self, Int8PanelWriter, Int8Panels, Int8Weights};
use super::isa::Isa;
use super::operands::{InputRows, PanelValues};
use super::output::OutputRows;
use super::shared::SharedPointer;
use super::team::Team;
use crate::activation::Activation;

/// Products with fewer multiply-adds are computed by the calling thread. They take some microseconds, as
/// long as it takes to wake the other threads.
const SHARED_MULTIPLY_ADDS: usize = 1 << 18;

/// A dense layer, packed for this machine's instructions.
#[derive(Debug)]
pub struct Panels {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    /// Number of columns in a panel.
    width: usize,
    /// `[panels · width]`.
    bias: Vec<f32>,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    F32(Buffer<f32>),
    Bf16(Buffer<u32>),
    Int8(Int8Panels),
}

impl Panels {
    /// Packs a weight of `[bias.len(), inputs]`. `row` writes the weights of one output into its slice; it
    /// is called once for each output, from all threads of the team.
    ///
    /// f32 weights are not changed, bf16 weights are rounded to nearest even, and int8 weights are scaled
    /// for each output so that the largest magnitude is 127 (per-channel, symmetric).
    ///
    /// # Errors
    /// The first error of `row`.
    pub fn pack<E: Send>(
        team: &mut Team,
        (isa, form): (Isa, Form),
        inputs: usize,
        mut bias: Vec<f32>,
        row: impl Fn(usize, &mut [f32]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        let outputs = bias.len();
        let width = match form {
            Form::F32 | Form::Bf16 => float::panel_width(isa),
            Form::Int8 => int8::panel_width(isa),
        };
        let panels = outputs.div_ceil(width);
        bias.resize(panels * width, 0.0);
        let mut weights = match form {
            Form::F32 => Weights::F32(Buffer::zeros(checked_product([panels, inputs, width]))),
            Form::Bf16 => Weights::Bf16(Buffer::zeros(checked_product([
                panels,
                inputs.div_ceil(2),
                width,
            ]))),
            Form::Int8 => Weights::Int8(Int8Panels::zeros(isa, panels, inputs)),
        };
        let writer = weights.writer();
        let failure = Mutex::new(None);
        team.share(panels, 1, &|_, range| {
            // The rows of one panel; their first values lie in different cache sets.
            let stride = row_stride(inputs, size_of::<f32>());
            let mut rows = vec![0.0; width * stride];
            for panel in range {
                let existing = panel * width..((panel + 1) * width).min(outputs);
                for (output, values) in existing.clone().zip(rows.chunks_exact_mut(stride)) {
                    if let Err(error) = row(output, &mut values[..inputs]) {
                        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        failure.get_or_insert(error);
                        return;
                    }
                }
                rows[existing.len() * stride..].fill(0.0);
                let rows = InputRows {
                    values: &rows,
                    stride,
                    count: width,
                };
                // SAFETY: each panel is given to one thread once, and nothing else uses it.
                unsafe { writer.fill(panel, rows, inputs) };
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(Self {
                isa,
                inputs,
                outputs,
                width,
                bias,
                weights,
            }),
        }
    }

    /// Width of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of an output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = activation(x · weightᵀ + bias)` for `x[rows, inputs]`; `y` becomes `[rows, outputs]`.
    ///
    /// The team divides the columns. No sum is split, so the result has the same bits for every number of
    /// threads.
    ///
    /// # Panics
    /// When the width of `x` or `y` differs from this layer's, or when `x` lacks the format that the weights
    /// need.
    pub fn multiply(
        &self,
        team: &mut Team,
        x: &Activations,
        y: &mut Activations,
        activation: Activation,
    ) {
        assert_eq!(x.width(), self.inputs, "the width of the input");
        assert_eq!(y.width(), self.outputs, "the width of the output");
        let rows = x.len();
        y.resize(rows);
        if rows == 0 {
            return;
        }
        let output = y.output();
        let panels = self.bias.len() / self.width;
        let share = panels.div_ceil(4 * team.threads());
        let work = rows
            .saturating_mul(self.inputs)
            .saturating_mul(self.outputs);
        let grain = match work < SHARED_MULTIPLY_ADDS {
            true => panels,
            false => share,
        };
        team.share(panels, grain, &|_, range| {
            self.multiply_panels(x, output, range, activation);
        });
    }

    /// Computes the columns of some panels.
    fn multiply_panels(
        &self,
        x: &Activations,
        output: OutputRows<'_>,
        range: Range<usize>,
        activation: Activation,
    ) {
        let values = match &self.weights {
            Weights::F32(values) => PanelValues::F32(values.as_slice()),
            Weights::Bf16(words) => PanelValues::Bf16(words.as_slice()),
            Weights::Int8(panels) => {
                let Some(rows) = x.quantized() else {
                    panic!("int8 weights need int8 activations");
                };
                let bias = &self.bias;
                let right = Int8Weights {
                    panels,
                    bias,
                    columns: self.outputs,
                };
                return int8::multiply(self.isa, (rows, x.len()), right, range, output, activation);
            }
        };
        self.isa.dispatch(FloatProduct {
            left: x.rows().inputs(0..x.len(), 0),
            right: FloatWeights {
                values,
                bias: Some(&self.bias),
                inputs: self.inputs,
                columns: self.outputs,
            },
            range,
            output,
            activation,
        });
    }
}

impl Weights {
    fn writer(&mut self) -> PanelWriter {
        match self {
            Self::F32(values) => PanelWriter::F32(SharedPointer::new(values.as_mut_slice())),
            Self::Bf16(values) => PanelWriter::Bf16(SharedPointer::new(values.as_mut_slice())),
            Self::Int8(panels) => PanelWriter::Int8(panels.writer()),
        }
    }
}

/// Panels that threads fill at the same time.
#[derive(Clone, Copy)]
enum PanelWriter {
    F32(SharedPointer<f32>),
    Bf16(SharedPointer<u32>),
    Int8(Int8PanelWriter),
}

impl PanelWriter {
    /// Packs the weights of one panel; each of `rows` is a column of it.
    ///
    /// # Safety
    /// The panel exists, and nothing else uses it.
    unsafe fn fill(self, panel: usize, rows: InputRows<'_>, inputs: usize) {
        let width = rows.count;
        let row = |column: usize| &rows.values[column * rows.stride..][..inputs];
        match self {
            Self::F32(place) => {
                let size = inputs * width;
                // SAFETY: the caller's promise.
                let values =
                    unsafe { std::slice::from_raw_parts_mut(place.at(panel * size), size) };
                for (input, values) in values.chunks_exact_mut(width).enumerate() {
                    for (column, value) in values.iter_mut().enumerate() {
                        *value = rows.values[column * rows.stride + input];
                    }
                }
            }
            Self::Bf16(place) => {
                let size = inputs.div_ceil(2) * width;
                // SAFETY: the caller's promise.
                let words = unsafe { std::slice::from_raw_parts_mut(place.at(panel * size), size) };
                let half = |column: usize, input: usize| {
                    let value = row(column).get(input).copied().unwrap_or(0.0);
                    u32::from(half::bf16::from_f32(value).to_bits())
                };
                for (pair, words) in words.chunks_exact_mut(width).enumerate() {
                    for (column, word) in words.iter_mut().enumerate() {
                        *word = half(column, 2 * pair) | half(column, 2 * pair + 1) << 16;
                    }
                }
            }
            // SAFETY: the caller's promise.
            Self::Int8(place) => unsafe { place.fill(panel, rows, inputs) },
        }
    }
}
