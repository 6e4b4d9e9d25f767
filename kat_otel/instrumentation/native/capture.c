#define _GNU_SOURCE
#include "capture.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "records.h"

#define MILLISECOND 1000000ll
#define MOST_LAG (2000 * MILLISECOND) /* of what flushed_ns says, whatever CUPTI holds back */
#define TRIES 5

static struct { /* one capture a process, as there is one CUPTI */
    _Atomic bool active;
    struct kat_region region;
    struct kat_cupti cupti;
    struct kat_records *records;
    uint32_t flush_ms;
    pthread_t thread;
    pthread_mutex_t lock; /* stopping, flush_wanted, flushes */
    pthread_cond_t ring, done;
    bool stopping;
    uint64_t flush_wanted, flushes;
    pthread_mutex_t range_lock; /* range_buffer, range_used */
    uint8_t *range_buffer;
    uint32_t range_used;
} g = {.region = {.fd = -1}};

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static bool forks_watched;
static struct { /* a server's thread that begins a range does not wait for a buffer to be walked */
    pthread_mutex_t lock;
    struct kat_names names;
} range_names = {.lock = PTHREAD_MUTEX_INITIALIZER};
static _Atomic uint32_t generation; /* of g: ids of names hold in one */
static _Thread_local bool on_our_thread; /* its CPU time is counted as a whole */
static _Thread_local int64_t thread_id;

int64_t kat_thread(void) {
    if (!thread_id) thread_id = syscall(SYS_gettid);
    return thread_id;
}

/* --- CUPTI's callbacks ------------------------------------------------------------------- */

static void requested(uint8_t **buffer, size_t *size, size_t *most_records) {
    *most_records = 0;
    *buffer = atomic_load(&g.active) ? kat_region_request(&g.region) : NULL;
    *size = *buffer ? g.region.geometry.buffer_bytes : 0;
}

static void count_dropped(void *context, uint32_t stream) {
    size_t dropped = 0; /* since the last time */
    if (!g.cupti.get_dropped(context, stream, &dropped))
        kat_count(&g.region.shared->counters.records_lost, dropped);
}

static void completed(
    void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
    (void)size;
    if (!buffer || !g.region.shared) return;
    int64_t began = kat_thread_cpu_ns();
    struct kat_counters *counters = &g.region.shared->counters;
    int64_t index = kat_region_buffer(&g.region, buffer);
    if (index < 0) return; /* of a region before this one */
    struct kat_ready ready = {
        .buffer = (uint32_t)index, .offset_ns = atomic_load(&counters->offset_ns)};
    if (valid > g.region.geometry.buffer_bytes) {
        kat_count(&counters->malformed, 1);
    } else if (valid) {
        if (!kat_records_walk(g.records, &g.cupti, &g.region, buffer, valid, &ready))
            kat_count(&counters->malformed, 1);
    }
    count_dropped(context, stream);
    kat_count(&counters->records, ready.valid ? ready.records : 0);
    kat_count(&counters->buffers, 1);
    uint64_t took = (uint64_t)(kat_thread_cpu_ns() - began);
    kat_count(&counters->callback_ns, took);
    if (!on_our_thread) kat_count(&counters->busy_ns, took);
    kat_region_ready(&g.region, &ready);
}

/* --- the flush thread -------------------------------------------------------------------- */

/* CUPTI's clock may be another one: Kineto registers its own. What is within the noise of the
 * measurement is left alone. */
static void measure_clock(void) {
    int64_t least = INT64_MAX, offset = 0;
    for (int i = 0; i < TRIES; i++) {
        uint64_t theirs;
        int64_t before = kat_now_ns();
        if (g.cupti.get_timestamp(&theirs)) return;
        int64_t width = kat_now_ns() - before;
        if (width < 0 || width >= least) continue;
        least = width;
        offset = before + width / 2 - (int64_t)theirs;
    }
    if (least == INT64_MAX) return;
    int64_t known = atomic_load(&g.region.shared->counters.offset_ns);
    int64_t moved = offset > known ? offset - known : known - offset;
    if (moved > least + 1000) atomic_store(&g.region.shared->counters.offset_ns, offset);
}

