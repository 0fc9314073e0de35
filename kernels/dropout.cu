// dropout.cu: outputs = inputs / (1 − rate) where kept, else 0, with the keep flags that Keras draws on TensorFlow.
//
// No mask is stored: a flag depends on (seed, counter), rate and the element's position alone, so backward makes the
// forward's flags again, and any thread can make any of them.
#include "common.cuh"

// dropout: twin of ops.dropout with random.dropout_mask(shape, rate, (seed, counter), T). Backward is the same kernel
// on d_outputs: ops.dropout_backward.
// inputs: in, outputs: out (may be inputs); size elements, C-contiguous. seed_state: in, [seed, counter], the state of
// a SeedGenerator. rate: in [0, 1], the fraction dropped. xla: 1 for the flags of jit_compile=True, else 0.
// Grid-stride, four (float) or two (double) elements an iteration, since Philox makes four words at a time; the
// result does not depend on the launch.
template <typename T>
__device__ void dropout(const T* inputs, T* outputs, long long size, const long long* seed_state, double rate,
                        int xla) {
    const T scale = dropout_scale<T>(rate);
    visit_flags<T>(size, seed_state[0], seed_state[1], rate, xla != 0, first_index(), grid_stride(),
                   [&](long long i, bool kept) { outputs[i] = kept ? inputs[i] * scale : T(0); });
}

#define INSTANTIATE(T, suffix)                                                                                    \
    extern "C" __global__ void dropout_##suffix(const T* inputs, T* outputs, long long size,                      \
                                                const long long* seed_state, double rate, int xla) {              \
        dropout<T>(inputs, outputs, size, seed_state, rate, xla);                                                 \
    }                                                                                                             \
    extern "C" __global__ void dropout_backward_##suffix(const T* d_outputs, T* d_inputs, long long size,         \
                                                         const long long* seed_state, double rate, int xla) {     \
        dropout<T>(d_outputs, d_inputs, size, seed_state, rate, xla);                                             \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
