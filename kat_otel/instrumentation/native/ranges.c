/* Ranges of our NVTX tool on their way to the reader: in buffers of the pool, like CUPTI's. */
#define _GNU_SOURCE
#include <string.h>

#include "state.h"

/* Names of their own: a server's thread that begins a range does not wait until a buffer has been
 * walked. */
static struct {
    pthread_mutex_t lock;
    struct kat_names names;
} range_names = {.lock = PTHREAD_MUTEX_INITIALIZER};

void kat_ranges_forget(void) {
    pthread_mutex_lock(&range_names.lock);
    memset(&range_names.names, 0, sizeof range_names.names);
    pthread_mutex_unlock(&range_names.lock);
}

void kat_ranges_in_child(void) { pthread_mutex_init(&range_names.lock, NULL); }

void kat_ranges_hand_over(void) {
    pthread_mutex_lock(&kat_state.range_lock);
    if (kat_state.range_buffer) {
        int64_t index = kat_region_buffer(&kat_state.region, kat_state.range_buffer);
        int row = kat_layout_of(UINT32_MAX);
        struct kat_ready ready = {.buffer = (uint32_t)index, .valid = kat_state.range_used,
            .layout = (uint32_t)row,
            .records = kat_state.range_used / (uint32_t)sizeof(struct kat_range)};
        kat_region_ready(&kat_state.region, &ready);
        kat_state.range_buffer = NULL;
    }
    pthread_mutex_unlock(&kat_state.range_lock);
}

bool kat_wants_ranges(void) {
    return atomic_load_explicit(&kat_state.active, memory_order_relaxed) &&
           atomic_load_explicit(&kat_state.region.shared->mode, memory_order_relaxed) != MODE_OFF;
}

uint32_t kat_range_name(const char *text) {
    size_t length = strnlen(text, KAT_LONGEST_NAME);
    pthread_mutex_lock(&range_names.lock);
    uint32_t id = kat_names_text(&range_names.names, &kat_state.region, text, length, OF_A_RANGE);
    pthread_mutex_unlock(&range_names.lock);
    return id;
}

void kat_put_range(const struct kat_range *range) {
    bool full = false;
    pthread_mutex_lock(&kat_state.range_lock);
    if (!atomic_load(&kat_state.active)) { /* stopped since the caller asked */
        pthread_mutex_unlock(&kat_state.range_lock);
        return;
    }
    if (!kat_state.range_buffer) {
        kat_state.range_buffer = kat_region_request(&kat_state.region);
        kat_state.range_used = 0;
    }
    if (kat_state.range_buffer) {
        memcpy(kat_state.range_buffer + kat_state.range_used, range, sizeof *range);
        kat_state.range_used += sizeof *range;
        full = kat_state.range_used + sizeof *range > kat_state.region.geometry.buffer_bytes;
    } else {
        kat_count(&kat_state.region.shared->counters.records_lost, 1);
    }
    pthread_mutex_unlock(&kat_state.range_lock);
    if (full) kat_ranges_hand_over();
}