static void hand_over_ranges(void) {
    pthread_mutex_lock(&g.range_lock);
    if (g.range_buffer) {
        int64_t index = kat_region_buffer(&g.region, g.range_buffer);
        int row = kat_layout_of(UINT32_MAX);
        struct kat_ready ready = {.buffer = (uint32_t)index, .valid = g.range_used,
            .layout = (uint32_t)row,
            .records = g.range_used / (uint32_t)sizeof(struct kat_range)};
        kat_region_ready(&g.region, &ready);
        g.range_buffer = NULL;
    }
    pthread_mutex_unlock(&g.range_lock);
}

static void obey(void) {
    struct kat_header *shared = g.region.shared;
    uint32_t order = atomic_load(&shared->order);
    uint32_t mode = atomic_load(&shared->mode);
    if (order == mode || order > MODE_OFF) return;
    if (g.cupti.library) {
        if (order == MODE_OFF) {
            kat_cupti_off(&g.cupti);
            g.cupti.flush_all(CUPTI_FLUSH_FORCED);
        } else if (!g.cupti.on) {
            struct kat_outcome outcome = {0};
            if (!kat_cupti_on(&g.cupti, requested, completed, &outcome)) {
                /* Said once: the order stands as obeyed, and off is what it is. */
                fprintf(stderr, "kat-otel: capture stays off: %s: %s (%d)\n", outcome.function,
                    outcome.detail, outcome.result);
                atomic_store(&shared->order, MODE_OFF);
                atomic_store(&shared->mode, MODE_OFF);
                return;
            }
        }
    }
    atomic_store(&shared->mode, order);
}

static void tick(void) {
    struct kat_header *shared = g.region.shared;
    int64_t began_cpu = kat_thread_cpu_ns();
    obey();
    int64_t until = kat_now_ns();
    if (g.cupti.on) {
        measure_clock();
        g.cupti.flush_all(0);
        count_dropped(NULL, 0);
        /* A buffer that CUPTI still has may hold work that was launched since it got it. */
        int64_t oldest = kat_region_oldest(&g.region);
        if (oldest != INT64_MAX && oldest - MILLISECOND < until) {
            int64_t bound = until - MOST_LAG;
            until = oldest - MILLISECOND > bound ? oldest - MILLISECOND : bound;
        }
    }
    hand_over_ranges();
    atomic_store(&shared->counters.flushed_ns, (uint64_t)until);
    kat_count(&shared->counters.busy_ns, (uint64_t)(kat_thread_cpu_ns() - began_cpu));
    kat_region_wake(&g.region);
}

static void *flush_thread(void *nothing) {
    on_our_thread = true;
    pthread_mutex_lock(&g.lock);
    while (!g.stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t at = until.tv_nsec + g.flush_ms * MILLISECOND;
        until.tv_sec += at / (1000 * MILLISECOND);
        until.tv_nsec = at % (1000 * MILLISECOND);
        int waited = 0;
        while (!g.stopping && g.flushes == g.flush_wanted && waited != ETIMEDOUT)
            waited = pthread_cond_timedwait(&g.ring, &g.lock, &until);
        uint64_t wanted = g.flush_wanted;
        pthread_mutex_unlock(&g.lock);
        tick();
        pthread_mutex_lock(&g.lock);
        g.flushes = wanted;
        pthread_cond_broadcast(&g.done);
    }
    pthread_mutex_unlock(&g.lock);
    return nothing;
}

static int start_thread(void) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&g.lock, NULL);
    pthread_cond_init(&g.ring, &monotonic);
    pthread_cond_init(&g.done, NULL);
    pthread_condattr_destroy(&monotonic);
    sigset_t all, before; /* the server's signals are the server's */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&g.thread, NULL, flush_thread, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error) pthread_setname_np(g.thread, "kat-capture");
    return error;
}

