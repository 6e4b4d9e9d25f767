/* A digest while it is made: digest.c adds up, digest_bytes.c writes. */
#ifndef KAT_DIGEST_MADE_H
#define KAT_DIGEST_MADE_H

#include <string.h>

#include "digest.h"

enum { WORKER_STEP = 2, LAUNCH = 4, SYNC = 5, KERNEL = 6, MEMCPY = 7, MEMSET = 8, COLLECTIVE = 9 };
enum { BARRIER = 1, POSITIONS = 8, MOST_TABLE = 255, HEADER_BYTES = 140, DIRECTIONS = 4 };

struct work { /* of the GPU, or a launch */
    int64_t launched, start, end;
    int32_t row, name;       /* name: place among the step's */
    uint8_t kind, semantics; /* semantics: how ranks depend on it, 0: not at all */
};

struct class { /* a kernel family */
    uint32_t family;
    bool counted;
    double time[POSITIONS];
    int64_t longest[POSITIONS], count[POSITIONS];
};

struct what { /* a kind of collective */
    uint32_t family, text, semantics, place;
};

struct digest {
    const struct kat_spans *spans;
    struct kat_text *texts;
    struct work *gpu, *launches, *spare;
    int64_t gpu_count, launch_count;
    uint32_t *names; /* texts of the step's names, by place */
    uint32_t name_count;
    struct class *classes;
    uint32_t *class_of; /* by name's place */
    uint32_t class_count;
    struct what whats[MOST_TABLE];
    uint32_t what_count;
    int64_t begin, end, met;
    int64_t kernels, blocks, sync_ns, gap_ns, gap_max_ns, gap_at;
    double copy_bytes[DIRECTIONS], copy_ns[DIRECTIONS];
    uint32_t copies[DIRECTIONS];
};

static inline int64_t i64(const struct kat_array *a, int64_t row) {
    int64_t value;
    memcpy(&value, (const char *)a->data + row * a->stride, sizeof value);
    return value;
}

static inline int32_t i32(const struct kat_array *a, int64_t row) {
    int32_t value;
    memcpy(&value, (const char *)a->data + row * a->stride, sizeof value);
    return value;
}

static inline uint8_t kind_of(const struct kat_spans *s, int64_t row) {
    return ((const uint8_t *)s->kind.data)[row * s->kind.stride];
}

static inline int64_t sum(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static inline int64_t less(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }
static inline int64_t atmost(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t atleast(int64_t a, int64_t b) { return a > b ? a : b; }

static inline bool is_before(const struct what *a, const struct what *b) {
    if (a->family != b->family) return a->family < b->family;
    if (a->text != b->text) return a->text < b->text;
    return a->semantics < b->semantics;
}

static inline struct what what_of(const struct digest *d, const struct work *w) {
    return (struct what){.family = d->texts[d->names[w->name]].family,
        .text = (uint32_t)i32(&d->spans->group, w->row),
        .semantics = w->semantics};
}

/* Writes what was added up; its length, 0 where it must be merged. */
int32_t kat_digest_write(
    struct digest *d, uint8_t *digest, uint32_t resolution_ns, uint32_t dropped);

#endif
