//! Matrix products by cuBLASLt, with a plan kept for each shape.
//!
//! cuBLASLt is column-major: a row-major `[rows, columns]` is its `columns × rows`. `y = x·wᵀ` is
//! therefore computed as `yᵀ = w·xᵀ`, with w transposed once more.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::sys as lt_sys;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};

use super::error::{device_error, product_error};
use super::plan::Plan;
use crate::backend::{DeviceError, ProductOperands, ProductShape};

/// Workspace sizes that NVIDIA recommends for Hopper and for older devices (cuBLAS documentation,
/// cublasSetWorkspace).
const WORKSPACE_HOPPER: usize = 32 << 20;
const WORKSPACE: usize = 4 << 20;

/// Alignment of operands in bytes: the widest load of a thread. By default the library assumes 256, which
/// a slice of a weight may not have.
const ALIGNMENT: u32 = 16;

/// Constraints on the choice of algorithms: the alignment, and split sums that are reduced in f32. The
/// library would also reduce in the type of the result, where f16 overflows.
const LIMITS: [(lt_sys::cublasLtMatmulPreferenceAttributes_t, u32); 5] = {
    use lt_sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let in_f32 = lt_sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    [
        (
            Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            in_f32 as u32,
        ),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            ALIGNMENT,
        ),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            ALIGNMENT,
        ),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            ALIGNMENT,
        ),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ALIGNMENT,
        ),
    ]
};

/// The library's handle and workspace, and the plans of all shapes used so far.
#[derive(Debug)]
pub(super) struct Products {
    handle: Handle,
    workspace: CudaSlice<u8>,
    workspace_address: u64,
    plans: Mutex<HashMap<ProductShape, Plan>>,
}

#[derive(Debug)]
struct Handle(lt_sys::cublasLtHandle_t);

// SAFETY: cuBLASLt allows the use of a handle from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once. An error means that the context no longer exists.
        let _ = unsafe { lt::destroy_handle(self.0) };
    }
}

impl Products {
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self, DeviceError> {
        let (major, _) = stream
            .context()
            .compute_capability()
            .map_err(device_error)?;
        let bytes = if major >= 9 {
            WORKSPACE_HOPPER
        } else {
            WORKSPACE
        };
        let workspace = stream.alloc_zeros::<u8>(bytes).map_err(device_error)?;
        let (workspace_address, _) = workspace.device_ptr(stream);
        Ok(Self {
            handle: Handle(lt::create_handle().map_err(|error| product_error(error, stream))?),
            workspace,
            workspace_address,
            plans: Mutex::new(HashMap::new()),
        })
    }

    pub(super) fn plans(&self) -> MutexGuard<'_, HashMap<ProductShape, Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues a product on `stream`, or records it with `recorder`.
    ///
    /// # Safety
    /// As for `Backend::product`.
    pub(super) unsafe fn run(
        &self,
        shape: &ProductShape,
        operands: ProductOperands,
        stream: &CudaStream,
        recorder: Option<&CudaStream>,
    ) -> Result<(), DeviceError> {
        let addresses = [
            operands.x,
            operands.w,
            operands.bias,
            operands.residual,
            operands.y,
        ];
        if addresses
            .iter()
            .any(|address| !address.is_multiple_of(u64::from(ALIGNMENT)))
        {
            let what =
                format!("operands of {shape:?} do not start at multiples of {ALIGNMENT} bytes");
            return Err(DeviceError::Failed(what));
        }
        let mut plans = self.plans();
        if recorder.is_some() && !plans.contains_key(shape) {
            // The library must not be asked for an algorithm during a recording.
            let what = format!("{shape:?} is recorded before it was ever run");
            return Err(DeviceError::Failed(what));
        }
        let failed = |error| product_error(error, stream);
        let plan = self.plan(&mut plans, shape, operands).map_err(failed)?;
        let algorithm = plan.algorithm.as_ref();
        // SAFETY: the caller's promise.
        unsafe { self.enqueue(plan, algorithm, operands, recorder.unwrap_or(stream)) }
            .map_err(failed)
    }

