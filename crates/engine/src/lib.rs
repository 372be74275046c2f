//! Engines: ragged batches of token ids to logits.
//!
//! One thread owns an [`Engine`]. The engine takes batches in order and returns their logits in the same order.
//! [`Engine::depth`] is the number of batches that may be in flight: one for an engine that computes on the caller's
//! thread, two for a device that can copy the next batch while it runs one. [`Reference`] defines correct logits;
//! [`Cpu`], [`Cuda`] and [`Candle`] are tested against it.

#![forbid(unsafe_code)]

mod activation;
mod batch;
mod candle;
mod choice;
mod cpu;
mod cuda;
mod error;
mod interface;
mod load;
mod options;
mod reference;

pub use intentd_kernels::cpu::IsaLimit;
pub use intentd_kernels::{Capacity, DeviceError};

pub use batch::{Logits, RaggedBatch};
pub use candle::Candle;
pub use cpu::{Cpu, CpuOptions};
pub use cuda::{Cuda, CudaOptions};
pub use error::{EngineError, LoadError};
pub use interface::Engine;
pub use load::{Loaded, load, place};
pub use options::{DeviceChoice, Dtype, EngineKind, EngineOptions};
pub use reference::Reference;
