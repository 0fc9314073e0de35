// dense.cu: a Dense layer around its matrix products: bias and activation forward; the way back, with the bias's
// gradient. The products are in matmul.cu.
#include "common.cuh"

// dense_forward: z = products + bias, then outputs = activation(z); twin of the second half of ops.dense and of
// ops.linear, relu, sigmoid, tanh.
// products: in, (B, U), inputs @ kernel. bias: in, (U,), or null. pre_activations: out, (B, U), or null.
// outputs: out, (B, U). Either output may be products. size = B · U, T = float | double. activation: enum Activation.
// Grid-stride, one element an iteration; the result does not depend on the launch.
template <typename T>
__device__ void dense_forward(const T* products, const T* bias, T* pre_activations, T* outputs, long long size,
                              long long units, int activation) {
    for (long long i = first_index(); i < size; i += grid_stride()) {
        const T z = bias ? products[i] + bias[i % units] : products[i];
        if (pre_activations) pre_activations[i] = z;
        outputs[i] = activate(z, activation);
    }
}

// dense_backward: d_z = d_outputs · activation′, d_bias = Σ_B d_z; twin of ops.relu_backward and its kin, and of the
// second half of ops.dense_gradients.
// d_outputs, outputs: in, (B, U); d_z: out, (B, U), may be d_outputs; d_bias: out, (U,), or null. T = float | double.
// blockDim = (32, ROWS), ROWS ≤ 32: the 32 threads of a row take 32 neighbouring units, so that they read neighbouring
// memory; thread row r takes the rows r, r + ROWS, … of the batch, and row 0 adds the ROWS sums from 0 upward. So
// d_bias depends on ROWS (the order of the sum), not on the grid; d_z on neither.
template <typename T>
__device__ void dense_backward(const T* d_outputs, const T* outputs, T* d_z, T* d_bias, long long rows,
                               long long units, int activation) {
    SHARED_ARRAY(sums, T[32][32]);
    for (long long first = blockIdx.x * 32ll; first < units; first += gridDim.x * 32ll) {
        const long long unit = first + threadIdx.x;
        T sum = T(0);
        if (unit < units) {
            for (long long row = threadIdx.y; row < rows; row += blockDim.y) {
                const long long i = row * units + unit;
                const T d = activate_backward(d_outputs[i], outputs[i], activation);
                d_z[i] = d;
                sum += d;
            }
        }
        sums[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        if (d_bias && threadIdx.y == 0 && unit < units) {
            for (unsigned int r = 1; r < blockDim.y; ++r) sum += sums[r][threadIdx.x];
            d_bias[unit] = sum;
        }
        __syncthreads();  // sums is read: the next 32 units may write it
    }
}

// dense_softmax: dense_forward with ops.softmax, whose outputs depend on the whole row: z = products + bias, then
// outputs = e^(z − max z) / Σ e^(z − max z). Arguments as dense_forward's, of rows · units elements; pre_activations may
// be products, and outputs either, or null: only z.
// A warp a row, grid-stride; blockDim.x a multiple of 32. A sum is in the order of warp_total, so the result does not
// depend on the launch.
template <typename T>
__device__ void dense_softmax(const T* products, const T* bias, T* pre_activations, T* outputs, long long rows,
                              int units) {
    for (long long row = first_index() / 32; row < rows; row += grid_stride() / 32) {
        const T* z = products + row * units;
        const auto logit = [&](int u) { return bias ? z[u] + bias[u] : z[u]; };
        const T most = warp_max<T>(units, logit);
        const T sum = from_lane_0(warp_total<T>(units, [&](int u) { return exp_minus(most - logit(u)); }));
        for (int u = threadIdx.x % 32; u < units; u += 32) {
            const T of_unit = logit(u);
            if (pre_activations) pre_activations[row * units + u] = of_unit;
            if (outputs) outputs[row * units + u] = exp_minus(most - of_unit) / sum;
        }
    }
}

// softmax_backward: twin of the NumPy function of that name: d_z = outputs · (d_outputs − Σ_u d_outputs · outputs).
// d_outputs, outputs: in, (rows, units); d_z: out, may be d_outputs. d_bias is dense_backward's of d_z, LINEAR.
// A warp a row, as dense_softmax.
template <typename T>
__device__ void softmax_backward(const T* d_outputs, const T* outputs, T* d_z, long long rows, int units) {
    for (long long row = first_index() / 32; row < rows; row += grid_stride() / 32) {
        const T *d = d_outputs + row * units, *y = outputs + row * units;
        const T mean_gradient = from_lane_0(warp_total<T>(units, [&](int u) { return d[u] * y[u]; }));
        for (int u = threadIdx.x % 32; u < units; u += 32) d_z[row * units + u] = y[u] * (d[u] - mean_gradient);
    }
}

#define INSTANTIATE(T, suffix)                                                                                     \
    extern "C" __global__ void dense_forward_##suffix(const T* products, const T* bias, T* pre_activations,        \
                                                      T* outputs, long long size, long long units,                 \
                                                      int activation) {                                            \
        dense_forward<T>(products, bias, pre_activations, outputs, size, units, activation);                       \
    }                                                                                                              \
    extern "C" __global__ void dense_backward_##suffix(const T* d_outputs, const T* outputs, T* d_z, T* d_bias,    \
                                                       long long rows, long long units, int activation) {          \
        dense_backward<T>(d_outputs, outputs, d_z, d_bias, rows, units, activation);                               \
    }                                                                                                              \
    extern "C" __global__ void dense_softmax_##suffix(const T* products, const T* bias, T* pre_activations,        \
                                                      T* outputs, long long rows, int units) {                     \
        dense_softmax<T>(products, bias, pre_activations, outputs, rows, units);                                   \
    }                                                                                                              \
    extern "C" __global__ void softmax_backward_##suffix(const T* d_outputs, const T* outputs, T* d_z,             \
                                                         long long rows, int units) {                              \
        softmax_backward<T>(d_outputs, outputs, d_z, rows, units);                                                 \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
