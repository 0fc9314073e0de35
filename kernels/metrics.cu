// metrics.cu: the metrics of a batch, added to running totals that stay on the device until an epoch ends.
#include "common.cuh"

// The first stage of a mean: Σ w · value(i) and Σ w over i < size.
// sample_weight: in, (size / units,), or null: all 1. T = float | double.
// partials: out, (2, tiles), tiles = ⌈size / (SUM_ITEMS · blockDim.x)⌉: the two sums of each tile.
// blockDim.x a multiple of 32. The result depends on blockDim.x (the order of the sums), not on the grid.
template <typename T, typename Value>
__device__ void mean_sums(const T* sample_weight, T* partials, long long size, long long units, long long tiles,
                          Value value) {
    for (long long tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        T values = T(0), weights = T(0);
        for (int item = 0; item < SUM_ITEMS; ++item) {
            const long long i = tile * sum_tile() + static_cast<long long>(item) * blockDim.x + threadIdx.x;
            if (i >= size) break;
            const T weight = sample_weight ? sample_weight[i / units] : T(1);
            values += value(i) * weight;
            weights += weight;
        }
        values = block_sum(values);
        weights = block_sum(weights);
        if (threadIdx.x == 0) {
            partials[tile] = values;
            partials[tiles + tile] = weights;
        }
    }
}

// binary_accuracy: of metrics.BinaryAccuracy; twin of ops.binary_accuracy.
// y_true, y_pred: in, (B, U); sample_weight: in, (B,), or null; size = B · U. All else as of mean_sums.
template <typename T>
__device__ void binary_accuracy(const T* y_true, const T* y_pred, const T* sample_weight, T* partials, long long size,
                                long long units, long long tiles, double threshold) {
    const T boundary = static_cast<T>(threshold);
    mean_sums(sample_weight, partials, size, units, tiles,
              [&](long long i) { return T((y_pred[i] > boundary ? T(1) : T(0)) == y_true[i]); });
}

// The number of the first of a row's largest elements, as argmax has it, to which a NaN is the largest.
template <typename T>
__device__ inline int first_largest(const T* row, int count) {
    int found = 0;
    for (int c = 1; c < count; ++c)
        if (row[c] > row[found] || (row[c] != row[c] && row[found] == row[found])) found = c;
    return found;
}

// categorical_accuracy: of metrics.CategoricalAccuracy; twin of ops.categorical_accuracy. Of class numbers: one_hot.
// y_true, y_pred: in, (B, C); sample_weight: in, (B,), or null. A thread a sample; all else as of mean_sums.
template <typename T>
__device__ void categorical_accuracy(const T* y_true, const T* y_pred, const T* sample_weight, T* partials,
                                     long long samples, int classes, long long tiles) {
    mean_sums(sample_weight, partials, samples, 1, tiles, [&](long long b) {
        return T(first_largest(y_true + b * classes, classes) == first_largest(y_pred + b * classes, classes));
    });
}

// The errors of metrics.MeanSquaredError and MeanAbsoluteError; formula(y, p): as mean_loss takes it.
// y_true, y_pred: in, (B, U); sample_weight: in, (B,), or null; size = B · U. All else as of mean_sums.
template <typename T, typename Formula>
__device__ void error_sums(const T* y_true, const T* y_pred, const T* sample_weight, T* partials, long long size,
                           long long units, long long tiles, Formula formula) {
    mean_sums(sample_weight, partials, size, units, tiles,
              [&](long long i) { return formula(y_true[i], y_pred[i]).loss; });
}

// mean_add: the second stage: total += Σ w · value / U, count += Σ w / U, as metrics.Mean.add.
// partials: in, (2, tiles); total, count: in/out, 1 element each; units: values of a sample, 1 of a categorical
// accuracy. One block, blockDim.x a multiple of 32.
template <typename T>
__device__ void mean_add(const T* partials, T* total, T* count, long long units, long long tiles) {
    const T values = sum_partials(partials, tiles), weights = sum_partials(partials + tiles, tiles);
    if (threadIdx.x == 0) {
        *total += values / static_cast<T>(units);
        *count += weights / static_cast<T>(units);
    }
}

#define INSTANTIATE(T, suffix)                                                                                         \
    extern "C" __global__ void binary_accuracy_##suffix(const T* y_true, const T* y_pred, const T* sample_weight,      \
                                                        T* partials, long long size, long long units, long long tiles, \
                                                        double threshold) {                                            \
        binary_accuracy<T>(y_true, y_pred, sample_weight, partials, size, units, tiles, threshold);                    \
    }                                                                                                                  \
    extern "C" __global__ void categorical_accuracy_##suffix(const T* y_true, const T* y_pred, const T* sample_weight, \
                                                             T* partials, long long samples, int classes,              \
                                                             long long tiles) {                                        \
        categorical_accuracy<T>(y_true, y_pred, sample_weight, partials, samples, classes, tiles);                     \
    }                                                                                                                  \
    extern "C" __global__ void squared_error_sums_##suffix(const T* y_true, const T* y_pred, const T* sample_weight,   \
                                                           T* partials, long long size, long long units,               \
                                                           long long tiles) {                                          \
        error_sums(y_true, y_pred, sample_weight, partials, size, units, tiles, SquaredError<T>());                    \
    }                                                                                                                  \
    extern "C" __global__ void absolute_error_sums_##suffix(const T* y_true, const T* y_pred, const T* sample_weight,  \
                                                            T* partials, long long size, long long units,              \
                                                            long long tiles) {                                         \
        error_sums(y_true, y_pred, sample_weight, partials, size, units, tiles, AbsoluteError<T>());                   \
    }                                                                                                                  \
    extern "C" __global__ void mean_add_##suffix(const T* partials, T* total, T* count, long long units,               \
                                                 long long tiles) {                                                    \
        mean_add<T>(partials, total, count, units, tiles);                                                             \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
