// errors.cu: the errors of a batch of numbers, squared or absolute: the loss and its gradient in one pass.
//
// losses.MeanSquaredError, losses.MeanAbsoluteError. The sum over a batch, its arguments and what it depends on:
// common.cuh's mean_loss, of which bce.cu's bce_mean is the second stage.
#include "common.cuh"

#define INSTANTIATE(T, suffix)                                                                                       \
    extern "C" __global__ void squared_error_##suffix(const T* y_true, const T* y_pred, const T* sample_weight,      \
                                                      T* d_y_pred, T* partials, long long size, long long units) {   \
        mean_loss(y_true, y_pred, sample_weight, d_y_pred, partials, size, units, SquaredError<T>());                \
    }                                                                                                                \
    extern "C" __global__ void absolute_error_##suffix(const T* y_true, const T* y_pred, const T* sample_weight,     \
                                                       T* d_y_pred, T* partials, long long size, long long units) {  \
        mean_loss(y_true, y_pred, sample_weight, d_y_pred, partials, size, units, AbsoluteError<T>());               \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
