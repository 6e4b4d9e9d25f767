#define _GNU_SOURCE
#include "reader.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "split.h"

#define RESTS_NS 20000000 /* between looks at how much has come */

struct kat_reader {
    struct kat_header *shared;
    struct kat_geometry geometry;
    struct kat_places places;
    uint64_t ready_head, returned_tail, ring_head;
    uint64_t looked_at; /* ready_head + buffers of the last kat_count_rows */
    uint64_t rows_lost, malformed;
    uint32_t names_known;
    uint32_t wake_seen;
};

uint32_t kat_abi(void) { return KAT_ABI; }

static uint8_t *at(struct kat_reader *r, uint64_t offset) { return (uint8_t *)r->shared + offset; }

static struct kat_reader *refuse(struct kat_reader *r, char *problem, const char *why) {
    snprintf(problem, 256, "%s", why);
    kat_detach(r);
    return NULL;
}

struct kat_reader *kat_attach(int fd, char *problem) {
    struct kat_reader *r = calloc(1, sizeof *r);
    struct stat status;
    if (!r) return refuse(r, problem, "no memory");
    if (fstat(fd, &status)) return refuse(r, problem, strerror(errno));
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW))
        return refuse(r, problem, "not a file of a capture: it is not sealed");
    if (status.st_size < (off_t)sizeof(struct kat_header))
        return refuse(r, problem, "not a file of a capture: too small");
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return refuse(r, problem, strerror(errno));
    r->shared = map;
    r->places.total = (uint64_t)status.st_size;
    if (r->shared->magic != KAT_MAGIC || r->shared->version != KAT_REGION_VERSION ||
        r->shared->header_bytes != sizeof *r->shared)
        return refuse(r, problem, "written by another version of KAT-OTel");
    r->geometry = r->shared->geometry;
    struct kat_places places;
    if (!kat_geometry_places(&r->geometry, &places) || places.total != r->places.total)
        return refuse(r, problem, "its header makes no sense");
    r->places = places;
    /* Where a reader before this one ended. */
    r->ready_head = atomic_load(&r->shared->ready_head);
    r->returned_tail = atomic_load(&r->shared->returned_tail);
    r->ring_head = atomic_load(&r->shared->ring_head);
    return r;
}

void kat_detach(struct kat_reader *r) {
    if (r && r->shared) munmap(r->shared, r->places.total);
    free(r);
}

int32_t kat_reader_pid(const struct kat_reader *r) { return r->shared->pid; }

uint32_t kat_reader_version(const struct kat_reader *r) { return r->shared->cupti_version; }

/* Sleeps until the worker wakes its reader, at most so long. */
static void sleep_on(struct kat_reader *r, int64_t timeout_ns) {
    struct timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    atomic_store(&r->shared->waiting, 1);
    if (atomic_load(&r->shared->wake) == r->wake_seen && !atomic_load(&r->shared->closed))
        syscall(SYS_futex, &r->shared->wake, FUTEX_WAIT, r->wake_seen, &timeout, NULL, 0);
    atomic_store(&r->shared->waiting, 0);
}

void kat_wait(struct kat_reader *r, int64_t timeout_ns) {
    sleep_on(r, timeout_ns);
    r->wake_seen = atomic_load(&r->shared->wake);
}

void kat_rest(struct kat_reader *r, int64_t timeout_ns) {
    uint64_t enough = r->geometry.buffer_count / 4;
    for (; timeout_ns > 0; timeout_ns -= RESTS_NS) {
        uint64_t ready = atomic_load_explicit(&r->shared->ready_tail, memory_order_relaxed);
        if (atomic_load(&r->shared->wake) != r->wake_seen || atomic_load(&r->shared->closed) ||
            ready - r->ready_head >= enough)
            break;
        sleep_on(r, timeout_ns < RESTS_NS ? timeout_ns : RESTS_NS);
    }
    r->wake_seen = atomic_load(&r->shared->wake);
}

/* The buffer of a slot as our own copy, or NULL if the slot makes no sense. */
static const uint8_t *ready_at(struct kat_reader *r, uint64_t slot, struct kat_ready *ready) {
    memcpy(ready, at(r, r->places.ready) + (slot & (r->places.slots - 1)) * sizeof *ready,
        sizeof *ready);
    if (ready->buffer >= r->geometry.buffer_count || ready->valid > r->geometry.buffer_bytes ||
        ready->layout >= kat_layout_count())
        return NULL;
    return at(r, r->places.buffers + (uint64_t)ready->buffer * r->geometry.buffer_bytes);
}

