// bce.cu: binary cross-entropy of a batch: the loss and its gradient in one pass.
//
// losses.BinaryCrossentropy. The sum over a batch, its arguments and what it depends on: common.cuh's mean_loss.
#include "common.cuh"

// Twin of ops.binary_crossentropy and its backward; low = T(ε), high = T(1 − ε).
template <typename T>
struct FromProbabilities {
    T low, high;
    __device__ LossAndGradient<T> operator()(T y, T y_pred) const {
        const bool below = y_pred < low, above = y_pred > high;
        const T p = below ? low : above ? high : y_pred;
        const T loss = -(y * log(p) + (T(1) - y) * log(T(1) - p));
        return {loss, below || above ? T(0) : (T(1) - y) / (T(1) - p) - y / p};
    }
};

// bce_mean: the second stage: loss = Σ partials / size.
// partials: in, (count,); loss: out, 1 element. One block, blockDim.x a multiple of 32.
template <typename T>
__device__ void bce_mean(const T* partials, T* loss, long long count, long long size) {
    const T sum = sum_partials(partials, count);
    if (threadIdx.x == 0) *loss = sum / static_cast<T>(size);
}

#define INSTANTIATE(T, suffix)                                                                                       \
    extern "C" __global__ void bce_from_logits_##suffix(const T* y_true, const T* logits, const T* sample_weight,    \
                                                        T* d_logits, T* partials, long long size, long long units) { \
        mean_loss(y_true, logits, sample_weight, d_logits, partials, size, units, FromLogits<T>());                  \
    }                                                                                                                \
    extern "C" __global__ void bce_from_probabilities_##suffix(const T* y_true, const T* y_pred,                     \
                                                               const T* sample_weight, T* d_y_pred, T* partials,     \
                                                               long long size, long long units, double epsilon) {    \
        const FromProbabilities<T> formula{static_cast<T>(epsilon), static_cast<T>(1.0 - epsilon)};                  \
        mean_loss(y_true, y_pred, sample_weight, d_y_pred, partials, size, units, formula);                          \
    }                                                                                                                \
    extern "C" __global__ void bce_mean_##suffix(const T* partials, T* loss, long long count, long long size) {      \
        bce_mean<T>(partials, loss, count, size);                                                                    \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
