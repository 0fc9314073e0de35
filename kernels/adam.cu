// adam.cu: one Adam update of all parameters of a model in one launch, the gradients of their penalties included.
#include "common.cuh"

// adam_alpha: twin of ops.adam_alpha; the formula lives there. Counts the step too, so that a recorded sequence of
// launches can be replayed without a word from the host.
// iterations: in/out, 1 int64, the steps taken so far, incremented first. alpha: out, 1 element, T = float | double.
// rates: in, a learning rate for each step of an epoch; number: in, 1 int64, which of them this step is, from 0.
// beta_1, beta_2: as Python has them; they are rounded to float here. One thread.
template <typename T>
__device__ void adam_alpha(long long* iterations, T* alpha, const T* rates, const long long* number, double beta_1,
                           double beta_2) {
    if (first_index() != 0) return;
    const double step = static_cast<double>(++*iterations);
    const T power_1 = static_cast<T>(pow(static_cast<double>(static_cast<float>(beta_1)), step));
    const T power_2 = static_cast<T>(pow(static_cast<double>(static_cast<float>(beta_2)), step));
    // the root in double, rounded once, as ops.adam_alpha has it: for float that is the correctly rounded root too
    const T root = static_cast<T>(sqrt(static_cast<double>(T(1) - power_2)));
    *alpha = rates[*number] * root / (T(1) - power_1);
}

// The gradient of parameter i, its penalty's included, as training.add_penalty_gradients adds it.
template <typename T>
__device__ inline T penalized(const T* grad, const T* param, long long i, const long long* stops, const T* l1,
                              const T* l2, int segments) {
    T g = grad[i];
    if (segments > 0) {
        const int s = segment_of(i, stops, segments);
        if (l1[s] != T(0) || l2[s] != T(0)) g += penalty_gradient(param[i], l1[s], l2[s]);
    }
    return g;
}

// adam_step: twin of the NumPy function of that name; the formula lives there. With segments, grad is first increased
// by l1 · sign(param) + 2 · l2 · param of the element's segment.
// param, m, v: in/out; grad: in. n elements, C-contiguous, T = float | double. alpha: in, 1 element, of adam_alpha.
// one_minus_beta_1, one_minus_beta_2, epsilon: computed in double, rounded to T here.
// stops, l1, l2: in, (segments,): segment s ends before element stops[s]; segments = 0: no penalties, all three null.
// Grid-stride, one element an iteration; no atomics, so the result does not depend on the launch.
template <typename T>
__device__ void adam_step(T* param, const T* grad, T* m, T* v, long long n, const T* alpha,
                          const AdamConstants<T>& constants, const long long* stops, const T* l1, const T* l2,
                          int segments) {
    const T step_size = *alpha;
    for (long long i = first_index(); i < n; i += grid_stride()) {
        const T g = penalized(grad, param, i, stops, l1, l2, segments);
        adam_update(param[i], g, m[i], v[i], step_size, constants);
    }
}

// amsgrad_step: twin of the NumPy function of that name. v_hat: in/out, n elements; the others as adam_step's.
template <typename T>
__device__ void amsgrad_step(T* param, const T* grad, T* m, T* v, T* v_hat, long long n, const T* alpha,
                             const AdamConstants<T>& constants, const long long* stops, const T* l1, const T* l2,
                             int segments) {
    const T step_size = *alpha;
    for (long long i = first_index(); i < n; i += grid_stride()) {
        const T g = penalized(grad, param, i, stops, l1, l2, segments);
        amsgrad_update(param[i], g, m[i], v[i], v_hat[i], step_size, constants);
    }
}

// weight_decay: twin of ops.weight_decay_step, before adam_step or amsgrad_step: AdamW. A penalty's gradient is that of the
// weights before the decay: with penalties add it before (penalty.cu), and leave it out of the step.
// param: in/out, n elements. decays: in, (segments,), segments ≥ 1: λ of each segment, rounded to float before T, or 0
// where a parameter does not decay; stops: as adam_step's. rates, number: as adam_alpha's.
// Grid-stride, one element an iteration; the result does not depend on the launch.
template <typename T>
__device__ void weight_decay(T* param, long long n, const T* rates, const long long* number, const long long* stops,
                             const T* decays, int segments) {
    const T rate = rates[*number];
    for (long long i = first_index(); i < n; i += grid_stride()) {
        const T decay = decays[segment_of(i, stops, segments)];
        if (decay != T(0)) param[i] -= param[i] * decay * rate;
    }
}

#define INSTANTIATE(T, suffix)                                                                                        \
    extern "C" __global__ void adam_alpha_##suffix(long long* iterations, T* alpha, const T* rates,                   \
                                                   const long long* number, double beta_1, double beta_2) {           \
        adam_alpha<T>(iterations, alpha, rates, number, beta_1, beta_2);                                              \
    }                                                                                                                 \
    extern "C" __global__ void adam_step_##suffix(T* param, const T* grad, T* m, T* v, long long n, const T* alpha,   \
                                                  double one_minus_beta_1, double one_minus_beta_2, double epsilon,   \
                                                  const long long* stops, const T* l1, const T* l2, int segments) {   \
        const AdamConstants<T> constants{static_cast<T>(one_minus_beta_1), static_cast<T>(one_minus_beta_2),          \
                                         static_cast<T>(epsilon)};                                                    \
        adam_step<T>(param, grad, m, v, n, alpha, constants, stops, l1, l2, segments);                                \
    }                                                                                                                 \
    extern "C" __global__ void amsgrad_step_##suffix(T* param, const T* grad, T* m, T* v, T* v_hat, long long n,      \
                                                     const T* alpha, double one_minus_beta_1,                         \
                                                     double one_minus_beta_2, double epsilon, const long long* stops, \
                                                     const T* l1, const T* l2, int segments) {                        \
        const AdamConstants<T> constants{static_cast<T>(one_minus_beta_1), static_cast<T>(one_minus_beta_2),          \
                                         static_cast<T>(epsilon)};                                                    \
        amsgrad_step<T>(param, grad, m, v, v_hat, n, alpha, constants, stops, l1, l2, segments);                      \
    }                                                                                                                 \
    extern "C" __global__ void weight_decay_##suffix(T* param, long long n, const T* rates, const long long* number,  \
                                                     const long long* stops, const T* decays, int segments) {         \
        weight_decay<T>(param, n, rates, number, stops, decays, segments);                                            \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
