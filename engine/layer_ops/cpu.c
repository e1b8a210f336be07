/* The layer operations of a decoder for bf16 on a CPU: norms, rotary embedding, paged attention, SwiGLU.
 *
 * Plain C with the vector extensions of GCC and clang: any width of vector, any processor. The KV cache is laid out for
 * this code: keys lie transposed within their block ([head_dim][block_size]), so that the scores of 16 tokens are one
 * vector and no sum runs across lanes; values lie [block_size][head_dim]. Sums are fp32. A row's result is the same
 * bits whatever other rows the step computes, and however its prompt was cut into chunks.
 *
 * Paged attention: Kwon et al., SOSP 2023. Sharing each key among the query heads of its group, and among the rows of a
 * prompt: Ainslie et al., "GQA", 2023; Dao, "FlashAttention-2", 2023 (without its running maximum: scores fit a buffer).
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define MAX_QUERIES 12 /* query rows that share each load of the cache: as many sums as stay in registers */

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));

static inline floats widen(const uint16_t *from)
{
    return (floats)(__builtin_convertvector(*(const halves *)from, words) << 16);
}

static inline void narrow(uint16_t *to, floats x)
{
    words bits = (words)x;
    *(halves *)to = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, halves);
}

static inline float widen_one(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

static inline uint16_t narrow_one(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline float sum_of(floats x)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += x[i];
    return sum;
}

static inline floats choose(ints mask, floats yes, floats no)
{
    return (floats)((mask & (ints)yes) | (~mask & (ints)no));
}

/* e^x, to 2 ulp over [-87, 88] and clamped beyond: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' expf). */
static inline floats exponential(floats x)
{
    x = choose(x < -87.0f, (floats){} - 87.0f, x);
    x = choose(x > 88.0f, (floats){} + 88.0f, x);
    floats n = x * 1.44269504f + 12582912.0f; /* adding 1.5 * 2^23 rounds to a whole number */
    ints exponent = (ints)n - 0x4b400000;
    n -= 12582912.0f;
    floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (floats)((exponent + 127) << 23);
}

/* residual[T, width] += delta[T, width] where there is one; out[T, width] = RMSNorm(residual) * weight. */
void add_norm(int64_t rows, int64_t width, float *residual, const uint16_t *delta, const float *weight, float epsilon,
              uint16_t *out)
{
#pragma omp parallel for if (rows >= 16)
    for (int64_t row = 0; row < rows; row++) {
        float *x = residual + row * width;
        floats sums = {};
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES) {
            floats value = *(floats *)(x + i);
            if (delta)
                *(floats *)(x + i) = value = value + widen(delta + row * width + i);
            sums += value * value;
        }
        float sum = sum_of(sums);
        for (; i < width; i++) {
            if (delta)
                x[i] += widen_one(delta[row * width + i]);
            sum += x[i] * x[i];
        }
        float scale = 1.0f / sqrtf(sum / (float)width + epsilon);
        for (i = 0; i + LANES <= width; i += LANES)
            narrow(out + row * width + i, *(floats *)(x + i) * scale * *(const floats *)(weight + i));
        for (; i < width; i++)
            out[row * width + i] = narrow_one(x[i] * scale * weight[i]);
    }
}

/* out[T, width] = silu(both[T, :width]) * both[T, width:]. */
void gate(int64_t rows, int64_t width, const uint16_t *both, uint16_t *out)
{
#pragma omp parallel for if (rows >= 8)
    for (int64_t row = 0; row < rows; row++) {
        const uint16_t *x = both + row * 2 * width, *up = x + width;
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES) {
            floats value = widen(x + i);
            narrow(out + row * width + i, value / (1.0f + exponential(-value)) * widen(up + i));
        }
        for (; i < width; i++) {
            float value = widen_one(x[i]);
            out[row * width + i] = narrow_one(value / (1.0f + expf(-value)) * widen_one(up[i]));
        }
    }
}

/* A layer's sizes and cache. */
typedef struct {
    int64_t heads, kv_heads, head_dim, block_size, rotary_dim;
    float scale, epsilon;
    const float *cos, *sin;       /* [positions, rotary_dim / 2] */
    const float *q_norm, *k_norm; /* [head_dim] or null */
    uint16_t *keys;               /* [blocks, kv_heads, head_dim, block_size] */
    uint16_t *values;             /* [blocks, kv_heads, block_size, head_dim] */
} Layer;

/* Where the tokens of a step are. */
typedef struct {
    int64_t tokens;
    const int32_t *positions, *slots; /* [tokens]: a token's position, and its sequence's row of `tables` */
    const int32_t *tables;            /* [slots, table_width]: KV blocks */
    int64_t table_width, tiles;
    const int32_t *tile_starts;       /* [tiles + 1]: tokens of one sequence that share the loads of the cache */
} Step;

