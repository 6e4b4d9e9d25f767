#include "columns.h"

/* The rules are those of by_numpy() in kat_otel/instrumentation/steps/filling.py, and a test
 * compares the columns. Both sides are of one process: nothing here is untrusted. */

enum { WORKER_STEP = 2, HOST_OP = 3, SYNC = 5 };
enum { UNKNOWN = -1, NO_PARENT = -1 };

struct columns {
    int64_t *start, *duration, *thread, *correlation, *bytes, *graph_node, *sequence;
    int32_t *parent, *name, *stream, *grid, *block, *graph, *group;
    uint8_t *kind;
};

struct firsts { /* of a step's records among all */
    int64_t range, call, wait, work;
};

static void lay_out(struct columns *c, const struct kat_leaving *l, char *memory, int64_t rows) {
    int64_t **const wide[] = {&c->start, &c->duration, &c->thread, &c->correlation,
        l->moved ? &c->bytes : NULL, l->graphs ? &c->graph_node : NULL,
        l->group ? &c->sequence : NULL};
    int32_t **const narrow[] = {&c->parent, &c->name, &c->stream, &c->grid, &c->block,
        l->graphs ? &c->graph : NULL, l->group ? &c->group : NULL};
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        if (!wide[i]) continue;
        *wide[i] = (int64_t *)(void *)memory;
        memory += rows * (int64_t)sizeof **wide[i];
    }
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) {
        if (!narrow[i]) continue;
        *narrow[i] = (int32_t *)(void *)memory;
        memory += rows * (int64_t)sizeof **narrow[i];
    }
    c->kind = (uint8_t *)memory;
}

/* What host work has: no stream, sizes or graph. */
static inline void host(struct columns *c, int64_t row) {
    c->correlation[row] = UNKNOWN;
    c->stream[row] = UNKNOWN;
    c->grid[row] = c->block[row] = 0;
    if (c->bytes) c->bytes[row] = UNKNOWN;
    if (c->graph) {
        c->graph[row] = UNKNOWN;
        c->graph_node[row] = UNKNOWN;
    }
    if (c->group) {
        c->group[row] = 0;
        c->sequence[row] = UNKNOWN;
    }
}

static inline void lasts(struct columns *c, int64_t row, int64_t start, int64_t end) {
    c->start[row] = start;
    c->duration[row] = (int64_t)((uint64_t)end - (uint64_t)start);
}

static inline int32_t row_of(int64_t place, int64_t first, int64_t row) {
    return place == NO_PARENT ? 0 : (int32_t)(place - first + row);
}

/* When the step ended: at its mark, or with the last work launched before that. */
static int64_t end_of(
    const struct kat_leaving *l, const struct kat_step *s, const struct firsts *first) {
    int64_t end = s->end > s->begin ? s->end : s->begin;
    int64_t until = s->end < 0 ? INT64_MAX : s->end; /* cut short: all has a say */
    for (int64_t i = first->work; i < first->work + s->work; i++) {
        int64_t call = l->call_of_work[i];
        int64_t launched = call == NO_PARENT ? l->work[i].start : l->calls[call].start;
        if (launched <= until && l->work[i].end > end) end = l->work[i].end;
    }
    for (int64_t i = first->call; s->end < 0 && i < first->call + s->calls; i++)
        if (l->calls[i].end > end) end = l->calls[i].end;
    return end;
}

static void fill_ranges(struct columns *c, const struct kat_leaving *l, const struct kat_step *s,
    const struct firsts *first, int64_t row) {
    for (int64_t i = first->range; i < first->range + s->ranges; i++, row++) {
        const struct kat_host_range *one = &l->ranges[i];
        host(c, row);
        lasts(c, row, one->start, one->end);
        c->thread[row] = one->thread;
        c->parent[row] = row_of(l->range_parent[i], first->range, 1);
        c->name[row] = one->name;
        c->kind[row] = HOST_OP;
        if (c->bytes) c->bytes[row] = one->bytes;
    }
}

static void fill_calls(struct columns *c, const struct kat_leaving *l, const struct kat_step *s,
    const struct firsts *first, int64_t row) {
    for (int64_t i = first->call; i < first->call + s->calls; i++, row++) {
        const struct kat_call *one = &l->calls[i];
        host(c, row);
        lasts(c, row, one->start, one->end);
        c->thread[row] = one->thread;
        c->correlation[row] = one->correlation;
        c->parent[row] = row_of(l->call_parent[i], first->range, 1);
        c->name[row] = one->name;
        c->kind[row] = one->kind;
    }
}

static void fill_waits(struct columns *c, const struct kat_leaving *l, const struct kat_step *s,
    const struct firsts *first, int64_t row) {
    for (int64_t i = first->wait; i < first->wait + s->waits; i++, row++) {
        const struct kat_host_wait *one = &l->waits[i];
        host(c, row);
        lasts(c, row, one->start, one->end);
        c->thread[row] = UNKNOWN;
        c->correlation[row] = one->correlation;
        c->parent[row] = row_of(l->call_of_wait[i], first->call, 1 + s->ranges);
        c->name[row] = l->wait;
        c->kind[row] = SYNC;
    }
}

static void fill_work(struct columns *c, const struct kat_leaving *l, const struct kat_step *s,
    const struct firsts *first, int64_t row) {
    for (int64_t i = first->work; i < first->work + s->work; i++, row++) {
        const struct kat_work *one = &l->work[i];
        lasts(c, row, one->start, one->end);
        c->thread[row] = UNKNOWN;
        c->correlation[row] = one->correlation;
        c->parent[row] = row_of(l->call_of_work[i], first->call, 1 + s->ranges);
        c->name[row] = one->name;
        c->stream[row] = one->stream;
        c->grid[row] = one->grid;
        c->block[row] = one->block;
        c->kind[row] = one->kind;
        if (c->bytes) c->bytes[row] = one->bytes;
        if (c->graph) {
            c->graph[row] = (int32_t)one->graph;
            c->graph_node[row] = one->graph_node;
            if (one->graph != UNKNOWN && c->parent[row]) /* its launch is the graph's */
                c->graph[c->parent[row]] = (int32_t)one->graph;
        }
        if (c->group) {
            c->group[row] = l->group[i];
            c->sequence[row] = l->sequence[i];
        }
    }
}

void kat_fill(const struct kat_leaving *l, const struct kat_step *steps) {
    struct firsts first = {0};
    for (const struct kat_step *s = steps; s < steps + l->steps; s++) {
        struct columns c = {0};
        lay_out(&c, l, s->columns, 1 + s->ranges + s->calls + s->waits + s->work);
        host(&c, 0);
        lasts(&c, 0, s->begin, end_of(l, s, &first));
        c.thread[0] = s->thread;
        c.parent[0] = NO_PARENT;
        c.name[0] = l->worker_step;
        c.kind[0] = WORKER_STEP;
        fill_ranges(&c, l, s, &first, 1);
        fill_calls(&c, l, s, &first, 1 + s->ranges);
        fill_waits(&c, l, s, &first, 1 + s->ranges + s->calls);
        fill_work(&c, l, s, &first, 1 + s->ranges + s->calls + s->waits);
        first.range += s->ranges;
        first.call += s->calls;
        first.wait += s->waits;
        first.work += s->work;
    }
}
