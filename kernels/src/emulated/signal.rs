//! Points in the emulated stream.

use std::any::Any;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::SharedStream;
use crate::backend::{DeviceError, Signal};

/// A point in the emulated stream.
#[derive(Debug)]
pub(super) struct EmulatedSignal {
    stream: SharedStream,
    point: Mutex<StreamPoint>,
}

/// The point that a signal marks.
#[derive(Debug, Clone, Copy, Default)]
struct StreamPoint {
    /// The number of items before the point.
    item: u64,
    /// When the host first saw that the point was reached.
    reached: Option<Instant>,
}

impl EmulatedSignal {
    pub(super) fn new(stream: SharedStream) -> Self {
        Self {
            stream,
            point: Mutex::default(),
        }
    }

    fn point(&self) -> MutexGuard<'_, StreamPoint> {
        self.point.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signal for EmulatedSignal {
    fn record(&self) -> Result<(), DeviceError> {
        *self.point() = StreamPoint {
            item: self.stream.lock().enqueued,
            reached: None,
        };
        Ok(())
    }

    fn wait(&self, _spin: Duration) -> Result<(), DeviceError> {
        let mut point = self.point();
        self.stream.lock().run_until(point.item)?;
        point.reached.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Emulated time passes between two calls: one item gets done.
    fn is_done(&self) -> Result<bool, DeviceError> {
        let target = self.point().item;
        let mut stream = self.stream.lock();
        let next = (stream.done + 1).min(target);
        stream.advance(next)?;
        Ok(stream.done >= target)
    }

    fn until(&self, end: &dyn Signal) -> Result<Duration, DeviceError> {
        self.wait(Duration::ZERO)?;
        end.wait(Duration::ZERO)?;
        let end = end
            .as_any()
            .downcast_ref::<Self>()
            .and_then(|end| end.point().reached);
        Ok(end
            .zip(self.point().reached)
            .map_or(Duration::ZERO, |(end, start)| end - start))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
