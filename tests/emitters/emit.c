/* A trace written by C: an engine that is not Python, and that has no JSON library either.
 *
 *     cc -O1 -o emit emit.c && ./emit run.jsonl
 *
 * A toy with one slot answers two requests; the second is cancelled while it waits. SHA-256 is FIPS 180-4's. */

#include <stdint.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static unsigned char block[64];
static uint64_t hashed;

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void hash_byte(unsigned char byte) {
    block[hashed++ % 64] = byte;
    if (hashed % 64) return;
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = (turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10) + w[i - 7] +
               (turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 16];
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t a = v[0], e = v[4];
        uint32_t one = v[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + K[i] + w[i];
        uint32_t two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

static FILE *out;

/* One record, one line; everything but the end record counts for the digest. */
static void record(const char *format, ...) {
    char line[4096];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    line[length++] = '\n';
    for (int i = 0; i < length; i++) hash_byte((unsigned char)line[i]);
    fwrite(line, 1, (size_t)length, out);
}

static long long clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int count, char **words) {
    if (count != 2 || !(out = fopen(words[1], "wb"))) return 2;
    long long zero = clock_ns(CLOCK_MONOTONIC);
    record("{\"event\":\"header\",\"schema\":1,\"engine\":{\"name\":\"toy in C\",\"version\":\"1\"},\"policy\":\"continuous\","
           "\"slots\":1,\"model\":{\"name\":\"toy\",\"weights\":\"random\",\"dtype\":\"fp32\"},"
           "\"device\":{\"kind\":\"cpu\",\"name\":\"a toy\"},\"workload\":{\"name\":\"two questions\"},"
           "\"clock\":{\"monotonic_ns\":%lld,\"wall_ns\":%lld}}", zero, clock_ns(CLOCK_REALTIME));
    for (int i = 0; i < 2; i++)
        record("{\"event\":\"arrival\",\"request\":%d,\"id\":\"q%d\",\"arrival_ns\":0,\"submitted_ns\":%lld,"
               "\"prompt_tokens\":4}", i, i, clock_ns(CLOCK_MONOTONIC) - zero);
    const char *texts[] = {"Gr\xc3\xbc", "\xc3\x9f", " dich"};
    int waiting = 1;
    for (int had = 0; had < 3; had++) {
        long long start = clock_ns(CLOCK_MONOTONIC) - zero;
        record("{\"event\":\"step\",\"index\":%d,\"start_ns\":%lld,\"end_ns\":%lld,\"requests\":[0],\"slots\":[0],"
               "\"phases\":\"%s\",\"positions\":[%d],\"computed\":[%d],\"sampled\":[1],\"tokens\":[%d],\"texts\":[\"%s\"],"
               "\"waiting\":%d,\"running\":1%s%s}", had, start, clock_ns(CLOCK_MONOTONIC) - zero, had ? "D" : "P",
               had ? 3 + had : 0, had ? 1 : 4, had, texts[had], waiting,
               had == 0 ? ",\"admitted\":[{\"request\":0,\"slot\":0}]" : "",
               had == 2 ? ",\"finished\":[{\"request\":0,\"reason\":\"length\"}]" : "");
        if (had == 0) {
            record("{\"event\":\"finish\",\"request\":1,\"at_ns\":%lld,\"reason\":\"abort\"}", clock_ns(CLOCK_MONOTONIC) - zero);
            waiting = 0;
        }
    }
    uint64_t bits = hashed * 8;
    hash_byte(0x80);
    while (hashed % 64 != 56) hash_byte(0);
    for (int i = 7; i >= 0; i--) hash_byte((unsigned char)(bits >> 8 * i));
    fprintf(out, "{\"event\":\"end\",\"at_ns\":%lld,\"requests\":2,\"steps\":3,\"output_tokens\":3,\"digest\":\"",
            clock_ns(CLOCK_MONOTONIC) - zero);
    for (int i = 0; i < 8; i++) fprintf(out, "%08x", state[i]);
    fprintf(out, "\"}\n");
    return fclose(out) != 0;
}
