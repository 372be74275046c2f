//! The kernels of the CPU engine: products with packed weights, attention, LayerNorm and
//! activation functions, for AVX-512, AVX2, NEON and machines we do not know.
//!
//! [`Isa`] is what the machine has, found out when the program runs. [`Panels`] are the weights
//! of a dense layer, cut at load into the order in which the products read them. [`Activations`]
//! are rows of numbers that steps read and write. A [`Team`] of threads shares out each step.
//!
//! f32 and bf16 products, and all that is done value by value, are safe code compiled for each
//! instruction set by `pulp`; int8 products are intrinsics (`int8_kernels`). What is `unsafe` is
//! there, in the memory that a team writes together (`activations`, `panels`), in how a team
//! takes its work (`team`), and in memory aligned to cache lines (`buffer`).

mod activations;
mod attention;
mod buffer;
mod elementwise;
mod float;
mod float_kernels;
mod int8;
mod int8_kernels;
mod isa;
mod panels;
mod team;
#[cfg(test)]
mod tests;

pub use activations::{Activations, Rows, RowsMut};
pub use attention::{AttentionScratch, Heads};
pub use elementwise::Norm;
pub use isa::{Isa, IsaLimit};
pub use panels::Panels;
pub use team::Team;

/// In what form the weights of products are kept, and how they are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// f32 weights and arithmetic.
    F32,
    /// bf16 weights, f32 arithmetic: half the memory to read.
    Bf16,
    /// 8-bit weights (a scale for each output) and activations (a scale for each row).
    Int8,
}
