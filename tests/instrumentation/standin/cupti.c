/* The functions that libcupti exports, as far as capture calls them. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "standin.h"

#define EXPORT __attribute__((visibility("default")))
#define KINDS 64u
#define CALLS 2048u
#define PENDING 1024u
enum { OK = 0, INVALID_PARAMETER = 1, INVALID_OPERATION = 7, MAX_LIMIT_REACHED = 12,
    INVALID_KIND = 21, SUBSCRIBERS = 39 };

typedef void (*request_fn)(uint8_t **, size_t *, size_t *);
typedef void (*complete_fn)(void *, uint32_t, uint8_t *, size_t, size_t);

struct buffer {
    uint8_t *data;
    size_t size, used;
    int64_t complete_at; /* when its last record has ended */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static request_fn request;
static complete_fn complete;
static bool on[KINDS], chosen[3][CALLS];
static void *subscriber;
static bool held; /* by another tool */
static int thread_ids;
static size_t dropped;
static int64_t skew;
static uint32_t grown;   /* bytes that records have beyond what the version says */
static uint32_t corrupt; /* records to spoil */
static struct buffer current, pending[PENDING];
static uint32_t pending_count;
static uint64_t callback_ns, callback_records;
static uint32_t version = 130500;

void standin_started(void); /* these two of replay.c */
void standin_reuse(int on);

static int64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* What STANDIN_CUPTI_FAIL="function=code,..." says. */
static int failure(const char *function) {
    const char *said = getenv("STANDIN_CUPTI_FAIL");
    const char *found = said ? strstr(said, function) : NULL;
    size_t length = strlen(function);
    return found && found[length] == '=' ? atoi(found + length + 1) : OK;
}

uint32_t standin_version(void) { return version; }

uint32_t standin_size(uint32_t kind) {
    uint32_t v = version;
    switch (kind) {
    case 1: return (v >= 130400 ? 112 : v >= 26 ? 96 : 88) + grown;
    case 2: return (v >= 130400 ? 104 : 88) + grown;
    case 3:
    case 10: return (v >= 130400 ? 248 : v >= 130200 ? 224 : v >= 130000 ? 216 : 208) + grown;
    case 4:
    case 5: return 40;
    case 12: return 56;
    case 17: return v >= 22 ? 56 : 40;
    case 22: return 96;
    case 38: return v >= 26 ? 56 : 40;
    case 39: return 24;
    case 51: return v >= 22 ? 56 : 48;
    case 52: return 64; /* a kind that nobody asked for */
    default: return 0;
    }
}

/* --- control, for tests ------------------------------------------------------------------ */

EXPORT void standin_reset(uint32_t new_version) {
    pthread_mutex_lock(&lock);
    version = new_version;
    memset(on, 0, sizeof on);
    memset(chosen, 0, sizeof chosen);
    memset(&current, 0, sizeof current);
    request = NULL, complete = NULL, subscriber = NULL;
    held = false, thread_ids = 0, dropped = 0, skew = 0, grown = 0, corrupt = 0;
    pending_count = 0, callback_ns = 0, callback_records = 0;
    standin_reuse(0);
    pthread_mutex_unlock(&lock);
}

EXPORT void standin_hold(int by_another) { held = by_another; }
EXPORT void standin_skew(int64_t ns) { skew = ns; }
EXPORT void standin_grow(uint32_t bytes) { grown = bytes; }
EXPORT void standin_corrupt(uint32_t records) { corrupt = records; }
EXPORT int standin_enabled(void) {
    int count = subscriber ? 1 : 0;
    for (uint32_t i = 0; i < KINDS; i++) count += on[i];
    for (uint32_t i = 0; i < CALLS; i++) count += chosen[1][i] + chosen[2][i];
    return count;
}
EXPORT void standin_callbacks(uint64_t out[2]) { /* CPU ns in them, records in their buffers */
    out[0] = callback_ns;
    out[1] = callback_records;
}

/* --- libcupti ---------------------------------------------------------------------------- */

__attribute__((constructor)) static void from_environment(void) {
    const char *said = getenv("STANDIN_CUPTI_VERSION");
    if (said) version = (uint32_t)strtoul(said, NULL, 10);
}

EXPORT int cuptiGetVersion(uint32_t *out) {
    *out = version;
    return failure("cuptiGetVersion");
}

EXPORT int cuptiGetTimestamp(uint64_t *out) {
    *out = (uint64_t)(clock_ns(CLOCK_REALTIME) + skew);
    return OK;
}

EXPORT int cuptiGetResultString(int result, const char **out) {
    *out = result == SUBSCRIBERS ? "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED" : "STANDIN";
    return OK;
}

