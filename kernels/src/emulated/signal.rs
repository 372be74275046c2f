//! Points in the emulated stream.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{State, lock};
use crate::backend::{DeviceError, Signal};

#[derive(Debug)]
pub(super) struct Point {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) target: Mutex<(u64, Option<Instant>)>,
}

impl Point {
    fn target(&self) -> MutexGuard<'_, (u64, Option<Instant>)> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signal for Point {
    fn record(&self) -> Result<(), DeviceError> {
        *self.target() = (lock(&self.state).enqueued, None);
        Ok(())
    }

    fn wait(&self, _spin: Duration) -> Result<(), DeviceError> {
        let mut target = self.target();
        lock(&self.state).run_until(target.0)?;
        target.1.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Time passes between two looks: a piece of work gets done.
    fn is_done(&self) -> Result<bool, DeviceError> {
        let target = self.target().0;
        let mut state = lock(&self.state);
        let next = (state.done + 1).min(target);
        state.advance(next)?;
        Ok(state.done >= target)
    }

    fn until(&self, end: &dyn Signal) -> Result<Duration, DeviceError> {
        self.wait(Duration::ZERO)?;
        end.wait(Duration::ZERO)?;
        let end = end
            .as_any()
            .downcast_ref::<Self>()
            .and_then(|end| end.target().1);
        Ok(end
            .zip(self.target().1)
            .map_or(Duration::ZERO, |(end, start)| end - start))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