static void rotate(const Layer *layer, const uint16_t *from, const float *norm, int64_t position, float factor, float *to)
{
    int64_t d = layer->head_dim, half = layer->rotary_dim / 2;
    float plain[512];
    for (int64_t i = 0; i < d; i++)
        plain[i] = widen_one(from[i]);
    if (norm) {
        float sum = 0;
        for (int64_t i = 0; i < d; i++)
            sum += plain[i] * plain[i];
        float scale = 1.0f / sqrtf(sum / (float)d + layer->epsilon);
        for (int64_t i = 0; i < d; i++)
            plain[i] *= scale * norm[i];
    }
    const float *cos = layer->cos + position * half, *sin = layer->sin + position * half;
    for (int64_t i = 0; i < half; i++) {
        to[i] = (plain[i] * cos[i] - plain[i + half] * sin[i]) * factor;
        to[i + half] = (plain[i + half] * cos[i] + plain[i] * sin[i]) * factor;
    }
    for (int64_t i = 2 * half; i < d; i++)
        to[i] = plain[i] * factor;
}

static void store(const Layer *layer, const Step *step, const uint16_t *qkv, int64_t t)
{
    int64_t d = layer->head_dim, size = layer->block_size, position = step->positions[t];
    int64_t block = step->tables[step->slots[t] * step->table_width + position / size], at = position % size;
    float rotated[512];
    for (int64_t kv = 0; kv < layer->kv_heads; kv++) {
        const uint16_t *k = qkv + (layer->heads + kv) * d, *v = k + layer->kv_heads * d;
        rotate(layer, k, layer->k_norm, position, 1.0f, rotated);
        uint16_t *keys = layer->keys + (block * layer->kv_heads + kv) * d * size + at;
        for (int64_t i = 0; i < d; i++)
            keys[i * size] = narrow_one(rotated[i]);
        memcpy(layer->values + ((block * layer->kv_heads + kv) * size + at) * d, v, 2 * (size_t)d);
    }
}

/* Scores of `n` query rows with the keys of `wide` vectors of tokens from `at` on; fetches what is needed next. Both
 * numbers are constants wherever this is inlined, and n * wide sums stay in registers: enough that none waits for
 * another. */
static inline __attribute__((always_inline)) void score(const Layer *layer, int n, int wide, const float *queries,
                                                        const int32_t *table, int64_t kv, int64_t at, int64_t context,
                                                        float *scores, int64_t room)
{
    int64_t d = layer->head_dim, size = layer->block_size, head = kv * d * size, stride = layer->kv_heads * d * size;
    const uint16_t *k[4], *next[4], *v[4];
    floats sums[4][MAX_QUERIES];
    for (int w = 0; w < wide; w++) {
        int64_t here = at + w * LANES, after = here + wide * LANES < context ? here + wide * LANES : here;
        k[w] = layer->keys + head + table[here / size] * stride + here % size;
        next[w] = layer->keys + head + table[after / size] * stride + after % size;
        v[w] = layer->values + head + table[here / size] * stride + here % size * d;
        for (int i = 0; i < n; i++)
            sums[w][i] = (floats){};
    }
    for (int64_t j = 0; j < d; j += 2) {
        for (int w = 0; w < wide; w++) {
            __builtin_prefetch(next[w] + j * size);
            __builtin_prefetch(v[w] + j * LANES);
        }
        for (int half = 0; half < 2; half++)
            for (int w = 0; w < wide; w++) {
                floats key = widen(k[w] + (j + half) * size);
                for (int i = 0; i < n; i++)
                    sums[w][i] += key * queries[i * d + j + half];
            }
    }
    for (int w = 0; w < wide; w++)
        for (int i = 0; i < n; i++)
            *(floats *)(scores + i * room + at + w * LANES) = sums[w][i];
}

/* The weighted sum of the values, `wide` vectors of every row's output from column `j` on. */
static inline __attribute__((always_inline)) void weigh(const Layer *layer, int n, int wide, const float *weights,
                                                        int64_t room, const float *totals, const int32_t *table,
                                                        int64_t kv, int64_t j, int64_t context, uint16_t **outs)
{
    int64_t d = layer->head_dim, size = layer->block_size, stride = layer->kv_heads * d * size;
    floats sums[4][MAX_QUERIES];
    for (int w = 0; w < wide; w++)
        for (int i = 0; i < n; i++)
            sums[w][i] = (floats){};
    for (int64_t base = 0; base < context; base += size) {
        const uint16_t *v = layer->values + kv * d * size + table[base / size] * stride + j;
        int64_t count = context - base < size ? context - base : size;
        for (int64_t at = 0; at < count; at++)
            for (int w = 0; w < wide; w++) {
                floats value = widen(v + at * d + w * LANES);
                for (int i = 0; i < n; i++)
                    sums[w][i] += value * weights[i * room + base + at];
            }
    }
    for (int w = 0; w < wide; w++)
        for (int i = 0; i < n; i++)
            narrow(outs[i] + j + w * LANES, sums[w][i] * totals[i]);
}