EXPORT int cuptiGetCallbackName(int domain, uint32_t id, const char **out) {
    *out = standin_call_name(domain, id);
    return *out ? OK : INVALID_PARAMETER;
}

EXPORT int cuptiSubscribe(void **out, void *callback, void *data) {
    (void)data;
    int result = failure("cuptiSubscribe");
    if (!result && (held || subscriber)) result = SUBSCRIBERS;
    if (!result && !callback) result = INVALID_PARAMETER;
    if (!result) *out = subscriber = &subscriber;
    return result;
}

EXPORT int cuptiUnsubscribe(void *which) {
    if (which != subscriber) return INVALID_PARAMETER;
    subscriber = NULL;
    return OK;
}

EXPORT int cuptiSetThreadIdType(int type) {
    thread_ids = type;
    return failure("cuptiSetThreadIdType");
}

EXPORT int cuptiActivityRegisterCallbacks(request_fn requested, complete_fn completed) {
    int result = failure("cuptiActivityRegisterCallbacks");
    if (!result && (!requested || !completed)) result = INVALID_PARAMETER;
    if (!result) request = requested, complete = completed;
    return result;
}

EXPORT int cuptiActivityEnable(uint32_t kind) {
    const char *only = getenv("STANDIN_CUPTI_FAIL_KIND");
    int result = !only || (uint32_t)atoi(only) == kind ? failure("cuptiActivityEnable") : OK;
    if (!result && (kind >= KINDS || !standin_size(kind))) result = INVALID_KIND;
    if (!result) on[kind] = true;
    if (!result && kind == 10) standin_started();
    return result;
}

EXPORT int cuptiActivityDisable(uint32_t kind) {
    if (kind >= KINDS) return INVALID_KIND;
    on[kind] = false;
    if (kind == 4 || kind == 5) memset(chosen[kind == 4 ? 1 : 2], 0, sizeof chosen[0]);
    return OK;
}

#ifndef OLD /* since 12.9 */
static int choose(int domain, uint32_t id, uint8_t enable) {
    if (!standin_call_name(domain, id)) return INVALID_PARAMETER;
    chosen[domain][id] = enable;
    return OK;
}

EXPORT int cuptiActivityEnableDriverApi(uint32_t id, uint8_t enable) {
    return choose(1, id, enable);
}

EXPORT int cuptiActivityEnableRuntimeApi(uint32_t id, uint8_t enable) {
    return choose(2, id, enable);
}
#endif

EXPORT int cuptiActivityGetNextRecord(uint8_t *buffer, size_t valid, uint8_t **record) {
    uint8_t *next = buffer;
    if (*record) {
        uint32_t size = standin_size(*(uint32_t *)*record);
        if (!size) return INVALID_KIND;
        next = *record + size;
    }
    if (next >= buffer + valid) return MAX_LIMIT_REACHED;
    *record = next;
    return OK;
}

EXPORT int cuptiActivityGetNumDroppedRecords(void *context, uint32_t stream, size_t *out) {
    (void)context, (void)stream;
    *out = dropped;
    dropped = 0;
    return OK;
}

/* Callbacks run without the lock, as CUPTI's do: they may call back. */
static void hand_over(struct buffer buffer) {
    pthread_mutex_unlock(&lock);
    int64_t began = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    if (complete) complete(NULL, 0, buffer.data, buffer.size, buffer.used);
    int64_t took = clock_ns(CLOCK_THREAD_CPUTIME_ID) - began;
    pthread_mutex_lock(&lock);
    callback_ns += (uint64_t)took;
}

/* Full buffers wait until their records have ended; the current one may go before it is full. */
static void deliver(bool partly, bool forced) {
    int64_t now = clock_ns(CLOCK_REALTIME);
    for (uint32_t i = 0; i < pending_count;) {
        if (!forced && pending[i].complete_at > now) {
            i++;
            continue;
        }
        struct buffer ready = pending[i];
        memmove(pending + i, pending + i + 1, (--pending_count - i) * sizeof *pending);
        hand_over(ready);
        i = 0; /* the lock was given up: others may have come or gone */
    }
    if (partly && current.data && (forced || (current.used && current.complete_at <= now))) {
        struct buffer ready = current;
        memset(&current, 0, sizeof current);
        hand_over(ready);
    }
}

EXPORT int cuptiActivityFlushAll(uint32_t flag) {
    if (!complete) return INVALID_OPERATION;
    pthread_mutex_lock(&lock);
    deliver(true, flag == 1);
    pthread_mutex_unlock(&lock);
    return OK;
}

/* --- emitting ---------------------------------------------------------------------------- */

