/* CUPTI's callbacks, and the thread that flushes: it measures the clock, obeys the reader's orders
 * and says until when all has been handed over. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "state.h"

#define MOST_LAG (2000 * MILLISECOND) /* of what flushed_ns says, whatever CUPTI holds back */
#define TRIES 5

static _Thread_local bool on_our_thread; /* its CPU time is counted as a whole */

void kat_requested(uint8_t **buffer, size_t *size, size_t *most_records) {
    *most_records = 0;
    *buffer = atomic_load(&kat_state.active) ? kat_region_request(&kat_state.region) : NULL;
    *size = *buffer ? kat_state.region.geometry.buffer_bytes : 0;
}

static void count_dropped(void *context, uint32_t stream) {
    size_t dropped = 0; /* since the last time */
    if (!kat_state.cupti.get_dropped(context, stream, &dropped))
        kat_count(&kat_state.region.shared->counters.records_lost, dropped);
}

void kat_completed(
    void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
    (void)size;
    if (!buffer || !kat_state.region.shared) return;
    int64_t began = kat_thread_cpu_ns();
    struct kat_counters *counters = &kat_state.region.shared->counters;
    int64_t index = kat_region_buffer(&kat_state.region, buffer);
    if (index < 0) return; /* of a region before this one */
    struct kat_ready ready = {
        .buffer = (uint32_t)index, .offset_ns = atomic_load(&counters->offset_ns)};
    if (valid > kat_state.region.geometry.buffer_bytes) {
        kat_count(&counters->malformed, 1);
    } else if (valid) {
        if (!kat_records_walk(kat_state.records, &kat_state.cupti, &kat_state.region, buffer, valid, &ready))
            kat_count(&counters->malformed, 1);
    }
    count_dropped(context, stream);
    kat_count(&counters->records, ready.valid ? ready.records : 0);
    kat_count(&counters->buffers, 1);
    uint64_t took = (uint64_t)(kat_thread_cpu_ns() - began);
    kat_count(&counters->callback_ns, took);
    if (!on_our_thread) kat_count(&counters->busy_ns, took);
    kat_region_ready(&kat_state.region, &ready);
}

/* CUPTI's clock may be another one: Kineto registers its own. What is within the noise of the
 * measurement is left alone. */
static void measure_clock(void) {
    int64_t least = INT64_MAX, offset = 0;
    for (int i = 0; i < TRIES; i++) {
        uint64_t theirs;
        int64_t before = kat_now_ns();
        if (kat_state.cupti.get_timestamp(&theirs)) return;
        int64_t width = kat_now_ns() - before;
        if (width < 0 || width >= least) continue;
        least = width;
        offset = before + width / 2 - (int64_t)theirs;
    }
    if (least == INT64_MAX) return;
    int64_t known = atomic_load(&kat_state.region.shared->counters.offset_ns);
    int64_t moved = offset > known ? offset - known : known - offset;
    if (moved > least + 1000) atomic_store(&kat_state.region.shared->counters.offset_ns, offset);
}

static void obey(void) {
    struct kat_header *shared = kat_state.region.shared;
    uint32_t order = atomic_load(&shared->order);
    uint32_t mode = atomic_load(&shared->mode);
    if (order == mode || order > MODE_OFF) return;
    if (kat_state.cupti.library) {
        if (order == MODE_OFF) {
            kat_cupti_off(&kat_state.cupti);
            kat_state.cupti.flush_all(CUPTI_FLUSH_FORCED);
        } else if (!kat_state.cupti.on) {
            struct kat_outcome outcome = {0};
            if (!kat_cupti_on(&kat_state.cupti, kat_requested, kat_completed, &outcome)) {
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
    struct kat_header *shared = kat_state.region.shared;
    int64_t began_cpu = kat_thread_cpu_ns();
    obey();
    int64_t until = kat_now_ns();
    kat_ranges_hand_over(); /* first: CUPTI's are the oldest buffers then */
    if (kat_state.cupti.on) {
        measure_clock();
        kat_state.cupti.flush_all(0);
        count_dropped(NULL, 0);
        /* A buffer that CUPTI still has may hold work that was launched since it got it. */
        int64_t oldest = kat_region_oldest(&kat_state.region);
        if (oldest != INT64_MAX && oldest - MILLISECOND < until) {
            int64_t bound = until - MOST_LAG;
            until = oldest - MILLISECOND > bound ? oldest - MILLISECOND : bound;
        }
    }
    atomic_store(&shared->counters.flushed_ns, (uint64_t)until);
    kat_count(&shared->counters.busy_ns, (uint64_t)(kat_thread_cpu_ns() - began_cpu));
    kat_region_wake(&kat_state.region);
}

static void *flush_thread(void *nothing) {
    on_our_thread = true;
    pthread_mutex_lock(&kat_state.lock);
    while (!kat_state.stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t at = until.tv_nsec + kat_state.flush_ms * MILLISECOND;
        until.tv_sec += at / (1000 * MILLISECOND);
        until.tv_nsec = at % (1000 * MILLISECOND);
        int waited = 0;
        while (!kat_state.stopping && kat_state.flushes == kat_state.flush_wanted && waited != ETIMEDOUT)
            waited = pthread_cond_timedwait(&kat_state.ring, &kat_state.lock, &until);
        uint64_t wanted = kat_state.flush_wanted;
        pthread_mutex_unlock(&kat_state.lock);
        tick();
        pthread_mutex_lock(&kat_state.lock);
        kat_state.flushes = wanted;
        pthread_cond_broadcast(&kat_state.done);
    }
    pthread_mutex_unlock(&kat_state.lock);
    return nothing;
}

int kat_flush_start(void) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&kat_state.lock, NULL);
    pthread_cond_init(&kat_state.ring, &monotonic);
    pthread_cond_init(&kat_state.done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigset_t all, before; /* the server's signals are the server's */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&kat_state.thread, NULL, flush_thread, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error) pthread_setname_np(kat_state.thread, "kat-capture");
    return error;
}
