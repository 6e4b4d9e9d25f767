/* NCCL's payloads: which communicator, how many bytes, which peer. Read by the schema that the
 * program registered, whose entries have the same names in all versions since 2.19 (the
 * communicator since 2.26): nvtx_payload_schemas.h there. */
#include <pthread.h>
#include <string.h>

#include "nvtx.h"
#include "state.h"

#define MOST_SCHEMAS 512u
#define MOST_ENTRIES 64u
#define MOST_PAYLOADS 16u

enum field { GROUP, BYTES, PEER, FIELDS };

struct schema {
    const void *domain;
    uint64_t id;
    size_t size; /* 0: each payload says its own */
    struct {
        uint32_t offset;
        uint8_t size; /* 0: not there */
        bool negative;
    } fields[FIELDS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* writers; readers see whole schemas */
static struct schema schemas[MOST_SCHEMAS];
static _Atomic uint32_t count;

void kat_payload_in_child(void) { pthread_mutex_init(&lock, NULL); }

static uint8_t size_of(uint64_t type) {
    static const uint8_t sizes[] = {[1] = 1, [2] = 1, [3] = 2, [4] = 2, [5] = 4, [6] = 4, [7] = 8,
        [8] = 8, [9] = 8, [10] = 8, [11] = 1, [12] = 1, [13] = 2, [14] = 2, [15] = 4, [16] = 4,
        [17] = 8, [18] = 8, [19] = 4, [20] = 8, [22] = 8, [23] = 8};
    return type < sizeof sizes ? sizes[type] : 0;
}

static bool is_integer(uint64_t type) { return (type >= 1 && type <= 18) || type == 22; }

static bool is_signed(uint64_t type) {
    return type == 22 ? false : type <= 10 ? type == 1 || (type >= 3 && type % 2) : type % 2;
}

static int field_of(const char *name) {
    if (!name) return -1;
    if (!strcmp(name, "NCCL communicator ID")) return GROUP;
    if (!strcmp(name, "Message size [bytes]")) return BYTES;
    if (!strcmp(name, "Peer rank") || !strcmp(name, "Root")) return PEER;
    return -1;
}

/* An entry's own offset or, where none is given, where C would put it after the one before. */
static void fill(struct schema *schema, const struct nvtx_schema *from) {
    uint64_t at = 0;
    bool known = true; /* whether `at` is: a type of unknown size makes it unknown */
    for (size_t i = 0; i < from->entry_count && i < MOST_ENTRIES; i++) {
        const struct nvtx_schema_entry *entry = &from->entries[i];
        bool direct = !(entry->flags & NVTX_ENTRY_IS_INDIRECT);
        uint8_t size = direct ? size_of(entry->type) : 0;
        if (i && entry->offset) at = entry->offset, known = true;
        else if (size) at = (at + size - 1) / size * size;
        int field = field_of(entry->name);
        if (known && size && is_integer(entry->type) && field >= 0 && at < 4096) {
            schema->fields[field].offset = (uint32_t)at;
            schema->fields[field].size = size;
            schema->fields[field].negative = is_signed(entry->type);
        }
        known = known && size;
        at += size;
    }
}

uint64_t kat_payload_schema(const void *domain, const struct nvtx_schema *from) {
    if (!from || !from->entries) return 0;
    struct schema schema = {.domain = domain};
    schema.size = from->mask & NVTX_SCHEMA_HAS_SIZE ? from->static_size : 0;
    fill(&schema, from);
    pthread_mutex_lock(&lock);
    uint32_t index = count;
    schema.id = from->mask & NVTX_SCHEMA_HAS_ID ? from->id : NVTX_FIRST_DYNAMIC_SCHEMA + index;
    if (index < MOST_SCHEMAS) {
        schemas[index] = schema;
        count = index + 1;
    }
    pthread_mutex_unlock(&lock);
    return schema.id;
}

static bool value_of(const struct schema *schema, enum field field,
    const struct nvtx_payload_data *data, int64_t *value) {
    uint32_t offset = schema->fields[field].offset;
    uint8_t size = schema->fields[field].size;
    /* Either size may be unknown: 0 of the schema, SIZE_MAX of the data. */
    size_t room = data->size == SIZE_MAX ? schema->size : data->size;
    if (!size || offset + (size_t)size > room) return false;
    uint64_t bits = 0;
    memcpy(&bits, (const char *)data->payload + offset, size); /* both of our machines are little-endian */
    unsigned unused = 64u - 8u * size;
    *value = schema->fields[field].negative ? (int64_t)(bits << unused) >> unused : (int64_t)bits;
    return true;
}

void kat_payload_read(const void *domain, const struct nvtx_payload_data *data, size_t datas,
    struct kat_range *range) {
    for (size_t i = 0; data && i < datas && i < MOST_PAYLOADS; i++) {
        if (!data[i].payload) continue;
        uint32_t known = count;
        for (uint32_t j = known; j-- > 0;) { /* the last that was registered under an id holds */
            const struct schema *schema = &schemas[j];
            if (schema->id != data[i].schema || schema->domain != domain) continue;
            int64_t value;
            if (value_of(schema, GROUP, &data[i], &value)) range->group = (uint64_t)value;
            if (value_of(schema, BYTES, &data[i], &value)) range->bytes = value;
            if (value_of(schema, PEER, &data[i], &value)) range->peer = (int32_t)value;
            break;
        }
    }
}
