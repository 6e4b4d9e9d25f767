/* A stand-in for libcupti with the same C ABI, written from its documentation; no NVIDIA code. */
#ifndef STANDIN_H
#define STANDIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct row { /* tests.instrumentation.standin.ROW: what to emit, and when */
    int64_t at;         /* ns after the start of the replay */
    int64_t start, end; /* the same; 0 and 0 stay 0: "no times" */
    uint64_t graph_node;
    int64_t bytes;
    uint64_t id; /* external correlation, marker */
    uint32_t kind;
    uint32_t name;   /* index into names */
    uint32_t domain; /* of a marker: the same */
    uint32_t correlation;
    int32_t device, stream;
    uint32_t graph;
    int32_t grid[3], block[3];
    uint32_t thread;
    uint32_t extra; /* copy, sync, overhead or external kind; a marker's flags */
};

uint32_t standin_version(void);
uint32_t standin_size(uint32_t kind); /* of a record of this version; 0: no such kind */

/* The name of a call, and its id: known, or made up now. */
const char *standin_call_name(int domain, uint32_t id);
uint32_t standin_call_id(int domain, const char *plain);

/* Writes a row into CUPTI's current buffer, if its kind is on. */
void standin_emit(const struct row *row, const char *const *names, int64_t start);

#endif
