//! The flags of the model and its engine, which several commands share.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::engine::{DeviceChoice, Dtype, EngineKind, EngineOptions, IsaLimit};
use crate::serving::BatchLimits;

/// The model and the engine that runs it.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// Directory of a Hugging Face classifier of the BERT family [default: the embedded model].
    #[arg(long, env = "INTENTD_MODEL", value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Device that runs the model: auto (a GPU if there is one), cpu, cuda, or cuda:N.
    #[arg(
        long,
        env = "INTENTD_DEVICE",
        value_name = "DEVICE",
        default_value = "auto"
    )]
    pub device: DeviceChoice,
    /// Engine that runs the model.
    #[arg(long, env = "INTENTD_ENGINE", value_enum, default_value = "native")]
    pub engine: EngineKind,
    /// Type of weights and activations [default: f16 on CUDA, f32 on the CPU].
    #[arg(long, env = "INTENTD_DTYPE", value_enum)]
    pub dtype: Option<Dtype>,
    /// Batch sizes for which CUDA graphs are kept; 0 keeps none.
    #[arg(
        long,
        env = "INTENTD_MAX_CUDA_GRAPHS",
        value_name = "N",
        default_value = "128"
    )]
    pub max_cuda_graphs: usize,
    /// Cores for the engine [default: all that the process may use].
    #[arg(long, env = "INTENTD_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Best vector instructions that the CPU engine may use: best (all that the CPU has), avx512, avx2
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
    /// Name of the checkpoint: that of its directory, or that of the embedded model.
    pub fn checkpoint_name(&self) -> String {
        let name = self.model.as_deref().and_then(Path::file_name);
        let name = name.map_or("intent-snips".into(), OsStr::to_string_lossy);
        name.into_owned()
    }

    /// Cores for the engine: the flag, or what the operating system, including its cgroup quota, gives to
    /// this process.
    pub fn threads(&self) -> NonZeroUsize {
        let available = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(available)
    }

    /// Options for loading an engine that runs batches within `limits`.
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
