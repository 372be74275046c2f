//! The number formats of dense layers.

/// The format of a dense layer's weights, and the arithmetic of its products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// f32 weights and arithmetic.
    F32,
    /// bf16 weights, f32 arithmetic: half the memory to read.
    Bf16,
    /// 8-bit weights (a scale for each output) and activations (a scale for each row).
    Int8,
}
