// The kernels of the model zoo that no library runs. Every parameter is eight bytes wide; values are
// computed in single precision and stored in the precision that the name ends with. Layouts are
// row-major, images NCHW. Built into zoo.ptx by `cargo run -p cotenant-replay --example ptx`.
typedef unsigned long long u64;

struct f32 {
    typedef float raw;
    static __device__ float get(const raw *p, u64 i) { return p[i]; }
    static __device__ void put(raw *p, u64 i, float v) { p[i] = v; }
};
#ifndef ON_HOST // a test runs the kernels on the CPU, with conversions of its own
// Conversions by instruction: no header of the toolkit is needed.
struct f16 {
    typedef unsigned short raw;
    static __device__ float get(const raw *p, u64 i) {
        float v;
        asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(p[i]));
        return v;
    }
    static __device__ void put(raw *p, u64 i, float v) {
        unsigned short h;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
        p[i] = h;
    }
};
// The upper half of a single-precision number, rounded to the nearest even.
struct bf16 {
    typedef unsigned short raw;
    static __device__ float get(const raw *p, u64 i) {
        return __uint_as_float((unsigned)p[i] << 16);
    }
    static __device__ void put(raw *p, u64 i, float v) {
        unsigned short h;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(v));
        p[i] = h;
    }
};
#endif
// One function for every type of number: `call` sees the type as T, what stores it as R.
#define ALL(name, parameters, call)                                                                \
    extern "C" __global__ void name##_f32 parameters(float) {                                      \
        typedef f32 T;                                                                             \
        typedef float R;                                                                           \
        call;                                                                                      \
    }                                                                                              \
    extern "C" __global__ void name##_f16 parameters(unsigned short) {                             \
        typedef f16 T;                                                                             \
        typedef unsigned short R;                                                                  \
        call;                                                                                      \
    }                                                                                              \
    extern "C" __global__ void name##_bf16 parameters(unsigned short) {                            \
        typedef bf16 T;                                                                            \
        typedef unsigned short R;                                                                  \
        call;                                                                                      \
    }

#define EACH(i, n)                                                                                 \
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < (n); i += (u64)gridDim.x * blockDim.x)

