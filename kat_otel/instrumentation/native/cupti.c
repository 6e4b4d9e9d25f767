#include "cupti.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "layouts.h"

#define THREAD_ID_OF_THE_SYSTEM 1
#define MOST_CALLBACK_IDS 2048u
#define BIT(kind) (1ULL << (kind))

enum { INVALID_KIND = 21, NOT_COMPATIBLE = 14, NOT_INITIALIZED = 15, NOT_IMPLEMENTED = 11,
    NOT_SUPPORTED = 27, PRIVILEGES = 35, SUBSCRIBERS = 39, VIRTUAL_PRIVILEGES = 40,
    MAX_LIMIT = CUPTI_MAX_LIMIT_REACHED, UNKNOWN = 999 };

static bool refuse(struct kat_cupti *cupti, struct kat_outcome *outcome, int result,
    const char *function) {
    const char *name = NULL;
    switch (result) {
    case SUBSCRIBERS:
    case MAX_LIMIT: /* what cuptiSubscribe says on older versions */
        outcome->code = KAT_BUSY;
        break;
    case NOT_INITIALIZED:
    case UNKNOWN:
        outcome->code = KAT_NO_DRIVER;
        break;
    case PRIVILEGES:
    case VIRTUAL_PRIVILEGES:
        outcome->code = KAT_NO_PERMISSION;
        break;
    default:
        outcome->code = KAT_REFUSED;
    }
    outcome->result = result;
    snprintf(outcome->function, sizeof outcome->function, "%s", function);
    if (cupti->get_result_string && !cupti->get_result_string(result, &name) && name)
        snprintf(outcome->detail, sizeof outcome->detail, "%s", name);
    return false;
}

static bool resolve(struct kat_cupti *cupti, struct kat_outcome *outcome) {
    const struct {
        const char *name;
        void *slot;
        bool needed;
    } functions[] = {
        {"cuptiGetVersion", &cupti->get_version, true},
        {"cuptiGetTimestamp", &cupti->get_timestamp, true},
        {"cuptiGetResultString", &cupti->get_result_string, false},
        {"cuptiGetCallbackName", &cupti->get_callback_name, true},
        {"cuptiSubscribe", &cupti->subscribe, true},
        {"cuptiUnsubscribe", &cupti->unsubscribe, true},
        {"cuptiSetThreadIdType", &cupti->set_thread_id_type, true},
        {"cuptiActivityRegisterCallbacks", &cupti->register_callbacks, true},
        {"cuptiActivityEnable", &cupti->enable, true},
        {"cuptiActivityDisable", &cupti->disable, true},
        {"cuptiActivityEnableRuntimeApi", &cupti->enable_runtime_api, false},
        {"cuptiActivityEnableDriverApi", &cupti->enable_driver_api, false},
        {"cuptiActivityFlushAll", &cupti->flush_all, true},
        {"cuptiActivityGetNextRecord", &cupti->get_next_record, true},
        {"cuptiActivityGetNumDroppedRecords", &cupti->get_dropped, true},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *found = dlsym(cupti->library, functions[i].name);
        if (!found && functions[i].needed) {
            outcome->code = KAT_NO_FUNCTION;
            snprintf(outcome->function, sizeof outcome->function, "%s", functions[i].name);
            return false;
        }
        memcpy(functions[i].slot, &found, sizeof found);
    }
    return true;
}

bool kat_cupti_load(struct kat_cupti *cupti, const char *path, struct kat_outcome *outcome) {
    cupti->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!cupti->library) {
        const char *why = dlerror();
        outcome->code = KAT_NO_LIBRARY;
        snprintf(outcome->detail, sizeof outcome->detail, "%s", why ? why : path);
        return false;
    }
    if (!resolve(cupti, outcome)) return false;
    int result = cupti->get_version(&outcome->version);
    if (result) return refuse(cupti, outcome, result, "cuptiGetVersion");
    int row = kat_layout_of(outcome->version);
    if (row < 0) {
        outcome->code = KAT_UNKNOWN_VERSION;
        return false;
    }
    outcome->layout_version = kat_layout_version((uint32_t)row);
    return true;
}