    /// The plan of a shape, created at its first use.
    pub(super) fn plan<'a>(
        &self,
        plans: &'a mut HashMap<ProductShape, Plan>,
        shape: &ProductShape,
        operands: ProductOperands,
    ) -> Result<&'a mut Plan, CublasError> {
        if !plans.contains_key(shape) {
            let mut plan = Plan::new(shape)?;
            plan.set_bias(operands.bias)?;
            let first = self.candidates(&plan, 1)?;
            plan.algorithm = first.first().map(|candidate| candidate.algo);
            plans.insert(*shape, plan);
        }
        plans.get_mut(shape).ok_or(CublasError(
            lt_sys::cublasStatus_t::CUBLAS_STATUS_INTERNAL_ERROR,
        ))
    }

    /// Up to `count` algorithms for a plan, the most promising first.
    pub(super) fn candidates(
        &self,
        plan: &Plan,
        count: usize,
    ) -> Result<Vec<lt_sys::cublasLtMatmulHeuristicResult_t>, CublasError> {
        use lt_sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = lt::create_matmul_pref()?;
        let workspace = self.workspace.len();
        let mut found = Vec::with_capacity(count);
        let mut returned = 0;
        // SAFETY: all descriptors are live; the library writes at most `count` results and returns their
        // number.
        let result = unsafe {
            let attribute = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            let value = std::ptr::from_ref(&workspace).cast();
            let set =
                lt::set_matmul_pref_attribute(preference, attribute, value, size_of::<usize>());
            let limited = LIMITS.into_iter().try_for_each(|(attribute, limit)| {
                let limit = std::ptr::from_ref(&limit).cast();
                lt::set_matmul_pref_attribute(preference, attribute, limit, size_of::<u32>())
            });
            let asked = set.and(limited).and_then(|()| {
                lt_sys::cublasLtMatmulAlgoGetHeuristic(
                    self.handle.0,
                    plan.operation,
                    plan.w,
                    plan.x,
                    plan.y,
                    plan.y,
                    preference,
                    count as i32,
                    found.as_mut_ptr(),
                    &raw mut returned,
                )
                .result()
            });
            let destroyed = lt::destroy_matmul_pref(preference);
            if asked.is_ok() {
                found.set_len(usize::try_from(returned).unwrap_or(0).min(count));
            }
            asked.and(destroyed)
        };
        result?;
        found.retain(|candidate| candidate.state.result().is_ok());
        if found.is_empty() {
            return Err(CublasError(
                lt_sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
            ));
        }
        Ok(found)
    }

    /// Enqueues a product with `algorithm`, or with one that the library chooses.
    ///
    /// # Safety
    /// As for `Backend::product`.
    pub(super) unsafe fn enqueue(
        &self,
        plan: &Plan,
        algorithm: Option<&lt_sys::cublasLtMatmulAlgo_t>,
        operands: ProductOperands,
        stream: &CudaStream,
    ) -> Result<(), CublasError> {
        plan.set_bias(operands.bias)?;
        let one = 1.0_f32;
        // The library requires a matrix to add: the residual, or y times zero.
        let (added, factor) = match operands.residual {
            0 => (operands.y, 0.0_f32),
            residual => (residual, 1.0),
        };
        // SAFETY: live descriptors, and the caller's promise about the operands.
        unsafe {
            lt::matmul(
                self.handle.0,
                plan.operation,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&factor).cast(),
                operands.w as *const c_void,
                plan.w,
                operands.x as *const c_void,
                plan.x,
                added as *const c_void,
                plan.y,
                operands.y as *mut c_void,
                plan.y,
                algorithm.map_or(std::ptr::null(), std::ptr::from_ref),
                self.workspace_address as *mut c_void,
                self.workspace.len(),
                stream.cu_stream().cast(),
            )
        }
    }
}
