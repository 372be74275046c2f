//! The flags that say which model runs where; several commands have them.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::engine::{DeviceChoice, Dtype, EngineKind, EngineOptions, IsaLimit};
use crate::serving::BatchLimits;

/// Which model runs where.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// Directory of a Hugging Face BERT classifier; the embedded model when not given.
    #[arg(long, env = "INTENTD_MODEL", value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Where the model runs: auto (a GPU where there is one), cpu, cuda, or cuda:N.
    #[arg(
        long,
        env = "INTENTD_DEVICE",
        value_name = "DEVICE",
        default_value = "auto"
    )]
    pub device: DeviceChoice,
    /// What runs the model.
    #[arg(long, env = "INTENTD_ENGINE", value_enum, default_value = "native")]
    pub engine: EngineKind,
    /// Type of weights and activations [default: f16 on CUDA, f32 on the CPU].
    #[arg(long, env = "INTENTD_DTYPE", value_enum)]
    pub dtype: Option<Dtype>,
    /// Sizes of batch kept as CUDA graphs at once; 0 for none.
    #[arg(
        long,
        env = "INTENTD_MAX_CUDA_GRAPHS",
        value_name = "N",
        default_value = "128"
    )]
    pub max_cuda_graphs: usize,
    /// Cores the engine computes on; all that the process may use when not given.
    #[arg(long, env = "INTENTD_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Vector instructions the CPU engine uses at most: best (what there is), avx512, avx2
    /// (NEON on ARM) or generic.
    #[arg(
        long,
        env = "INTENTD_CPU_ISA",
        value_name = "ISA",
        default_value = "best"
    )]
    pub cpu_isa: IsaLimit,
}

impl ModelArgs {
    /// Cores for the engine: the flag, or what the operating system (its cgroup quota included)
    /// lets this process use.
    pub fn threads(&self) -> NonZeroUsize {
        let available = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(available)
    }

    /// What the engine is made from, for batches within `limits`.
    pub fn engine_options(&self, limits: BatchLimits) -> EngineOptions {
        EngineOptions {
            kind: self.engine,
            device: self.device,
            dtype: self.dtype,
            threads: self.threads(),
            cpu_isa: self.cpu_isa,
            batch_tokens_max: limits.tokens_max,
            batch_sequences_max: limits.texts_max,
            graphs_max: self.max_cuda_graphs,
        }
    }
}
