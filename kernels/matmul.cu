// matmul.cu: c = a @ b three times: as the formula says it, with tiles in shared memory, with a block of results in
// each thread's registers. All three add the products over k = 0, 1, … in that order: their bits are equal.
//
// a is (M, K), b is (K, N), c is (M, N), C-contiguous. a and b are given by strides in elements, as in NumPy, so that
// a transpose costs nothing: a[i, k] = a[i · a_row + k · a_column]. T = float | double. So the same kernels are
// ops.dense's product (inputs @ kernel), ops.dense_backward (d_outputs @ kernelᵀ) and ops.dense_gradients
// (inputsᵀ @ d_outputs).
#include "common.cuh"

// What the three have in common.
template <typename T>
struct Product {
    const T *a, *b;
    T* c;
    long long m, n, k, a_row, a_column, b_row, b_column;

    // the element, or 0 beyond the edge: a tile that sticks out adds zeros
    __device__ T a_at(long long row, long long i) const {
        return row < m && i < k ? a[row * a_row + i * a_column] : T(0);
    }
    __device__ T b_at(long long i, long long column) const {
        return i < k && column < n ? b[i * b_row + column * b_column] : T(0);
    }
    __device__ void store(long long row, long long column, T value) const {
        if (row < m && column < n) c[row * n + column] = value;
    }
};

// matmul_naive: one element of c a thread and iteration; every operand is fetched from global memory each time.
// Grid-stride; the result does not depend on the launch.
template <typename T>
__device__ void matmul_naive(Product<T> p) {
    for (long long element = first_index(); element < p.m * p.n; element += grid_stride()) {
        const long long row = element / p.n, column = element % p.n;
        T sum = T(0);
        for (long long i = 0; i < p.k; ++i) sum += p.a_at(row, i) * p.b_at(i, column);
        p.c[element] = sum;
    }
}

// matmul_tiled: a block makes a TILE × TILE part of c; its threads fetch a tile of a and one of b together, and each
// element fetched is used TILE times. blockDim = (TILE, TILE) = (16, 16). The result does not depend on the grid.
constexpr long long TILE = 16;
template <typename T>
__device__ void matmul_tiled(Product<T> p) {
    SHARED_ARRAY(a_tile, T[TILE][TILE]);
    SHARED_ARRAY(b_tile, T[TILE][TILE]);
    const int x = threadIdx.x, y = threadIdx.y;
    for (long long row = blockIdx.y * TILE; row < p.m; row += gridDim.y * TILE) {
        for (long long column = blockIdx.x * TILE; column < p.n; column += gridDim.x * TILE) {
            T sum = T(0);
            for (long long first = 0; first < p.k; first += TILE) {
                a_tile[y][x] = p.a_at(row + y, first + x);
                b_tile[y][x] = p.b_at(first + y, column + x);
                __syncthreads();  // the tiles are complete
                for (int i = 0; i < TILE; ++i) sum += a_tile[y][i] * b_tile[i][x];
                __syncthreads();  // and used: the next may come
            }
            p.store(row + y, column + x, sum);
        }
    }
}

// matmul_blocked: a block makes a SIDE × SIDE part of c, each thread PER_THREAD × PER_THREAD elements of it in its
// registers: PER_THREAD numbers of a and as many of b, once read from shared memory, serve PER_THREAD² products.
// blockDim = (16, 16). The result does not depend on the grid.
constexpr long long SIDE = 64;
constexpr int DEPTH = 16, PER_THREAD = 4, THREADS = 16;
template <typename T>
__device__ void matmul_blocked(Product<T> p) {
    SHARED_ARRAY(a_tile, T[DEPTH][SIDE + 1]);  // transposed; + 1: neighbours in a column lie in different banks
    SHARED_ARRAY(b_tile, T[DEPTH][SIDE + 1]);
    const int x = threadIdx.x, y = threadIdx.y, thread = y * THREADS + x;
    for (long long row = blockIdx.y * SIDE; row < p.m; row += gridDim.y * SIDE) {
        for (long long column = blockIdx.x * SIDE; column < p.n; column += gridDim.x * SIDE) {
            T sums[PER_THREAD][PER_THREAD] = {};
            for (long long first = 0; first < p.k; first += DEPTH) {
                for (int e = thread; e < SIDE * DEPTH; e += THREADS * THREADS) {
                    a_tile[e % DEPTH][e / DEPTH] = p.a_at(row + e / DEPTH, first + e % DEPTH);
                    b_tile[e / SIDE][e % SIDE] = p.b_at(first + e / SIDE, column + e % SIDE);
                }
                __syncthreads();  // the tiles are complete
                for (int i = 0; i < DEPTH; ++i) {
                    T a[PER_THREAD], b[PER_THREAD];
                    for (int j = 0; j < PER_THREAD; ++j) {
                        a[j] = a_tile[i][y + j * THREADS];
                        b[j] = b_tile[i][x + j * THREADS];
                    }
                    for (int r = 0; r < PER_THREAD; ++r)
                        for (int c = 0; c < PER_THREAD; ++c) sums[r][c] += a[r] * b[c];
                }
                __syncthreads();  // and used: the next may come
            }
            for (int r = 0; r < PER_THREAD; ++r)
                for (int c = 0; c < PER_THREAD; ++c)
                    p.store(row + y + r * THREADS, column + x + c * THREADS, sums[r][c]);
        }
    }
}

#define INSTANTIATE_ONE(name, T, suffix)                                                                            \
    extern "C" __global__ void name##_##suffix(const T* a, const T* b, T* c, long long m, long long n, long long k, \
                                               long long a_row, long long a_column, long long b_row,                \
                                               long long b_column) {                                                \
        name(Product<T>{a, b, c, m, n, k, a_row, a_column, b_row, b_column});                                       \
    }
#define INSTANTIATE(T, suffix)               \
    INSTANTIATE_ONE(matmul_naive, T, suffix) \
    INSTANTIATE_ONE(matmul_tiled, T, suffix) \
    INSTANTIATE_ONE(matmul_blocked, T, suffix)

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
