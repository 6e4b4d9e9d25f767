/* The life of capture in a process: started, told what the worker says, stopped; and forks. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "state.h"

#define PATIENCE 5 /* seconds that a caller waits for our thread: CUPTI may hang with its GPU */

struct kat_state kat_state = {.region = {.fd = -1}};

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static bool watched; /* forks, and the end of the process */
static _Atomic uint32_t generation; /* of kat_state: ids of names hold in one */
static _Thread_local int64_t thread_id;

int64_t kat_thread(void) {
    if (!thread_id) thread_id = syscall(SYS_gettid);
    return thread_id;
}

uint32_t kat_generation(void) { return atomic_load(&generation); }

/* A forked child has the memory but not the threads: it must not write what the parent writes.
 * The descriptor stays: this may be the child of a subprocess call that hands it on. */
static void in_child(void) {
    if (kat_state.region.shared) munmap(kat_state.region.shared, kat_state.region.places.total);
    memset(&kat_state, 0, sizeof kat_state);
    atomic_fetch_add(&generation, 1);
    kat_state.region.fd = -1;
    thread_id = 0;
    pthread_mutex_init(&starting, NULL);
    kat_ranges_in_child();
    kat_nvtx_in_child();
}

static int no_memory(struct kat_outcome *outcome, int error, const char *function) {
    outcome->code = KAT_NO_MEMORY;
    outcome->result = error;
    snprintf(outcome->function, sizeof outcome->function, "%s", function);
    snprintf(outcome->detail, sizeof outcome->detail, "%s", strerror(error));
    return outcome->code;
}

static int start(const struct kat_options *options, struct kat_outcome *outcome) {
    if (atomic_load(&kat_state.active) || kat_state.stuck) return outcome->code = KAT_ALREADY;
    kat_region_forget(&kat_state.region); /* left by a stop, see there */
    memset(&kat_state.cupti, 0, sizeof kat_state.cupti);
    kat_state.cupti.kinds = options->kinds;
    if (options->cupti && !kat_cupti_load(&kat_state.cupti, options->cupti, outcome)) return outcome->code;
    int error = kat_region_make(&kat_state.region, &options->geometry);
    if (error) return no_memory(outcome, error, "memfd_create");
    if (!kat_state.records) {
        kat_state.records = calloc(1, sizeof *kat_state.records);
        if (!kat_state.records) {
            kat_region_unmap(&kat_state.region);
            return no_memory(outcome, ENOMEM, "calloc");
        }
        pthread_mutex_init(&kat_state.records->lock, NULL);
    }
    kat_records_forget(kat_state.records);
    kat_ranges_forget();
    pthread_mutex_init(&kat_state.range_lock, NULL);
    atomic_fetch_add(&generation, 1);
    kat_state.flush_ms = options->flush_ms ? options->flush_ms : 100;
    kat_state.stopping = false;
    kat_state.flushes = kat_state.flush_wanted = 0;
    kat_state.region.shared->cupti_version = outcome->version;
    if (kat_state.cupti.library) {
        kat_state.records->layout = (uint32_t)kat_layout_of(outcome->version);
        atomic_store(&kat_state.active, true); /* CUPTI may ask for a buffer at once */
        if (!kat_cupti_on(&kat_state.cupti, kat_requested, kat_completed, outcome)) {
            atomic_store(&kat_state.active, false);
            kat_state.cupti.library = NULL;
            kat_region_forget(&kat_state.region);
            return outcome->code;
        }
    }
    /* The handler runs before libcupti's own: our thread must not be in there when it goes. */
    if (!watched) watched = !pthread_atfork(NULL, NULL, in_child) && !atexit(kat_stop);
    atomic_store(&kat_state.active, true);
    error = watched ? kat_flush_start() : ENOMEM;
    if (error) {
        atomic_store(&kat_state.active, false);
        kat_cupti_off(&kat_state.cupti);
        kat_region_forget(&kat_state.region);
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

static struct timespec patience(clockid_t clock) {
    struct timespec until;
    clock_gettime(clock, &until);
    until.tv_sec += PATIENCE;
    return until;
}

static void stop(void) {
    pthread_mutex_lock(&kat_state.lock);
    kat_state.stopping = true;
    pthread_cond_broadcast(&kat_state.ring);
    pthread_mutex_unlock(&kat_state.lock);
    struct timespec until = patience(CLOCK_REALTIME);
    kat_state.stuck = pthread_timedjoin_np(kat_state.thread, NULL, &until) != 0;
    if (kat_state.cupti.on && !kat_state.stuck) {
        kat_state.cupti.flush_all(0);
        kat_cupti_off(&kat_state.cupti);
        kat_state.cupti.flush_all(CUPTI_FLUSH_FORCED);
    }
    pthread_mutex_lock(&kat_state.range_lock);
    atomic_store(&kat_state.active, false);
    pthread_mutex_unlock(&kat_state.range_lock);
    kat_ranges_hand_over();
    atomic_store(&kat_state.region.shared->counters.flushed_ns, (uint64_t)kat_now_ns());
    atomic_store(&kat_state.region.shared->closed, 1);
    kat_region_wake(&kat_state.region);
    /* The mapping stays until the next start or the end of the process: a thread may be in the
     * middle of a mark, and CUPTI may hold a buffer that it never gave back. */
}

void kat_stop(void) {
    pthread_mutex_lock(&starting);
    if (atomic_load(&kat_state.active)) stop();
    pthread_mutex_unlock(&starting);
}

int kat_active(void) { return atomic_load(&kat_state.active); }

int kat_fd(void) { return kat_state.region.fd; }

/* --- what the worker says ---------------------------------------------------------------- */

struct step_mark { /* records.STEP */
    int64_t time_ns;
    int64_t thread;
    int32_t step;
    int16_t micro;
    uint8_t edge, flags;
};

int kat_mark(int step, int micro, int edge, int flags) {
    if (!atomic_load_explicit(&kat_state.active, memory_order_relaxed)) return -1;
    struct step_mark mark = {kat_now_ns(), kat_thread(), step, (int16_t)micro, (uint8_t)edge,
        (uint8_t)flags};
    return kat_region_say(&kat_state.region, MESSAGE_STEP, &mark, sizeof mark) ? 0 : -1;
}

int kat_say(const void *text, uint32_t length) {
    if (!atomic_load(&kat_state.active)) return -1;
    return kat_region_say(&kat_state.region, MESSAGE_TEXT, text, length) ? 0 : -1;
}

void kat_flush(void) {
    if (!atomic_load(&kat_state.active)) return;
    pthread_mutex_lock(&kat_state.lock);
    uint64_t mine = ++kat_state.flush_wanted;
    pthread_cond_broadcast(&kat_state.ring);
    struct timespec until = patience(CLOCK_MONOTONIC);
    int waited = 0;
    while (kat_state.flushes < mine && !kat_state.stopping && !waited)
        waited = pthread_cond_timedwait(&kat_state.done, &kat_state.lock, &until);
    pthread_mutex_unlock(&kat_state.lock);
}

void kat_order(uint32_t mode) {
    if (atomic_load(&kat_state.active) && mode <= MODE_OFF) atomic_store(&kat_state.region.shared->order, mode);
}

void kat_counters(uint64_t counters[12]) {
    memset(counters, 0, 12 * sizeof *counters);
    if (kat_state.region.shared) memcpy(counters, (void *)&kat_state.region.shared->counters, 12 * sizeof *counters);
}

