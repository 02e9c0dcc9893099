// Kernels of a serving engine's steps, behind zoo.cu, whose helpers they use: blocks of 256 threads,
// parameters of eight bytes, values computed in single precision. Correct first: no matrix units.

// RMSNorm of a row a block; with ADD, of the sum with the residual stream, which is the second result.
template <class T, class R, bool ADD>
static __device__ void rms_norm(const R *x, const R *add, const R *gamma, R *out, u64 width, u64 n) {
    const u64 row = blockIdx.x * width;
    float square = 0.f;
    for (u64 i = threadIdx.x; i < width; i += blockDim.x) {
        float v = T::get(x, row + i) + (ADD ? T::get(add, row + i) : 0.f);
        square += v * v;
    }
    float scale = rsqrtf(block_sum(square) / width + 1e-5f);
    for (u64 i = threadIdx.x; i < width; i += blockDim.x) {
        float v = T::get(x, row + i) + (ADD ? T::get(add, row + i) : 0.f);
        T::put(out, row + i, v * scale * T::get(gamma, i));
        if (ADD) T::put(out, n + row + i, v);
    }
}
// A token a block. A row of the table holds the cosines of half a head's angles, then their sines.
template <class T, class R>
static __device__ void rotary(const R *x, const unsigned *position, const R *table, R *out, u64 heads,
                              u64 width) {
    const u64 row = blockIdx.x * heads * width, half = width / 2;
    const R *angles = table + position[blockIdx.x] * width;
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < heads * half; i += blockDim.x) {
        u64 at = row + i / (unsigned)half * width + i % (unsigned)half;
        float cosine = T::get(angles, i % (unsigned)half);
        float sine = T::get(angles, half + i % (unsigned)half);
        float a = T::get(x, at), b = T::get(x, at + half);
        T::put(out, at, a * cosine - b * sine);
        T::put(out, at + half, b * cosine + a * sine);
    }
}
// A token a block. `out` has all keys, then all values.
template <class R>
static __device__ void cache_write(const R *key, const R *value, const unsigned *place, R *out,
                                   u64 width, u64 values) {
    for (u64 i = threadIdx.x; i < width; i += blockDim.x) {
        u64 from = blockIdx.x * width + i, to = place[blockIdx.x] * width + i;
        out[to] = key[from];
        out[values + to] = value[from];
    }
}
// A token a block: its gate, then what it lets through.
template <class T, class R> static __device__ void silu_mul(const R *x, R *out, u64 inner) {
    const R *row = x + blockIdx.x * 2 * inner;
    for (u64 i = threadIdx.x; i < inner; i += blockDim.x) {
        float gate = T::get(row, i);
        T::put(out, blockIdx.x * inner + i, gate / (1.f + expf(-gate)) * T::get(row, inner + i));
    }
}
// A token a block. The best experts one after the other, the first of equal ones; weights sum to one.
template <class T, class R>
static __device__ void route(const R *x, R *out, unsigned *chosen, u64 experts, u64 active) {
    __shared__ float score[1024];
    for (u64 i = threadIdx.x; i < experts; i += blockDim.x)
        score[i] = T::get(x, blockIdx.x * experts + i);
    __syncthreads();
    float top = 0.f, sum = 0.f;
    for (int pass = 0; pass < 2; ++pass) {
        for (u64 k = 0; k < active; ++k) {
            float most = -3.4e38f, place = -3.4e38f;
            for (u64 i = threadIdx.x; i < experts; i += blockDim.x) most = fmaxf(most, score[i]);
            most = block_max(most);
            for (u64 i = threadIdx.x; i < experts; i += blockDim.x)
                if (score[i] == most) place = fmaxf(place, -(float)i);
            u64 best = (u64)-block_max(place);
            if (k == 0) top = most;
            // The first pass sums, the second one writes.
            if (pass == 0) sum += expf(most - top);
            else if (threadIdx.x == 0) {
                T::put(out, blockIdx.x * active + k, expf(most - top) / sum);
                chosen[blockIdx.x * active + k] = (unsigned)best;
            }
            __syncthreads();
            if (threadIdx.x == 0) score[best] = -3.4e38f;
            __syncthreads();
        }
        if (pass == 0)
            for (u64 i = threadIdx.x; i < experts; i += blockDim.x)
                score[i] = T::get(x, blockIdx.x * experts + i);
        __syncthreads();
    }
}
// A token a block.
template <class T, class R>
static __device__ void sum_experts(const R *x, const R *weight, R *out, u64 active, u64 width) {
    for (u64 i = threadIdx.x; i < width; i += blockDim.x) {
        float v = 0.f;
        for (u64 e = 0; e < active; ++e)
            v += T::get(x, (blockIdx.x * active + e) * width + i) *
                 T::get(weight, blockIdx.x * active + e);
        T::put(out, blockIdx.x * width + i, v);
    }
}