/* Attention of `n` query rows [n, head_dim] of one KV head over `context` tokens; row i sees limits[i] of them. `n` is a
 * constant wherever this is inlined. `scores` holds n * room floats, room being context rounded up to whole vectors. */
static inline __attribute__((always_inline)) void attend_rows(const Layer *layer, int n, const float *queries,
                                                              const int64_t *limits, const int32_t *table, int64_t kv,
                                                              int64_t context, float *scores, uint16_t **outs)
{
    int64_t d = layer->head_dim, room = (context + LANES - 1) / LANES * LANES, at = 0, j = 0;
    const int wide = n <= 3 ? 4 : n <= 6 ? 2 : 1;
    for (; at + wide * LANES <= room; at += wide * LANES)
        score(layer, n, wide, queries, table, kv, at, context, scores, room);
    for (; at < room; at += LANES)
        score(layer, n, 1, queries, table, kv, at, context, scores, room);
    float totals[MAX_QUERIES];
    for (int i = 0; i < n; i++) {
        float *row = scores + i * room;
        for (int64_t at = limits[i]; at < room; at++)
            row[at] = -INFINITY;
        floats highest = *(floats *)row;
        for (int64_t at = LANES; at < room; at += LANES) {
            floats score = *(floats *)(row + at);
            highest = choose(score > highest, score, highest);
        }
        float top = highest[0];
        for (int j = 1; j < LANES; j++)
            top = highest[j] > top ? highest[j] : top;
        floats sums = {};
        for (int64_t at = 0; at < room; at += LANES) {
            floats score = *(floats *)(row + at);
            floats weight = exponential(score - top);
            weight = choose(score == -INFINITY, (floats){}, weight);
            *(floats *)(row + at) = weight;
            sums += weight;
        }
        totals[i] = 1.0f / sum_of(sums);
    }
    for (; j + wide * LANES <= d; j += wide * LANES)
        weigh(layer, n, wide, scores, room, totals, table, kv, j, context, outs);
    for (; j < d; j += LANES)
        weigh(layer, n, 1, scores, room, totals, table, kv, j, context, outs);
}

#define CASE(N)                                                                          \
    case N:                                                                              \
        attend_rows(layer, N, queries, limits, table, kv, context, scores, outs);          \
        break;

/* One KV head's share of the tokens [first, last) of one sequence. */
static void attend_tile(const Layer *layer, const Step *step, const uint16_t *qkv, uint16_t *out, int64_t first, int64_t last, int64_t kv,
                        float *scores)
{
    int64_t d = layer->head_dim, group = layer->heads / layer->kv_heads, width = (layer->heads + 2 * layer->kv_heads) * d;
    const int32_t *table = step->tables + step->slots[first] * step->table_width;
    int64_t all = (last - first) * group;
    for (int64_t start = 0; start < all; start += MAX_QUERIES) {
        int n = (int)(all - start < MAX_QUERIES ? all - start : MAX_QUERIES);
        float queries[MAX_QUERIES * 512];
        int64_t limits[MAX_QUERIES], context = 0;
        uint16_t *outs[MAX_QUERIES];
        for (int i = 0; i < n; i++) {
            int64_t t = first + (start + i) / group, head = kv * group + (start + i) % group;
            rotate(layer, qkv + t * width + head * d, layer->q_norm, step->positions[t], layer->scale, queries + i * d);
            outs[i] = out + (t * layer->heads + head) * d;
            limits[i] = step->positions[t] + 1;
            context = limits[i] > context ? limits[i] : context;
        }
        switch (n) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
        }
    }
}

/* Rotate queries and keys of qkv[T, (heads + 2 kv_heads) * head_dim], store keys and values, and write the attention's
 * outputs to out[T, heads * head_dim]. 0, or 1 where there was no memory. */
int attend(const Layer *layer, const Step *step, const uint16_t *qkv, uint16_t *out)
{
    int64_t width = (layer->heads + 2 * layer->kv_heads) * layer->head_dim, longest = 0;
    int failed = 0;
    for (int64_t t = 0; t < step->tokens; t++)
        longest = step->positions[t] > longest ? step->positions[t] : longest;
    size_t room = (size_t)(longest + LANES) / LANES * LANES * MAX_QUERIES;
#pragma omp parallel if (step->tokens * (longest + 64) >= 512)
    {
        float *scores = malloc(room * sizeof(float) + 64);
        if (!scores) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for
        for (int64_t t = 0; t < step->tokens; t++)
            store(layer, step, qkv + t * width, t);
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t tile = 0; tile < step->tiles; tile++)
            for (int64_t kv = 0; kv < layer->kv_heads; kv++)
                if (scores)
                    attend_tile(layer, step, qkv, out, step->tile_starts[tile], step->tile_starts[tile + 1], kv, scores);
        free(scores);
    }
    return failed;
}
