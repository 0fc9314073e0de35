// shim.cpp: the scheduler: fibers, barriers, warp operations, shared memory, and what the sanitizers must be told.
#include "shim.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#if defined(HOST_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(HOST_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#endif

// ------------------------------------------------------------------------------------------------ context switch
// switch_context(&from, to): push what a function call must keep, store the stack pointer, take the other one's.

#if defined(__x86_64__) && !defined(HOST_UCONTEXT)
using Context = void*;
extern "C" void host_switch(Context* from, Context to);
asm(R"(
    .text
    .hidden host_switch
    .globl host_switch
    .type host_switch, @function
host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size host_switch, . - host_switch
)");
static void switch_context(Context& from, Context& to) { host_switch(&from, to); }
static void make_context(Context& context, char* stack, std::size_t bytes, void (*entry)()) {
    // `ret` takes entry, and finds the stack as after a call: 8 below a multiple of 16
    void** top = reinterpret_cast<void**>(stack + bytes) - 2;
    top[0] = reinterpret_cast<void*>(entry);
    top[1] = nullptr;
    context = top - 6;
}
#else
#include <ucontext.h>
using Context = ucontext_t;
static void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
static void make_context(Context& context, char* stack, std::size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#endif

namespace host {
namespace {

#if defined(HOST_ASAN) || defined(HOST_TSAN)
constexpr std::size_t STACK = 256 * 1024;
#else
constexpr std::size_t STACK = 64 * 1024;
#endif
constexpr unsigned int WARP = 32;

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Fiber {
    Context context;
    char* stack = nullptr;
    Index index = {};
    unsigned int number = 0;  // in the block, x fastest
    State state = READY;
    const char* file = nullptr;  // where it waits
    int line = 0;
    WarpOperation operation = SYNC;
    unsigned int mask = 0, source = 0;
    uint64_t value = 0, result = 0;
    void* thread = nullptr;  // the thread sanitizer's
};

struct SharedArray {
    const char* file;
    int line;
    std::size_t bytes;
    void* memory;
};

struct Launch {
    Index grid, block, current_block;
    std::size_t dynamic_bytes;
    void (*entry)(void**);
    void** arguments;
    std::vector<Fiber> fibers;
    std::vector<SharedArray> shared;
    std::vector<void*> allocated;  // kept to the launch's end: an address met again would hide or invent races
    void* dynamic = nullptr;
    Context scheduler;
    Fiber* running = nullptr;
    std::string error;
    unsigned int phase = 0;  // of the block's barrier
    char* clocks = nullptr;  // this block's: [0, 1] of the barrier, then two a warp
    std::vector<unsigned int> warp_phase;
    void* scheduler_thread = nullptr;
    std::vector<void*> threads;
    char end_clock = 0;
};

Launch* launch = nullptr;
std::vector<char*> stacks;  // kept from launch to launch

char* new_stack() {
    void* memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("cuda_host: no memory for a fiber's stack");
        std::abort();
    }
    mprotect(memory, 4096, PROT_NONE);  // the stack grows down to here
    return static_cast<char*>(memory);
}

void acquire([[maybe_unused]] void* clock) {
#if defined(HOST_TSAN)
    __tsan_acquire(clock);
#endif
}

void release([[maybe_unused]] void* clock) {
#if defined(HOST_TSAN)
    __tsan_release(clock);
#endif
}

void be([[maybe_unused]] void* thread) {
#if defined(HOST_TSAN)
    __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync);
#endif
}

void run(Fiber& fiber) {
    launch->running = &fiber;
#if defined(HOST_ASAN)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack, STACK);
#endif
    be(fiber.thread);
    switch_context(launch->scheduler, fiber.context);
#if defined(HOST_ASAN)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    launch->running = nullptr;
}

#if defined(HOST_ASAN)
const void* scheduler_stack;
std::size_t scheduler_stack_bytes;
#endif

// From the running fiber to the scheduler, which resumes it here.
void yield_now() {
    Fiber& fiber = *launch->running;
#if defined(HOST_ASAN)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_stack_bytes);
#endif
    be(launch->scheduler_thread);
    switch_context(fiber.context, launch->scheduler);
#if defined(HOST_ASAN)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void fiber_main() {
#if defined(HOST_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    launch->entry(launch->arguments);
    release(&launch->end_clock);
    launch->running->state = DONE;
    yield_now();
}

std::string text(Index i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

std::string describe(const Fiber& fiber) {
    std::string what = "thread " + text(fiber.index);
    if (fiber.state == DONE) return what + " has left the kernel";
    const std::string where = std::string(" at ") + fiber.file + ":" + std::to_string(fiber.line);
    if (fiber.state == AT_BARRIER) return what + " waits in __syncthreads" + where;
    char mask[16];
    std::snprintf(mask, sizeof mask, "0x%08X", fiber.mask);
    return what + " waits in a warp operation with mask " + mask + where;
}

void fail(const std::string& message) {
    if (launch->error.empty()) launch->error = "block " + text(launch->current_block) + ": " + message;
}

// A fault met in a fiber: it is never resumed.
void fail_in_fiber(const std::string& message) {
    fail(message);
    yield_now();
}

void* poisoned(std::size_t bytes) {
    void* memory = std::malloc(bytes);
    std::memset(memory, 0xFF, bytes);  // NaN as float or double, −1 as an integer
    launch->allocated.push_back(memory);
    return memory;
}

void start_block(Index block) {
    Launch& l = *launch;
    l.current_block = block;
    l.shared.clear();
    l.dynamic = l.dynamic_bytes ? poisoned(l.dynamic_bytes) : nullptr;
    l.phase = 0;
    const std::size_t warps = (l.fibers.size() + WARP - 1) / WARP;
    l.warp_phase.assign(warps, 0);
    l.clocks = static_cast<char*>(std::malloc(2 + 2 * warps + 1));
    l.allocated.push_back(l.clocks);
    for (std::size_t i = 0; i < l.fibers.size(); ++i) {
        Fiber& fiber = l.fibers[i];
        fiber.state = READY;
#if defined(HOST_TSAN)
        fiber.stack = new_stack();  // a stack that another fiber wrote would look like a race
        stacks.push_back(fiber.stack);
        fiber.thread = __tsan_create_fiber(0);
        l.threads.push_back(fiber.thread);
#else
        if (i == stacks.size()) stacks.push_back(new_stack());
        fiber.stack = stacks[i];
#endif
#if defined(HOST_ASAN)
        __asan_unpoison_memory_region(fiber.stack + 4096, STACK - 4096);
#endif
        make_context(fiber.context, fiber.stack, STACK, fiber_main);
    }
}

// Nobody can run. Either all threads wait at one barrier, and go on, or the kernel is at fault.
void open_barrier() {
    std::vector<Fiber>& fibers = launch->fibers;
    const Fiber* waiting = nullptr;
    const Fiber* other = nullptr;
    for (const Fiber& fiber : fibers) {
        if (fiber.state == IN_WARP) {
            // its partners are elsewhere: name one
            const unsigned int first = fiber.number / WARP * WARP;
            for (unsigned int i = first; i < first + WARP && i < fibers.size(); ++i) {
                const Fiber& partner = fibers[i];
                const bool alike = partner.state == IN_WARP && partner.mask == fiber.mask &&
                                   partner.line == fiber.line && partner.operation == fiber.operation;
                if ((fiber.mask >> (i - first) & 1u) && !alike)
                    return fail("warp operation without its partners: " + describe(fiber) + ", but " +
                                describe(partner) + ", though the mask names it");
            }
            return fail("warp operation without its partners: " + describe(fiber));
        }
        if (fiber.state == AT_BARRIER && !waiting) waiting = &fiber;
    }
    for (const Fiber& fiber : fibers) {
        if (fiber.state == DONE || fiber.line != waiting->line || std::strcmp(fiber.file, waiting->file) != 0) {
            other = &fiber;
            break;
        }
    }
    if (other) return fail("not all threads reach one barrier: " + describe(*waiting) + ", but " + describe(*other));
    ++launch->phase;
    for (Fiber& fiber : fibers) fiber.state = READY;
}

uint64_t next_random(uint64_t& state) {  // splitmix64
    uint64_t z = (state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// 0 … n − 1 forward, backward or shuffled.
std::vector<std::size_t> visiting_order(std::size_t n, int order, uint64_t& random) {
    std::vector<std::size_t> result(n);
    for (std::size_t i = 0; i < n; ++i) result[i] = order == 1 ? n - 1 - i : i;
    if (order == 2)
        for (std::size_t i = n; i > 1; --i) std::swap(result[i - 1], result[next_random(random) % i]);
    return result;
}

void run_block(Index block, int order, uint64_t& random) {
    Launch& l = *launch;
    start_block(block);
    const std::vector<std::size_t> threads = visiting_order(l.fibers.size(), order, random);
    while (true) {
        bool ran = false, waits = false;
        for (std::size_t i : threads) {
            Fiber& fiber = l.fibers[i];
            if (fiber.state == READY) {
                ran = true;
                run(fiber);
                if (!l.error.empty()) return;
            }
            waits = waits || fiber.state != DONE;
        }
        if (!waits) return;
        if (!ran) open_barrier();
        if (!l.error.empty()) return;
    }
}

}  // namespace

Index thread_index() { return launch->running->index; }
Index block_index() { return launch->current_block; }
Index block_size() { return launch->block; }
Index grid_size() { return launch->grid; }
unsigned int lane() { return launch->running->number % WARP; }

void barrier(const char* file, int line) {
    Fiber& fiber = *launch->running;
    fiber.file = file;
    fiber.line = line;
    fiber.state = AT_BARRIER;
    char* clock = launch->clocks + launch->phase % 2;  // alternating: a fast thread's next arrival must not count
    release(clock);
    yield_now();
    acquire(clock);
}

uint64_t exchange(WarpOperation operation, unsigned int mask, uint64_t value, unsigned int source, const char* file,
                  int line) {
    Fiber& fiber = *launch->running;
    std::vector<Fiber>& fibers = launch->fibers;
    const unsigned int me = lane(), first = fiber.number - me, warp = first / WARP;
    fiber.file = file;
    fiber.line = line;
    fiber.operation = operation;
    fiber.mask = mask;
    fiber.source = source;
    fiber.value = value;
    fiber.state = IN_WARP;
    if (!(mask >> me & 1u)) fail_in_fiber("wrong mask: " + describe(fiber) + ", which does not name its own lane");
    if (!(mask >> source & 1u))
        fail_in_fiber("wrong mask: " + describe(fiber) + ", and reads lane " + std::to_string(source) +
                      ", which the mask does not name");
    bool complete = true;
    for (unsigned int i = 0; i < WARP; ++i) {
        if (!(mask >> i & 1u)) continue;
        if (first + i >= fibers.size())
            fail_in_fiber("wrong mask: " + describe(fiber) + ", but the block has no lane " + std::to_string(i) +
                          " in this warp");
        const Fiber& partner = fibers[first + i];
        if (partner.state == DONE) fail_in_fiber("wrong mask: " + describe(fiber) + ", but " + describe(partner));
        complete = complete && partner.state == IN_WARP && partner.mask == mask && partner.line == line &&
                   partner.operation == operation && std::strcmp(partner.file, file) == 0;
    }
    char* clock = launch->clocks + 2 + 2 * warp + launch->warp_phase[warp] % 2;
    if (operation == SYNC) release(clock);  // a shuffle orders no memory accesses
    if (complete) {
        ++launch->warp_phase[warp];
        for (unsigned int i = 0; i < WARP; ++i) {
            if (!(mask >> i & 1u)) continue;
            fibers[first + i].result = fibers[first + fibers[first + i].source].value;
            fibers[first + i].state = READY;
        }
    }
    yield_now();
    if (operation == SYNC) acquire(clock);
    return fiber.result;
}

void* shared_array(std::size_t bytes, const char* file, int line) {
    void* memory = nullptr;
    for (const SharedArray& array : launch->shared)
        if (array.line == line && array.bytes == bytes && std::strcmp(array.file, file) == 0) memory = array.memory;
    if (!memory) {
        be(launch->scheduler_thread);  // whoever allocates memory has written it, to the thread sanitizer
        memory = poisoned(bytes);
        release(memory);
        launch->shared.push_back({file, line, bytes, memory});
        be(launch->running->thread);
    }
    acquire(memory);
    return memory;
}

void* dynamic_shared() { return launch->dynamic; }

}  // namespace host

// Runs a kernel: entry is one of the host_entry_… functions. order: 0 forward, 1 reverse, 2 shuffled by seed; of the
// threads in a block and of the blocks. Returns 0, or 1 with what is wrong in message (at most `room` bytes).
extern "C" __attribute__((visibility("default"))) int host_launch(void (*entry)(void**), void** arguments,
                                                                  const unsigned int* grid, const unsigned int* block,
                                                                  std::size_t dynamic_bytes, int order, uint64_t seed,
                                                                  char* message, std::size_t room) {
    using namespace host;
    Launch here;
    launch = &here;
    here.grid = {grid[0], grid[1], grid[2]};
    here.block = {block[0], block[1], block[2]};
    here.dynamic_bytes = dynamic_bytes;
    here.entry = entry;
    here.arguments = arguments;
    here.fibers.resize(static_cast<std::size_t>(block[0]) * block[1] * block[2]);
    for (std::size_t i = 0; i < here.fibers.size(); ++i) {
        const unsigned int n = static_cast<unsigned int>(i);
        here.fibers[i].number = n;
        here.fibers[i].index = {n % block[0], n / block[0] % block[1], n / block[0] / block[1]};
    }
#if defined(HOST_TSAN)
    here.scheduler_thread = __tsan_get_current_fiber();
#endif
    const std::size_t blocks = static_cast<std::size_t>(grid[0]) * grid[1] * grid[2];
    for (std::size_t b : visiting_order(blocks, order, seed)) {
        const unsigned int n = static_cast<unsigned int>(b);
        run_block({n % grid[0], n / grid[0] % grid[1], n / grid[0] / grid[1]}, order, seed);
        if (!here.error.empty()) break;
#if !defined(HOST_TSAN)
        for (void* memory : here.allocated) std::free(memory);
        here.allocated.clear();
#endif
    }
    for (Fiber& fiber : here.fibers) {  // after a fault: those that will never finish
        if (fiber.state == DONE || !fiber.stack) continue;
        be(fiber.thread);
        release(&here.end_clock);
        be(here.scheduler_thread);
    }
    acquire(&here.end_clock);  // what comes next comes after all of them
    for (void* memory : here.allocated) std::free(memory);
#if defined(HOST_TSAN)
    for (void* thread : here.threads) __tsan_destroy_fiber(thread);
    for (char* stack : stacks) munmap(stack, STACK);
    stacks.clear();
#endif
    launch = nullptr;
    std::snprintf(message, room, "%s", here.error.c_str());
    return here.error.empty() ? 0 : 1;
}
