// categorical.cu: categorical cross-entropy of a batch from logits: the loss and its gradient in one pass.
//
// L = 1/B Σ_b w_b ℓ_b, so dL/dz_bc = ∂ℓ_b/∂z_bc · 1/B · w_b: losses.CategoricalCrossentropy, of a model that ends in a
// softmax or with from_logits=True.
#include "common.cuh"

// one_hot: twin of ops.one_hot; with it losses.SparseCategoricalCrossentropy is the loss below.
// labels: in, (B,), whole numbers in T = float | double; y_true: out, (B, C), 0 for a label that is no class; size = B · C.
// Grid-stride, one element an iteration; the result does not depend on the launch.
template <typename T>
__device__ void one_hot(const T* labels, T* y_true, long long size, int classes) {
    for (long long i = first_index(); i < size; i += grid_stride())
        y_true[i] = labels[i / classes] == static_cast<T>(i % classes) ? T(1) : T(0);
}

// categorical_from_logits: twin of ops.categorical_crossentropy_from_logits and its backward; the formulas live there.
// y_true, logits: in, (B, C); sample_weight: in, (B,), or null: all 1. T = float | double.
// d_logits: out, (B, C), or null: no gradient. losses: out, (B,): w_b ℓ_b, which bce_mean adds (count = size = B).
// A warp a sample, grid-stride; blockDim.x a multiple of 32. A sum is in the order of warp_total, so the result does not
// depend on the launch.
template <typename T>
__device__ void categorical_from_logits(const T* y_true, const T* logits, const T* sample_weight, T* d_logits,
                                        T* losses, long long samples, int classes) {
    const T mean = static_cast<T>(1.0 / static_cast<double>(samples));
    for (long long b = first_index() / 32; b < samples; b += grid_stride() / 32) {
        const T *y = y_true + b * classes, *z = logits + b * classes;
        const T weight = sample_weight ? sample_weight[b] : T(1);
        const T most = warp_max<T>(classes, [&](int c) { return z[c]; });
        // the first maximum: −c is largest for the smallest c
        const int top = -warp_max<int>(classes, [&](int c) { return z[c] == most ? -c : -classes; });
        const auto other = [&](int c) { return c == top ? T(0) : exp_minus(most - z[c]); };
        const T tail = from_lane_0(warp_total<T>(classes, other));
        const T log_sum = log1p(tail);
        const T loss = warp_total<T>(classes, [&](int c) { return y[c] * (log_sum - (z[c] - most)); });
        if (threadIdx.x % 32 == 0) losses[b] = loss * weight;
        for (int c = threadIdx.x % 32; d_logits && c < classes; c += 32) {
            const T gradient = c == top ? (T(1) - y[c]) - tail / (T(1) + tail) : other(c) / (T(1) + tail) - y[c];
            d_logits[b * classes + c] = gradient * mean * weight;
        }
    }
}

#define INSTANTIATE(T, suffix)                                                                                        \
    extern "C" __global__ void one_hot_##suffix(const T* labels, T* y_true, long long size, int classes) {            \
        one_hot<T>(labels, y_true, size, classes);                                                                    \
    }                                                                                                                 \
    extern "C" __global__ void categorical_from_logits_##suffix(const T* y_true, const T* logits,                     \
                                                                const T* sample_weight, T* d_logits, T* losses,       \
                                                                long long samples, int classes) {                     \
        categorical_from_logits<T>(y_true, logits, sample_weight, d_logits, losses, samples, classes);                \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
