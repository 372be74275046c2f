//! The kernels of intentd behind a safe face: CUDA's here, those for the CPU in [`cpu`].
//!
//! `cuda/*.cu` hold the kernels, compiled by nvcc into one fat binary for Turing to Hopper (and
//! PTX for what comes after). [`Device`] is a GPU and its stream: it gives [`Buffer`]s in device
//! memory, starts kernels (each with its shapes checked), multiplies matrices with cuBLASLt, and
//! records [`Graph`]s. All `unsafe` of the project lives in this package.
//!
//! The same kernels run without a GPU: with the feature `emulator`, `Device::emulator` compiles
//! their sources as C++ and runs every CUDA thread as a fiber, with exact warp collectives and
//! matrix instructions. [`oracle`] says in plain Rust what each kernel has to compute.
//!
//! - `device`: devices, buffers, pinned memory, graphs
//! - `ops`: one function a kernel
//! - `batch`: how a ragged batch lies in device memory
//! - `cuda`, `emulated`: the two backends

#[cfg(not(target_endian = "little"))]
compile_error!("kernel arguments are passed as little-endian words");

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

pub use backend::{DeviceError, Dtype, Facts, ProductShape};
pub use batch::{Capacity, InputError, Inputs, Limits, Placed};
pub use device::{Device, Graph, Mark};
#[cfg(feature = "emulator")]
pub use emulation::{Counters, Emulation};
pub use memory::{Buffer, Pinned};
pub use ops::{
    Activation, Attention, Norm, Product, QueryRows, Rows, SKINNY_ROWS_MAX, Skinny, Tables,
};
