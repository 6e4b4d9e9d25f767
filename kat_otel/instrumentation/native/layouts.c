#include "layouts.h"

#include <stddef.h>

/* Versions before 13.0 count releases: 18 is what CUDA 12.1 says, 28 is 12.9 update 1; later ones
 * read xxyyzz (cupti_version.h). Row 0 has the smallest of each: see compact() in records.c. */
#define ROW(kernel, memcpy, memset, overhead, sync, graph, markerdata)                            \
    {                                                                                             \
        [KIND_MEMCPY] = memcpy, [KIND_MEMSET] = memset, [KIND_KERNEL] = kernel,                   \
        [KIND_DRIVER] = 40, [KIND_RUNTIME] = 40, [KIND_CONCURRENT_KERNEL] = kernel,               \
        [KIND_MARKER] = 56, [KIND_MARKER_DATA] = markerdata, [KIND_OVERHEAD] = overhead,          \
        [KIND_MEMCPY2] = 96, [KIND_SYNCHRONIZATION] = sync, [KIND_EXTERNAL_CORRELATION] = 24,     \
        [KIND_GRAPH_TRACE] = graph, [KIND_KAT_RANGE] = sizeof(struct kat_range),                  \
    }

static const struct {
    uint32_t version;
    uint16_t sizes[KAT_KINDS];
} rows[] = {
    {18, ROW(208, 88, 88, 40, 40, 48, 32)},      /* 12.1 */
    {22, ROW(208, 88, 88, 56, 40, 56, 32)},      /* 12.4 */
    {24, ROW(208, 88, 88, 56, 40, 56, 32)},      /* 12.6 */
    {26, ROW(208, 96, 88, 56, 56, 56, 32)},      /* 12.8 */
    {27, ROW(208, 96, 88, 56, 56, 56, 32)},      /* 12.9 */
    {130000, ROW(216, 96, 88, 56, 56, 56, 40)},  /* 13.0 */
    {130200, ROW(224, 96, 88, 56, 56, 56, 40)},  /* 13.2 */
    {130400, ROW(248, 112, 104, 56, 56, 56, 40)}, /* 13.4 */
    {130500, ROW(248, 112, 104, 56, 56, 56, 40)}, /* 13.5 */
};

uint32_t kat_layout_count(void) { return sizeof rows / sizeof *rows; }

int kat_layout_of(uint32_t version) {
    int row = -1;
    for (uint32_t i = 0; i < kat_layout_count() && rows[i].version <= version; i++) row = (int)i;
    return row;
}

uint32_t kat_layout_version(uint32_t row) {
    return row < kat_layout_count() ? rows[row].version : 0;
}

const uint16_t *kat_layout_sizes(uint32_t row) {
    return row < kat_layout_count() ? rows[row].sizes : NULL;
}
