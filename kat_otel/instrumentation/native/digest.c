#include <stdlib.h>

#include "digest_made.h"

/* The rules are those of kat_otel/digest/make.py, fit.py and wire.py, and a test compares the
 * bytes. Sums of times are made in double, as NumPy's bincount makes them. */

static inline bool before(const struct work *a, const struct work *b) {
    if (a->launched != b->launched) return a->launched < b->launched;
    if (a->start != b->start) return a->start < b->start;
    return a->row < b->row;
}

/* By launch, start and row: merged from below, and what stands in order is left where it is. */
static void sort(struct work *work, struct work *spare, int64_t count) {
    for (int64_t width = 1; width < count; width *= 2) {
        for (int64_t low = 0; low + width < count; low += 2 * width) {
            int64_t middle = low + width, high = atmost(middle + width, count);
            if (!before(&work[middle], &work[middle - 1])) continue;
            int64_t a = 0, b = middle, to = low;
            memcpy(spare, work + low, (size_t)width * sizeof *work);
            while (a < width && b < high)
                work[to++] = before(&work[b], &spare[a]) ? work[b++] : spare[a++];
            memcpy(work + to, spare + a, (size_t)(width - a) * sizeof *work);
        }
    }
}

/* Asks for what is not known of a text; false where there is no such text. */
static bool ask(struct digest *d, int32_t text, uint32_t text_count, uint8_t what,
    uint32_t *asked, int32_t *count) {
    if (text < 0 || (uint32_t)text >= text_count) return false;
    if (d->texts[text].known & what || *count >= (int32_t)KAT_MOST_ASKED) return true;
    for (int32_t i = *count; i > 0 && i > *count - 8; i--) /* the same, a moment ago */
        if (asked[2 * i - 2] == (uint32_t)text && asked[2 * i - 1] == what) return true;
    asked[2 * *count] = (uint32_t)text;
    asked[2 * *count + 1] = what;
    ++*count;
    return true;
}

/* Sorts rows out; false where one makes no sense. */
static bool gather(
    struct digest *d, uint32_t text_count, uint32_t *asked, int32_t *asked_count) {
    const struct kat_spans *s = d->spans;
    int64_t begin = INT64_MAX, end = INT64_MIN, all_begin = INT64_MAX, all_end = INT64_MIN;
    bool known = true;
    for (int64_t row = 0; row < s->rows; row++) {
        uint8_t kind = kind_of(s, row);
        int64_t start = i64(&s->start, row), duration = i64(&s->duration, row);
        struct work w = {.start = start, .end = sum(start, duration), .row = (int32_t)row};
        all_begin = atmost(all_begin, w.start);
        all_end = atleast(all_end, w.end);
        if (kind == WORKER_STEP) {
            begin = atmost(begin, w.start);
            end = atleast(end, w.end);
        } else if (kind == LAUNCH) {
            w.launched = start;
            d->launches[d->launch_count++] = w;
        } else if (kind == SYNC) {
            d->sync_ns = sum(d->sync_ns, duration);
        } else if (kind >= KERNEL) {
            int32_t parent = i32(&s->parent, row), name = i32(&s->name, row);
            if (parent < -1 || parent >= s->rows) return false;
            bool launched = parent >= 0 && kind_of(s, parent) == LAUNCH;
            w.launched = launched ? i64(&s->start, parent) : -1;
            known = known && w.launched >= 0;
            if (!ask(d, name, text_count, KNOWN_NAME, asked, asked_count)) return false;
            struct kat_text *text = &d->texts[name];
            if (!text->place) {
                d->names[d->name_count] = (uint32_t)name;
                text->place = ++d->name_count;
            }
            w.name = (int32_t)text->place - 1;
            w.kind = kind;
            if (kind != MEMCPY && kind != MEMSET)
                w.semantics = kind == COLLECTIVE && !text->semantics ? BARRIER : text->semantics;
            d->met += w.semantics != 0;
            d->gpu[d->gpu_count++] = w;
        }
    }
    d->begin = end == INT64_MIN ? all_begin : begin;
    d->end = end == INT64_MIN ? all_end : end;
    if (!known) { /* by start alone, until all is sorted */
        for (int64_t i = 0; i < d->gpu_count; i++) {
            struct work *w = &d->gpu[i];
            w->end = w->launched; /* kept there meanwhile */
            w->launched = w->start;
        }
    }
    sort(d->gpu, d->spare, d->gpu_count);
    if (!known) {
        for (int64_t i = 0; i < d->gpu_count; i++) {
            struct work *w = &d->gpu[i];
            w->launched = w->end;
            w->end = sum(w->start, i64(&s->duration, w->row));
        }
    }
    sort(d->launches, d->spare, d->launch_count);
    return true;
}

static int by_family(const void *a, const void *b) {
    uint32_t one = ((const struct class *)a)->family, other = ((const struct class *)b)->family;
    return (one > other) - (one < other);
}

