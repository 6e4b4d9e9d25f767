/* The memory that a worker shares with whoever makes spans of its records.
 *
 * One memfd, sealed at its size. The worker writes, one reader reads; the worker keeps its own
 * copy of all that it relies on, so that a reader that dies, stalls or scribbles costs records
 * and is counted, and never more. No lock is shared between the processes. */
#ifndef KAT_REGION_H
#define KAT_REGION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KAT_MAGIC 0x314e4f4947455254ULL
#define KAT_REGION_VERSION 1u
#define KAT_LONGEST_NAME 4096u
#define KAT_NAMES_FULL 1u /* the id of "(names full)"; 0 is "" */
#define KAT_LONGEST_MESSAGE (256u << 10)

struct kat_geometry { /* all that the reader believes of the header, after a check */
    uint32_t buffer_count;
    uint32_t buffer_bytes;
    uint32_t ring_bytes;  /* a power of two */
    uint32_t names_most;  /* entries */
    uint32_t names_bytes;
};

struct kat_places { /* offsets from the region's start */
    uint64_t ready, returned, ring, index, names, buffers, total;
    uint32_t slots; /* of ready and returned: a power of two, at least buffer_count */
};

struct kat_ready { /* a full buffer, on its way to the reader */
    uint32_t buffer;
    uint32_t valid;  /* bytes */
    uint32_t layout; /* row of layouts.c */
    uint32_t records;
    int64_t offset_ns; /* CUPTI's clock + this = Unix */
    int64_t reserved;
};

struct kat_name { /* one entry of the names' index */
    uint32_t at; /* in the names' bytes */
    uint32_t length;
};

struct kat_counters { /* since the start of the region; written by the worker */
    _Atomic uint64_t records_lost;
    _Atomic uint64_t buffers_refused;
    _Atomic uint64_t messages_lost;
    _Atomic uint64_t malformed;
    _Atomic uint64_t names_lost;
    _Atomic uint64_t refused_indices; /* nonsense that the reader returned */
    _Atomic uint64_t records;
    _Atomic uint64_t buffers;
    _Atomic uint64_t callback_ns; /* CPU time in the completed callback, any thread */
    _Atomic uint64_t busy_ns;     /* CPU time of capture in the worker process */
    _Atomic uint64_t flushed_ns;  /* Unix: what had ended before was handed over */
    _Atomic int64_t offset_ns;    /* of CUPTI's clock, as measured last */
};

struct kat_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    struct kat_geometry geometry;
    int32_t pid;
    uint32_t cupti_version;

    /* written by the worker */
    _Alignas(64) _Atomic uint64_t ready_tail;
    _Atomic uint64_t ring_tail;
    _Atomic uint32_t names_count;
    _Atomic uint32_t wake; /* a futex: changes when there is something to read */
    _Atomic uint32_t closed;
    _Atomic uint32_t mode; /* as obeyed */
    struct kat_counters counters;

    /* written by the reader */
    _Alignas(64) _Atomic uint64_t returned_tail;
    _Atomic uint64_t ready_head; /* for the next reader, if this one dies */
    _Atomic uint64_t ring_head;
    _Atomic uint32_t waiting;
    _Atomic uint32_t order;
};

enum kat_message { MESSAGE_PAD = 0, MESSAGE_STEP = 1, MESSAGE_TEXT = 2 };

enum kat_mode { MODE_FULL = 0, MODE_DIGEST = 1, MODE_OFF = 2 };

struct kat_message_head { /* messages begin at multiples of 8 */
    uint32_t length; /* without this head */
    uint32_t type;
};

enum kat_owner { FREE, WITH_CUPTI, WITH_READER };

struct kat_region { /* the worker's own view */
    struct kat_header *shared;
    struct kat_geometry geometry;
    struct kat_places places;
    int fd;
    pthread_mutex_t pool; /* owners, stack, ready_tail, returned_head */
    uint8_t *owner;       /* enum kat_owner, by buffer */
    int64_t *since_ns;    /* when CUPTI got it, by buffer */
    uint32_t *stack;      /* free buffers */
    uint32_t stack_size;
    uint32_t with_cupti;
    uint64_t ready_tail, returned_head;
    pthread_mutex_t ring; /* ring_tail */
    uint64_t ring_tail;
    pthread_mutex_t names; /* names_count, names_used */
    uint32_t names_count, names_used;
};

/* Fills in the places; false if the geometry makes no sense. */
bool kat_geometry_places(const struct kat_geometry *geometry, struct kat_places *places);

/* 0, or an errno: nothing is left behind then. */
int kat_region_make(struct kat_region *region, const struct kat_geometry *geometry);
void kat_region_unmap(struct kat_region *region);
/* Unmaps, unless CUPTI has a buffer of it: that memory then stays for good. */
void kat_region_forget(struct kat_region *region);

/* A buffer for CUPTI, or NULL if all are on their way. */
uint8_t *kat_region_request(struct kat_region *region);
/* Which buffer this is, if CUPTI has it; -1 otherwise. */
int64_t kat_region_buffer(struct kat_region *region, const uint8_t *buffer);
/* Hands a buffer on; with valid 0 it goes back to the pool. */
void kat_region_ready(struct kat_region *region, const struct kat_ready *ready);
/* Since when CUPTI has the buffer that it has longest; INT64_MAX if it has none. */
int64_t kat_region_oldest(struct kat_region *region);

/* A message for the reader; false if there was no room, which is counted. */
bool kat_region_say(struct kat_region *region, uint32_t type, const void *data, uint32_t length);

/* A new name; its id, or KAT_NAMES_FULL, which is counted. */
uint32_t kat_region_name(struct kat_region *region, const char *text, size_t length);

void kat_region_wake(struct kat_region *region);

static inline void kat_count(_Atomic uint64_t *counter, uint64_t more) {
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

int64_t kat_now_ns(void);        /* Unix */
int64_t kat_thread_cpu_ns(void); /* of the calling thread */

#endif
