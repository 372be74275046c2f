//! A text with the id of its label: the form in which texts are augmented and trained on.

/// A text and the id of its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelledText {
    pub(crate) text: String,
    /// The index of the label among the model's labels.
    pub(crate) label: usize,
}

impl LabelledText {
    pub(crate) fn new(text: impl Into<String>, label: usize) -> Self {
        Self {
            text: text.into(),
            label,
        }
    }
}
