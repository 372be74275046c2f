//! Recorded work.

use std::sync::Arc;

use cudarc::driver::{CudaGraph, CudaStream, result};

use super::error::device_error;
use crate::backend::{Captured, DeviceError};

/// An instantiated graph and the stream that runs it.
pub(super) struct CudaRecording {
    pub(super) graph: CudaGraph,
    pub(super) stream: Arc<CudaStream>,
}

// SAFETY: the driver asks that one thread at a time uses a graph; `&mut`-less sharing is ruled out
// since the type is not Sync.
unsafe impl Send for CudaRecording {}

impl std::fmt::Debug for CudaRecording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaRecording").finish_non_exhaustive()
    }
}

impl Captured for CudaRecording {
    fn replay(&self) -> Result<(), DeviceError> {
        self.stream
            .context()
            .bind_to_thread()
            .map_err(device_error)?;
        // SAFETY: an instantiated graph and a stream of the same context; the memory that the
        // graph uses is kept by `crate::Graph`.
        unsafe { result::graph::launch(self.graph.cu_graph_exec(), self.stream.cu_stream()) }
            .map_err(device_error)
    }
}