static uint8_t *place(uint32_t size, int64_t ends) {
    if (current.data && current.used + size > current.size) {
        if (pending_count < PENDING) pending[pending_count++] = current;
        memset(&current, 0, sizeof current);
        deliver(false, false);
    }
    if (!current.data) {
        size_t most = 0;
        int64_t began = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        if (request) request(&current.data, &current.size, &most);
        callback_ns += (uint64_t)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - began);
        current.used = 0, current.complete_at = 0;
        if (!current.data) {
            dropped++;
            return NULL;
        }
    }
    uint8_t *record = current.data + current.used;
    memset(record, 0xa5, size); /* fields that we do not know are not 0 */
    current.used += size;
    if (ends > current.complete_at) current.complete_at = ends;
    callback_records++;
    return record;
}

static void put(uint8_t *record, uint32_t offset, const void *value, size_t size) {
    memcpy(record + offset, value, size);
}
#define PUT(offset, type, value) put(p, offset, &(type){(type)(value)}, sizeof(type))

void standin_emit(const struct row *r, const char *const *names, int64_t began) {
    int domain = r->kind == 4 ? 1 : 2;
    uint32_t call = 0;
    bool wanted = r->kind < KINDS && on[r->kind];
    if (r->kind == 4 || r->kind == 5) {
        call = standin_call_id(domain, names[r->name]);
        wanted = wanted || chosen[domain][call];
    }
    bool timed = r->start || r->end;
    int64_t start = timed ? began + r->start + skew : 0, end = timed ? began + r->end + skew : 0;
    pthread_mutex_lock(&lock);
    uint8_t *p = wanted || r->kind == 52 ? place(standin_size(r->kind), end - skew) : NULL;
    if (!p) {
        pthread_mutex_unlock(&lock);
        return;
    }
    uint32_t kind = r->kind;
    PUT(0, uint32_t, kind);
    switch (kind) {
    case 3:
    case 10:
        PUT(16, int64_t, start), PUT(24, int64_t, end), PUT(40, int32_t, r->device);
        PUT(48, int32_t, r->stream), put(p, 52, r->grid, 12), put(p, 64, r->block, 12);
        PUT(92, uint32_t, r->correlation), PUT(104, const char *, names[r->name]);
        PUT(144, uint64_t, r->graph_node), PUT(156, uint32_t, r->graph);
        break;
    case 1:
    case 2:
    case 22: {
        bool peer = kind == 22;
        PUT(4, uint8_t, r->extra), PUT(8, int64_t, r->bytes), PUT(16, int64_t, start);
        PUT(24, int64_t, end), PUT(32, int32_t, r->device), PUT(40, int32_t, r->stream);
        PUT(peer ? 60 : 44, uint32_t, r->correlation);
        PUT(peer ? 72 : 64, uint64_t, r->graph_node), PUT(peer ? 80 : 72, uint32_t, r->graph);
        break;
    }
    case 4:
    case 5: /* without SetThreadIdType these are pthread's, which nobody can match */
        PUT(4, uint32_t, call), PUT(8, int64_t, start), PUT(16, int64_t, end);
        PUT(28, uint32_t, thread_ids == 1 ? r->thread : ~r->thread);
        PUT(32, uint32_t, r->correlation);
        break;
    case 12:
        PUT(4, uint32_t, r->extra), PUT(8, int64_t, start), PUT(16, uint32_t, r->id);
        PUT(20, uint32_t, 2), PUT(28, uint32_t, thread_ids == 1 ? r->thread : ~r->thread);
        PUT(40, const char *, r->extra & 4 ? NULL : names[r->name]);
        PUT(48, const char *, r->extra & 4 ? NULL : names[r->domain]);
        break;
    case 17:
        PUT(4, uint32_t, r->extra), PUT(24, int64_t, start), PUT(32, int64_t, end);
        break;
    case 38:
        PUT(4, uint32_t, r->extra), PUT(8, int64_t, start), PUT(16, int64_t, end);
        PUT(24, uint32_t, r->correlation), PUT(32, int32_t, r->stream);
        break;
    case 39:
        PUT(4, uint32_t, r->extra), PUT(8, uint64_t, r->id), PUT(16, uint32_t, r->correlation);
        break;
    case 51:
        PUT(4, uint32_t, r->correlation), PUT(8, int64_t, start), PUT(16, int64_t, end);
        PUT(24, int32_t, r->device), PUT(28, uint32_t, r->graph), PUT(36, int32_t, r->stream);
        break;
    default: break;
    }
    if (corrupt) corrupt--, PUT(0, uint32_t, 61);
    pthread_mutex_unlock(&lock);
}
