// bce.cu: binary cross-entropy of a batch: the loss and its gradient in one pass.
//
// L = 1/(B·U) Σ_b w_b Σ_u ℓ(y_bu, p_bu), so dL/dp_bu = ℓ′(y_bu, p_bu) · 1/(B·U) · w_b: losses.BinaryCrossentropy.
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

// bce: y_true, predictions (logits or probabilities): in, (B, U); sample_weight: in, (B,), or null: all 1.
// d_predictions: out, (B, U), or null: no gradient. size = B · U elements, C-contiguous, T = float | double.
// partials: out, (⌈size / tile⌉,) with tile = SUM_ITEMS · blockDim.x: Σ w ℓ of each tile; bce_mean adds them.
// blockDim.x a multiple of 32. The loss depends on blockDim.x (the order of the sum), not on the grid; the gradient
// on neither.
template <typename T, typename Formula>
__device__ void bce(const T* y_true, const T* predictions, const T* sample_weight, T* d_predictions, T* partials,
                    long long size, long long units, Formula formula) {
    const T mean = static_cast<T>(1.0 / static_cast<double>(size));
    for (long long tile = blockIdx.x; tile * sum_tile() < size; tile += gridDim.x) {
        T sum = T(0);
        for (int item = 0; item < SUM_ITEMS; ++item) {
            const long long i = tile * sum_tile() + static_cast<long long>(item) * blockDim.x + threadIdx.x;
            if (i >= size) break;
            const LossAndGradient<T> of = formula(y_true[i], predictions[i]);
            const T weight = sample_weight ? sample_weight[i / units] : T(1);
            sum += of.loss * weight;
            if (d_predictions) d_predictions[i] = of.gradient * mean * weight;
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) partials[tile] = sum;
    }
}

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
        bce(y_true, logits, sample_weight, d_logits, partials, size, units, FromLogits<T>());                        \
    }                                                                                                                \
    extern "C" __global__ void bce_from_probabilities_##suffix(const T* y_true, const T* y_pred,                     \
                                                               const T* sample_weight, T* d_y_pred, T* partials,     \
                                                               long long size, long long units, double epsilon) {    \
        const FromProbabilities<T> formula{static_cast<T>(epsilon), static_cast<T>(1.0 - epsilon)};                  \
        bce(y_true, y_pred, sample_weight, d_y_pred, partials, size, units, formula);                                \
    }                                                                                                                \
    extern "C" __global__ void bce_mean_##suffix(const T* partials, T* loss, long long count, long long size) {      \
        bce_mean<T>(partials, loss, count, size);                                                                    \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
