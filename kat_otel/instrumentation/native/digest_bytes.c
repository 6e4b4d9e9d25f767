#include "digest_made.h"

/* The bytes of docs/digests.md, as kat_otel/digest/wire.py writes them. */

/* Eleven significant bits and five of exponent: form.py's pack_short. */
static uint16_t pack_short(int64_t number) {
    uint64_t n = (uint64_t)atmost(atleast(number, 0), 2046ll << 31);
    unsigned bits = n ? 64u - (unsigned)__builtin_clzll(n) : 0;
    unsigned exponent = bits > 11 ? bits - 11 : 0;
    uint64_t mantissa = (n + ((1ull << exponent) >> 1)) >> exponent;
    if (mantissa > 2047) {
        mantissa >>= 1;
        exponent++;
    }
    return (uint16_t)(mantissa | exponent << 11);
}

static uint32_t crc32_of(uint32_t crc, uint8_t byte) { /* zlib's */
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190,
        0x6b6b51f4, 0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    crc ^= byte;
    crc = table[crc & 15] ^ (crc >> 4);
    return table[crc & 15] ^ (crc >> 4);
}

/* class_hash() of the families of the collectives, in hexadecimal. */
static uint32_t order_of(const struct digest *d) {
    uint32_t crc = UINT32_MAX;
    for (int64_t i = 0; i < d->gpu_count; i++) {
        if (!d->gpu[i].semantics) continue;
        uint32_t family = d->texts[d->names[d->gpu[i].name]].family;
        for (int byte = 0; byte < 4; byte++, family >>= 8) {
            crc = crc32_of(crc, (uint8_t)"0123456789abcdef"[family >> 4 & 15]);
            crc = crc32_of(crc, (uint8_t)"0123456789abcdef"[family & 15]);
        }
    }
    if (!d->met) return 0;
    return ~crc ? ~crc : 1;
}

static inline uint8_t *put(uint8_t *to, uint64_t value, int bytes) {
    memcpy(to, &value, (size_t)bytes); /* both machines that are supported are little-endian */
    return to + bytes;
}

static uint64_t u32_most(int64_t value) { return (uint64_t)atmost(value, UINT32_MAX); }

/* Joins positions two by two until the digest is small enough; how many there are then. */
static uint32_t fit(struct digest *d, uint32_t *classes, bool leads, int64_t *size) {
    uint32_t positions = POSITIONS;
    *classes = 0;
    for (uint32_t i = 0; i < d->class_count; i++) *classes += d->classes[i].counted;
    int64_t fixed = HEADER_BYTES + 12ll * d->what_count + 4ll * *classes + d->met * (leads ? 9 : 7);
    while ((*size = fixed + 6ll * *classes * positions) > KAT_DIGEST_BYTES && positions > 1) {
        positions /= 2;
        for (uint32_t i = 0; i < d->class_count; i++) {
            struct class *c = &d->classes[i];
            for (uint32_t p = 0; p < positions; p++) {
                c->time[p] = c->time[2 * p] + c->time[2 * p + 1];
                c->longest[p] = atleast(c->longest[2 * p], c->longest[2 * p + 1]);
                c->count[p] = c->count[2 * p] + c->count[2 * p + 1];
            }
        }
    }
    return positions;
}