/* --- start, stop, fork ------------------------------------------------------------------- */

/* A forked child has the memory but not the threads: it must not write what the parent writes.
 * The descriptor stays: this may be the child of a subprocess call that hands it on. */
static void in_child(void) {
    if (g.region.shared) munmap(g.region.shared, g.region.places.total);
    memset(&g, 0, sizeof g);
    atomic_fetch_add(&generation, 1);
    g.region.fd = -1;
    thread_id = 0;
    on_our_thread = false;
    pthread_mutex_init(&starting, NULL);
    pthread_mutex_init(&range_names.lock, NULL);
}

static int no_memory(struct kat_outcome *outcome, int error, const char *function) {
    outcome->code = KAT_NO_MEMORY;
    outcome->result = error;
    snprintf(outcome->function, sizeof outcome->function, "%s", function);
    snprintf(outcome->detail, sizeof outcome->detail, "%s", strerror(error));
    return outcome->code;
}

static int start(const struct kat_options *options, struct kat_outcome *outcome) {
    if (atomic_load(&g.active)) return outcome->code = KAT_ALREADY;
    kat_region_forget(&g.region); /* left by a stop, see there */
    memset(&g.cupti, 0, sizeof g.cupti);
    g.cupti.kinds = options->kinds;
    if (options->cupti && !kat_cupti_load(&g.cupti, options->cupti, outcome)) return outcome->code;
    int error = kat_region_make(&g.region, &options->geometry);
    if (error) return no_memory(outcome, error, "memfd_create");
    if (!g.records) {
        g.records = calloc(1, sizeof *g.records);
        if (!g.records) {
            kat_region_unmap(&g.region);
            return no_memory(outcome, ENOMEM, "calloc");
        }
        pthread_mutex_init(&g.records->lock, NULL);
    }
    kat_records_forget(g.records);
    pthread_mutex_lock(&range_names.lock);
    memset(&range_names.names, 0, sizeof range_names.names);
    pthread_mutex_unlock(&range_names.lock);
    pthread_mutex_init(&g.range_lock, NULL);
    atomic_fetch_add(&generation, 1);
    g.flush_ms = options->flush_ms ? options->flush_ms : 100;
    g.stopping = false;
    g.flushes = g.flush_wanted = 0;
    g.region.shared->cupti_version = outcome->version;
    if (g.cupti.library) {
        g.records->layout = (uint32_t)kat_layout_of(outcome->version);
        atomic_store(&g.active, true); /* CUPTI may ask for a buffer at once */
        if (!kat_cupti_on(&g.cupti, requested, completed, outcome)) {
            atomic_store(&g.active, false);
            g.cupti.library = NULL;
            kat_region_forget(&g.region);
            return outcome->code;
        }
    }
    if (!forks_watched) forks_watched = !pthread_atfork(NULL, NULL, in_child);
    atomic_store(&g.active, true);
    error = forks_watched ? start_thread() : ENOMEM;
    if (error) {
        atomic_store(&g.active, false);
        kat_cupti_off(&g.cupti);
        kat_region_forget(&g.region);
        return no_memory(outcome, error, "pthread_create");
    }
    return KAT_OK;
}

int kat_start(const struct kat_options *options, struct kat_outcome *outcome) {
    memset(outcome, 0, sizeof *outcome);
    pthread_mutex_lock(&starting);
    int code = start(options, outcome);
    pthread_mutex_unlock(&starting);
    return code;
}

