/* From records of steps that end together to the columns of each step's table. */
#ifndef KAT_COLUMNS_H
#define KAT_COLUMNS_H

#include "capture.h"

/* Records as kat_otel/instrumentation/steps/forms.py has them. */
struct kat_work {
    int64_t start, end, correlation, graph_node, bytes, graph;
    int32_t name, grid, block, stream, lane;
    uint8_t kind;
};
struct kat_call {
    int64_t start, end, correlation, thread;
    int32_t name;
    uint8_t kind;
};
struct kat_host_range {
    int64_t start, end, thread, bytes;
    uint64_t group;
    int64_t sequence;
    int32_t name, peer, said;
    uint8_t operation;
};
struct kat_host_wait {
    int64_t start, end, correlation;
    uint8_t kind;
};

struct kat_step {
    int64_t begin, end, thread; /* end: as marked; -1 if it was not */
    int64_t ranges, calls, waits, work; /* how many */
    char *columns; /* as filling.py lays them out */
};

struct kat_leaving { /* records of all steps, each form in the order of the steps */
    int64_t steps;
    const struct kat_host_range *ranges;
    const struct kat_call *calls;
    const struct kat_host_wait *waits;
    const struct kat_work *work;
    /* Places among ranges and among calls; NO_PARENT (-1) for none. */
    const int64_t *range_parent, *call_parent, *call_of_wait, *call_of_work;
    const int32_t *group;    /* of the work; NULL: none has any */
    const int64_t *sequence; /* the same */
    int32_t worker_step, wait; /* names */
    int32_t graphs, moved; /* whether there are columns of graphs, and of bytes */
};

KAT_EXPORT void kat_fill(const struct kat_leaving *leaving, const struct kat_step *steps);

#endif