/* A class for each family of the step's names, ascending. */
static void make_classes(struct digest *d) {
    memset(d->classes, 0, d->name_count * sizeof *d->classes);
    for (uint32_t i = 0; i < d->name_count; i++)
        d->classes[i].family = d->texts[d->names[i]].family;
    qsort(d->classes, d->name_count, sizeof *d->classes, by_family);
    for (uint32_t i = 0; i < d->name_count; i++) {
        uint32_t family = d->classes[i].family;
        if (d->class_count && d->classes[d->class_count - 1].family == family) continue;
        d->classes[d->class_count++].family = family;
    }
    for (uint32_t i = 0; i < d->name_count; i++) {
        uint32_t family = d->texts[d->names[i]].family, low = 0, high = d->class_count - 1;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (d->classes[middle].family < family) low = middle + 1;
            else high = middle;
        }
        d->class_of[i] = low;
    }
}

/* Adds a kind of collective, once; false if there are too many. */
static bool add_what(struct digest *d, const struct what *one) {
    uint32_t at = d->what_count;
    while (at && is_before(one, &d->whats[at - 1])) at--;
    if (at && !is_before(&d->whats[at - 1], one)) return true;
    if (d->what_count == MOST_TABLE) return false;
    memmove(&d->whats[at + 1], &d->whats[at], (d->what_count - at) * sizeof *one);
    d->whats[at] = *one;
    d->what_count++;
    return true;
}

/* Adds up what kernels, copies and launches took; false: only Python can. */
static bool add_up(
    struct digest *d, uint32_t text_count, uint32_t *asked, int32_t *asked_count) {
    const struct kat_spans *s = d->spans;
    int64_t cuts = d->met + 1, met = 0, position = 0; /* equal numbers of collectives in each */
    for (int64_t i = 0; i < d->gpu_count; i++) {
        const struct work *w = &d->gpu[i];
        int64_t duration = i64(&s->duration, w->row);
        if (w->semantics) {
            int32_t group = i32(&s->group, w->row);
            if (!ask(d, group, text_count, KNOWN_GROUP, asked, asked_count)) return false;
            struct what one = what_of(d, w);
            if (!add_what(d, &one)) return false;
            position = ++met * POSITIONS / cuts;
            continue;
        }
        if (w->kind == MEMCPY) {
            uint32_t direction = d->texts[d->names[w->name]].direction & (DIRECTIONS - 1);
            d->copies[direction]++;
            d->copy_bytes[direction] += (double)atleast(i64(&s->bytes, w->row), 0);
            d->copy_ns[direction] += (double)duration;
            continue;
        }
        int32_t grid = i32(&s->grid, w->row);
        if (!ask(d, grid, text_count, KNOWN_GRID, asked, asked_count)) return false;
        d->blocks = sum(d->blocks, d->texts[grid].blocks);
        struct class *class = &d->classes[d->class_of[w->name]];
        class->counted = true;
        class->time[position] += (double)duration;
        class->longest[position] = atleast(class->longest[position], duration);
        class->count[position]++;
        d->kernels++;
    }
    return true;
}

static void add_gaps(struct digest *d) {
    if (d->launch_count < 2) return;
    int64_t widest = 0;
    d->gap_max_ns = -1;
    for (int64_t i = 0; i + 1 < d->launch_count; i++) {
        int64_t gap = atleast(less(d->launches[i + 1].start, d->launches[i].end), 0);
        d->gap_ns = sum(d->gap_ns, gap);
        if (gap > d->gap_max_ns) {
            d->gap_max_ns = gap;
            widest = d->launches[i].end;
        }
    }
    for (int64_t i = 0; i < d->gpu_count; i++)
        d->gap_at += d->gpu[i].semantics && d->gpu[i].launched <= widest;
}

uint64_t kat_digest_room(int64_t rows, uint32_t text_count) {
    struct digest *d = NULL;
    uint64_t names = (uint64_t)rows < text_count ? (uint64_t)rows : text_count;
    return (uint64_t)rows * 3 * sizeof *d->gpu +
           names * (sizeof *d->classes + sizeof *d->class_of + sizeof *d->names);
}

int32_t kat_digest(const struct kat_spans *spans, struct kat_text *texts, uint32_t text_count,
    uint32_t resolution_ns, uint32_t dropped, void *room, uint8_t *digest,
    uint32_t asked[2 * KAT_MOST_ASKED]) {
    struct digest d = {.spans = spans, .texts = texts};
    int64_t rows = spans->rows;
    if (rows < 1 || rows > INT32_MAX) return 0;
    uint64_t names = (uint64_t)rows < text_count ? (uint64_t)rows : text_count;
    d.gpu = room;
    d.launches = d.gpu + rows;
    d.spare = d.launches + rows;
    d.classes = (struct class *)(void *)(d.spare + rows);
    d.class_of = (uint32_t *)(void *)(d.classes + names);
    d.names = d.class_of + names;
    int32_t asked_count = 0, length = 0;
    bool sense = gather(&d, text_count, asked, &asked_count);
    if (sense) {
        make_classes(&d);
        sense = add_up(&d, text_count, asked, &asked_count);
        add_gaps(&d);
        if (sense && !asked_count) length = kat_digest_write(&d, digest, resolution_ns, dropped);
    }
    for (uint32_t i = 0; i < d.name_count; i++) texts[d.names[i]].place = 0;
    return sense && asked_count ? -asked_count : length;
}
