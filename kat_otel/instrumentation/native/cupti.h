/* libcupti, loaded by path: its functions, what is switched on, and how it says no. */
#ifndef KAT_CUPTI_H
#define KAT_CUPTI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kat_code { /* of kat_outcome; library.py has the same */
    KAT_OK = 0,
    KAT_ALREADY = 1,         /* capture runs in this process */
    KAT_NO_MEMORY = 2,       /* result is an errno */
    KAT_NO_LIBRARY = 3,      /* libcupti could not be loaded */
    KAT_NO_FUNCTION = 4,     /* it lacks a function */
    KAT_UNKNOWN_VERSION = 5, /* older than all we know */
    KAT_BUSY = 6,            /* another tool has CUPTI */
    KAT_NO_DRIVER = 7,
    KAT_NO_PERMISSION = 8,
    KAT_REFUSED = 9, /* any other CUptiResult */
};

struct kat_outcome {
    int32_t code;
    int32_t result; /* CUptiResult or errno */
    uint32_t version;
    uint32_t layout_version; /* of the row of layouts.c that is taken */
    char function[64];
    char detail[256];
};

#define CUPTI_MAX_LIMIT_REACHED 12
#define CUPTI_FLUSH_FORCED 1u
#define CUPTI_DOMAIN_DRIVER 1
#define CUPTI_DOMAIN_RUNTIME 2

typedef void (*kat_request_callback)(uint8_t **buffer, size_t *size, size_t *most_records);
typedef void (*kat_complete_callback)(
    void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid);

struct kat_cupti {
    void *library;
    void *subscriber;
    bool on;
    uint64_t kinds;   /* asked for */
    uint64_t enabled; /* and given */
    int (*get_version)(uint32_t *);
    int (*get_timestamp)(uint64_t *);
    int (*get_result_string)(int, const char **);
    int (*get_callback_name)(int domain, uint32_t id, const char **);
    int (*subscribe)(void **, void *callback, void *data);
    int (*unsubscribe)(void *);
    int (*set_thread_id_type)(int);
    int (*register_callbacks)(kat_request_callback, kat_complete_callback);
    int (*enable)(uint32_t kind);
    int (*disable)(uint32_t kind);
    int (*enable_runtime_api)(uint32_t id, uint8_t enable); /* NULL before 12.9 */
    int (*enable_driver_api)(uint32_t id, uint8_t enable);
    int (*flush_all)(uint32_t flag);
    int (*get_next_record)(uint8_t *buffer, size_t valid, uint8_t **record);
    int (*get_dropped)(void *context, uint32_t stream, size_t *count);
};

/* Loads libcupti and asks for its version. */
bool kat_cupti_load(struct kat_cupti *cupti, const char *path, struct kat_outcome *outcome);

/* Subscribes, registers and enables; all or nothing. */
bool kat_cupti_on(struct kat_cupti *cupti, kat_request_callback request,
    kat_complete_callback complete, struct kat_outcome *outcome);

/* Disables all; CUPTI is free for another tool then. */
void kat_cupti_off(struct kat_cupti *cupti);

/* Whether a call is one whose time we want: launches, copies, waits. */
bool kat_cupti_wanted(const char *name);

#endif
