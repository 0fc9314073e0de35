// batch.cu: what stands around a step: the rows of a batch, and what is counted from batch to batch.
//
// counters: int64 numbers that stay on the device, so that a recorded sequence of launches can be replayed without a
// word from the host: [position, steps, diverged, seed, counter, seed, counter, …]. position: where in the epoch's order
// the batch begins. steps: those done since the epoch began. diverged: the first of them whose loss was not finite,
// or −1. A pair for each Dropout: the state of its SeedGenerator, as dropout.cu reads it.
#include "common.cuh"

enum Counter { POSITION = 0, STEPS = 1, DIVERGED = 2 };

// take_rows: rows[r] = source[order[position + r]], r = 0 … count − 1; twin of source[order[position:][:count]].
// source: in, (samples, width); order: in, row numbers, or null: position + r itself. counters: in.
// rows: out, (count, width). C-contiguous, T = float | double. Grid-stride; the result does not depend on the launch.
template <typename T>
__device__ void take_rows(const T* source, const long long* order, const long long* counters, T* rows, long long count,
                          long long width) {
    const long long position = counters[POSITION];
    for (long long i = first_index(); i < count * width; i += grid_stride()) {
        const long long row = position + i / width, from = order ? order[row] : row;
        rows[i] = source[from * width + i % width];
    }
}

// put_rows: target[position + r] = rows[r], r = 0 … count − 1: the way back of take_rows without an order.
// rows: in, (count, width). counters: in. target: out, (samples, width), the other rows untouched.
template <typename T>
__device__ void put_rows(const T* rows, const long long* counters, T* target, long long count, long long width) {
    const long long first = counters[POSITION] * width;
    for (long long i = first_index(); i < count * width; i += grid_stride()) target[first + i] = rows[i];
}

// finish_batch: total += (loss + penalty) · rows, count += rows, as metrics.Mean.add; then counters[i] += advance[i],
// i = 0 … size − 1. loss: in, 1 element, or null: no loss is counted. penalty: in, 1 element, or null: none.
// total, count: in/out, 1 element each. counters: in/out, advance: in, (size,). One thread.
template <typename T>
__device__ void finish_batch(const T* loss, const T* penalty, T* total, T* count, long long rows, long long* counters,
                             const long long* advance, int size) {
    if (first_index() != 0) return;
    if (loss) {
        const T whole = penalty ? *loss + *penalty : *loss;
        if (whole - whole != T(0) && counters[DIVERGED] < 0) counters[DIVERGED] = counters[STEPS];
        *total += whole * static_cast<T>(rows);
        *count += static_cast<T>(rows);
    }
    for (int i = 0; i < size; ++i) counters[i] += advance[i];
}

#define INSTANTIATE(T, suffix)                                                                                        \
    extern "C" __global__ void take_rows_##suffix(const T* source, const long long* order, const long long* counters, \
                                                  T* rows, long long count, long long width) {                        \
        take_rows<T>(source, order, counters, rows, count, width);                                                    \
    }                                                                                                                 \
    extern "C" __global__ void put_rows_##suffix(const T* rows, const long long* counters, T* target,                 \
                                                 long long count, long long width) {                                  \
        put_rows<T>(rows, counters, target, count, width);                                                            \
    }                                                                                                                 \
    extern "C" __global__ void finish_batch_##suffix(const T* loss, const T* penalty, T* total, T* count,             \
                                                     long long rows, long long* counters, const long long* advance,   \
                                                     int size) {                                                      \
        finish_batch<T>(loss, penalty, total, count, rows, counters, advance, size);                                  \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
