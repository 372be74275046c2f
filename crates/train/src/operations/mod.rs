//! The differentiable operations of the network that candle has no fast backward pass for.
//!
//! Candle's fused layer norm and softmax cannot be differentiated. Built from its elementary operations they
//! walk memory a dozen times a step; each of these walks it once in each direction. Rows are shared out over
//! the cores. Every row is computed by one thread in a fixed order, so the result does not depend on the
//! number of cores.

mod bias;
mod gelu;
mod layer_norm;
mod rows;
mod softmax;

pub(crate) use bias::AddBias;
pub(crate) use gelu::Gelu;
pub(crate) use layer_norm::LayerNorm;
pub(crate) use rows::values;
pub(crate) use softmax::MaskedSoftmax;

#[cfg(test)]
mod tests;
