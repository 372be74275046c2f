//! Rows of activations, in the format that products read.

use std::ops::Range;

use super::buffer::{Buffer, checked_product, row_stride};
use super::form::Form;
use super::isa::Isa;
use super::operands::InputRows;
use super::output::OutputRows;
use super::quantized::{QuantizedRows, quantize};
use super::shared::SharedPointer;
use super::team::Team;

/// A matrix of activations, `[rows, width]`, reused from batch to batch.
#[derive(Debug)]
pub struct Activations {
    isa: Isa,
    width: usize,
    rows: usize,
    /// Distance between the starts of two rows.
    stride: usize,
    values: Buffer<f32>,
    /// The rows in the format of int8 products.
    quantized: Option<QuantizedRows>,
}

/// Read-only rows of f32.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [f32],
    width: usize,
    stride: usize,
}

/// Writable rows of f32, numbered from 0.
#[derive(Debug)]
pub struct RowsMut<'a> {
    values: &'a mut [f32],
    width: usize,
    stride: usize,
}

impl Activations {
    /// An empty matrix with rows of `width` numbers, for products of `form` to read.
    pub fn new(isa: Isa, width: usize, form: Form) -> Self {
        Self {
            isa,
            width,
            rows: 0,
            stride: row_stride(width, size_of::<f32>()),
            values: Buffer::default(),
            quantized: (form == Form::Int8).then(|| QuantizedRows::new(isa, width)),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Length of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Changes the number of rows; existing rows keep their values.
    pub fn resize(&mut self, rows: usize) {
        self.rows = rows;
        self.values.resize(checked_product([rows, self.stride]));
        if let Some(quantized) = &mut self.quantized {
            quantized.resize(rows);
        }
    }

    /// Keeps the given rows and drops the others. Before a product reads them, call
    /// [`prepare`](Self::prepare).
    ///
    /// # Panics
    /// When a row does not exist, or when `rows` are not in strictly ascending order.
    pub fn keep_rows(&mut self, rows: impl ExactSizeIterator<Item = usize>) {
        let (stride, kept) = (self.stride, rows.len());
        let values = self.values.as_mut_slice();
        let mut first = 0;
        for (place, row) in rows.enumerate() {
            assert!(row >= first, "rows in ascending order");
            first = row + 1;
            values.copy_within(row * stride..(row + 1) * stride, place * stride);
        }
        self.resize(kept);
    }

    /// All rows.
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            values: self.values.as_slice(),
            width: self.width,
            stride: self.stride,
        }
    }

    /// Writes rows: each thread of the team takes one of `parts` at a time and calls `work` with its own
    /// number, the range of rows and these rows. Rows outside of `parts` are not changed. Written rows are
    /// brought into the format that products read.
    ///
    /// # Panics
    /// When `parts` are not in ascending order, or when `work` panics.
    pub fn write(
        &mut self,
        team: &mut Team,
        parts: &[Range<usize>],
        work: impl Fn(usize, Range<usize>, &mut RowsMut<'_>) + Sync,
    ) {
        let mut end = 0;
        for part in parts {
            assert!(
                end <= part.start && part.start <= part.end,
                "ascending parts"
            );
            end = part.end;
        }
        assert!(end <= self.rows, "{end} rows of {}", self.rows);
        let (isa, width, stride) = (self.isa, self.width, self.stride);
        let values = SharedPointer::new(self.values.as_mut_slice());
        let quantized = self.quantized.as_mut().map(QuantizedRows::shared);
        team.share(parts.len(), 1, &|member, range| {
            for part in &parts[range] {
                let (first, count) = (part.start, part.len());
                // SAFETY: parts do not overlap (checked above) and each is taken once, so no other
                // thread has these rows; they lie inside the buffer, which `self` borrows.
                let values = unsafe {
                    std::slice::from_raw_parts_mut(values.at(first * stride), count * stride)
                };
                let mut rows = RowsMut {
                    values,
                    width,
                    stride,
                };
                work(member, part.clone(), &mut rows);
                if let Some(quantized) = &quantized {
                    for (offset, row) in rows.as_rows().iter().enumerate() {
                        // SAFETY: as above.
                        let place = unsafe { quantized.row(first + offset) };
                        quantize(isa, row, place);
                    }
                }
            }
        });
    }

    /// Brings rows that a product has written into the format that the next product reads.
    pub fn prepare(&mut self, team: &mut Team, parts: &[Range<usize>]) {
        if self.quantized.is_some() {
            self.write(team, parts, |_, _, _| {});
        }
    }

    pub(super) fn quantized(&self) -> Option<&QuantizedRows> {
        self.quantized.as_ref()
    }

    /// All rows as the output of a product.
    pub(super) fn output(&mut self) -> OutputRows<'_> {
        OutputRows::new(self.values.as_mut_slice(), self.stride)
    }
}

impl<'a> Rows<'a> {
    /// Row `index`.
    pub fn row(self, index: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..self.width]
    }

    /// Number of rows.
    pub fn len(self) -> usize {
        self.values.len() / self.stride
    }

    /// Whether there are no rows.
    pub fn is_empty(self) -> bool {
        self.values.is_empty()
    }

    /// Length of a row.
    pub(super) fn width(self) -> usize {
        self.width
    }

    /// Iterates over the rows.
    pub fn iter(self) -> impl Iterator<Item = &'a [f32]> {
        self.values
            .chunks_exact(self.stride)
            .map(move |row| &row[..self.width])
    }

    /// A range of the rows, from `column` on, as the input of a product.
    pub(super) fn inputs(self, rows: Range<usize>, column: usize) -> InputRows<'a> {
        InputRows {
            values: &self.values[rows.start * self.stride + column..],
            stride: self.stride,
            count: rows.len(),
        }
    }
}

impl RowsMut<'_> {
    /// Iterates over the rows.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let width = self.width;
        self.values
            .chunks_exact_mut(self.stride)
            .map(move |row| &mut row[..width])
    }

    /// Length of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.values.len() / self.stride
    }

    /// A range of the rows.
    pub fn part(&mut self, rows: Range<usize>) -> RowsMut<'_> {
        RowsMut {
            values: &mut self.values[rows.start * self.stride..rows.end * self.stride],
            width: self.width,
            stride: self.stride,
        }
    }

    fn as_rows(&self) -> Rows<'_> {
        Rows {
            values: self.values,
            width: self.width,
            stride: self.stride,
        }
    }

    /// All rows, from `column` on, as the output of a product.
    pub(super) fn output(&mut self, column: usize) -> OutputRows<'_> {
        OutputRows::new(&mut self.values[column..], self.stride)
    }
}
