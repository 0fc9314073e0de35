// features.cu: kernels that show what the shim does, for the tests of the shim itself.
#include "common.cuh"

// Every index of a three-dimensional launch, at the thread's place in C order; 6 numbers a thread.
extern "C" __global__ void indices(int* out) {
    const unsigned int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    int* mine = out + 6 * (block * blockDim.x * blockDim.y * blockDim.z + thread);
    mine[0] = static_cast<int>(blockIdx.x);
    mine[1] = static_cast<int>(blockIdx.y);
    mine[2] = static_cast<int>(blockIdx.z);
    mine[3] = static_cast<int>(threadIdx.x);
    mine[4] = static_cast<int>(threadIdx.y);
    mine[5] = static_cast<int>(threadIdx.z);
}

// Shuffles of each kind in segments of `width` lanes: out is (4, 32).
extern "C" __global__ void shuffles(const double* in, double* out, int width) {
    const int lane = threadIdx.x;
    out[lane] = __shfl_sync(0xFFFFFFFFu, in[lane], 5, width);
    out[32 + lane] = __shfl_up_sync(0xFFFFFFFFu, in[lane], 3, width);
    out[64 + lane] = __shfl_down_sync(0xFFFFFFFFu, in[lane], 3, width);
    out[96 + lane] = __shfl_xor_sync(0xFFFFFFFFu, in[lane], 6, width);
}

// Two halves of a warp, each with its own mask, one of them twice.
extern "C" __global__ void halves(const int* in, int* out) {
    const int lane = threadIdx.x;
    int value;
    if (lane < 16) value = __shfl_xor_sync(0x0000FFFFu, in[lane], 15);
    else value = __shfl_xor_sync(0xFFFF0000u, __shfl_xor_sync(0xFFFF0000u, in[lane], 1), 2);
    out[lane] = value;
}

// How often each of 8 values occurs, by integer atomics on every thread's own element.
extern "C" __global__ void histogram(const int* in, int* counts, int n) {
    for (long long i = first_index(); i < n; i += grid_stride()) atomicAdd(&counts[in[i]], 1);
}

// Static and dynamic shared memory as they are found: all bytes 0xFF.
extern "C" __global__ void poison(float* of_static, double* of_dynamic) {
    SHARED_ARRAY(buffer, float[32]);
    DYNAMIC_SHARED(double, dynamic);
    const long long i = first_index();
    of_static[i] = buffer[threadIdx.x];
    of_dynamic[i] = dynamic[threadIdx.x];
    __syncthreads();
    buffer[threadIdx.x] = 1.0f;  // which the next block must not find
    dynamic[threadIdx.x] = 1.0;
}

// Philox of one counter (4 words) and key (2 words).
extern "C" __global__ void philox_once(const unsigned int* counter, const unsigned int* key, unsigned int* out) {
    const Words words = philox(Words{{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
    for (int i = 0; i < 4; ++i) out[i] = words.w[i];
}

// e^(−x) of each.
extern "C" __global__ void exp_minus_float32(const float* x, float* out, int n) {
    for (long long i = first_index(); i < n; i += grid_stride()) out[i] = exp_minus(x[i]);
}
extern "C" __global__ void exp_minus_float64(const double* x, double* out, int n) {
    for (long long i = first_index(); i < n; i += grid_stride()) out[i] = exp_minus(x[i]);
}
