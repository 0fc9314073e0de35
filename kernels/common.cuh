// common.cuh: what the kernels share: positions in the grid, sums over a block, Philox and dropout, activations, the
// binary cross-entropy, penalties, Adam.
//
// The same text is compiled by NVRTC for a GPU and by a C++17 compiler for a CPU (tests/cuda_host), so it includes no
// header and uses no intrinsic beyond __syncthreads, __syncwarp and shuffles. Arithmetic is in T = float | double, in the
// order of minidl/ops.py; compile with --fmad=false (nvrtc) or -ffp-contract=off (g++) to round as NumPy does.
#pragma once

// Memory that the threads of one block share. In CUDA, SHARED_ARRAY(tile, T[16][17]) is `__shared__ T tile[16][17]`;
// the host's shim hands out the same array from the heap, where a sanitizer sees every overrun.
#ifndef MINIDL_CUDA_HOST
template <typename Array>
using SharedType = Array;
#define SHARED_ARRAY(name, ...) __shared__ SharedType<__VA_ARGS__> name
#define DYNAMIC_SHARED(T, name)                                     \
    extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
    T* name = reinterpret_cast<T*>(dynamic_shared)
#define ASSUME_SHARED(pointer) __builtin_assume(__isShared(pointer))
#else
#define ASSUME_SHARED(pointer)
#endif

// A pointer into shared memory that is itself kept in memory. A plain one would not show the compiler which memory it
// points to, and a load from anywhere takes longer than one from shared memory.
template <typename T>
struct InShared {
    T* pointer;
    __device__ T& operator[](int i) const {
        ASSUME_SHARED(pointer);
        return pointer[i];
    }
    __device__ InShared operator+(int elements) const { return {pointer + elements}; }
};

// ---------------------------------------------------------------------------------------------------- positions

// A grid-stride loop visits i = first_index(), first_index() + grid_stride(), …: any grid covers any size.
__device__ inline long long first_index() { return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline long long grid_stride() { return static_cast<long long>(gridDim.x) * blockDim.x; }

// --------------------------------------------------------------------------------------------- sums over a block

// Σ value over a warp's 32 threads, right in lane 0: five halvings, always the same order. All 32 must call it.
template <typename T>
__device__ inline T warp_sum(T value) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xFFFFFFFFu, value, offset);
    return value;
}

// Σ term(i) over i < count by one warp, right in lane 0: lane l adds the terms l, l + 32, …, then warp_sum. So the order
// depends neither on the block's size nor on which warp it is.
template <typename T, typename Term>
__device__ inline T warp_total(int count, Term term) {
    T sum = T(0);
    for (int i = threadIdx.x % 32; i < count; i += 32) sum += term(i);
    return warp_sum(sum);
}

// The lane 0 of a warp to all of its lanes. All 32 must call it.
template <typename T>
__device__ inline T from_lane_0(T value) {
    return __shfl_sync(0xFFFFFFFFu, value, 0);
}

// max term(i) over i < count, 0 < count, by one warp, right in all lanes; NaN if one is. All 32 must call it.
template <typename T, typename Term>
__device__ inline T warp_max(int count, Term term) {
    const auto larger = [](T a, T b) { return a > b || a != a ? a : b; };
    T most = term(0);
    for (int i = threadIdx.x % 32; i < count; i += 32) most = larger(term(i), most);
    for (int offset = 16; offset > 0; offset /= 2) most = larger(__shfl_down_sync(0xFFFFFFFFu, most, offset), most);
    __syncwarp();  // all have read term(0): its lane may write there
    return from_lane_0(most);
}

