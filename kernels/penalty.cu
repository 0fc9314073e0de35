// penalty.cu: L1 and L2 penalties of all parameters of a model: their value and their gradient, in one pass.
#include "common.cuh"

// penalty: twin of ops.l1_penalty + ops.l2_penalty and of their gradients, summed over the arena's segments.
// weights: in; grads: in/out, increased by l1 · sign(w) + 2 · l2 · w, or null: only the value. size elements,
// C-contiguous, T = float | double. stops, l1, l2: in, (segments,), segments ≥ 1: segment s ends before stops[s].
// partials: out, (⌈size / tile⌉,) with tile = SUM_ITEMS · blockDim.x: Σ l1|w| + l2 w² of each tile; penalty_total adds.
// blockDim.x a multiple of 32. The result depends on blockDim.x (the order of the sum), not on the grid.
template <typename T>
__device__ void penalty(const T* weights, T* grads, T* partials, long long size, const long long* stops, const T* l1,
                        const T* l2, int segments) {
    for (long long tile = blockIdx.x; tile * sum_tile() < size; tile += gridDim.x) {
        T sum = T(0);
        for (int item = 0; item < SUM_ITEMS; ++item) {
            const long long i = tile * sum_tile() + static_cast<long long>(item) * blockDim.x + threadIdx.x;
            if (i >= size) break;
            const int s = segment_of(i, stops, segments);
            if (l1[s] == T(0) && l2[s] == T(0)) continue;
            const T w = weights[i];
            sum += l1[s] * fabs(w) + l2[s] * (w * w);
            if (grads) grads[i] += penalty_gradient(w, l1[s], l2[s]);
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) partials[tile] = sum;
    }
}

// penalty_total: the second stage: total = Σ partials.
// partials: in, (count,); total: out, 1 element. One block, blockDim.x a multiple of 32.
template <typename T>
__device__ void penalty_total(const T* partials, T* total, long long count) {
    const T sum = sum_partials(partials, count);
    if (threadIdx.x == 0) *total = sum;
}

#define INSTANTIATE(T, suffix)                                                                                     \
    extern "C" __global__ void penalty_##suffix(const T* weights, T* grads, T* partials, long long size,           \
                                                const long long* stops, const T* l1, const T* l2, int segments) {  \
        penalty<T>(weights, grads, partials, size, stops, l1, l2, segments);                                       \
    }                                                                                                              \
    extern "C" __global__ void penalty_total_##suffix(const T* partials, T* total, long long count) {              \
        penalty_total<T>(partials, total, count);                                                                  \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
