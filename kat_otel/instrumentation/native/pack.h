/* Spans of a step as the bytes of OTLP: fields of ScopeSpans. */
#ifndef KAT_PACK_H
#define KAT_PACK_H

#include "digest.h"

struct kat_tail { /* what spans with the same values in these columns have in common */
    int64_t thread;
    int32_t name, grid, block, group, stream, graph;
    uint8_t kind, says_kind, used, reserved;
    uint32_t at, length; /* of its bytes */
};

enum { KAT_PACKED_NUMBERS = 4 };

struct kat_packing {
    int64_t rows;
    struct kat_array span_id, parent_id, start, duration;
    struct kat_array numbers[KAT_PACKED_NUMBERS]; /* correlation first; below 0: not said */
    struct kat_array name, kind, grid, block, group, stream, thread, graph;
    const uint8_t *skipped; /* rows that are packed otherwise, a byte each */
    const uint8_t *trace;   /* 16 bytes */
    const uint8_t *same;    /* fields that all spans have */
    int64_t same_bytes;
    const uint8_t *keys[KAT_PACKED_NUMBERS]; /* of the numbers */
    int64_t key_bytes[KAT_PACKED_NUMBERS];
    struct kat_tail *tails; /* a hash table */
    int64_t tail_slots;     /* a power of two, not full */
    const uint8_t *texts;   /* the tails' bytes */
};

enum kat_stop { ALL_PACKED = 0, NO_ROOM = 1, NO_TAIL = 2, TOO_LARGE = 3 };

/* Packs rows from *row on until all are, or one needs something: *row is that one then, and the
 * slot of its tail, with all but the bytes filled in, is *slot. What was written: *bytes. */
KAT_EXPORT int kat_pack(const struct kat_packing *packing, int64_t *row, uint8_t *out,
    int64_t room, int64_t *bytes, int64_t *slot);

#endif
