//! Points in the stream.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::{CudaEvent, CudaStream};

use super::error::device_error;
use crate::backend::{DeviceError, Signal};

/// An event of the device's stream.
#[derive(Debug)]
pub(super) struct CudaSignal {
    pub(super) event: CudaEvent,
    pub(super) stream: Arc<CudaStream>,
}

impl Signal for CudaSignal {
    fn record(&self) -> Result<(), DeviceError> {
        self.event.record(&self.stream).map_err(device_error)
    }

    fn wait(&self, spin: Duration) -> Result<(), DeviceError> {
        let start = Instant::now();
        loop {
            if self.is_done()? {
                return Ok(());
            }
            if start.elapsed() > spin {
                return self.event.synchronize().map_err(device_error);
            }
            std::thread::yield_now();
        }
    }

    fn is_done(&self) -> Result<bool, DeviceError> {
        self.stream
            .context()
            .bind_to_thread()
            .map_err(device_error)?;
        self.event.try_is_complete().map_err(device_error)
    }

    fn until(&self, end: &dyn Signal) -> Result<Duration, DeviceError> {
        let end = end.as_any().downcast_ref::<Self>();
        let end = end.ok_or_else(|| DeviceError::Failed("a mark of another device".to_owned()))?;
        let milliseconds = self.event.elapsed_ms(&end.event).map_err(device_error)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds) / 1e3))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
