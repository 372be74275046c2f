//! The batch shapes to measure.

use crate::engine::Capacity;
use serde::{Deserialize, Serialize};

/// Lengths of texts in tokens, as far as the model supports them.
const TOKENS: [usize; 7] = [8, 16, 32, 64, 128, 256, 512];

/// A batch of texts of equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Texts in the batch.
    pub texts: usize,
    /// Tokens of each text.
    pub tokens: usize,
}

impl Shape {
    /// Tokens of the batch.
    pub fn total(self) -> usize {
        self.texts.saturating_mul(self.tokens)
    }
}

/// Bounds of the measured shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// Most tokens in a batch of several texts. A longer text is measured in a batch of its own.
    pub batch_tokens: usize,
    /// Most texts in a batch.
    pub batch_texts: usize,
    /// Tokens of the longest text that the model supports.
    pub text_tokens: usize,
}

impl Grid {
    /// Reduces the bounds to the largest batch of an engine.
    pub fn within(self, largest: Option<Capacity>) -> Self {
        let Some(largest) = largest else { return self };
        Self {
            batch_tokens: self.batch_tokens.min(largest.tokens),
            batch_texts: self.batch_texts.min(largest.sequences),
            text_tokens: self.text_tokens.min(largest.tokens),
        }
    }

    /// The measured lengths of texts, in tokens.
    pub fn columns(self) -> Vec<usize> {
        let fitting = TOKENS.iter().filter(|tokens| **tokens <= self.text_tokens);
        let columns: Vec<usize> = fitting.copied().collect();
        match columns.is_empty() {
            true => vec![self.text_tokens],
            false => columns,
        }
    }

    /// The measured numbers of texts in a batch: powers of two, and the maximum.
    pub fn rows(self) -> Vec<usize> {
        let powers = std::iter::successors(Some(1_usize), |texts| texts.checked_mul(2));
        let mut rows: Vec<usize> = powers.take_while(|n| *n < self.batch_texts).collect();
        rows.push(self.batch_texts);
        rows
    }

    /// All shapes, in order of their tokens.
    pub fn shapes(self) -> Vec<Shape> {
        let rows = self.rows();
        let mut shapes = Vec::new();
        for tokens in self.columns() {
            let shape = |texts: &usize| Shape {
                texts: *texts,
                tokens,
            };
            let fits = |s: &Shape| s.texts == 1 || s.total() <= self.batch_tokens;
            shapes.extend(rows.iter().map(shape).filter(fits));
        }
        shapes.sort_by_key(|shape| (shape.total(), shape.tokens));
        shapes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_every_size_within_its_bounds() {
        let grid = Grid {
            batch_tokens: 100,
            batch_texts: 6,
            text_tokens: 130,
        };
        assert_eq!(grid.columns(), [8, 16, 32, 64, 128]);
        assert_eq!(grid.rows(), [1, 2, 4, 6]);
        let shapes = grid.shapes();
        let totals: Vec<usize> = shapes.iter().map(|shape| shape.total()).collect();
        assert_eq!(totals, [8, 16, 16, 32, 32, 32, 48, 64, 64, 64, 96, 128]);
        assert!(shapes.iter().all(|s| s.texts == 1 || s.total() <= 100));
    }

    #[test]
    fn the_capacity_of_a_device_reduces_the_grid() {
        let grid = Grid {
            batch_tokens: 4096,
            batch_texts: 256,
            text_tokens: 512,
        };
        assert_eq!(grid.within(None), grid);
        let small = grid.within(Some(Capacity {
            tokens: 5,
            sequences: 1,
        }));
        let only = Shape {
            texts: 1,
            tokens: 5,
        };
        assert_eq!(small.shapes(), [only]);
        assert_eq!(grid.shapes().len(), 48);
    }
}
