// clip.cu: gradients clipped by their norm, each parameter's or that of all together, or by their values.
//
// A norm is needed whole before a gradient can be scaled by it, and blocks cannot wait for each other: three launches,
// sum_of_squares, norms and one that clips. The gradients of penalties belong to the norm: add them before (penalty.cu).
#include "common.cuh"

// sum_of_squares: the first stage of a norm of each segment. grads: in, the arena's; stops: in, (segments,): segment s
// ends before stops[s]; for the norm of all together one segment. T = float | double.
// partials: out, (segments, tiles), tiles = ⌈longest segment / (SUM_ITEMS · blockDim.x)⌉: Σ g² of each tile of each
// segment, 0 beyond its end. blockDim.x a multiple of 32. The result depends on blockDim.x, not on the grid.
template <typename T>
__device__ void sum_of_squares(const T* grads, T* partials, const long long* stops, int segments, long long tiles) {
    for (long long place = blockIdx.x; place < segments * tiles; place += gridDim.x) {
        const long long s = place / tiles, start = (s > 0 ? stops[s - 1] : 0) + place % tiles * sum_tile();
        T sum = T(0);
        for (int item = 0; item < SUM_ITEMS; ++item) {
            const long long i = start + static_cast<long long>(item) * blockDim.x + threadIdx.x;
            if (i < stops[s]) sum += grads[i] * grads[i];
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) partials[place] = sum;
    }
}

// norms: the second stage: norms[s] = √ Σ partials of segment s.
// partials: in, (segments, tiles); norms: out, (segments,). A block a segment; blockDim.x a multiple of 32.
template <typename T>
__device__ void norms_of(const T* partials, T* norms, int segments, long long tiles) {
    for (int s = blockIdx.x; s < segments; s += gridDim.x) {
        const T sum = sum_partials(partials + s * tiles, tiles);
        if (threadIdx.x == 0) norms[s] = sqrt(sum);
    }
}

// clip_by_norm: twin of ops.clip_by_norm on each parameter. grads: in/out, n elements; norms, stops: in, (segments,).
// Grid-stride, one element an iteration; the result does not depend on the launch.
template <typename T>
__device__ void clip_by_norm(T* grads, long long n, const T* norms, double clipnorm, const long long* stops,
                             int segments) {
    const T c = static_cast<T>(clipnorm);
    for (long long i = first_index(); i < n; i += grid_stride()) {
        const T norm = norms[segment_of(i, stops, segments)];
        grads[i] = grads[i] * c / (norm > c || norm != norm ? norm : c);
    }
}

// clip_by_global_norm: twin of ops.clip_by_global_norm. grads: in/out, n elements; norm: in, 1 element.
// Grid-stride, one element an iteration; the result does not depend on the launch.
template <typename T>
__device__ void clip_by_global_norm(T* grads, long long n, const T* norm, double global_clipnorm) {
    const T inverse = T(1) / *norm, most = static_cast<T>(1.0 / global_clipnorm);
    const T scale = static_cast<T>(global_clipnorm) * (inverse < most ? inverse : most) + (*norm - *norm);
    for (long long i = first_index(); i < n; i += grid_stride()) grads[i] = grads[i] * scale;
}

// clip_by_value: twin of ops.clip_by_value. grads: in/out, n elements; a NaN stays one.
// Grid-stride, one element an iteration; the result does not depend on the launch.
template <typename T>
__device__ void clip_by_value(T* grads, long long n, double clipvalue) {
    const T c = static_cast<T>(clipvalue);
    for (long long i = first_index(); i < n; i += grid_stride()) grads[i] = clipped(grads[i], c);
}

#define INSTANTIATE(T, suffix)                                                                                       \
    extern "C" __global__ void sum_of_squares_##suffix(const T* grads, T* partials, const long long* stops,          \
                                                       int segments, long long tiles) {                              \
        sum_of_squares<T>(grads, partials, stops, segments, tiles);                                                  \
    }                                                                                                                \
    extern "C" __global__ void norms_##suffix(const T* partials, T* norms, int segments, long long tiles) {          \
        norms_of<T>(partials, norms, segments, tiles);                                                               \
    }                                                                                                                \
    extern "C" __global__ void clip_by_norm_##suffix(T* grads, long long n, const T* norms, double clipnorm,         \
                                                     const long long* stops, int segments) {                         \
        clip_by_norm<T>(grads, n, norms, clipnorm, stops, segments);                                                 \
    }                                                                                                                \
    extern "C" __global__ void clip_by_global_norm_##suffix(T* grads, long long n, const T* norm,                    \
                                                            double global_clipnorm) {                                \
        clip_by_global_norm<T>(grads, n, norm, global_clipnorm);                                                     \
    }                                                                                                                \
    extern "C" __global__ void clip_by_value_##suffix(T* grads, long long n, double clipvalue) {                     \
        clip_by_value<T>(grads, n, clipvalue);                                                                       \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
