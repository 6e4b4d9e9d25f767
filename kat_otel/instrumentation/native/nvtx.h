/* What of NVTX 3's tool interface we need, written from its headers: layouts are its ABI. */
#ifndef KAT_NVTX_H
#define KAT_NVTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wchar.h>

#define NVTX_TABLE_CALLBACKS 1u
#define NVTX_MODULE_CORE 1
#define NVTX_MODULE_CORE2 5
#define NVTX_MODULE_PAYLOAD 2
#define NVTX_PAYLOAD_TYPE_EXT ((int32_t)0xDFBD0009)
#define NVTX_MESSAGE_ASCII 1
#define NVTX_MESSAGE_UNICODE 2
#define NVTX_MESSAGE_REGISTERED 3

enum nvtx_core { CORE_START_EX = 4, CORE_START_A = 5, CORE_START_W = 6, CORE_END = 7,
    CORE_PUSH_EX = 8, CORE_PUSH_A = 9, CORE_PUSH_W = 10, CORE_POP = 11 };
enum nvtx_core2 { CORE2_START_EX = 2, CORE2_END = 3, CORE2_PUSH_EX = 4, CORE2_POP = 5,
    CORE2_STRING_A = 10, CORE2_STRING_W = 11, CORE2_DOMAIN_A = 12, CORE2_DOMAIN_W = 13 };
enum nvtx_payload { PAYLOAD_SCHEMA = 0, PAYLOAD_PUSH = 3, PAYLOAD_POP = 4, PAYLOAD_START = 5,
    PAYLOAD_END = 6, PAYLOAD_ENABLED = 7 };

typedef void (*nvtx_function)(void);

struct nvtx_callbacks {
    size_t struct_size;
    int (*get_module_function_table)(int module, nvtx_function ***table, unsigned *size);
};

struct nvtx_attributes { /* nvtxEventAttributes_v2 */
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type;
    int32_t payload_count; /* reserved0, where the payload is extended */
    union {
        uint64_t number;
        const struct nvtx_payload_data *extended;
    } payload;
    int32_t message_type;
    union {
        const char *ascii;
        const wchar_t *wide;
        const char *registered; /* our own handle: a text of ours */
    } message;
};

struct nvtx_payload_data {
    uint64_t schema;
    size_t size;
    const void *payload;
};

struct nvtx_schema_entry {
    uint64_t flags, type;
    const char *name, *description;
    uint64_t array, offset;
    const void *semantics, *reserved;
};

struct nvtx_schema {
    uint64_t mask;
    const char *name;
    uint64_t type, flags;
    const struct nvtx_schema_entry *entries;
    size_t entry_count, static_size, pack_align;
    uint64_t id; /* the last field since version 0x0103 that we read */
};
#define NVTX_SCHEMA_HAS_SIZE (1u << 6)
#define NVTX_SCHEMA_HAS_ID (1u << 8)
#define NVTX_FIRST_DYNAMIC_SCHEMA (1ULL << 32)
#define NVTX_ENTRY_IS_INDIRECT 0xfeu /* pointers, relative offsets, arrays */

struct nvtx_extension_segment {
    size_t id, slot_count;
    intptr_t *slots;
};

struct nvtx_extension_module {
    uint16_t nvtx_version, struct_size, module_id, compatibility;
    size_t segment_count;
    struct nvtx_extension_segment *segments;
    /* more that we do not read */
};

struct kat_range;

/* Remembers where NCCL's fields stand in a schema's payloads; its id. */
uint64_t kat_payload_schema(const void *domain, const struct nvtx_schema *schema);

/* Fills in group, bytes and peer, as far as the payloads say them. */
void kat_payload_read(const void *domain, const struct nvtx_payload_data *data, size_t count,
    struct kat_range *range);

#endif
