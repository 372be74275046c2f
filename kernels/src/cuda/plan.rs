//! The state kept for each shape of product: descriptors, the algorithm, the search for a faster one.

use std::ffi::c_void;
use std::time::Duration;

use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::sys as lt_sys;

use crate::backend::{Dtype, ProductShape};

/// `CUBLAS_OP_T`, which is in the bindings of cuBLAS but not of cuBLASLt.
const TRANSPOSED: i32 = 1;

/// The descriptors of a shape, and the algorithm that computes it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) operation: lt_sys::cublasLtMatmulDesc_t,
    pub(super) w: lt_sys::cublasLtMatrixLayout_t,
    pub(super) x: lt_sys::cublasLtMatrixLayout_t,
    pub(super) y: lt_sys::cublasLtMatrixLayout_t,
    pub(super) algorithm: Option<lt_sys::cublasLtMatmulAlgo_t>,
    /// The search for a faster algorithm, once it has begun.
    pub(super) trials: Option<Trials>,
}

// SAFETY: descriptors are plain memory, and they are used only under the lock of the map of plans.
unsafe impl Send for Plan {}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once; null where creation failed.
        unsafe {
            if !self.operation.is_null() {
                let _ = lt::destroy_matmul_desc(self.operation);
            }
            for layout in [self.w, self.x, self.y] {
                if !layout.is_null() {
                    let _ = lt::destroy_matrix_layout(layout);
                }
            }
        }
    }
}

impl Plan {
    pub(super) fn new(shape: &ProductShape) -> Result<Self, CublasError> {
        let kind = match shape.dtype {
            Dtype::F16 => lt_sys::cudaDataType_t::CUDA_R_16F,
            Dtype::Bf16 => lt_sys::cudaDataType_t::CUDA_R_16BF,
            Dtype::F32 => lt_sys::cudaDataType_t::CUDA_R_32F,
            Dtype::U32 => {
                return Err(CublasError(
                    lt_sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
                ));
            }
        };
        let single = lt_sys::cudaDataType_t::CUDA_R_32F;
        let layout = |columns: usize, rows: usize| {
            lt::create_matrix_layout(kind, columns as u64, rows as u64, columns as i64)
        };
        let mut plan = Self {
            // Sums are in f32 for every type, and f32 products do not use the shorter TF32.
            operation: lt::create_matmul_desc(
                lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                single,
            )?,
            w: std::ptr::null_mut(),
            x: std::ptr::null_mut(),
            y: std::ptr::null_mut(),
            algorithm: None,
            trials: None,
        };
        plan.w = layout(shape.inner, shape.outer)?;
        plan.x = layout(shape.inner, shape.rows)?;
        plan.y = layout(shape.outer, shape.rows)?;
        use lt_sys::cublasLtMatmulDescAttributes_t as Attribute;
        plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        if shape.bias {
            let epilogue = lt_sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        }
        Ok(plan)
    }

    fn set<T>(
        &self,
        attribute: lt_sys::cublasLtMatmulDescAttributes_t,
        value: &T,
    ) -> Result<(), CublasError> {
        let pointer = std::ptr::from_ref(value).cast::<c_void>();
        // SAFETY: a live descriptor, and a value of the given size.
        unsafe { lt::set_matmul_desc_attribute(self.operation, attribute, pointer, size_of::<T>()) }
    }

    pub(super) fn set_bias(&self, bias: u64) -> Result<(), CublasError> {
        if bias == 0 {
            return Ok(());
        }
        self.set(
            lt_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
            &bias,
        )
    }
}

/// The progress of the search for the fastest algorithm of a shape.
#[derive(Debug)]
pub(super) struct Trials {
    /// Algorithms still to be tried; the next one is the last.
    pub(super) left: Vec<lt_sys::cublasLtMatmulAlgo_t>,
    /// The fastest algorithm so far, and its time.
    pub(super) best: Option<(Duration, lt_sys::cublasLtMatmulAlgo_t)>,
}