// Σ value over a one-dimensional block, right in thread 0. All threads must call it; blockDim.x a multiple of 32.
template <typename T>
__device__ inline T block_sum(T value) {
    SHARED_ARRAY(warp_sums, T[32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    value = warp_sum(value);
    if (lane == 0) warp_sums[warp] = value;
    __syncthreads();
    if (warp == 0) value = warp_sum(lane < warps ? warp_sums[lane] : T(0));
    __syncthreads();  // all have read warp_sums: the next call may write it
    return value;
}

// A sum over many elements takes two kernels. In the first, tile i of SUM_ITEMS · blockDim.x elements goes to
// partials[i], whichever block meets it; in the second, one block adds the partials. Both orders are fixed by the
// block's size alone, so a sum does not depend on the grid or on timing, and no float atomics are needed.
constexpr int SUM_ITEMS = 4;
__device__ inline long long sum_tile() { return static_cast<long long>(SUM_ITEMS) * blockDim.x; }

// Σ partials[0 … count − 1] by one block, right in thread 0.
template <typename T>
__device__ inline T sum_partials(const T* partials, long long count) {
    T sum = T(0);
    for (long long i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    return block_sum(sum);
}

// -------------------------------------------------------------------------------------------------------- Philox

struct Words {
    unsigned int w[4];
};

// Philox4x32-10 (Salmon et al. 2011, §3.3): four random words from a counter and a key. Twin of random.philox4x32.
__device__ inline Words philox(Words c, unsigned int k0, unsigned int k1) {
    for (int round = 0; round < 10; ++round) {
        const unsigned long long p0 = 0xD2511F53ull * c.w[0], p1 = 0xCD9E8D57ull * c.w[2];
        const unsigned int high0 = static_cast<unsigned int>(p0 >> 32), high1 = static_cast<unsigned int>(p1 >> 32);
        c = Words{{high1 ^ c.w[1] ^ k0, static_cast<unsigned int>(p1), high0 ^ c.w[3] ^ k1,
                   static_cast<unsigned int>(p0)}};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// x mod (2³¹ − 2) in 0 … 2³¹ − 3, as Python has it for negative x too.
__device__ inline unsigned int scramble_modulus(long long x) {
    const long long modulus = 2147483646, rest = x % modulus;
    return static_cast<unsigned int>(rest < 0 ? rest + modulus : rest);
}

// TensorFlow's stream of a pair (seed, counter): key and upper counter words. Twin of random.tensorflow_key_counter.
__device__ inline Words tensorflow_stream(long long seed, long long counter) {
    return philox(Words{{scramble_modulus(seed), 0, scramble_modulus(counter), 0}}, 0x3EC8F720u, 0x02461E29u);
}

// The words of group i of a stream: Philox at counter (i, 0, c2, c3), i in 64 bits.
__device__ inline Words stream_words(const Words& stream, long long i) {
    const unsigned long long n = static_cast<unsigned long long>(i);
    return philox(Words{{static_cast<unsigned int>(n), static_cast<unsigned int>(n >> 32), stream.w[2], stream.w[3]}},
                  stream.w[0], stream.w[1]);
}

// A number u = fraction · 2^-BITS in [0, 1) for T: GROUP of them from four words. Twin of random.tensorflow_fractions.
template <typename T>
struct Uniform;

template <>
struct Uniform<float> {
    static constexpr int GROUP = 4, BITS = 23;
    __device__ static unsigned long long fraction(const Words& words, int j, bool xla) {
        return xla ? words.w[j] >> 9 : words.w[j] & 0x7FFFFFu;
    }
};

template <>
struct Uniform<double> {
    static constexpr int GROUP = 2, BITS = 52;
    __device__ static unsigned long long fraction(const Words& words, int j, bool xla) {
        const unsigned long long x0 = words.w[2 * j], x1 = words.w[2 * j + 1];
        return xla ? (x1 << 32 | x0) >> 12 : (x0 & 0xFFFFFu) << 32 | x1;
    }
};

// u >= T(rate) is decided on integers, fraction >= ⌈T(rate) · 2^BITS⌉: the product is exact, no u is made.
template <typename T>
__device__ inline unsigned long long keep_threshold(double rate) {
    const double rounded = static_cast<T>(rate);
    return static_cast<unsigned long long>(ceil(rounded * static_cast<double>(1ull << Uniform<T>::BITS)));
}

// What a kept element is multiplied by: 1 / (1 − rate).
template <typename T>
__device__ inline T dropout_scale(double rate) {
    return rate < 1.0 ? static_cast<T>(1.0 / (1.0 - rate)) : T(0);
}

// visit(i, kept) for the elements i < size of the groups first, first + stride, …: the flags that Keras's Dropout draws
// from (seed, counter). Twin of random.dropout_mask.
template <typename T, typename Visit>
__device__ inline void visit_flags(long long size, long long seed, long long counter, double rate, bool xla,
                                   long long first, long long stride, Visit visit) {
    using U = Uniform<T>;
    const Words stream = tensorflow_stream(seed, counter);
    const unsigned long long threshold = keep_threshold<T>(rate);
    const long long groups = (size + U::GROUP - 1) / U::GROUP;
    for (long long group = first; group < groups; group += stride) {
        const Words words = stream_words(stream, group);
        for (int j = 0; j < U::GROUP; ++j) {
            const long long i = group * U::GROUP + j;
            if (i < size) visit(i, U::fraction(words, j, xla) >= threshold);
        }
    }
}

// --------------------------------------------------------------------------------------------------- exponential

// ln 2 in two parts, of which n · HIGH is exact for all n that occur; above LIMIT e^(−x) is 0; TERMS of Taylor's series
// for |r| ≤ ½ ln 2 leave out less than a tenth of the unit roundoff.
template <typename T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
    static constexpr float HIGH = 0.693359375f, LOW = -2.12194440e-4f, LIMIT = 104.0f;
    static constexpr int TERMS = 7;
};

template <>
struct ExpConstants<double> {
    static constexpr double HIGH = 6.93147180369123816490e-01, LOW = 1.90821492927058770002e-10, LIMIT = 746.0;
    static constexpr int TERMS = 13;
};

// e^(−x) for x ≥ 0: 2^(−n) e^r with n = x / ln 2, rounded, and r = n ln 2 − x. Made of additions and multiplications,
// so that it has the same bits on every GPU, on a CPU and in NumPy, as no library's exp has. At most 5 units of
// roundoff off (tests/cuda_host/checks.py), below the smallest normal number half the smallest subnormal one.
template <typename T>
__device__ inline T exp_minus(T x) {
    using C = ExpConstants<T>;
    if (!(x <= C::LIMIT)) return x != x ? x : T(0);
    constexpr double inverse_factorials[] = {
        1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
        1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    const T n = rint(x * T(1.4426950408889634));
    const T r = (n * C::HIGH - x) + n * C::LOW;
    T sum = static_cast<T>(inverse_factorials[C::TERMS]);
    for (int k = C::TERMS - 1; k >= 0; --k) sum = sum * r + static_cast<T>(inverse_factorials[k]);
    return ldexp(sum, -static_cast<int>(n));
}

// --------------------------------------------------------------------------------------------------- activations

enum Activation { LINEAR = 0, RELU = 1, SIGMOID = 2, TANH = 3, SOFTMAX = 4 };  // the last of a row, not an element

// 1 / (1 + e^(−x)) from t = e^(−|x|) ≤ 1, which cannot overflow.
template <typename T>
__device__ inline T sigmoid(T x) {
    const T t = exp_minus(fabs(x));
    return (x >= T(0) ? T(1) : t) / (T(1) + t);
}

// The activation of a pre-activation x. Twins of ops.linear, relu, sigmoid and tanh; a NaN stays one.
template <typename T>
__device__ inline T activate(T x, int activation) {
    if (activation == RELU) return x > T(0) || x != x ? x : T(0);
    if (activation == SIGMOID) return sigmoid(x);
    if (activation == TANH) return tanh(x);
    return x;
}

// d · the activation's derivative at its output y. Twins of ops.relu_backward, sigmoid_backward and tanh_backward.
template <typename T>
__device__ inline T activate_backward(T d, T y, int activation) {
    if (activation == RELU) return d * (y > T(0) ? T(1) : T(0));
    if (activation == SIGMOID) return d * (y * (T(1) - y));
    if (activation == TANH) return d * (T(1) - y * y);
    return d;
}

// -------------------------------------------------------------------------------------------- losses of an element

// One element's loss ℓ and derivative ℓ′.
template <typename T>
struct LossAndGradient {
    T loss, gradient;
};

// Twin of ops.binary_crossentropy_from_logits and its backward; the formulas live there.
template <typename T>
struct FromLogits {
    __device__ LossAndGradient<T> operator()(T y, T z) const {
        const T t = exp_minus(fabs(z)), tail = t / (T(1) + t);
        const T loss = (z > T(0) || z != z ? z : T(0)) - z * y + log1p(t);
        return {loss, z >= T(0) ? (T(1) - y) - tail : tail - y};
    }
};

// Twin of ops.squared_error and its backward.
template <typename T>
struct SquaredError {
    __device__ LossAndGradient<T> operator()(T y, T y_pred) const {
        const T error = y_pred - y;
        return {error * error, T(2) * error};
    }
};

// Twin of ops.absolute_error and its backward; of a NaN both are NaN.
template <typename T>
struct AbsoluteError {
    __device__ LossAndGradient<T> operator()(T y, T y_pred) const {
        const T error = y_pred - y;
        const T sign = error > T(0) ? T(1) : error < T(0) ? T(-1) : error == T(0) ? T(0) : error;
        return {error < T(0) ? -error : error, sign};
    }
};

// The mean of a batch's losses, tile by tile, and its gradient: L = 1/(B·U) Σ_b w_b Σ_u ℓ(y_bu, p_bu), so
// dL/dp_bu = ℓ′(y_bu, p_bu) · 1/(B·U) · w_b.
// y_true, predictions: in, (B, U); sample_weight: in, (B,), or null: all 1. formula(y, p): ℓ and ℓ′.
// d_predictions: out, (B, U), or null: no gradient. size = B · U elements, C-contiguous, T = float | double.
// partials: out, (⌈size / tile⌉,) with tile = SUM_ITEMS · blockDim.x: Σ w ℓ of each tile; bce_mean adds them.
// blockDim.x a multiple of 32. The loss depends on blockDim.x (the order of the sum), not on the grid; the gradient
// on neither.
template <typename T, typename Formula>
__device__ void mean_loss(const T* y_true, const T* predictions, const T* sample_weight, T* d_predictions, T* partials,
                          long long size, long long units, Formula formula) {
    const T mean = static_cast<T>(1.0 / static_cast<double>(size));
    for (long long tile = blockIdx.x; tile * sum_tile() < size; tile += gridDim.x) {
        T sum = T(0);
        for (int item = 0; item < SUM_ITEMS; ++item) {
            const long long i = tile * sum_tile() + static_cast<long long>(item) * blockDim.x + threadIdx.x;
            if (i >= size) break;
            const LossAndGradient<T> of = formula(y_true[i], predictions[i]);
            const T weight = sample_weight ? sample_weight[i / units] : T(1);
            sum += of.loss * weight;
            if (d_predictions) d_predictions[i] = of.gradient * mean * weight;
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) partials[tile] = sum;
    }
}

// ----------------------------------------------------------------------------------------------------- penalties

// The segment that holds element i of the arena: segment s ends before stops[s]; stops ascend, the last is the size.
__device__ inline int segment_of(long long i, const long long* stops, int segments) {
    int low = 0, high = segments - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (i < stops[middle]) high = middle;
        else low = middle + 1;
    }
    return low;
}

// l1 · sign(w) + 2 · l2 · w, sign(0) = 0. Twin of ops.l1_gradient + ops.l2_gradient.
template <typename T>
__device__ inline T penalty_gradient(T w, T l1, T l2) {
    const T sign = w > T(0) ? T(1) : w < T(0) ? T(-1) : w == T(0) ? T(0) : w;
    return l1 * sign + T(2) * l2 * w;
}

// ---------------------------------------------------------------------------------------------------------- Adam

// The part of Adam's arguments that is the same for all elements, rounded to T.
template <typename T>
struct AdamConstants {
    T one_minus_beta_1, one_minus_beta_2, epsilon;
};

// One parameter's update by its gradient. Twin of ops.adam_step; the formula lives there.
template <typename T>
__device__ inline void adam_update(T& param, T gradient, T& m, T& v, T alpha, const AdamConstants<T>& of) {
    const T new_m = m + (gradient - m) * of.one_minus_beta_1;
    const T new_v = v + (gradient * gradient - v) * of.one_minus_beta_2;
    m = new_m;
    v = new_v;
    param -= new_m * alpha / (sqrt(new_v) + of.epsilon);
}

// The same with the largest v so far in the place of v. Twin of ops.amsgrad_step.
template <typename T>
__device__ inline void amsgrad_update(T& param, T gradient, T& m, T& v, T& v_hat, T alpha, const AdamConstants<T>& of) {
    const T new_m = m + (gradient - m) * of.one_minus_beta_1;
    const T new_v = v + (gradient * gradient - v) * of.one_minus_beta_2;
    const T most = v_hat > new_v || v_hat != v_hat ? v_hat : new_v;
    m = new_m;
    v = new_v;
    v_hat = most;
    param -= new_m * alpha / (sqrt(most) + of.epsilon);
}

// A gradient between −c and c; a NaN stays one. Twin of ops.clip_by_value.
template <typename T>
__device__ inline T clipped(T gradient, T c) {
    return gradient < -c ? -c : gradient > c ? c : gradient;
}
