//! The kernels of the CPU engine: products with packed weights, attention, LayerNorm and activation
//! functions, for AVX-512, AVX2, NEON and other machines.
//!
//! [`Isa`] is the machine's instruction set, detected at run time. [`Panels`] are the weights of a dense
//! layer, packed at load in the order in which products read them. [`Activations`] are rows of numbers that
//! the steps of a forward pass read and write. A [`Team`] of threads works on each step together.
//!
//! Element-wise code, and products on machines other than x86-64, are safe code that `pulp` compiles for
//! each instruction set. The inner loops of products on x86-64 are intrinsics. `unsafe` code is limited to
//! those loops (`float_kernels`, `int8_kernels`), to memory that a team writes together (`shared`,
//! `output`, and their users `activations`, `quantized`, `panels`, `float`, `int8`), to the exchange of
//! work in a team (`team`), and to memory aligned to cache lines (`buffer`).

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