void kat_stop(void) {
    pthread_mutex_lock(&starting);
    if (atomic_load(&g.active)) {
        pthread_mutex_lock(&g.lock);
        g.stopping = true;
        pthread_cond_broadcast(&g.ring);
        pthread_mutex_unlock(&g.lock);
        pthread_join(g.thread, NULL);
        if (g.cupti.on) {
            g.cupti.flush_all(0);
            kat_cupti_off(&g.cupti);
            g.cupti.flush_all(CUPTI_FLUSH_FORCED);
        }
        pthread_mutex_lock(&g.range_lock);
        atomic_store(&g.active, false);
        pthread_mutex_unlock(&g.range_lock);
        hand_over_ranges();
        atomic_store(&g.region.shared->counters.flushed_ns, (uint64_t)kat_now_ns());
        atomic_store(&g.region.shared->closed, 1);
        kat_region_wake(&g.region);
        /* The mapping stays until the next start or the end of the process: a thread may be
         * in the middle of a mark, and CUPTI may hold a buffer that it never gave back. */
    }
    pthread_mutex_unlock(&starting);
}

int kat_active(void) { return atomic_load(&g.active); }

int kat_fd(void) { return g.region.fd; }

/* --- what the worker says ---------------------------------------------------------------- */

struct step_mark { /* records.STEP */
    int64_t time_ns;
    int64_t thread;
    int32_t step;
    int16_t micro;
    uint8_t edge, flags;
};

int kat_mark(int step, int micro, int edge, int flags) {
    if (!atomic_load_explicit(&g.active, memory_order_relaxed)) return -1;
    struct step_mark mark = {kat_now_ns(), kat_thread(), step, (int16_t)micro, (uint8_t)edge,
        (uint8_t)flags};
    return kat_region_say(&g.region, MESSAGE_STEP, &mark, sizeof mark) ? 0 : -1;
}

int kat_say(const void *text, uint32_t length) {
    if (!atomic_load(&g.active)) return -1;
    return kat_region_say(&g.region, MESSAGE_TEXT, text, length) ? 0 : -1;
}

void kat_flush(void) {
    if (!atomic_load(&g.active)) return;
    pthread_mutex_lock(&g.lock);
    uint64_t mine = ++g.flush_wanted;
    pthread_cond_broadcast(&g.ring);
    while (g.flushes < mine && !g.stopping) pthread_cond_wait(&g.done, &g.lock);
    pthread_mutex_unlock(&g.lock);
}

void kat_order(uint32_t mode) {
    if (atomic_load(&g.active) && mode <= MODE_OFF) atomic_store(&g.region.shared->order, mode);
}

void kat_counters(uint64_t counters[12]) {
    memset(counters, 0, 12 * sizeof *counters);
    if (g.region.shared) memcpy(counters, (void *)&g.region.shared->counters, 12 * sizeof *counters);
}

/* --- what nvtx.c hands over -------------------------------------------------------------- */

bool kat_wants_ranges(void) {
    return atomic_load_explicit(&g.active, memory_order_relaxed) &&
           atomic_load_explicit(&g.region.shared->mode, memory_order_relaxed) != MODE_OFF;
}

uint32_t kat_range_name(const char *text) {
    size_t length = strnlen(text, KAT_LONGEST_NAME);
    pthread_mutex_lock(&range_names.lock);
    uint32_t id = kat_names_text(&range_names.names, &g.region, text, length, OF_A_RANGE);
    pthread_mutex_unlock(&range_names.lock);
    return id;
}

uint32_t kat_generation(void) { return atomic_load(&generation); }

void kat_put_range(const struct kat_range *range) {
    bool full = false;
    pthread_mutex_lock(&g.range_lock);
    if (!atomic_load(&g.active)) { /* stopped since the caller asked */
        pthread_mutex_unlock(&g.range_lock);
        return;
    }
    if (!g.range_buffer) {
        g.range_buffer = kat_region_request(&g.region);
        g.range_used = 0;
    }
    if (g.range_buffer) {
        memcpy(g.range_buffer + g.range_used, range, sizeof *range);
        g.range_used += sizeof *range;
        full = g.range_used + sizeof *range > g.region.geometry.buffer_bytes;
    } else {
        kat_count(&g.region.shared->counters.records_lost, 1);
    }
    pthread_mutex_unlock(&g.range_lock);
    if (full) hand_over_ranges();
}
