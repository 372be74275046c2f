//! The kernels of the CPU engine: products with packed weights, attention, LayerNorm and
//! activation functions, for AVX-512, AVX2, NEON and machines we do not know.
//!
//! [`Isa`] is what the machine has, found out when the program runs. [`Panels`] are the weights
//! of a dense layer, cut at load into the order in which the products read them. [`Activations`]
//! are rows of numbers that steps read and write. A [`Team`] of threads shares out each step.
//!
//! What is done value by value, and products on machines that are not x86-64, is safe code compiled
//! for each instruction set by `pulp`; the inner loops of products are intrinsics (`float_kernels`,
//! `int8_kernels`). What is `unsafe` is there, in the memory that a team writes together
//! (`activations`, `panels`, `int8`), in how a team takes its work (`team`), and in memory aligned
//! to cache lines (`buffer`).

mod activations;
mod attention;
mod buffer;
mod elementwise;
mod float;
mod float_kernels;
mod form;
mod int8;
mod int8_kernels;
mod isa;
mod operands;
mod output;
mod panels;
mod quantized;
mod shared;
mod team;
#[cfg(test)]
mod tests;

pub use activations::{Activations, Rows, RowsMut};
pub use attention::{AttentionScratch, Heads};
pub use elementwise::Norm;
pub use form::Form;
pub use int8::INPUTS_MAX as INT8_INPUTS_MAX;
pub use isa::{Isa, IsaLimit};
pub use panels::Panels;
pub use team::Team;
