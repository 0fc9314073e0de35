// shim.hpp: enough of CUDA for kernels/*.cu to run on a CPU. Included before the .cu by the unit that host.py writes.
//
// One fiber per CUDA thread; blocks run one after another, all on one OS thread. shim.cpp holds the scheduler and is
// compiled without a sanitizer, so that only the kernels' own memory accesses are watched.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define MINIDL_CUDA_HOST 1
#define __global__
#define __device__

using std::ceil;
using std::exp;
using std::fabs;
using std::ldexp;
using std::log;
using std::log1p;
using std::pow;
using std::rint;
using std::sqrt;
using std::tanh;

namespace host {

struct Index {
    unsigned int x, y, z;
};

Index thread_index();
Index block_index();
Index block_size();
Index grid_size();

// Waits for all threads of the block. file and line: where the kernel called it.
void barrier(const char* file, int line);

enum WarpOperation { SYNC, SHUFFLE };
// Waits for the lanes in mask, then returns the value that lane `source` brought.
uint64_t exchange(WarpOperation operation, unsigned int mask, uint64_t value, unsigned int source, const char* file,
                  int line);
unsigned int lane();

void* shared_array(std::size_t bytes, const char* file, int line);
void* dynamic_shared();

template <typename T>
T shuffle(unsigned int mask, T value, int source, int width, const char* file, int line) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves at most 8 bytes");
    const int first = static_cast<int>(lane()) / width * width;  // of this lane's segment
    const bool inside = source >= first && source < first + width;
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = exchange(SHUFFLE, mask, bits, inside ? static_cast<unsigned int>(source) : lane(), file, line);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

template <typename... Parameters, std::size_t... I>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<Parameters>*>(arguments[I])...);
}

// Runs a kernel in the current fiber; arguments: the address of each, as for cuLaunchKernel.
template <typename... Parameters>
void call(void (*kernel)(Parameters...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<Parameters...>());
}

}  // namespace host

#define threadIdx (host::thread_index())
#define blockIdx (host::block_index())
#define blockDim (host::block_size())
#define gridDim (host::grid_size())

#define SHARED_ARRAY(name, ...)                \
    using name##_type [[maybe_unused]] = __VA_ARGS__; \
    auto& name = *static_cast<name##_type*>(host::shared_array(sizeof(name##_type), __FILE__, __LINE__))
#define DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(host::dynamic_shared())

#define HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(HERE) { host::barrier(file, line); }

inline void __syncwarp(unsigned int mask = 0xFFFFFFFFu, HERE) {
    host::exchange(host::SYNC, mask, 0, host::lane(), file, line);
}

template <typename T>
T __shfl_sync(unsigned int mask, T value, int source, int width = 32, HERE) {
    const int first = static_cast<int>(host::lane()) / width * width;
    return host::shuffle(mask, value, first + source % width, width, file, line);
}

template <typename T>
T __shfl_up_sync(unsigned int mask, T value, unsigned int delta, int width = 32, HERE) {
    return host::shuffle(mask, value, static_cast<int>(host::lane()) - static_cast<int>(delta), width, file, line);
}

template <typename T>
T __shfl_down_sync(unsigned int mask, T value, unsigned int delta, int width = 32, HERE) {
    return host::shuffle(mask, value, static_cast<int>(host::lane()) + static_cast<int>(delta), width, file, line);
}

template <typename T>
T __shfl_xor_sync(unsigned int mask, T value, int flip, int width = 32, HERE) {
    return host::shuffle(mask, value, static_cast<int>(host::lane()) ^ flip, width, file, line);
}

// Integers only: a float atomic would make sums depend on the order of the threads.
template <typename T>
T atomicAdd(T* address, T value) {
    static_assert(static_cast<T>(1) / 2 == 0, "atomicAdd is for integers: sum floats in two stages");
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

#define HOST_EXPORT(kernel)                                                                          \
    extern "C" __attribute__((visibility("default"))) void host_entry_##kernel(void** arguments) { \
        host::call(&kernel, arguments);                                                              \
    }
