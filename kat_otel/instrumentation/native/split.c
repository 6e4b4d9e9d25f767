#include "split.h"

#include <string.h>

#include "rows.h"

/* The memory under a record may change while it is read (its writer is another process), so each
 * field is read once and nothing but its value depends on it. */
#define AHEAD 2048 /* bytes: several records */

static inline uint32_t u32(const uint8_t *record, uint32_t offset) {
    uint32_t value;
    memcpy(&value, record + offset, sizeof value);
    return value;
}

static inline int64_t i64(const uint8_t *record, uint32_t offset) {
    int64_t value;
    memcpy(&value, record + offset, sizeof value);
    return value;
}

static const int8_t column_of_kind[KAT_KINDS] = { /* + 1; 0: none */
    [KIND_CONCURRENT_KERNEL] = KERNELS + 1, [KIND_KERNEL] = KERNELS + 1,
    [KIND_MEMCPY] = COPIES + 1, [KIND_MEMCPY2] = COPIES + 1, [KIND_MEMSET] = SETS + 1,
    [KIND_GRAPH_TRACE] = GRAPHS + 1, [KIND_RUNTIME] = APIS + 1, [KIND_DRIVER] = APIS + 1,
    [KIND_SYNCHRONIZATION] = SYNCS + 1, [KIND_KAT_RANGE] = RANGES + 1,
    [KIND_EXTERNAL_CORRELATION] = EXTERNALS + 1, [KIND_OVERHEAD] = OVERHEADS + 1,
    [KIND_MARKER] = MARKERS + 1};

void kat_split_count(
    const uint8_t *buffer, uint32_t valid, const uint16_t *sizes, uint64_t rows[COLUMNS]) {
    for (uint32_t at = 0; valid - at >= sizeof(uint32_t);) {
        uint32_t kind = u32(buffer, at);
        if (kind >= KAT_KINDS || !sizes[kind] || sizes[kind] > valid - at) return;
        __builtin_prefetch(buffer + at + AHEAD); /* another process wrote it */
        __builtin_prefetch(buffer + at + AHEAD + KERNEL_NAME);
        if (column_of_kind[kind]) rows[column_of_kind[kind] - 1]++;
        at += sizes[kind];
    }
}

/* The next row of a column, or NULL if there is no place. */
static inline void *row(struct kat_split *s, enum kat_column column, size_t size) {
    if (s->rows[column] >= s->most[column]) {
        s->lost++;
        return NULL;
    }
    return (char *)s->columns[column] + s->rows[column]++ * size;
}
#define ROW(type, column) struct type *out = row(s, column, sizeof *out); if (!out) return

static inline uint32_t name(const struct kat_split *s, uint32_t id) {
    return id < s->names ? id : 0;
}

/* CUPTI gives 0 where it has no time; a sum beyond 64 bits wraps and is caught as nonsense. */
static inline bool times(struct kat_split *s, int64_t *start, int64_t *end, int64_t offset) {
    bool sense = *start > 0 && *end >= *start;
    *start = (int64_t)((uint64_t)*start + (uint64_t)offset);
    *end = (int64_t)((uint64_t)*end + (uint64_t)offset);
    sense = sense && *start > 0 && *end >= *start;
    if (!sense) s->lost++;
    return sense;
}

static void kernel(struct kat_split *s, const uint8_t *p, int64_t offset) {
    int64_t start = i64(p, KERNEL_START), end = i64(p, KERNEL_END);
    if (!times(s, &start, &end, offset)) return;
    ROW(kernel_row, KERNELS);
    out->gpu = (struct gpu){start, end, u32(p, KERNEL_CORRELATION), i64(p, KERNEL_GRAPH_NODE),
        u32(p, KERNEL_GRAPH), (int32_t)u32(p, KERNEL_DEVICE), (int32_t)u32(p, KERNEL_STREAM)};
    out->name = name(s, u32(p, KERNEL_NAME));
    memcpy(out->grid, p + KERNEL_GRID, sizeof out->grid);
    memcpy(out->block, p + KERNEL_BLOCK, sizeof out->block);
}

static struct gpu copied(const uint8_t *p, bool peer) {
    return (struct gpu){.correlation = u32(p, peer ? PEER_CORRELATION : COPY_CORRELATION),
        .graph_node = i64(p, peer ? PEER_GRAPH_NODE : COPY_GRAPH_NODE),
        .graph = u32(p, peer ? PEER_GRAPH : COPY_GRAPH),
        .device = (int32_t)u32(p, COPY_DEVICE), .stream = (int32_t)u32(p, COPY_STREAM)};
}

static void copy(struct kat_split *s, const uint8_t *p, int64_t offset, bool peer) {
    int64_t start = i64(p, COPY_START), end = i64(p, COPY_END);
    if (!times(s, &start, &end, offset)) return;
    ROW(copy_row, COPIES);
    out->gpu = copied(p, peer);
    out->gpu.start = start;
    out->gpu.end = end;
    out->bytes = i64(p, COPY_BYTES);
    out->kind = p[COPY_KIND];
}

