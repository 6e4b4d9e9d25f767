#define _GNU_SOURCE
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static uint64_t up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

static bool power_of_two(uint32_t value) { return value && !(value & (value - 1)); }

bool kat_geometry_places(const struct kat_geometry *g, struct kat_places *p) {
    if (g->buffer_count < 1 || g->buffer_count > 1u << 16) return false;
    if (g->buffer_bytes < 1024 || g->buffer_bytes > 64u << 20 || g->buffer_bytes % 8) return false;
    if (g->ring_bytes < 1024 || g->ring_bytes > 64u << 20 || !power_of_two(g->ring_bytes))
        return false;
    if (g->names_most < 16 || g->names_most > 1u << 20) return false;
    if (g->names_bytes < PAGE || g->names_bytes > 256u << 20) return false;
    p->slots = 1;
    while (p->slots < g->buffer_count) p->slots *= 2;
    p->ready = up(sizeof(struct kat_header), PAGE);
    p->returned = p->ready + p->slots * sizeof(struct kat_ready);
    p->ring = up(p->returned + p->slots * sizeof(uint32_t), PAGE);
    p->index = p->ring + g->ring_bytes;
    p->names = up(p->index + (uint64_t)g->names_most * sizeof(struct kat_name), PAGE);
    p->buffers = up(p->names + g->names_bytes, PAGE);
    p->total = up(p->buffers + (uint64_t)g->buffer_count * g->buffer_bytes, PAGE);
    return true;
}

static uint8_t *at(struct kat_region *r, uint64_t offset) { return (uint8_t *)r->shared + offset; }

static int fail(struct kat_region *r, int error) {
    kat_region_unmap(r);
    return error ? error : ENOMEM;
}