// Counters at the beginning of a kernel's own memory, which works of many sizes share: what lies behind
// is never taken for one.
#define COUNTERS 16384

// Whether this is the last of `n` blocks that come here: then it sees what the others have written
// before. The counter is zero again behind it.
static __device__ bool last_of(unsigned *counter, u64 n) {
    __shared__ unsigned before;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        before = atomicAdd(counter, 1u);
        if (before == n - 1) *counter = 0;
    }
    __syncthreads();
    __threadfence();
    return before == n - 1;
}

// `chunks` blocks of 4096 logits for each row: the logits in single precision, the largest of the block,
// then the largest of the row, by the last block. The first of equal ones is chosen.
template <class T, class R>
static __device__ void sample(const R *x, R *out, unsigned *own, u64 rows, u64 vocabulary, u64 chunks) {
    float *logits = (float *)(own + COUNTERS);
    volatile float *largest = logits + rows * vocabulary;
    unsigned *chosen = (unsigned *)(logits + rows * vocabulary + 2 * rows * chunks);
    const u64 row = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
    const u64 end = min(vocabulary, (chunk + 1) * 4096);
    float most = -3.4e38f, place = -3.4e38f;
    for (u64 i = chunk * 4096 + threadIdx.x; i < end; i += blockDim.x) {
        float v = T::get(x, row * vocabulary + i);
        logits[row * vocabulary + i] = v;
        if (v > most) most = v, place = -(float)i;
    }
    float best = block_max(most);
    place = block_max(most == best ? place : -3.4e38f);
    if (threadIdx.x == 0) {
        largest[2 * blockIdx.x] = best;
        largest[2 * blockIdx.x + 1] = place;
    }
    if (!last_of(own + row, chunks)) return;
    most = place = -3.4e38f;
    for (u64 i = threadIdx.x; i < chunks; i += blockDim.x) {
        float v = largest[2 * (row * chunks + i)];
        if (v > most) most = v, place = largest[2 * (row * chunks + i) + 1];
    }
    best = block_max(most);
    place = block_max(most == best ? place : -3.4e38f);
    if (threadIdx.x == 0) {
        T::put(out, row, best);
        chosen[row] = (unsigned)-place;
    }
}

// Queries that are looked at together, keys that they look at together, elements of the longest head.
#define ROWS 16
#define PANEL 256
#define WIDE 256

// The keys and values of a sequence, in pages of 16 tokens.
template <class T, class R> struct Cache {
    const R *keys, *values;
    const unsigned *pages;
    u64 heads, width;
    __device__ u64 at(u64 key, u64 head) const {
        return ((pages[key / 16] * 16ull + key % 16) * heads + head) * width;
    }
};

// Attention of at most ROWS queries, `stride` apart, over the keys from..to of one head. Query r sees
// the keys before `limit + r * step`, `window` of them at most. Thread t is left with the sums of
// elements t, t + 256… of all rows in `sum`; what they are to be divided by is `total`, `most` the
// largest score.
template <class T, class R>
static __device__ void attend(const R *q, u64 stride, u64 rows, const Cache<T, R> &cache, u64 head,
                              u64 limit, u64 step, u64 window, u64 from, u64 to, float *sum,
                              float *most, float *total) {
    __shared__ float query[ROWS * WIDE], score[ROWS * PANEL], factor[ROWS];
    const u64 width = cache.width, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const float root = rsqrtf((float)width);
    __syncthreads();
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < rows * width; i += 256)
        query[i] = T::get(q, i / (unsigned)width * stride + i % (unsigned)width);
    if (threadIdx.x < ROWS) most[threadIdx.x] = -3.4e38f, total[threadIdx.x] = 0.f;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) sum[i] = 0.f;
    __syncthreads();
    for (u64 base = from; base < to; base += PANEL) {
        const u64 end = min(to, base + PANEL);
        // A key a warp.
#pragma unroll 1
        for (u64 j = base + warp; j < end; j += 8) {
            float key[WIDE / 32];
            const u64 at = cache.at(j, head);
#pragma unroll
            for (int i = 0; i < WIDE / 32; ++i) {
                u64 d = lane + 32 * i;
                key[i] = d < width ? T::get(cache.keys, at + d) : 0.f;
            }
#pragma unroll 1
            for (u64 r = 0; r < rows; ++r) {
                float dot = 0.f;
#pragma unroll
                for (int i = 0; i < WIDE / 32; ++i) {
                    u64 d = lane + 32 * i;
                    if (d < width) dot += query[r * width + d] * key[i];
                }
                for (int d = 16; d > 0; d >>= 1) dot += __shfl_xor_sync(0xffffffffu, dot, d);
                const u64 sees = limit + r * step;
                if (lane == 0)
                    score[r * PANEL + j - base] = j < sees && j + window >= sees ? dot * root : -3.4e38f;
            }
        }
        __syncthreads();
        // A row a warp: scores become shares of the largest one so far.
        for (u64 r = warp; r < rows; r += 8) {
            const float before = most[r];
            float top = before, part = 0.f;
#pragma unroll 1
            for (u64 j = lane; j < end - base; j += 32) top = fmaxf(top, score[r * PANEL + j]);
            for (int d = 16; d > 0; d >>= 1) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, d));
