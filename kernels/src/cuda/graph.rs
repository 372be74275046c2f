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

// SAFETY: the driver requires that only one thread at a time uses a graph; the type is not Sync, so
// threads cannot share it.
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
        // SAFETY: an instantiated graph and a stream of the same context; `crate::Graph` keeps the memory
        // that the graph uses.
        unsafe { result::graph::launch(self.graph.cu_graph_exec(), self.stream.cu_stream()) }
            .map_err(device_error)
    }
}
