#define _GNU_SOURCE
#include "records.h"

#include <stdio.h>
#include <string.h>

#include "layouts.h"

#define AHEAD 2048 /* bytes: several records */

static uint32_t word(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Kinds seen and records counted by the table; false if a record makes no sense. */
static bool scan(const uint8_t *buffer, size_t valid, const uint16_t *sizes, uint64_t *kinds,
    uint32_t *records) {
    size_t at = 0;
    uint64_t seen = 0;
    uint32_t count = 0;
    while (at < valid) {
        if (valid - at < sizeof(uint32_t)) return false;
        uint32_t kind = word(buffer + at);
        if (kind >= KAT_KINDS || !sizes[kind] || sizes[kind] > valid - at) return false;
        /* Written by another core, some time ago: where a record begins, and where names stand. */
        __builtin_prefetch(buffer + at + AHEAD, 1);
        __builtin_prefetch(buffer + at + AHEAD + KERNEL_NAME, 1);
        seen |= 1ULL << kind;
        count++;
        at += sizes[kind];
    }
    *kinds = seen;
    *records = count;
    return true;
}

/* Whether CUPTI itself finds the records where the table says that they are. */
static bool agrees(const struct kat_cupti *cupti, uint8_t *buffer, size_t valid,
    const uint16_t *sizes, uint32_t records) {
    uint8_t *record = NULL;
    size_t at = 0;
    for (uint32_t i = 0; i < records; i++) {
        if (cupti->get_next_record(buffer, valid, &record) || record != buffer + at) return false;
        at += sizes[word(record)];
    }
    return cupti->get_next_record(buffer, valid, &record) == CUPTI_MAX_LIMIT_REACHED;
}

/* Records of whatever size, cut to the smallest layout that has all of our fields and moved
 * together; kinds that we do not know are left out. Bytes that remain; 0: no sense. */
static size_t compact(const struct kat_cupti *cupti, uint8_t *buffer, size_t valid) {
    const uint16_t *least = kat_layout_sizes(0);
    uint8_t *record = NULL, *end = buffer + valid, *out = buffer;
    int result = cupti->get_next_record(buffer, valid, &record);
    while (!result) {
        if (record < out || record + sizeof(uint32_t) > end) return 0;
        uint8_t *next = record;
        result = cupti->get_next_record(buffer, valid, &next);
        uint8_t *stop = result ? end : next;
        if (stop <= record || stop > end) return 0;
        uint32_t kind = word(record);
        if (kind < KAT_KINDS && least[kind] && least[kind] <= stop - record) {
            memmove(out, record, least[kind]);
            out += least[kind];
        }
        record = next;
    }
    return result == CUPTI_MAX_LIMIT_REACHED ? (size_t)(out - buffer) : 0;
}

/* "cudaLaunchKernel_ptsz_v7000" is cudaLaunchKernel. */
static size_t plain_length(const char *name) {
    size_t length = strnlen(name, KAT_LONGEST_NAME);
    size_t digits = length;
    while (digits && name[digits - 1] >= '0' && name[digits - 1] <= '9') digits--;
    if (digits < length && digits > 2 && name[digits - 1] == 'v' && name[digits - 2] == '_')
        length = digits - 2;
    if (length > 5 && (!strncmp(name + length - 5, "_ptsz", 5) ||
                          !strncmp(name + length - 5, "_ptds", 5)))
        length -= 5;
    return length;
}

static uint32_t api_name(struct kat_records *r, const struct kat_cupti *cupti,
    struct kat_region *region, uint32_t kind, uint32_t id) {
    if (id >= API_NAMES) return API_UNWANTED;
    bool driver = kind == KIND_DRIVER;
    uint32_t *known = &r->api[driver][id];
    if (*known) return *known;
    const char *name = NULL;
    int domain = driver ? CUPTI_DOMAIN_DRIVER : CUPTI_DOMAIN_RUNTIME;
    *known = API_UNWANTED;
    if (!cupti->get_callback_name(domain, id, &name) && name && kat_cupti_wanted(name))
        *known =
            kat_names_text(&r->names, region, name, plain_length(name), OF_A_KERNEL);
    return *known;
}

static void write_name(
    struct kat_records *r, struct kat_region *region, uint8_t *at, enum kat_whose whose) {
    const char *text;
    memcpy(&text, at, sizeof text);
    uint64_t id = kat_names_id(&r->names, region, text, whose);
    memcpy(at, &id, sizeof id);
}

static void write_names(struct kat_records *r, const struct kat_cupti *cupti,
    struct kat_region *region, uint8_t *buffer, size_t valid, const uint16_t *sizes) {
    kat_names_pass(&r->names);
    for (size_t at = 0; at < valid;) {
        uint8_t *record = buffer + at;
        uint32_t kind = word(record);
        switch (kind) {
        case KIND_CONCURRENT_KERNEL:
        case KIND_KERNEL:
            write_name(r, region, record + KERNEL_NAME, OF_A_KERNEL);
            break;
        case KIND_RUNTIME:
        case KIND_DRIVER: {
            uint32_t id = api_name(r, cupti, region, kind, word(record + API_CBID));
            memcpy(record + API_CBID, &id, sizeof id);
            break;
        }
        case KIND_MARKER:
            write_name(r, region, record + MARKER_NAME, OF_A_RANGE);
            write_name(r, region, record + MARKER_DOMAIN, OF_A_RANGE);
            break;
        default:
            break;
        }
        at += sizes[kind];
    }
}

void kat_records_forget(struct kat_records *r) {
    pthread_mutex_lock(&r->lock);
    size_t kept = offsetof(struct kat_records, layout);
    memset((char *)r + kept, 0, sizeof *r - kept);
    pthread_mutex_unlock(&r->lock);
}

bool kat_records_walk(struct kat_records *r, const struct kat_cupti *cupti,
    struct kat_region *region, uint8_t *buffer, size_t valid, struct kat_ready *ready) {
    pthread_mutex_lock(&r->lock);
    const uint16_t *sizes = kat_layout_sizes(r->layout);
    uint64_t kinds = 0;
    uint32_t records = 0;
    ready->layout = r->layout;
    bool sense = !r->by_next && scan(buffer, valid, sizes, &kinds, &records);
    if (sense && kinds & ~r->checked) {
        sense = agrees(cupti, buffer, valid, sizes, records);
        if (sense) r->checked |= kinds;
    }
    if (!sense) {
        valid = compact(cupti, buffer, valid);
        ready->layout = 0;
        sizes = kat_layout_sizes(0);
        sense = valid && scan(buffer, valid, sizes, &kinds, &records);
        if (sense && !r->by_next) {
            r->by_next = true;
            fprintf(stderr, "kat-otel: records of this CUPTI are not as its version says;"
                            " they are walked by cuptiActivityGetNextRecord, which is slower\n");
        }
    }
    if (sense) write_names(r, cupti, region, buffer, valid, sizes);
    pthread_mutex_unlock(&r->lock);
    ready->valid = sense ? (uint32_t)valid : 0;
    ready->records = records;
    return sense;
}
