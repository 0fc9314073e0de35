// metrics.cu: the accuracy of a batch, added to running totals that stay on the device until an epoch ends.
#include "common.cuh"

// binary_accuracy: the first stage of metrics.BinaryAccuracy; twin of ops.binary_accuracy.
// y_true, y_pred: in, (B, U); sample_weight: in, (B,), or null: all 1. size = B · U elements, T = float | double.
// partials: out, (2, tiles), tiles = ⌈size / (SUM_ITEMS · blockDim.x)⌉: Σ w · match and Σ w of each tile.
// blockDim.x a multiple of 32. The result depends on blockDim.x (the order of the sums), not on the grid.
template <typename T>
__device__ void binary_accuracy(const T* y_true, const T* y_pred, const T* sample_weight, T* partials, long long size,
                                long long units, long long tiles, double threshold) {
    const T boundary = static_cast<T>(threshold);
    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        T matches = T(0), weights = T(0);
        for (int item = 0; item < SUM_ITEMS; ++item) {
            const long long i = tile * sum_tile() + static_cast<long long>(item) * blockDim.x + threadIdx.x;
            if (i >= size) break;
            const T predicted = y_pred[i] > boundary ? T(1) : T(0);
            const T weight = sample_weight ? sample_weight[i / units] : T(1);
            if (predicted == y_true[i]) matches += weight;
            weights += weight;
        }
        matches = block_sum(matches);
        weights = block_sum(weights);
        if (threadIdx.x == 0) {
            partials[tile] = matches;
            partials[tiles + tile] = weights;
        }
    }
}

// binary_accuracy_add: the second stage: total += Σ w · match / U, count += Σ w / U, as metrics.Mean.add.
// partials: in, (2, tiles); total, count: in/out, 1 element each. One block, blockDim.x a multiple of 32.
template <typename T>
__device__ void binary_accuracy_add(const T* partials, T* total, T* count, long long units, long long tiles) {
    const T matches = sum_partials(partials, tiles), weights = sum_partials(partials + tiles, tiles);
    if (threadIdx.x == 0) {
        *total += matches / static_cast<T>(units);
        *count += weights / static_cast<T>(units);
    }
}

#define INSTANTIATE(T, suffix)                                                                                         \
    extern "C" __global__ void binary_accuracy_##suffix(const T* y_true, const T* y_pred, const T* sample_weight,      \
                                                        T* partials, long long size, long long units, long long tiles, \
                                                        double threshold) {                                            \
        binary_accuracy<T>(y_true, y_pred, sample_weight, partials, size, units, tiles, threshold);                    \
    }                                                                                                                  \
    extern "C" __global__ void binary_accuracy_add_##suffix(const T* partials, T* total, T* count, long long units,    \
                                                            long long tiles) {                                         \
        binary_accuracy_add<T>(partials, total, count, units, tiles);                                                  \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
