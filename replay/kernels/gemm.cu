// The tuner's template: products of row-major matrices in single precision on the CUDA cores. A block
// computes TILE_M x TILE_N of the result in steps of TILE_K, each of its threads THREAD_M x THREAD_N
// of them. The sizes are given when it is compiled (-DTILE_M=64 and so on).
typedef unsigned long long u64;

#define ROWS (TILE_M / THREAD_M)
#define COLUMNS (TILE_N / THREAD_N)
#define THREADS (ROWS * COLUMNS)

static_assert(TILE_M % THREAD_M == 0 && TILE_N % THREAD_N == 0, "threads cover the tile");

extern "C" __global__ void __launch_bounds__(THREADS)
    gemm(const float *a, const float *b, float *c, u64 m, u64 n, u64 k) {
    // One column more than needed: threads of a warp write to different banks.
    __shared__ float left[TILE_K][TILE_M + 1];
    __shared__ float right[TILE_K][TILE_N];
    const u64 down = (m + TILE_M - 1) / TILE_M, across = (n + TILE_N - 1) / TILE_N;
    const u64 product = blockIdx.x / (down * across), tile = blockIdx.x % (down * across);
    const u64 row = tile / across * TILE_M, column = tile % across * TILE_N;
    const unsigned y = threadIdx.x / COLUMNS, x = threadIdx.x % COLUMNS;
    a += product * m * k;
    b += product * k * n;
    c += product * m * n;
    float sum[THREAD_M][THREAD_N] = {};
    for (u64 at = 0; at < k; at += TILE_K) {
        for (unsigned i = threadIdx.x; i < TILE_M * TILE_K; i += THREADS) {
            const unsigned r = i / TILE_K, s = i % TILE_K;
            left[s][r] = row + r < m && at + s < k ? a[(row + r) * k + at + s] : 0.0f;
        }
        for (unsigned i = threadIdx.x; i < TILE_K * TILE_N; i += THREADS) {
            const unsigned s = i / TILE_N, r = i % TILE_N;
            right[s][r] = at + s < k && column + r < n ? b[(at + s) * n + column + r] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (unsigned s = 0; s < TILE_K; ++s) {
            float u[THREAD_M], v[THREAD_N];
#pragma unroll
            for (unsigned i = 0; i < THREAD_M; ++i) u[i] = left[s][y + i * ROWS];
#pragma unroll
            for (unsigned j = 0; j < THREAD_N; ++j) v[j] = right[s][x + j * COLUMNS];
#pragma unroll
            for (unsigned i = 0; i < THREAD_M; ++i)
#pragma unroll
                for (unsigned j = 0; j < THREAD_N; ++j) sum[i][j] += u[i] * v[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (unsigned i = 0; i < THREAD_M; ++i)
#pragma unroll
        for (unsigned j = 0; j < THREAD_N; ++j) {
            const u64 r = row + y + i * ROWS, s = column + x + j * COLUMNS;
            if (r < m && s < n) c[r * n + s] = sum[i][j];
        }
}