static void set(struct kat_split *s, const uint8_t *p, int64_t offset) {
    int64_t start = i64(p, COPY_START), end = i64(p, COPY_END);
    if (!times(s, &start, &end, offset)) return;
    ROW(set_row, SETS);
    out->gpu = copied(p, false);
    out->gpu.start = start;
    out->gpu.end = end;
    out->bytes = i64(p, COPY_BYTES);
}

static void graph(struct kat_split *s, const uint8_t *p, int64_t offset) {
    int64_t start = i64(p, GRAPH_START), end = i64(p, GRAPH_END);
    if (!times(s, &start, &end, offset)) return;
    ROW(graph_row, GRAPHS);
    out->gpu = (struct gpu){start, end, u32(p, GRAPH_CORRELATION), 0, u32(p, GRAPH_GRAPH),
        (int32_t)u32(p, GRAPH_DEVICE), (int32_t)u32(p, GRAPH_STREAM)};
}

static void api(struct kat_split *s, const uint8_t *p, int64_t offset, bool driver) {
    uint32_t id = u32(p, API_CBID);
    if (id == UINT32_MAX) return; /* a call that nobody wants: records.h */
    int64_t start = i64(p, API_START), end = i64(p, API_END);
    if (!times(s, &start, &end, offset)) return;
    ROW(api_row, APIS);
    *out = (struct api_row){start, end, u32(p, API_CORRELATION), u32(p, API_THREAD), name(s, id),
        driver};
}

static void sync(struct kat_split *s, const uint8_t *p, int64_t offset) {
    int64_t start = i64(p, SYNC_START), end = i64(p, SYNC_END);
    if (!times(s, &start, &end, offset)) return;
    ROW(sync_row, SYNCS);
    *out = (struct sync_row){start, end, u32(p, SYNC_CORRELATION), (int32_t)u32(p, SYNC_STREAM),
        p[SYNC_KIND]};
}

static void range(struct kat_split *s, const uint8_t *p) {
    struct kat_range r;
    memcpy(&r, p, sizeof r);
    if (!times(s, &r.start, &r.end, 0)) return; /* read from the right clock */
    ROW(range_row, RANGES);
    *out = (struct range_row){r.start, r.end, r.thread, name(s, r.name), name(s, r.domain),
        r.group, r.bytes, r.peer};
}

static void external(struct kat_split *s, const uint8_t *p) {
    ROW(external_row, EXTERNALS);
    *out = (struct external_row){u32(p, EXTERNAL_CORRELATION), (uint64_t)i64(p, EXTERNAL_ID),
        u32(p, EXTERNAL_KIND)};
}

static void overhead(struct kat_split *s, const uint8_t *p, int64_t offset) {
    int64_t start = i64(p, OVERHEAD_START), end = i64(p, OVERHEAD_END);
    if (!times(s, &start, &end, offset)) return;
    ROW(overhead_row, OVERHEADS);
    *out = (struct overhead_row){start, end, u32(p, OVERHEAD_KIND)};
}

static void marker(struct kat_split *s, const uint8_t *p, int64_t offset) {
    int64_t time = i64(p, MARKER_TIME), same = time;
    if (!times(s, &time, &same, offset)) return;
    ROW(marker_row, MARKERS);
    *out = (struct marker_row){time, u32(p, MARKER_THREAD), u32(p, MARKER_ID),
        u32(p, MARKER_FLAGS), name(s, u32(p, MARKER_NAME)), name(s, u32(p, MARKER_DOMAIN))};
}

bool kat_split(struct kat_split *s, const uint8_t *buffer, uint32_t valid,
    const uint16_t *sizes, int64_t offset) {
    for (uint32_t at = 0; at < valid;) {
        if (valid - at < sizeof(uint32_t)) return false;
        const uint8_t *p = buffer + at;
        uint32_t kind = u32(buffer, at);
        if (kind >= KAT_KINDS || !sizes[kind] || sizes[kind] > valid - at) return false;
        switch (kind) {
        case KIND_CONCURRENT_KERNEL:
        case KIND_KERNEL: kernel(s, p, offset); break;
        case KIND_MEMCPY: copy(s, p, offset, false); break;
        case KIND_MEMCPY2: copy(s, p, offset, true); break;
        case KIND_MEMSET: set(s, p, offset); break;
        case KIND_GRAPH_TRACE: graph(s, p, offset); break;
        case KIND_RUNTIME: api(s, p, offset, false); break;
        case KIND_DRIVER: api(s, p, offset, true); break;
        case KIND_SYNCHRONIZATION: sync(s, p, offset); break;
        case KIND_KAT_RANGE: range(s, p); break;
        case KIND_EXTERNAL_CORRELATION: external(s, p); break;
        case KIND_OVERHEAD: overhead(s, p, offset); break;
        case KIND_MARKER: marker(s, p, offset); break;
        default: break;
        }
        at += sizes[kind];
    }
    return true;
}
