// All kernels, as one translation unit: one fat binary holds them.
#include "attention.cu"
#include "elementwise.cu"
#include "norm.cu"
#include "skinny.cu"
