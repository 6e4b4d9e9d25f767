#include "pack.h"

#include <string.h>

/* As kat_otel/instrumentation/sending/pack.py packs one span, but for the order of the fields. */

enum { OTHER = 0, LONGEST_VARINT = 10, HEAD = 61, LONGEST = (1 << 14) - 1 };

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

static inline uint8_t *put(uint8_t *to, const void *bytes, int64_t count) {
    memcpy(to, bytes, (size_t)count);
    return to + count;
}

static inline uint8_t *put_id(uint8_t *to, uint8_t tag, int64_t id) {
    uint64_t big = __builtin_bswap64((uint64_t)id);
    *to++ = tag;
    *to++ = 8;
    return put(to, &big, 8);
}

static inline uint8_t *put_time(uint8_t *to, uint8_t tag, int64_t time) {
    *to++ = tag;
    return put(to, &time, 8);
}

/* An attribute: KeyValue { key = 1, value = 2 { int_value = 3 } } in field 9. */
static inline uint8_t *put_number(
    uint8_t *to, const uint8_t *key, int64_t key_bytes, uint64_t value) {
    uint8_t varint[LONGEST_VARINT], width = 0;
    while (value >= 0x80) {
        varint[width++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    varint[width++] = (uint8_t)value;
    *to++ = 0x4a;
    *to++ = (uint8_t)(2 + key_bytes + 3 + width);
    *to++ = 0x0a;
    *to++ = (uint8_t)key_bytes;
    to = put(to, key, key_bytes);
    *to++ = 0x12;
    *to++ = (uint8_t)(1 + width);
    *to++ = 0x18;
    return put(to, varint, width);
}

static inline bool same(const struct kat_tail *a, const struct kat_tail *b) {
    return a->name == b->name && a->thread == b->thread && a->grid == b->grid &&
           a->block == b->block && a->group == b->group && a->stream == b->stream &&
           a->graph == b->graph && a->kind == b->kind && a->says_kind == b->says_kind;
}

static inline struct kat_tail *find(const struct kat_packing *p, const struct kat_tail *one) {
    uint64_t hash = (uint32_t)one->name | (uint64_t)one->kind << 32 | (uint64_t)one->says_kind << 40;
    const uint64_t more[] = {(uint32_t)one->grid | (uint64_t)(uint32_t)one->block << 32,
        (uint32_t)one->group | (uint64_t)(uint32_t)one->stream << 32, (uint64_t)one->thread,
        (uint32_t)one->graph};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        hash = ((hash << 29 | hash >> 35) ^ more[i]) * 0x9e3779b97f4a7c15ull;
    for (uint64_t slot = hash >> 20;; slot++) { /* ends: some stay empty */
        struct kat_tail *found = &p->tails[slot & (uint64_t)(p->tail_slots - 1)];
        if (!found->used || same(found, one)) return found;
    }
}

int kat_pack(const struct kat_packing *p, int64_t *row, uint8_t *out, int64_t room,
    int64_t *bytes, int64_t *slot) {
    int64_t most = HEAD + p->same_bytes;
    for (int n = 0; n < KAT_PACKED_NUMBERS; n++) most += 7 + p->key_bytes[n] + LONGEST_VARINT;
    uint8_t *to = out;
    int stop = ALL_PACKED;
    for (; *row < p->rows; ++*row) {
        int64_t at = *row;
        if (p->skipped[at]) continue;
        int64_t number[KAT_PACKED_NUMBERS];
        for (int n = 0; n < KAT_PACKED_NUMBERS; n++) number[n] = i64(&p->numbers[n], at);
        struct kat_tail one = {.thread = i64(&p->thread, at), .name = i32(&p->name, at),
            .grid = i32(&p->grid, at), .block = i32(&p->block, at), .group = i32(&p->group, at),
            .stream = i32(&p->stream, at), .graph = i32(&p->graph, at),
            .kind = ((const uint8_t *)p->kind.data)[at * p->kind.stride]};
        one.says_kind = one.kind != OTHER || one.stream >= 0 || number[0] >= 0;
        struct kat_tail *tail = find(p, &one);
        if (!tail->used) {
            *tail = one;
            *slot = tail - p->tails;
            stop = NO_TAIL;
            break;
        }
        if (most + tail->length > LONGEST) {
            stop = TOO_LARGE;
            break;
        }
        if (room - (to - out) < most + tail->length) {
            stop = NO_ROOM;
            break;
        }
        uint8_t *head = to;
        to += 3;
        *to++ = 0x0a;
        *to++ = 16;
        to = put(to, p->trace, 16);
        to = put_id(to, 0x12, i64(&p->span_id, at));
        to = put_id(to, 0x22, i64(&p->parent_id, at));
        int64_t start = i64(&p->start, at);
        to = put_time(to, 0x39, start);
        to = put_time(to, 0x41, (int64_t)((uint64_t)start + (uint64_t)i64(&p->duration, at)));
        to = put(to, p->same, p->same_bytes);
        for (int n = 0; n < KAT_PACKED_NUMBERS; n++)
            if (number[n] >= 0) to = put_number(to, p->keys[n], p->key_bytes[n], (uint64_t)number[n]);
        to = put(to, p->texts + tail->at, tail->length);
        int64_t length = to - head - 3;
        head[0] = 0x12;
        head[1] = (uint8_t)(length & 0x7f) | 0x80; /* a varint may be longer than it must be */
        head[2] = (uint8_t)(length >> 7);
    }
    *bytes = to - out;
    return stop;
}
