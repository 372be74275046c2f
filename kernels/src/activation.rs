//! The activation functions of BERT models.

/// An activation function, with the number that `cuda/device.cuh` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Activation {
    /// `x`.
    None = 0,
    /// `x·Φ(x)` with the error function (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    Gelu = 1,
    /// The tanh approximation of GELU.
    GeluTanh = 2,
    /// `max(x, 0)`.
    Relu = 3,
    /// `tanh(x)`, used by the pooler.
    Tanh = 4,
}
