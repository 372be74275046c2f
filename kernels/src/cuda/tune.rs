//! The incremental search for the fastest algorithm of a product.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::cublaslt::sys::cublasLtMatmulAlgo_t;
use cudarc::driver::{CudaStream, sys};

use super::error::{device_error, product_error};
use super::plan::{Plan, Trials};
use super::product::Products;
use crate::backend::{DeviceError, ProductOperands, ProductShape};

/// Number of algorithms tried for a shape.
const CANDIDATES: usize = 8;

/// Time after which a step begins no further trial, because batches wait in the meantime.
const STEP: Duration = Duration::from_millis(2);

/// Device time of a trial: long enough that the host's overhead does not count.
const MEASURED: Duration = Duration::from_micros(200);
/// The most runs in a trial.
const RUNS_MAX: f64 = 8.0;

impl Products {
    /// Tries further algorithms for a shape; returns true when the fastest has been found.
    ///
    /// # Safety
    /// As for `Backend::product`.
    pub(super) unsafe fn tune(
        &self,
        shape: &ProductShape,
        operands: ProductOperands,
        stream: &Arc<CudaStream>,
    ) -> Result<bool, DeviceError> {
        let failed = |error| product_error(error, stream);
        let mut plans = self.plans();
        let plan = self.plan(&mut plans, shape, operands).map_err(failed)?;
        let mut trials = match plan.trials.take() {
            Some(trials) => trials,
            None => {
                let found = self.candidates(plan, CANDIDATES).map_err(failed)?;
                // The most promising is last, where it is taken first.
                let left = found.iter().rev().map(|candidate| candidate.algo).collect();
                Trials { left, best: None }
            }
        };
        // Work that is already enqueued belongs to batches, not to this step.
        stream.synchronize().map_err(device_error)?;
        let start = Instant::now();
        while start.elapsed() < STEP {
            let Some(algorithm) = trials.left.pop() else {
                break;
            };
            // SAFETY: the caller's promise.
            match unsafe { self.time(plan, &algorithm, operands, stream) } {
                Ok(time) if trials.best.is_none_or(|(fastest, _)| time < fastest) => {
                    trials.best = Some((time, algorithm));
                }
                Ok(_) => {}
                Err(error @ DeviceError::Lost(_)) => return Err(error),
                // The library suggested an algorithm that does not run here; skip it.
                Err(_) => {}
            }
        }
        let done = trials.left.is_empty();
        if done && let Some((_, fastest)) = trials.best {
            plan.algorithm = Some(fastest);
        }
        plan.trials = Some(trials);
        Ok(done)
    }

    /// The mean time of consecutive runs, after a run that loads the code.
    ///
    /// # Safety
    /// As for `Backend::product`.
    unsafe fn time(
        &self,
        plan: &Plan,
        algorithm: &cublasLtMatmulAlgo_t,
        operands: ProductOperands,
        stream: &Arc<CudaStream>,
    ) -> Result<Duration, DeviceError> {
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let event = || stream.context().new_event(timed).map_err(device_error);
        let (start, end) = (event()?, event()?);
        let measure = |runs: u32| -> Result<Duration, DeviceError> {
            start.record(stream).map_err(device_error)?;
            for _ in 0..runs {
                // SAFETY: the caller's promise.
                unsafe { self.enqueue(plan, Some(algorithm), operands, stream) }
                    .map_err(|error| product_error(error, stream))?;
            }
            end.record(stream).map_err(device_error)?;
            let milliseconds = start.elapsed_ms(&end).map_err(device_error)?;
            Ok(Duration::from_secs_f64(f64::from(milliseconds) / 1e3) / runs)
        };
        let first = measure(1)?;
        let runs = MEASURED.as_secs_f64() / first.as_secs_f64().max(1e-6);
        measure(runs.clamp(1.0, RUNS_MAX) as u32)
    }
}