#pragma unroll 1
            for (u64 j = lane; j < end - base; j += 32) {
                const float s = score[r * PANEL + j], p = s > -3.3e38f ? expf(s - top) : 0.f;
                score[r * PANEL + j] = p;
                part += p;
            }
            for (int d = 16; d > 0; d >>= 1) part += __shfl_xor_sync(0xffffffffu, part, d);
            if (lane == 0) {
                factor[r] = expf(before - top);
                total[r] = total[r] * factor[r] + part;
                most[r] = top;
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const unsigned e = threadIdx.x + 256 * i;
            if (e < rows * width) {
                const unsigned r = e / (unsigned)width, d = e % (unsigned)width;
                float v = sum[i] * factor[r];
#pragma unroll 1
                for (u64 j = base; j < end; ++j)
                    v += score[r * PANEL + j - base] * T::get(cache.values, cache.at(j, head) + d);
                sum[i] = v;
            }
        }
        __syncthreads();
    }
}
// A block is a tile of 128 queries of one head, `tiles` for each sequence. Sequences share tokens and
// cached ones evenly.
template <class T, class R>
static __device__ void prefill_attention(const R *q, const R *keys, const R *values,
                                         const unsigned *pages, R *out, u64 sequences, u64 tokens,
                                         u64 cached, u64 pages_each, u64 window, u64 heads,
                                         u64 kv_heads, u64 width, u64 tiles) {
    __shared__ float most[ROWS], total[ROWS];
    float sum[ROWS];
    const u64 tile = blockIdx.x % tiles, head = blockIdx.x / tiles % heads;
    const u64 s = blockIdx.x / tiles / heads;
    const u64 first = s * tokens / sequences, count = (s + 1) * tokens / sequences - first;
    const u64 before = (s + 1) * cached / sequences - s * cached / sequences;
    const Cache<T, R> cache = {keys, values, pages + s * pages_each, kv_heads, width};
    const u64 end = min(count, (tile + 1) * 128);
    for (u64 row = tile * 128; row < end; row += ROWS) {
        const u64 rows = min((u64)ROWS, end - row), limit = before + row + 1;
        const u64 from = limit > window ? (limit - window) / PANEL * PANEL : 0;
        const u64 at = ((first + row) * heads + head) * width;
        attend<T, R>(q + at, heads * width, rows, cache, head / (heads / kv_heads), limit, 1, window,
                     from, limit + rows - 1, sum, most, total);
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const unsigned e = threadIdx.x + 256 * i, r = e / (unsigned)width;
            if (e < rows * width)
                T::put(out, at + r * heads * width + e % (unsigned)width, sum[i] / total[r]);
        }
    }
}
// A block is a part of the keys of one sequence, for the queries that share a head of keys. Where there
// are more parts than one, the last block of them combines the others' sums, which lie in `sums` with
// the largest score and the total behind each.
template <class T, class R>
static __device__ void decode_attention(const R *q, const R *keys, const R *values,
                                        const unsigned *pages, R *out, unsigned *own, u64 sequences,
                                        u64 cached, u64 pages_each, u64 window, u64 heads,
                                        u64 kv_heads, u64 width, u64 parts) {
    __shared__ float most[ROWS], total[ROWS];
    float sum[ROWS], *sums = (float *)(own + COUNTERS);
    const u64 part = blockIdx.x % parts, head = blockIdx.x / parts % kv_heads;
    const u64 s = blockIdx.x / parts / kv_heads, group = heads / kv_heads;
    const u64 length = (s + 1) * cached / sequences - s * cached / sequences + 1;
    const Cache<T, R> cache = {keys, values, pages + s * pages_each, kv_heads, width};
    const u64 to = min(length, (part + 1) * PANEL);
    const u64 first = s * heads + head * group;
    for (u64 row = 0; row < group; row += ROWS) {
        const u64 rows = min((u64)ROWS, group - row);
        attend<T, R>(q + (first + row) * width, width, rows, cache, head, length, 0, window,
                     part * PANEL, to, sum, most, total);
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const unsigned e = threadIdx.x + 256 * i;
            if (e < rows * width) {
                const unsigned r = e / (unsigned)width, d = e % (unsigned)width;
                if (parts == 1) T::put(out, (first + row + r) * width + d, sum[i] / total[r]);
                else sums[((first + row + r) * parts + part) * (width + 2) + d] = sum[i];
            }
        }
        if (parts > 1 && threadIdx.x < rows) {
            float *behind = sums + ((first + row + threadIdx.x) * parts + part) * (width + 2) + width;
            behind[0] = most[threadIdx.x];
            behind[1] = total[threadIdx.x];
        }
    }
    if (parts == 1) return;
    if (!last_of(own + s * kv_heads + head, parts)) return;
