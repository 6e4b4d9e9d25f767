/* Sizes of CUPTI's activity records, version by version; where our fields stand in them.
 *
 * Read from NVIDIA's headers with the compiler (12.1, 12.4, 12.6, 12.8, 12.9, 13.0, 13.2, 13.4,
 * 13.5): offsets never moved, structs only grew. */
#ifndef KAT_LAYOUTS_H
#define KAT_LAYOUTS_H

#include <stdint.h>

enum kat_kind { /* CUpti_ActivityKind */
    KIND_MEMCPY = 1,
    KIND_MEMSET = 2,
    KIND_KERNEL = 3,
    KIND_DRIVER = 4,
    KIND_RUNTIME = 5,
    KIND_CONCURRENT_KERNEL = 10,
    KIND_MARKER = 12,
    KIND_MARKER_DATA = 13,
    KIND_OVERHEAD = 17,
    KIND_MEMCPY2 = 22,
    KIND_SYNCHRONIZATION = 38,
    KIND_EXTERNAL_CORRELATION = 39,
    KIND_GRAPH_TRACE = 51,
    KIND_KAT_RANGE = 63, /* not CUPTI's: a closed range of our own NVTX tool (nvtx.c) */
    KAT_KINDS = 64,
};

#define KERNEL_START 16
#define KERNEL_END 24
#define KERNEL_DEVICE 40
#define KERNEL_STREAM 48
#define KERNEL_GRID 52
#define KERNEL_BLOCK 64
#define KERNEL_CORRELATION 92
#define KERNEL_NAME 104
#define KERNEL_GRAPH_NODE 144
#define KERNEL_GRAPH 156

#define COPY_KIND 4 /* memcpy and memcpy2 */
#define COPY_BYTES 8 /* these five also of memset */
#define COPY_START 16
#define COPY_END 24
#define COPY_DEVICE 32
#define COPY_STREAM 40
#define COPY_CORRELATION 44 /* memcpy and memset */
#define COPY_GRAPH_NODE 64
#define COPY_GRAPH 72
#define PEER_CORRELATION 60 /* memcpy2 */
#define PEER_GRAPH_NODE 72
#define PEER_GRAPH 80

#define API_CBID 4 /* the completed callback writes the name's id here */
#define API_START 8
#define API_END 16
#define API_THREAD 28
#define API_CORRELATION 32

#define MARKER_FLAGS 4
#define MARKER_TIME 8
#define MARKER_ID 16
#define MARKER_THREAD 28
#define MARKER_NAME 40
#define MARKER_DOMAIN 48

#define OVERHEAD_KIND 4
#define OVERHEAD_START 24
#define OVERHEAD_END 32

#define SYNC_KIND 4
#define SYNC_START 8
#define SYNC_END 16
#define SYNC_CORRELATION 24
#define SYNC_STREAM 32

#define EXTERNAL_KIND 4
#define EXTERNAL_ID 8
#define EXTERNAL_CORRELATION 16

#define GRAPH_CORRELATION 4
#define GRAPH_START 8
#define GRAPH_END 16
#define GRAPH_DEVICE 24
#define GRAPH_GRAPH 28
#define GRAPH_STREAM 36

struct kat_range { /* KIND_KAT_RANGE */
    uint32_t kind;
    int32_t peer;
    int64_t start, end; /* Unix ns: the clock's offset is not added */
    int64_t thread;
    uint32_t name, domain; /* ids */
    uint64_t group;
    int64_t bytes;
};

/* The row of the table for a version as cuptiGetVersion says it; the nearest older one for a
 * version that is not in it; -1 if it is older than all. */
__attribute__((visibility("default"))) int kat_layout_of(uint32_t version);

__attribute__((visibility("default"))) uint32_t kat_layout_count(void);

/* The version that a row was read from, or 0. */
__attribute__((visibility("default"))) uint32_t kat_layout_version(uint32_t row);

/* Bytes of a record by row and kind; 0: not known. */
__attribute__((visibility("default"))) const uint16_t *kat_layout_sizes(uint32_t row);

#endif
