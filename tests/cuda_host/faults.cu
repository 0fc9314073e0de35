// faults.cu: kernels with a planted fault each, and the same kernels without it, to show that the shim sees.
// n ≤ blockDim.x elements unless said; T = float. The tests name the line that a fault is in by its comment.

// out = in reversed within the block, by way of shared memory.
template <bool WITH_BARRIER>
__device__ void reverse(const float* in, float* out, int n) {
    SHARED_ARRAY(buffer, float[64]);
    const int i = threadIdx.x;
    if (i < n) buffer[i] = in[i];
    if (WITH_BARRIER) __syncthreads();
    if (i < n) out[i] = buffer[n - 1 - i];  // FAULT missing barrier: reads what another thread may not have written
}
extern "C" __global__ void missing_barrier(const float* in, float* out, int n) { reverse<false>(in, out, n); }
extern "C" __global__ void missing_barrier_control(const float* in, float* out, int n) { reverse<true>(in, out, n); }

// The same fault in a loop: the barrier before the next pass is missing.
template <bool WITH_BARRIER>
__device__ void rotate(const float* in, float* out, int n) {
    SHARED_ARRAY(buffer, float[64]);
    const int i = threadIdx.x;
    float value = in[i];
    for (int pass = 0; pass < 3; ++pass) {
        buffer[i] = value;  // FAULT missing second barrier: a neighbour may still read the last pass's value
        __syncthreads();
        value = buffer[(i + 1) % n];
        if (WITH_BARRIER) __syncthreads();
    }
    out[i] = value;
}
extern "C" __global__ void missing_second_barrier(const float* in, float* out, int n) { rotate<false>(in, out, n); }
extern "C" __global__ void missing_second_barrier_control(const float* in, float* out, int n) {
    rotate<true>(in, out, n);
}

extern "C" __global__ void off_by_one(const float* in, float* out, int n) {
    const int i = threadIdx.x;
    if (i <= n) out[i] = in[i];  // FAULT off by one: in[n] and out[n] do not exist
}
extern "C" __global__ void off_by_one_control(const float* in, float* out, int n) {
    const int i = threadIdx.x;
    if (i < n) out[i] = in[i];
}

extern "C" __global__ void shared_off_by_one(const float* in, float* out, int n) {
    SHARED_ARRAY(buffer, float[32]);
    const int i = threadIdx.x;
    if (i <= 32) buffer[i] = 1.0f;  // FAULT shared off by one: buffer[32] does not exist
    __syncthreads();
    if (i < n) out[i] = in[i] * buffer[i % 32];
}
extern "C" __global__ void shared_off_by_one_control(const float* in, float* out, int n) {
    SHARED_ARRAY(buffer, float[32]);
    const int i = threadIdx.x;
    if (i < 32) buffer[i] = 1.0f;
    __syncthreads();
    if (i < n) out[i] = in[i] * buffer[i % 32];
}

extern "C" __global__ void dynamic_off_by_one(const float* in, float* out, int n) {
    DYNAMIC_SHARED(float, buffer);
    const int i = threadIdx.x;
    if (i <= n) buffer[i] = 2.0f;  // FAULT dynamic off by one: launched with n floats of shared memory
    __syncthreads();
    if (i < n) out[i] = in[i] + buffer[n - 1 - i];
}
extern "C" __global__ void dynamic_off_by_one_control(const float* in, float* out, int n) {
    DYNAMIC_SHARED(float, buffer);
    const int i = threadIdx.x;
    if (i < n) buffer[i] = 2.0f;
    __syncthreads();
    if (i < n) out[i] = in[i] + buffer[n - 1 - i];
}

extern "C" __global__ void race(const float* in, float* out, int n) {
    const int i = threadIdx.x;
    if (i < n) out[0] += in[i];  // FAULT race: a read and a write that others may come between
}
extern "C" __global__ void race_control(const float* in, float* out, int n) {
    SHARED_ARRAY(count, int[1]);
    if (threadIdx.x == 0) count[0] = 0;
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < n && in[threadIdx.x] > 0.0f) atomicAdd(&count[0], 1);
    __syncthreads();
    if (threadIdx.x == 0) out[blockIdx.x] = static_cast<float>(count[0]);
}