#pragma unroll 1
    for (unsigned e = threadIdx.x; e < group * width; e += 256) {
        const u64 r = first + e / (unsigned)width, d = e % (unsigned)width;
        const volatile float *all = sums + r * parts * (width + 2);
        float top = -3.4e38f, v = 0.f, of = 0.f;
#pragma unroll 1
        for (u64 p = 0; p < parts; ++p) top = fmaxf(top, all[p * (width + 2) + width]);
#pragma unroll 1
        for (u64 p = 0; p < parts; ++p) {
            const volatile float *one = all + p * (width + 2);
            const float share = expf(one[width] - top);
            v += share * one[d];
            of += share * one[width + 1];
        }
        T::put(out, r * width + d, v / of);
    }
}

#define P(R) (const R *x, const R *g, R *o, u64 width)
ALL(rms_norm, P, (rms_norm<T, R, false>(x, nullptr, g, o, width, 0)))
#undef P
#define P(R) (const R *x, const R *a, const R *g, R *o, u64 width, u64 n)
ALL(rms_norm_add, P, (rms_norm<T, R, true>(x, a, g, o, width, n)))
#undef P
#define P(R) (const R *x, const unsigned *p, const R *t, R *o, u64 heads, u64 width)
ALL(rotary, P, (rotary<T, R>(x, p, t, o, heads, width)))
#undef P
#define P(R) (const R *k, const R *v, const unsigned *p, R *o, u64 width, u64 values)
ALL(cache_write, P, (cache_write(k, v, p, o, width, values)))
#undef P
#define P(R) (const R *x, R *o, u64 inner)
ALL(silu_mul, P, (silu_mul<T, R>(x, o, inner)))
#undef P
#define P(R) (const R *x, R *o, unsigned *chosen, u64 experts, u64 active)
ALL(route, P, (route<T, R>(x, o, chosen, experts, active)))
#undef P
#define P(R) (const R *x, const R *w, R *o, u64 active, u64 width)
ALL(sum_experts, P, (sum_experts<T, R>(x, w, o, active, width)))
#undef P
#define P(R) (const R *x, R *o, unsigned *own, u64 rows, u64 vocabulary, u64 chunks)
ALL(sample, P, (sample<T, R>(x, o, own, rows, vocabulary, chunks)))
#undef P
#define P(R)                                                                                       \
    (const R *q, const R *k, const R *v, const unsigned *p, R *o, u64 sequences, u64 tokens,       \
     u64 cached, u64 each, u64 window, u64 heads, u64 kv, u64 width, u64 tiles)
ALL(prefill_attention, P,
    (prefill_attention<T, R>(q, k, v, p, o, sequences, tokens, cached, each, window, heads, kv, width,
                             tiles)))
#undef P
#define P(R)                                                                                       \
    (const R *q, const R *k, const R *v, const unsigned *p, R *o, unsigned *own, u64 sequences,    \
     u64 cached, u64 each, u64 window, u64 heads, u64 kv, u64 width, u64 parts)
ALL(decode_attention, P,
    (decode_attention<T, R>(q, k, v, p, o, own, sequences, cached, each, window, heads, kv, width,
                            parts)))
#undef P