// Sum over the 256 threads of a block, given to all of them.
static __device__ float block_sum(float v) {
    __shared__ float part[8];
    for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(0xffffffffu, v, d);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
    __syncthreads();
    v = 0.f;
    for (int w = 0; w < 8; ++w) v += part[w];
    return v;
}
static __device__ float block_max(float v) {
    __shared__ float part[8];
    for (int d = 16; d > 0; d >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
    __syncthreads();
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
    __syncthreads();
    v = part[0];
    for (int w = 1; w < 8; ++w) v = fmaxf(v, part[w]);
    return v;
}

// A second operand that is no tensor is the constant one half.
#define POINTWISE(name, expression)                                                                \
    template <class T>                                                                             \
    static __device__ void name(const typename T::raw *a, const typename T::raw *b,                \
                                typename T::raw *out, u64 n) {                                     \
        EACH(i, n) {                                                                               \
            float x = T::get(a, i), y = b ? T::get(b, i) : 0.5f;                                   \
            (void)y;                                                                               \
            T::put(out, i, expression);                                                            \
        }                                                                                          \
    }                                                                                              \
    ALL(name, PARAMETERS, (name<T>(a, b, out, n)))
#define PARAMETERS(R) (const R *a, const R *b, R *out, u64 n)
POINTWISE(relu, fmaxf(x, 0.f))
POINTWISE(relu6, fminf(fmaxf(x, 0.f), 6.f))
POINTWISE(gelu, 0.5f * x * (1.f + erff(x * 0.70710678f)))
POINTWISE(tanh, tanhf(x))
POINTWISE(pow, x *x *x)
POINTWISE(scale, x * 0.125f)
POINTWISE(add, x + y)
POINTWISE(mul, x *y)
POINTWISE(mask, y > 0.f ? x : -10000.f)

template <class T, class R>
static __device__ void batch_norm(const R *x, const R *scale, const R *shift, R *out, u64 n,
                                  u64 pixels, u64 channels) {
    EACH(i, n) {
        u64 c = i / pixels % channels;
        T::put(out, i, T::get(x, i) * T::get(scale, c) + T::get(shift, c));
    }
}
template <class T, class R>
static __device__ void bias(const R *x, const R *b, R *out, u64 n, u64 run, u64 values) {
    EACH(i, n) T::put(out, i, T::get(x, i) + T::get(b, i / run % values));
}
template <class T, class R>
static __device__ void layer_norm(const R *x, const R *gamma, const R *beta, R *out, u64 width) {
    const R *row = x + blockIdx.x * width;
    float sum = 0.f, square = 0.f;
    for (u64 i = threadIdx.x; i < width; i += blockDim.x) sum += T::get(row, i);
    float mean = block_sum(sum) / width;
    for (u64 i = threadIdx.x; i < width; i += blockDim.x) {
        float d = T::get(row, i) - mean;
        square += d * d;
    }
    float scale = rsqrtf(block_sum(square) / width + 1e-5f);
    for (u64 i = threadIdx.x; i < width; i += blockDim.x)
        T::put(out + blockIdx.x * width, i,
               (T::get(row, i) - mean) * scale * T::get(gamma, i) + T::get(beta, i));
}
template <class T, class R> static __device__ void softmax(const R *x, R *out, u64 width) {
    const R *row = x + blockIdx.x * width;
    float most = -3.4e38f, sum = 0.f;
    for (u64 i = threadIdx.x; i < width; i += blockDim.x) most = fmaxf(most, T::get(row, i));
    most = block_max(most);
    for (u64 i = threadIdx.x; i < width; i += blockDim.x) sum += expf(T::get(row, i) - most);
    sum = block_sum(sum);
    for (u64 i = threadIdx.x; i < width; i += blockDim.x)
        T::put(out + blockIdx.x * width, i, expf(T::get(row, i) - most) / sum);
}
// Averages divide by the part of the window that lies in the padded image.
template <class T, class R, bool MAX>
static __device__ void pool(const R *x, R *out, u64 planes, u64 h, u64 w, u64 oh, u64 ow, u64 f,
                            u64 stride, u64 pad) {
    EACH(i, planes * oh * ow) {
        long long c = i % ow * stride, r = i / ow % oh * stride;
        long long top = r - (long long)pad, left = c - (long long)pad;
        long long bottom = min((long long)(h + pad), top + (long long)f);
        long long right = min((long long)(w + pad), left + (long long)f);
        float area = (float)((bottom - top) * (right - left));
        float v = MAX ? -3.4e38f : 0.f;
        const R *plane = x + i / (ow * oh) * h * w;
        for (long long y = max(0ll, top); y < min((long long)h, bottom); ++y)
            for (long long z = max(0ll, left); z < min((long long)w, right); ++z) {
                float p = T::get(plane, y * w + z);
                v = MAX ? fmaxf(v, p) : v + p;
            }
        T::put(out, i, MAX ? v : v / area);
    }
}
template <class T, class R>
static __device__ void adaptive_pool(const R *x, R *out, u64 planes, u64 h, u64 w, u64 oh, u64 ow) {
    EACH(i, planes * oh * ow) {
        u64 c = i % ow, r = i / ow % oh;
        u64 top = r * h / oh, bottom = ((r + 1) * h + oh - 1) / oh;
        u64 left = c * w / ow, right = ((c + 1) * w + ow - 1) / ow;
        float v = 0.f;
        for (u64 y = top; y < bottom; ++y)
            for (u64 z = left; z < right; ++z) v += T::get(x, (i / (ow * oh) * h + y) * w + z);
        T::put(out, i, v / ((bottom - top) * (right - left)));
    }
}
template <class R>
static __device__ void embedding(const R *table, const unsigned *index, R *out, u64 n, u64 width) {
    EACH(i, n) out[i] = table[index[i / width] * width + i % width];
}
template <class R> static __device__ void concat(const R *x, R *out, u64 n, u64 part, u64 whole) {
    EACH(i, n) out[i / part * whole + i % part] = x[i];
}
template <class R>
static __device__ void shuffle(const R *x, R *out, u64 n, u64 pixels, u64 channels, u64 groups) {
    EACH(i, n) {
        u64 c = i / pixels % channels, each = channels / groups;
        u64 from = c % groups * each + c / groups;
        out[i] = x[(i / (pixels * channels) * channels + from) * pixels + i % pixels];
    }
}
template <class R> static __device__ void copy(const R *x, R *out, u64 n) {
    EACH(i, n) out[i] = x[i];
}
// One block per query; scores of at most 4096 keys.
template <class T, class R>
static __device__ void attention(const R *q, const R *k, const R *v, R *out, u64 tokens, u64 width) {
    __shared__ float score[4096];
    u64 head = blockIdx.x / tokens, row = blockIdx.x;
    float root = rsqrtf((float)width), most = -3.4e38f, sum = 0.f;
    for (u64 j = threadIdx.x; j < tokens; j += blockDim.x) {
        float dot = 0.f;
        for (u64 d = 0; d < width; ++d)
            dot += T::get(q, row * width + d) * T::get(k, (head * tokens + j) * width + d);
        score[j] = dot * root;
        most = fmaxf(most, score[j]);
    }
    most = block_max(most);
    for (u64 j = threadIdx.x; j < tokens; j += blockDim.x) {
        score[j] = expf(score[j] - most);
        sum += score[j];
    }
    sum = block_sum(sum);
    for (u64 d = threadIdx.x; d < width; d += blockDim.x) {
        float value = 0.f;
        for (u64 j = 0; j < tokens; ++j)
            value += score[j] * T::get(v, (head * tokens + j) * width + d);
        T::put(out, row * width + d, value / sum);
    }
}

#define P(R) (const R *x, const R *s, const R *b, R *o, u64 n, u64 pixels, u64 channels)
ALL(batch_norm, P, (batch_norm<T, R>(x, s, b, o, n, pixels, channels)))
#undef P
#define P(R) (const R *x, const R *b, R *o, u64 n, u64 run, u64 values)
ALL(bias, P, (bias<T, R>(x, b, o, n, run, values)))
#undef P
#define P(R) (const R *x, const R *g, const R *b, R *o, u64 width)
ALL(layer_norm, P, (layer_norm<T, R>(x, g, b, o, width)))
#undef P
#define P(R) (const R *x, R *o, u64 width)
ALL(softmax, P, (softmax<T, R>(x, o, width)))
#undef P
#define P(R) (const R *x, R *o, u64 p, u64 h, u64 w, u64 oh, u64 ow, u64 f, u64 s, u64 pad)
ALL(max_pool, P, (pool<T, R, true>(x, o, p, h, w, oh, ow, f, s, pad)))
ALL(avg_pool, P, (pool<T, R, false>(x, o, p, h, w, oh, ow, f, s, pad)))
#undef P
#define P(R) (const R *x, R *o, u64 p, u64 h, u64 w, u64 oh, u64 ow)
ALL(adaptive_pool, P, (adaptive_pool<T, R>(x, o, p, h, w, oh, ow)))
#undef P
#define P(R) (const R *x, const unsigned *i, R *o, u64 n, u64 width)
ALL(embedding, P, (embedding(x, i, o, n, width)))
#undef P
#define P(R) (const R *x, R *o, u64 n, u64 part, u64 whole)
ALL(concat, P, (concat(x, o, n, part, whole)))
#undef P
#define P(R) (const R *x, R *o, u64 n, u64 pixels, u64 channels, u64 groups)
ALL(shuffle, P, (shuffle(x, o, n, pixels, channels, groups)))
#undef P
#define P(R) (const R *x, R *o, u64 n)
ALL(copy, P, (copy(x, o, n)))
#undef P
#define P(R) (const R *q, const R *k, const R *v, R *o, u64 tokens, u64 width)
ALL(attention, P, (attention<T, R>(q, k, v, o, tokens, width)))
#undef P

#ifndef ON_HOST // instructions of the GPU
// Keeps every block busy for `ns`; `place`, if given, takes the SM of each block.
extern "C" __global__ void spin(u64 ns, u64 *place) {
    u64 begin, now;
    unsigned sm;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
    asm volatile("mov.u32 %0, %smid;" : "=r"(sm));
    do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    while (now - begin < ns);
    if (place && threadIdx.x == 0) place[blockIdx.x] = sm;
}

// What follows measures the GPU itself.

// Reads `n` times 16 bytes, `rounds` times over, from the L2 cache or from behind it (`cg` passes the
// L1 cache by).
extern "C" __global__ void sweep(const uint4 *x, u64 n, u64 rounds, unsigned *out) {
    unsigned sum = 0;
    for (u64 r = 0; r < rounds; ++r) {
#pragma unroll 8
        EACH(i, n) {
            unsigned a, b, c, d;
            asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                         : "l"(x + i));
            sum ^= a ^ b ^ c ^ d;
        }
    }
    // Never true of zeros: keeps the compiler from leaving the reads out.
    if (sum == 0xdeadbeefu) *out = sum;
}

// Watches the clock for `ns`, and notes every pause of more than `least`: while another context has
// the GPU, this one stands still. One thread. `out` holds the pauses' number, begin and end of the
// watch, the smallest step of the clock, then begin and end of up to `room` pauses.
extern "C" __global__ void pauses(u64 ns, u64 least, u64 *out, u64 room) {
    u64 begin, now, last, seen = 0, step = ~0ull;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
    last = begin;
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
        if (now > last && now - last < step) step = now - last;
        if (now - last > least) {
            if (seen < room) {
                out[4 + 2 * seen] = last;
                out[5 + 2 * seen] = now;
            }
            ++seen;
        }
        last = now;
    } while (now - begin < ns);
    out[0] = seen;
    out[1] = begin;
    out[2] = now;
    out[3] = step;
}
#endif
