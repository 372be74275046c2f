//! The kernels of intentd behind a safe interface: CUDA kernels at the crate root, CPU kernels in [`cpu`].
//!
//! nvcc compiles `cuda/*.cu` into one fat binary: machine code for Turing to Hopper, and PTX for later
//! GPUs. [`Device`] is a GPU and its stream: it allocates [`Buffer`]s in device memory, launches kernels
//! after it has checked their shapes, multiplies matrices with cuBLASLt, and records [`Graph`]s. All
//! `unsafe` code of the server is in this package.
//!
//! The same kernels run without a GPU. With the feature `emulator` their sources are compiled as C++, and
//! `Device::emulator` runs every CUDA thread as a fiber, with exact warp collectives and matrix
//! instructions. [`oracle`] defines in plain Rust what each kernel computes.
//!
//! - `device`, `memory`: devices, buffers, pinned memory, graphs
//! - `ops`: one method per kernel
//! - `batch`: the layout of a ragged batch in device memory
//! - `backend`: the interface of a backend; `cuda` and `emulated` implement it
//! - `activation`, `cpu`: activation functions; the CPU kernels

#[cfg(not(target_endian = "little"))]
compile_error!("kernel arguments are passed as little-endian words");

mod activation;
mod backend;
mod batch;
pub mod cpu;
#[cfg(feature = "driver")]
mod cuda;
mod device;
#[cfg(has_emulator)]
mod emulated;
#[cfg(feature = "emulator")]
mod emulation;
mod memory;
mod ops;
pub mod oracle;

pub use activation::Activation;
pub use backend::{DeviceError, Dtype, Facts, ProductShape};
pub use batch::{Capacity, InputError, Inputs, Limits, Placed, RowCount, TokenIds};
pub use device::{Device, Graph, Mark};
#[cfg(feature = "emulator")]
pub use emulation::{Counters, Emulation};
pub use memory::{Buffer, Pinned};
pub use ops::{Attention, Norm, Product, QueryRows, SKINNY_ROWS_MAX, Skinny, Tables};