void kat_count_rows(struct kat_reader *r, uint32_t most, uint64_t rows[COLUMNS]) {
    memset(rows, 0, COLUMNS * sizeof *rows);
    uint64_t tail = atomic_load_explicit(&r->shared->ready_tail, memory_order_acquire);
    if (tail - r->ready_head > r->places.slots) { /* no worker of ours wrote this */
        r->malformed++;
        r->ready_head = tail;
    }
    r->looked_at = r->ready_head;
    for (; r->looked_at != tail && most--; r->looked_at++) {
        struct kat_ready ready;
        const uint8_t *buffer = ready_at(r, r->looked_at, &ready);
        if (buffer) kat_split_count(buffer, ready.valid, kat_layout_sizes(ready.layout), rows);
    }
}

static void give_back(struct kat_reader *r, uint32_t buffer) {
    _Atomic uint32_t *slots = (_Atomic uint32_t *)at(r, r->places.returned);
    atomic_store_explicit(
        &slots[r->returned_tail & (r->places.slots - 1)], buffer, memory_order_relaxed);
    atomic_store_explicit(&r->shared->returned_tail, ++r->returned_tail, memory_order_release);
}

void kat_take_rows(
    struct kat_reader *r, void *const columns[COLUMNS], uint64_t rows[COLUMNS]) {
    struct kat_split split = {.names = kat_names_known(r)};
    memcpy(split.columns, columns, sizeof split.columns);
    memcpy(split.most, rows, sizeof split.most);
    for (; r->ready_head != r->looked_at; r->ready_head++) {
        struct kat_ready ready;
        const uint8_t *buffer = ready_at(r, r->ready_head, &ready);
        if (!buffer) {
            r->malformed++;
            continue;
        }
        const uint16_t *sizes = kat_layout_sizes(ready.layout);
        if (!kat_split(&split, buffer, ready.valid, sizes, ready.offset_ns)) r->malformed++;
        give_back(r, ready.buffer);
    }
    atomic_store_explicit(&r->shared->ready_head, r->ready_head, memory_order_relaxed);
    r->rows_lost += split.lost;
    memcpy(rows, split.rows, sizeof split.rows);
}

uint32_t kat_names_known(struct kat_reader *r) {
    uint32_t known = atomic_load_explicit(&r->shared->names_count, memory_order_acquire);
    if (known > r->geometry.names_most) known = r->geometry.names_most;
    if (known > r->names_known) r->names_known = known; /* only ever grows */
    return r->names_known;
}

uint32_t kat_name(struct kat_reader *r, uint32_t id, char *text, uint32_t most) {
    if (id >= r->geometry.names_most) return 0;
    struct kat_name name;
    memcpy(&name, at(r, r->places.index) + (uint64_t)id * sizeof name, sizeof name);
    if (name.at > r->geometry.names_bytes || name.length > r->geometry.names_bytes - name.at)
        return 0;
    uint32_t length = name.length < most ? name.length : most;
    memcpy(text, at(r, r->places.names) + name.at, length);
    return length;
}

uint32_t kat_message(struct kat_reader *r, void *data, uint32_t *length) {
    uint32_t size = r->geometry.ring_bytes;
    uint64_t tail = atomic_load_explicit(&r->shared->ring_tail, memory_order_acquire);
    uint32_t type = MESSAGE_PAD;
    *length = 0;
    while (type == MESSAGE_PAD && r->ring_head != tail) {
        uint32_t offset = (uint32_t)(r->ring_head & (size - 1));
        struct kat_message_head head;
        uint64_t left = tail - r->ring_head;
        if (left > size || left < sizeof head || offset % 8 || size - offset < sizeof head) {
            r->malformed++;
            r->ring_head = tail & ~7ULL;
            break;
        }
        memcpy(&head, at(r, r->places.ring + offset), sizeof head);
        uint64_t need = sizeof head + ((uint64_t)head.length + 7) / 8 * 8;
        bool sense = need <= left && need <= size - offset &&
                     (head.type == MESSAGE_PAD || head.length <= KAT_LONGEST_MESSAGE);
        if (!sense) {
            r->malformed++;
            r->ring_head = tail & ~7ULL;
            break;
        }
        type = head.type;
        if (type != MESSAGE_PAD) {
            *length = head.length;
            memcpy(data, at(r, r->places.ring + offset + sizeof head), head.length);
        }
        r->ring_head += need;
    }
    atomic_store_explicit(&r->shared->ring_head, r->ring_head, memory_order_release);
    return type;
}

void kat_reader_counters(struct kat_reader *r, uint64_t counters[14]) {
    memcpy(counters, (void *)&r->shared->counters, 12 * sizeof *counters);
    counters[12] = r->rows_lost;
    counters[13] = r->malformed;
}

int kat_reader_more(struct kat_reader *r) {
    return atomic_load(&r->shared->ready_tail) != r->ready_head;
}

int kat_reader_closed(struct kat_reader *r) { return atomic_load(&r->shared->closed) != 0; }

void kat_reader_order(struct kat_reader *r, uint32_t mode) {
    atomic_store(&r->shared->order, mode);
}