extern "C" __global__ void race_between_blocks(const float* in, float* out, int n) {
    if (threadIdx.x == 0) out[0] = in[blockIdx.x % n];  // FAULT race between blocks: which of them is last?
}
extern "C" __global__ void race_between_blocks_control(const float* in, float* out, int n) {
    if (threadIdx.x == 0) out[blockIdx.x] = in[blockIdx.x % n];
}

extern "C" __global__ void shuffle_without_barrier(const float* in, float* out, int n) {
    SHARED_ARRAY(buffer, float[32]);
    const int i = threadIdx.x;
    buffer[i] = in[i % n];
    const float first = __shfl_sync(0xFFFFFFFFu, in[i % n], 0);  // orders no memory accesses, as __syncwarp would
    out[i] = first + buffer[31 - i];  // FAULT shuffle taken for a barrier
}
extern "C" __global__ void shuffle_without_barrier_control(const float* in, float* out, int n) {
    SHARED_ARRAY(buffer, float[32]);
    const int i = threadIdx.x;
    buffer[i] = in[i % n];
    __syncwarp();
    const float first = __shfl_sync(0xFFFFFFFFu, in[i % n], 0);
    out[i] = first + buffer[31 - i];
}

// Σ in over a warp, in lane 0.
template <unsigned int MASK>
__device__ void sum_of_warp(const float* in, float* out) {
    float sum = in[threadIdx.x];
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(MASK, sum, offset);  // FAULT mask
    if (threadIdx.x == 0) *out = sum;
}
extern "C" __global__ void half_mask(const float* in, float* out, [[maybe_unused]] int n) {
    sum_of_warp<0x0000FFFFu>(in, out);
}
extern "C" __global__ void half_mask_control(const float* in, float* out, [[maybe_unused]] int n) {
    sum_of_warp<0xFFFFFFFFu>(in, out);
}

extern "C" __global__ void lanes_that_left(const float* in, float* out, int n) {
    if (static_cast<int>(threadIdx.x) >= n) return;
    sum_of_warp<0xFFFFFFFFu>(in, out);  // with n < 32 the mask names lanes that have left
}
extern "C" __global__ void lane_at_barrier(const float* in, float* out, [[maybe_unused]] int n) {
    if (threadIdx.x == 5) __syncthreads();
    sum_of_warp<0xFFFFFFFFu>(in, out);  // lane 5 waits elsewhere
}

extern "C" __global__ void unset_shared(const float* in, float* out, int n) {
    SHARED_ARRAY(buffer, float[64]);
    const int i = threadIdx.x;
    if (i > 0 && i < n) buffer[i] = in[i];  // FAULT unset: buffer[0] is never written
    __syncthreads();
    if (i < n) out[i] = buffer[i];
}

extern "C" __global__ void divergent_barrier(const float* in, float* out, int n) {
    const int i = threadIdx.x;
    if (i % 2) __syncthreads();
    else __syncthreads();  // FAULT divergent: another barrier than that of the line above
    if (i < n) out[i] = in[i];
}

extern "C" __global__ void early_exit(const float* in, float* out, int n) {
    const int i = threadIdx.x;
    if (i >= n) return;
    __syncthreads();  // FAULT early exit: not all threads come here
    out[i] = in[i];
}

extern "C" __global__ void undefined_shift(const float* in, float* out, int n) {
    const int i = threadIdx.x;
    if (i < n) out[i] = in[i] * static_cast<float>(1 << (n + i));  // FAULT undefined shift: n + i ≥ 32
}
extern "C" __global__ void undefined_shift_control(const float* in, float* out, int n) {
    const int i = threadIdx.x;
    if (i < n) out[i] = in[i] * static_cast<float>(1u << i % 8);
}