int kat_region_make(struct kat_region *r, const struct kat_geometry *geometry) {
    memset(r, 0, sizeof *r);
    r->fd = -1;
    r->geometry = *geometry;
    if (!kat_geometry_places(&r->geometry, &r->places)) return EINVAL;
    /* Closed at exec, but for the helper that it is handed to; sealed, for a file that shrinks
     * under a mapping kills whoever touches it. */
    r->fd = memfd_create("kat-otel-capture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (r->fd < 0) return fail(r, errno);
    if (ftruncate(r->fd, (off_t)r->places.total)) return fail(r, errno);
    if (fcntl(r->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) return fail(r, errno);
    void *map = mmap(NULL, r->places.total, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
    if (map == MAP_FAILED) return fail(r, errno);
    r->shared = map;
    uint32_t count = r->geometry.buffer_count;
    r->owner = calloc(count, sizeof *r->owner);
    r->since_ns = calloc(count, sizeof *r->since_ns);
    r->stack = calloc(count, sizeof *r->stack);
    if (!r->owner || !r->since_ns || !r->stack) return fail(r, ENOMEM);
    /* The last on the stack is the first to be used, and the most recently used one: memory that
     * the load never needs is never touched. */
    for (uint32_t i = 0; i < count; i++) r->stack[i] = count - 1 - i;
    r->stack_size = count;
    pthread_mutex_init(&r->pool, NULL);
    pthread_mutex_init(&r->ring, NULL);
    pthread_mutex_init(&r->names, NULL);
    kat_region_name(r, "", 0);
    kat_region_name(r, "(names full)", 12);
    r->shared->version = KAT_REGION_VERSION;
    r->shared->header_bytes = sizeof *r->shared;
    r->shared->geometry = r->geometry;
    r->shared->pid = getpid();
    r->shared->magic = KAT_MAGIC;
    return 0;
}

void kat_region_unmap(struct kat_region *r) {
    if (r->shared) munmap(r->shared, r->places.total);
    if (r->fd >= 0) close(r->fd);
    free(r->owner);
    free(r->since_ns);
    free(r->stack);
    memset(r, 0, sizeof *r);
    r->fd = -1;
}

void kat_region_forget(struct kat_region *r) {
    if (!r->shared) return;
    pthread_mutex_lock(&r->pool);
    bool held = r->with_cupti;
    pthread_mutex_unlock(&r->pool);
    if (held) r->shared = NULL;
    kat_region_unmap(r);
}

static void take_back(struct kat_region *r) {
    _Atomic uint32_t *slots = (_Atomic uint32_t *)at(r, r->places.returned);
    uint64_t tail = atomic_load_explicit(&r->shared->returned_tail, memory_order_acquire);
    if (tail - r->returned_head > r->places.slots) { /* no reader of ours wrote this */
        kat_count(&r->shared->counters.refused_indices, 1);
        r->returned_head = tail;
        return;
    }
    for (; r->returned_head != tail; r->returned_head++) {
        uint32_t index = atomic_load_explicit(
            &slots[r->returned_head & (r->places.slots - 1)], memory_order_relaxed);
        if (index >= r->geometry.buffer_count || r->owner[index] != WITH_READER) {
            kat_count(&r->shared->counters.refused_indices, 1);
            continue;
        }
        r->owner[index] = FREE;
        r->stack[r->stack_size++] = index;
    }
}

uint8_t *kat_region_request(struct kat_region *r) {
    uint8_t *buffer = NULL;
    int64_t now = kat_now_ns();
    pthread_mutex_lock(&r->pool);
    take_back(r);
    if (r->stack_size) {
        uint32_t index = r->stack[--r->stack_size];
        r->owner[index] = WITH_CUPTI;
        r->since_ns[index] = now;
        r->with_cupti++;
        buffer = at(r, r->places.buffers + (uint64_t)index * r->geometry.buffer_bytes);
    }
    pthread_mutex_unlock(&r->pool);
    if (!buffer) kat_count(&r->shared->counters.buffers_refused, 1);
    return buffer;
}

int64_t kat_region_buffer(struct kat_region *r, const uint8_t *buffer) {
    uint64_t offset = (uint64_t)(buffer - at(r, r->places.buffers));
    uint64_t index = offset / r->geometry.buffer_bytes;
    if (offset % r->geometry.buffer_bytes || index >= r->geometry.buffer_count) return -1;
    pthread_mutex_lock(&r->pool);
    bool ours = r->owner[index] == WITH_CUPTI;
    pthread_mutex_unlock(&r->pool);
    return ours ? (int64_t)index : -1;
}

void kat_region_ready(struct kat_region *r, const struct kat_ready *ready) {
    struct kat_ready *slots = (struct kat_ready *)at(r, r->places.ready);
    pthread_mutex_lock(&r->pool);
    r->with_cupti--;
    if (ready->valid) {
        /* Each buffer is in the queue once at most, so there is always a slot. */
        r->owner[ready->buffer] = WITH_READER;
        slots[r->ready_tail & (r->places.slots - 1)] = *ready;
        atomic_store_explicit(&r->shared->ready_tail, ++r->ready_tail, memory_order_release);
    } else {
        r->owner[ready->buffer] = FREE;
        r->stack[r->stack_size++] = ready->buffer;
    }
    pthread_mutex_unlock(&r->pool);
}

int64_t kat_region_oldest(struct kat_region *r) {
    int64_t oldest = INT64_MAX;
    pthread_mutex_lock(&r->pool);
    for (uint32_t i = 0; r->with_cupti && i < r->geometry.buffer_count; i++)
        if (r->owner[i] == WITH_CUPTI && r->since_ns[i] < oldest) oldest = r->since_ns[i];
    pthread_mutex_unlock(&r->pool);
    return oldest;
}

bool kat_region_say(struct kat_region *r, uint32_t type, const void *data, uint32_t length) {
    uint32_t size = r->geometry.ring_bytes;
    uint8_t *ring = at(r, r->places.ring);
    uint32_t need = (uint32_t)(sizeof(struct kat_message_head) + up(length, 8));
    bool said = false;
    pthread_mutex_lock(&r->ring);
    uint64_t head = atomic_load_explicit(&r->shared->ring_head, memory_order_acquire);
    uint64_t used = r->ring_tail - head; /* nonsense from the reader reads as full */
    uint32_t offset = (uint32_t)(r->ring_tail & (size - 1));
    uint32_t pad = offset + need > size ? size - offset : 0;
    if (length <= KAT_LONGEST_MESSAGE && used <= size && size - used >= (uint64_t)pad + need) {
        if (pad) {
            struct kat_message_head skip = {pad - (uint32_t)sizeof skip, MESSAGE_PAD};
            memcpy(ring + offset, &skip, sizeof skip);
            offset = 0;
        }
        struct kat_message_head message = {length, type};
        memcpy(ring + offset, &message, sizeof message);
        memcpy(ring + offset + sizeof message, data, length);
        r->ring_tail += pad + need;
        atomic_store_explicit(&r->shared->ring_tail, r->ring_tail, memory_order_release);
        said = true;
    }
    pthread_mutex_unlock(&r->ring);
    if (!said) kat_count(&r->shared->counters.messages_lost, 1);
    return said;
}

uint32_t kat_region_name(struct kat_region *r, const char *text, size_t length) {
    struct kat_name *index = (struct kat_name *)at(r, r->places.index);
    if (length > KAT_LONGEST_NAME) length = KAT_LONGEST_NAME;
    uint32_t id = KAT_NAMES_FULL;
    pthread_mutex_lock(&r->names);
    if (r->names_count < r->geometry.names_most &&
        length + 1 <= r->geometry.names_bytes - r->names_used) {
        struct kat_name name = {r->names_used, (uint32_t)length};
        memcpy(at(r, r->places.names) + name.at, text, length); /* a 0 follows: fresh memory */
        index[r->names_count] = name;
        r->names_used += (uint32_t)length + 1;
        id = r->names_count++;
        atomic_store_explicit(&r->shared->names_count, r->names_count, memory_order_release);
    }
    pthread_mutex_unlock(&r->names);
    bool lost = id == KAT_NAMES_FULL && r->names_count > KAT_NAMES_FULL + 1;
    if (lost) kat_count(&r->shared->counters.names_lost, 1);
    return id;
}

void kat_region_wake(struct kat_region *r) {
    atomic_fetch_add(&r->shared->wake, 1);
    if (atomic_load(&r->shared->waiting))
        syscall(SYS_futex, &r->shared->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static int64_t clock_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int64_t kat_now_ns(void) { return clock_ns(CLOCK_REALTIME); }

int64_t kat_thread_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }
