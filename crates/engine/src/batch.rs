//! The input and the output of an engine.

/// Token sequences of different lengths, concatenated without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaggedBatch {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    /// End of each sequence in `ids`.
    ends: Vec<usize>,
}

impl RaggedBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sequence.
    ///
    /// # Panics
    /// When the sequence is empty or the two slices differ in length. A tokenizer never returns such a sequence.
    pub fn push(&mut self, ids: &[u32], type_ids: &[u32]) {
        assert!(
            !ids.is_empty() && ids.len() == type_ids.len(),
            "a sequence with its token types"
        );
        self.ids.extend_from_slice(ids);
        self.type_ids.extend_from_slice(type_ids);
        self.ends.push(self.ids.len());
    }

    /// Removes all sequences and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.type_ids.clear();
        self.ends.clear();
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.ends.len()
    }

    /// Number of tokens in all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Token ids of all sequences, `[tokens]`.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Token types of all sequences, `[tokens]`.
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// The range of each sequence in [`ids`](Self::ids).
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = std::ops::Range<usize>> + '_ {
        (0..self.ends.len()).map(|index| self.range(index))
    }

    /// The range of sequence `index` in [`ids`](Self::ids).
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        start..self.ends[index]
    }
}

/// Logits of a batch, one row per sequence: `[sequences, labels]`, row-major.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logits {
    values: Vec<f32>,
    labels: usize,
}

impl Logits {
    /// Logits of `values.len() / labels` sequences.
    ///
    /// # Panics
    /// When the length of `values` is not a multiple of `labels`.
    pub fn new(values: Vec<f32>, labels: usize) -> Self {
        assert!(
            labels > 0 && values.len().is_multiple_of(labels),
            "whole rows of logits"
        );
        Self { values, labels }
    }

    /// The row of sequence `index`, `[labels]`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.labels..][..self.labels]
    }

    /// The rows, in the order of the batch's sequences.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.labels.max(1))
    }
}
