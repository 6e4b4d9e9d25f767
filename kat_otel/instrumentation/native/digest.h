/* A step's digest: the bytes that kat_otel/digest/ makes of the same spans, 30 times as fast. */
#ifndef KAT_DIGEST_H
#define KAT_DIGEST_H

#include "capture.h"

struct kat_array { /* of a span table: a stride of 0 says one value of all rows */
    const void *data;
    int64_t stride;
};

struct kat_spans { /* columns as kat_otel/spans.py has them */
    int64_t rows;
    struct kat_array kind, parent, start, duration, name, grid, group, bytes;
};

enum kat_known { KNOWN_NAME = 1, KNOWN_GRID = 2, KNOWN_GROUP = 4 };

struct kat_text { /* what a text of the table of names says, as far as it is known */
    int64_t blocks;    /* of a grid */
    uint32_t family;   /* of a kernel's name: hash of its family */
    uint32_t hash;     /* of a communicator */
    uint8_t known;     /* bits of enum kat_known */
    uint8_t semantics; /* of a kernel's name */
    uint8_t direction; /* of a copy's name */
    uint8_t reserved;
    uint32_t place; /* scratch: + 1 among the step's names; 0 between calls */
};

#define KAT_DIGEST_BYTES 4096u
#define KAT_MOST_ASKED 1024u

/* Bytes that kat_digest() works in, for so many rows and texts. */
KAT_EXPORT uint64_t kat_digest_room(int64_t rows, uint32_t text_count);

/* Writes the digest; its length. 0: only Python can make it (it must be merged, or a row makes no
 * sense). Below 0: so many texts are not known, and stand in `asked` with what is asked of them. */
KAT_EXPORT int32_t kat_digest(const struct kat_spans *spans, struct kat_text *texts,
    uint32_t text_count, uint32_t resolution_ns, uint32_t dropped, void *room, uint8_t *digest,
    uint32_t asked[2 * KAT_MOST_ASKED]);

#endif
