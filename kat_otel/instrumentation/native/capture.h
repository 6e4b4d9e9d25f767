/* Capture in one process: the functions of libkat_capture.so for the worker's side. */
#ifndef KAT_CAPTURE_H
#define KAT_CAPTURE_H

#include "cupti.h"
#include "layouts.h"
#include "region.h"

#define KAT_EXPORT __attribute__((visibility("default")))

struct kat_options {
    struct kat_geometry geometry;
    uint32_t flush_ms;
    uint64_t kinds;    /* bits of enum kat_kind */
    const char *cupti; /* path of libcupti; NULL: messages only */
};

/* Starts capture in this process. Not 0: nothing is on, and outcome says why. */
KAT_EXPORT int kat_start(const struct kat_options *options, struct kat_outcome *outcome);

/* Hands over what there is and ends capture; also done at the end of the process. */
KAT_EXPORT void kat_stop(void);

KAT_EXPORT int kat_active(void);
KAT_EXPORT int kat_fd(void); /* of the region; -1 if there is none */

/* A step begins or ends on the calling thread. 0, or -1: no room, or no capture. */
KAT_EXPORT int kat_mark(int step, int micro, int edge, int flags);

/* A message for the reader. 0, or -1. */
KAT_EXPORT int kat_say(const void *text, uint32_t length);

/* Hands over now what is complete; waits for it, seconds at most. */
KAT_EXPORT void kat_flush(void);

/* What to record from now on (enum kat_mode), as the reader may also say. */
KAT_EXPORT void kat_order(uint32_t mode);

/* The counters: copies of struct kat_counters, in its order. */
KAT_EXPORT void kat_counters(uint64_t counters[12]);

/* A closed NVTX range, into a buffer of the pool (nvtx.c). */
void kat_put_range(const struct kat_range *range);

/* Changes when ids of names lose their meaning: capture began anew, or this is a forked child. */
uint32_t kat_generation(void);

/* The id of a name, for such a range. */
uint32_t kat_range_name(const char *text);

/* Whether capture runs and wants ranges: cheap. */
bool kat_wants_ranges(void);

/* The thread as the operating system calls it. */
int64_t kat_thread(void);

#endif
