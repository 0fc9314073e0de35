// squared_error.cu: the squared error of a batch: the loss and its gradient in one pass.
//
// losses.MeanSquaredError. The sum over a batch, its arguments and what it depends on: common.cuh's mean_loss, of which
// bce.cu's bce_mean is the second stage.
#include "common.cuh"

#define INSTANTIATE(T, suffix)                                                                                      \
    extern "C" __global__ void squared_error_##suffix(const T* y_true, const T* y_pred, const T* sample_weight,     \
                                                      T* d_y_pred, T* partials, long long size, long long units) {  \
        mean_loss(y_true, y_pred, sample_weight, d_y_pred, partials, size, units, SquaredError<T>());               \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
