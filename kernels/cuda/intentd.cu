// All kernels in one translation unit, for one fat binary.
#include "attention.cu"
#include "elementwise.cu"
#include "norm.cu"
#include "skinny.cu"
