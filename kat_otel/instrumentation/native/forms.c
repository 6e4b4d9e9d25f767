#include "forms.h"

#include "rows.h"

/* The rules are those of kat_otel/instrumentation/steps/putting.py, and a test compares the
 * records. A name that the reader gave is a place in the batch's texts, or it is missed. */

enum { KERNEL = 6, COLLECTIVE = 9, UNKNOWN = -1 };
#define MIX 0x9e3779b97f4a7c15ull

static inline bool number(
    const struct kat_numbers *n, int64_t slots, int64_t key, int32_t *value) {
    uint64_t slot = ((uint64_t)key * MIX) >> 40 & (uint64_t)(slots - 1);
    *value = n->values[slot];
    return n->keys[slot] == key;
}

static inline int64_t size_key(const int32_t size[3]) {
    return ((int64_t)size[0] & 0x7fffffff) << 32 | ((int64_t)size[1] & 0xffff) << 16 |
           ((int64_t)size[2] & 0xffff);
}

static inline int64_t lane_key(int32_t device, int32_t stream) {
    return ((int64_t)device & 0x7fff) << 32 | (uint32_t)stream;
}

/* The name, and what `values` say of it; false where one of them is not known. */
static inline bool named(const struct kat_known *k, uint32_t said, const int64_t *values,
    int32_t *name, int64_t *value) {
    *name = said < (uint64_t)k->names ? k->name_of[said] : -1;
    *value = *name >= 0 && *name < k->texts ? values[*name] : INT64_MIN;
    return *value != INT64_MIN;
}

int64_t kat_form_kernels(const void *kernels, int64_t count, const struct kat_known *known,
    struct kat_work *to, uint8_t *missed) {
    const struct kernel_row *row = kernels;
    bool graphs = false;
    int64_t misses = 0;
    for (int64_t i = 0; i < count; i++) graphs = graphs || row[i].gpu.graph;
    for (int64_t i = 0; i < count; i++, row++, to++) {
        const struct gpu *gpu = &row->gpu;
        int32_t grid[3], block[3];
        __builtin_memcpy(grid, row->grid, sizeof grid);
        __builtin_memcpy(block, row->block, sizeof block);
        int64_t meaning;
        uint8_t miss = 0;
        if (!named(known, row->name, known->meaning, &to->name, &meaning)) miss |= MISSED_NAME;
        if (!number(&known->sizes, known->slots, size_key(grid), &to->grid)) miss |= MISSED_GRID;
        if (!number(&known->sizes, known->slots, size_key(block), &to->block)) miss |= MISSED_BLOCK;
        if (!number(&known->lanes, known->slots, lane_key(gpu->device, gpu->stream), &to->lane))
            miss |= MISSED_LANE;
        to->start = gpu->start;
        to->end = gpu->end > gpu->start ? gpu->end : gpu->start;
        to->correlation = gpu->correlation;
        to->graph = gpu->graph ? (int64_t)gpu->graph : UNKNOWN;
        to->graph_node = graphs && gpu->graph_node ? gpu->graph_node : UNKNOWN;
        to->bytes = UNKNOWN;
        to->stream = gpu->stream;
        to->kind = meaning > 0 ? COLLECTIVE : KERNEL;
        missed[i] = miss;
        misses += miss != 0;
    }
    return misses;
}

int64_t kat_form_calls(const void *calls, int64_t count, const struct kat_known *known,
    struct kat_call *to, uint8_t *missed) {
    const struct api_row *row = calls;
    int64_t misses = 0;
    for (int64_t i = 0; i < count; i++, row++, to++) {
        int64_t kind;
        missed[i] = named(known, row->name, known->kind, &to->name, &kind) ? 0 : MISSED_NAME;
        to->start = row->start;
        to->end = row->end > row->start ? row->end : row->start;
        to->correlation = row->correlation;
        to->thread = row->thread;
        to->kind = (uint8_t)kind;
        misses += missed[i] != 0;
    }
    return misses;
}
