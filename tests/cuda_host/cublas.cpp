// Stands in for libcublas on the host: the functions that minidl/cublas.py calls, with its column-major meaning, on the
// host's memory. It answers with a status where the real library would be in an unfit state, or would read beyond.
#include <cstddef>
#include <new>

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13 };

struct Handle {
    void *stream, *workspace;
    size_t workspace_size;
    int math, products;
};

// c = alpha · op(a) · op(b) + beta · c, every matrix column by column, a (m, k), b (k, n), sums in order of k
template <typename T>
int gemm(Handle* handle, int op_a, int op_b, int m, int n, int k, const T* alpha, const T* a, int lda, const T* b,
         int ldb, const T* beta, T* c, int ldc) {
    if (!handle) return NOT_INITIALIZED;
    if (!handle->stream || !handle->workspace || handle->workspace_size < size_t(4) << 20) return EXECUTION_FAILED;
    if (m < 0 || n < 0 || k < 0 || lda < (op_a ? k : m) || ldb < (op_b ? n : k) || ldc < m) return INVALID_VALUE;
    for (int column = 0; column < n; ++column)
        for (int row = 0; row < m; ++row) {
            T sum = T(0);
            for (int i = 0; i < k; ++i)
                sum += (op_a ? a[i + size_t(row) * lda] : a[row + size_t(i) * lda]) *
                       (op_b ? b[column + size_t(i) * ldb] : b[i + size_t(column) * ldb]);
            T& out = c[row + size_t(column) * ldc];
            out = *beta == T(0) ? *alpha * sum : *alpha * sum + *beta * out;
        }
    ++handle->products;
    return SUCCESS;
}

}  // namespace

extern "C" {

#define EXPORT __attribute__((visibility("default")))

EXPORT int cublasCreate_v2(Handle** handle) {
    *handle = new (std::nothrow) Handle{nullptr, nullptr, 0, -1, 0};
    return *handle ? SUCCESS : NOT_INITIALIZED;
}
EXPORT int cublasDestroy_v2(Handle* handle) {
    delete handle;
    return SUCCESS;
}
EXPORT int cublasSetStream_v2(Handle* handle, void* stream) {
    handle->stream = stream;
    handle->workspace = nullptr;  // the library's own is back, which a capture must not use
    return SUCCESS;
}
EXPORT int cublasSetWorkspace_v2(Handle* handle, void* workspace, size_t size) {
    if (reinterpret_cast<size_t>(workspace) % 256) return INVALID_VALUE;
    handle->workspace = workspace;
    handle->workspace_size = size;
    return SUCCESS;
}
EXPORT int cublasSetMathMode(Handle* handle, int mode) {
    handle->math = mode;
    return SUCCESS;
}
EXPORT int cublasGetMathMode(Handle* handle, int* mode) {
    *mode = handle->math;
    return SUCCESS;
}
EXPORT int standin_products(Handle* handle) { return handle->products; }
EXPORT int cublasSgemm_v2(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha, const float* a,
                          int lda, const float* b, int ldb, const float* beta, float* c, int ldc) {
    return gemm(handle, op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
EXPORT int cublasDgemm_v2(Handle* handle, int op_a, int op_b, int m, int n, int k, const double* alpha,
                          const double* a, int lda, const double* b, int ldb, const double* beta, double* c, int ldc) {
    return gemm(handle, op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
}
