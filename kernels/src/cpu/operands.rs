//! The operands of products: rows of inputs, and panels of weights.

/// `count` rows of inputs whose starts are `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct InputRows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// The weights of panels.
#[derive(Clone, Copy)]
pub(super) enum PanelValues<'a> {
    /// `[panels][inputs][width]`.
    F32(&'a [f32]),
    /// `[panels][inputs / 2][width]`: two consecutive inputs in the halves of a word, the first
    /// in the low one. An odd last input stands alone, with zero above it.
    Bf16(&'a [u32]),
}
