//! Activation functions of checkpoints as those of the kernels.

use intentd_kernels::Activation as Kernel;
use intentd_model::Activation;

/// The kernels' name of an activation.
pub(super) fn kernel(activation: Activation) -> Kernel {
    match activation {
        Activation::Gelu => Kernel::Gelu,
        Activation::GeluTanh => Kernel::GeluTanh,
        Activation::Relu => Kernel::Relu,
        Activation::Tanh => Kernel::Tanh,
    }
}