static uint8_t *put_header(const struct digest *d, uint8_t *to, uint32_t classes,
    uint32_t positions, uint32_t shift, bool leads, uint32_t resolution_ns, uint32_t dropped) {
    to = put(to, 0x444b, 2); /* "KD" */
    const uint8_t counts[6] = {1, (uint8_t)positions, (uint8_t)classes, (uint8_t)d->what_count,
        (uint8_t)shift, leads};
    memcpy(to, counts, sizeof counts);
    to = put(to + sizeof counts, (uint64_t)d->met, 2);
    to = put(to, 1, 2); /* nothing is merged */
    to = put(to, 0, 2);
    to = put(to, (uint64_t)atmost(d->gap_at, 0xffff), 2);
    to = put(to, order_of(d), 4);
    to = put(to, (uint64_t)d->begin, 8);
    to = put(to, (uint64_t)less(d->end, d->begin), 8);
    to = put(to, resolution_ns, 4);
    to = put(to, u32_most(d->kernels), 4);
    to = put(to, dropped, 4);
    to = put(to, u32_most(d->launch_count), 4);
    to = put(to, (uint64_t)d->gap_ns, 8);
    to = put(to, (uint64_t)d->gap_max_ns, 8);
    to = put(to, (uint64_t)d->sync_ns, 8);
    to = put(to, (uint64_t)d->blocks, 8);
    for (int i = 0; i < DIRECTIONS; i++) to = put(to, d->copies[i], 4);
    for (int i = 0; i < DIRECTIONS; i++) to = put(to, (uint64_t)(int64_t)d->copy_bytes[i], 8);
    for (int i = 0; i < DIRECTIONS; i++) to = put(to, pack_short((int64_t)d->copy_ns[i]), 2);
    return to;
}

static uint8_t *put_tables(const struct digest *d, uint8_t *to) {
    for (uint32_t i = 0; i < d->what_count; i++) {
        const struct what *w = &d->whats[i];
        to = put(to, w->family, 4);
        to = put(to, d->texts[w->text].hash, 4);
        to = put(to, w->semantics, 4);
    }
    for (uint32_t i = 0; i < d->class_count; i++)
        if (d->classes[i].counted) to = put(to, d->classes[i].family, 4);
    return to;
}

/* Ends, durations, leads and kinds of the collectives, a column after the other. */
static uint8_t *put_collectives(const struct digest *d, uint8_t *to, uint32_t shift, bool leads) {
    uint8_t *spent = to + 4 * d->met, *lead = spent + 2 * d->met;
    uint8_t *what = lead + (leads ? 2 * d->met : 0);
    for (int64_t i = 0; i < d->gpu_count; i++) {
        const struct work *w = &d->gpu[i];
        if (!w->semantics) continue;
        int64_t end = atleast(less(w->end, d->begin), 0) >> shift;
        to = put(to, u32_most(end), 4);
        spent = put(spent, pack_short(i64(&d->spans->duration, w->row)), 2);
        int64_t late = w->launched >= 0 ? less(w->start, w->launched) : -1;
        if (leads) lead = put(lead, late >= 0 ? pack_short(late) : 0xffff, 2);
        struct what one = what_of(d, w);
        uint32_t low = 0, high = d->what_count - 1;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (is_before(&d->whats[middle], &one)) low = middle + 1;
            else high = middle;
        }
        *what++ = (uint8_t)low;
    }
    return what;
}

int32_t kat_digest_write(
    struct digest *d, uint8_t *digest, uint32_t resolution_ns, uint32_t dropped) {
    int64_t last = 0, size;
    bool leads = false;
    for (int64_t i = 0; i < d->gpu_count; i++) {
        const struct work *w = &d->gpu[i];
        if (!w->semantics) continue;
        last = atleast(last, less(w->end, d->begin));
        leads = leads || (w->launched >= 0 && less(w->start, w->launched) >= 0);
    }
    uint32_t bits = last ? 64u - (unsigned)__builtin_clzll((uint64_t)last) : 0, classes;
    uint32_t shift = bits > 32 ? (uint32_t)atmost(bits - 32, 30) : 0;
    uint32_t positions = fit(d, &classes, leads, &size);
    if (size > KAT_DIGEST_BYTES || classes > MOST_TABLE) return 0;
    uint8_t *to = put_header(d, digest, classes, positions, shift, leads, resolution_ns, dropped);
    to = put_collectives(d, put_tables(d, to), shift, leads);
    for (int column = 0; column < 3; column++) {
        for (uint32_t i = 0; i < d->class_count; i++) {
            const struct class *c = &d->classes[i];
            for (uint32_t p = 0; c->counted && p < positions; p++) {
                int64_t cell = column == 0   ? (int64_t)c->time[p]
                               : column == 1 ? c->longest[p]
                                             : c->count[p];
                to = put(to, pack_short(cell), 2);
            }
        }
    }
    return (int32_t)(to - digest);
}