bool kat_cupti_wanted(const char *name) {
    if (!strncmp(name, "__", 2)) name += 2; /* __cudaLaunchKernel of 13.0 */
    if (!strncmp(name, "cuda", 4)) {
        name += 4;
    } else if (!strncmp(name, "cu", 2)) {
        name += 2;
    } else {
        return false;
    }
    static const char *const begins[] = {
        "Launch", "GraphLaunch", "Memcpy", "Memset", "StreamWaitEvent", "MemPrefetch"};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (!strncmp(name, begins[i], strlen(begins[i]))) return strncmp(name, "LaunchHost", 10);
    return strstr(name, "Synchronize") != NULL;
}

/* A subscriber of no callbacks: it takes CUPTI, so that two tools do not fight over its buffers. */
static void nothing(void *data, int domain, uint32_t id, const void *info) {
    (void)data, (void)domain, (void)id, (void)info;
}

/* Only the calls that we want, where this CUPTI can choose; all of them else (records.c sorts). */
static int enable_api(struct kat_cupti *cupti, uint32_t kind) {
    bool driver = kind == KIND_DRIVER;
    int (*choose)(uint32_t, uint8_t) =
        driver ? cupti->enable_driver_api : cupti->enable_runtime_api;
    if (!choose) return cupti->enable(kind);
    for (uint32_t id = 1; id < MOST_CALLBACK_IDS; id++) {
        const char *name = NULL;
        int domain = driver ? CUPTI_DOMAIN_DRIVER : CUPTI_DOMAIN_RUNTIME;
        if (cupti->get_callback_name(domain, id, &name) || !name) continue;
        if (!kat_cupti_wanted(name)) continue;
        int result = choose(id, 1);
        if (result) return result;
    }
    return 0;
}

static bool may_be_missing(uint32_t kind, int result) {
    if (kind == KIND_CONCURRENT_KERNEL) return false;
    return result == INVALID_KIND || result == NOT_SUPPORTED || result == NOT_IMPLEMENTED ||
           result == NOT_COMPATIBLE;
}

bool kat_cupti_on(struct kat_cupti *cupti, kat_request_callback request,
    kat_complete_callback complete, struct kat_outcome *outcome) {
    int result = cupti->subscribe(&cupti->subscriber, (void *)nothing, NULL);
    if (result) {
        cupti->subscriber = NULL;
        return refuse(cupti, outcome, result, "cuptiSubscribe");
    }
    const char *function = "cuptiSetThreadIdType";
    result = cupti->set_thread_id_type(THREAD_ID_OF_THE_SYSTEM);
    if (!result) {
        function = "cuptiActivityRegisterCallbacks";
        result = cupti->register_callbacks(request, complete);
    }
    for (uint32_t kind = 0; !result && kind < KAT_KINDS; kind++) {
        if (!(cupti->kinds & BIT(kind))) continue;
        function = "cuptiActivityEnable";
        bool api = kind == KIND_DRIVER || kind == KIND_RUNTIME;
        result = api ? enable_api(cupti, kind) : cupti->enable(kind);
        /* Also when it failed: some of its calls may be on. */
        cupti->enabled |= BIT(kind);
        if (result && may_be_missing(kind, result)) result = 0, cupti->enabled &= ~BIT(kind);
    }
    cupti->on = true;
    if (!result) return true;
    kat_cupti_off(cupti);
    return refuse(cupti, outcome, result, function);
}

void kat_cupti_off(struct kat_cupti *cupti) {
    if (!cupti->on) return;
    for (uint32_t kind = 0; kind < KAT_KINDS; kind++)
        if (cupti->enabled & BIT(kind)) cupti->disable(kind);
    cupti->enabled = 0;
    if (cupti->subscriber) cupti->unsubscribe(cupti->subscriber);
    cupti->subscriber = NULL;
    cupti->on = false;
}
