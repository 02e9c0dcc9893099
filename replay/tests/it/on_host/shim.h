// What the kernels' source needs of CUDA, on the CPU: the threads of a block take turns as fibers of
// one thread, a barrier lets all of them come, blocks run one after the other. Slow, and all that can be
// said of a kernel without a GPU: indices, barriers, shuffles and sums are the kernel's own. For
// x86-64.
#include <math.h>
#include <string.h>
#include <vector>

#define __device__
#define __global__
#define __shared__ static

struct Three { unsigned x; };
static Three threadIdx, blockIdx, blockDim, gridDim;

// Saves where this stack is at `*from` and goes on with the stack `to`: what a call keeps is enough.
extern "C" void change_stack(void **from, void *to);
asm(".text\n"
    "change_stack:\n"
    "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "mov %rsp, (%rdi)\n"
    "mov %rsi, %rsp\n"
    "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
    "ret\n");

static const unsigned MOST = 1024;
static void *fibers[MOST], *home;
static unsigned long long slots[MOST];
static bool ended[MOST];

// Lets the others run until it is this one's turn again.
static void yield() {
    unsigned me = threadIdx.x;
    change_stack(&fibers[me], home);
}
// Who has come, and how often all had.
struct Meeting { unsigned arrived; unsigned long long times; };
static Meeting whole, warps[MOST / 32];
static void meet(Meeting &at, unsigned all) {
    const unsigned long long before = at.times;
    if (++at.arrived == all) {
        at.arrived = 0;
        ++at.times;
    }
    while (at.times == before) yield();
}
static void __syncthreads() { meet(whole, blockDim.x); }
static void __threadfence() {}
static float __shfl_xor_sync(unsigned, float v, int distance) {
    const unsigned me = threadIdx.x;
    memcpy(&slots[me], &v, 4);
    meet(warps[me / 32], 32);
    float other;
    memcpy(&other, &slots[me ^ distance], 4);
    meet(warps[me / 32], 32);
    return other;
}
static unsigned atomicAdd(unsigned *p, unsigned n) {
    unsigned before = *p;
    *p += n;
    return before;
}
static float rsqrtf(float v) { return 1.f / sqrtf(v); }
template <class T> static T min(T a, T b) { return a < b ? a : b; }
template <class T> static T max(T a, T b) { return a > b ? a : b; }

struct f16 {
    typedef unsigned short raw;
    static float get(const raw *p, unsigned long long i) {
        _Float16 v;
        memcpy(&v, p + i, 2);
        return v;
    }
    static void put(raw *p, unsigned long long i, float v) {
        _Float16 h = (_Float16)v;
        memcpy(p + i, &h, 2);
    }
};
struct bf16 {
    typedef unsigned short raw;
    static float get(const raw *p, unsigned long long i) {
        unsigned word = (unsigned)p[i] << 16;
        float v;
        memcpy(&v, &word, 4);
        return v;
    }
    static void put(raw *p, unsigned long long i, float v) {
        unsigned word;
        memcpy(&word, &v, 4);
        p[i] = (word + 0x7fff + (word >> 16 & 1)) >> 16;
    }
};

typedef unsigned long long Word;
typedef void (*Kernel)(Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word,
                       Word, Word, Word);
static Kernel kernel;
static const Word *given;

static void fiber() {
    const Word *p = given;
    // The calling convention of x86-64 takes words, whatever they are, and more than are used.
    kernel(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13],
           p[14], p[15]);
    ended[threadIdx.x] = true;
    for (;;) yield();
}

// Runs a kernel with 16 parameters; returns the number of blocks whose threads did not all end.
extern "C" Word run_on_host(Kernel which, Word grid, Word block, const Word *parameters) {
    static std::vector<std::vector<Word>> stacks(MOST, std::vector<Word>(8 << 10));
    kernel = which, given = parameters;
    gridDim.x = grid, blockDim.x = block;
    Word stuck = 0;
    for (Word b = 0; b < grid; ++b) {
        blockIdx.x = b;
        whole = Meeting();
        for (Meeting &w : warps) w = Meeting();
        for (Word t = 0; t < block; ++t) {
            ended[t] = false;
            // As a call leaves it: the stack is 8 off a multiple of 16 where a function begins.
            Word *top = (Word *)((Word)(stacks[t].data() + stacks[t].size()) & ~15ull);
            *--top = 0, *--top = (Word)fiber;
            for (int i = 0; i < 6; ++i) *--top = 0;
            fibers[t] = top;
        }
        Word left = block;
        for (Word rounds = 0; left > 0 && rounds < 10000000; ++rounds)
            for (Word t = 0; t < block; ++t)
                if (!ended[t]) {
                    threadIdx.x = t;
                    change_stack(&home, fibers[t]);
                    left -= ended[t];
                }
        stuck += left > 0;
    }
    return stuck;
}
