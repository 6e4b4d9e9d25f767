/* The one capture of this process, shared by capture.c (its life), flush.c (CUPTI's callbacks and the
 * thread that flushes) and ranges.c (NVTX). */
#ifndef KAT_STATE_H
#define KAT_STATE_H

#include "capture.h"
#include "records.h"

#define MILLISECOND 1000000ll

struct kat_state {
    _Atomic bool active;
    struct kat_region region;
    struct kat_cupti cupti;
    struct kat_records *records;
    uint32_t flush_ms;
    pthread_t thread;
    pthread_mutex_t lock; /* stopping, flush_wanted, flushes */
    pthread_cond_t ring, done;
    bool stopping, stuck;
    uint64_t flush_wanted, flushes;
    pthread_mutex_t range_lock; /* range_buffer, range_used, and that active falls */
    uint8_t *range_buffer;
    uint32_t range_used;
};

extern struct kat_state kat_state;

/* flush.c */
void kat_requested(uint8_t **buffer, size_t *size, size_t *most_records);
void kat_completed(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid);
int kat_flush_start(void); /* 0, or an errno */

/* ranges.c */
void kat_ranges_hand_over(void);
void kat_ranges_forget(void); /* names, when capture begins anew */
void kat_ranges_in_child(void); /* of a fork: who held its lock is not there */

/* nvtx.c, payload.c: the same */
void kat_nvtx_in_child(void);
void kat_payload_in_child(void);

#endif
