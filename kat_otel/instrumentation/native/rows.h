/* Rows as records.py has them, packed: what the reader makes of CUPTI's records. */
#ifndef KAT_ROWS_H
#define KAT_ROWS_H

#include <stdint.h>

#define PACKED __attribute__((packed))

struct PACKED gpu {
    int64_t start, end, correlation, graph_node;
    uint32_t graph;
    int32_t device, stream;
};
struct PACKED kernel_row {
    struct gpu gpu;
    uint32_t name;
    int32_t grid[3], block[3];
};
struct PACKED copy_row {
    struct gpu gpu;
    int64_t bytes;
    uint8_t kind;
};
struct PACKED set_row {
    struct gpu gpu;
    int64_t bytes;
};
struct PACKED graph_row {
    struct gpu gpu;
};
struct PACKED api_row {
    int64_t start, end, correlation, thread;
    uint32_t name;
    uint8_t driver;
};
struct PACKED sync_row {
    int64_t start, end, correlation;
    int32_t stream;
    uint8_t kind;
};
struct PACKED range_row {
    int64_t start, end, thread;
    uint32_t name, domain;
    uint64_t group;
    int64_t bytes;
    int32_t peer;
};
struct PACKED external_row {
    int64_t correlation;
    uint64_t id;
    uint32_t kind;
};
struct PACKED overhead_row {
    int64_t start, end;
    uint32_t kind;
};
struct PACKED marker_row { /* region.py's HALF */
    int64_t time, thread;
    uint32_t id, flags, name, domain;
};

#endif
