//! The NVIDIA GPU behind [`Device`](crate::Device): one stream, through cudarc.
//!
//! Work is recorded on a second stream that never runs anything, and replayed on the first one. A graph
//! can therefore be recorded while the device computes.

mod device;
mod error;
mod graph;
mod memory;
mod open;
mod plan;
mod product;
mod signal;
mod tune;

pub(crate) use device::CudaDevice;
