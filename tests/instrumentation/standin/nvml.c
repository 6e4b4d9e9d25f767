/* A libnvidia-ml.so.1 without a GPU: the functions that pynvml calls, with NVML's own ABI.
 *
 * What the GPUs say stands in the text file that KAT_STANDIN_NVML names, read at every call, as
 * lines "key value"; later lines win. A key may begin with a GPU's index and a dot ("1.power").
 * What the file does not say is not supported. "error.FUNCTION 15" makes a function fail,
 * "hang.FUNCTION 1" makes it hang until the line is gone. "xids 2" with "xid1 79", "xid2 48" posts
 * events. KAT_STANDIN_NVML_CALLS names a file to which every call's name is appended.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, NOT_LOADED = 9,
       TIMEOUT = 10, GPU_IS_LOST = 15 };
enum { MOST_GPUS = 16, NO_INSTANCE = -1 };
#define ABSENT INT64_MIN
#define EXPORT __attribute__((visibility("default")))

typedef struct { uintptr_t bits; } *device_t;  /* as opaque as nvmlDevice_t */

typedef struct {  /* nvmlPciInfo_t */
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci_info;

typedef struct {  /* nvmlFieldValue_t */
    uint32_t id, scope;
    int64_t timestamp, latency;
    uint32_t type, status;
    union { double number; unsigned small; unsigned long long large; } value;
} field_value;

typedef struct {  /* nvmlEventData_t */
    device_t device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} event_data;

typedef struct { unsigned version, sensor; int celsius; } temperature_v1;

static int64_t said(const char *key, int gpu) {
    const char *path = getenv("KAT_STANDIN_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return ABSENT;
    char own[96], name[96];
    long long value;
    int64_t found = ABSENT;
    snprintf(own, sizeof own, "%d.%s", gpu, key);
    while (fscanf(file, "%95s %lld", name, &value) == 2)
        if (!strcmp(name, key) || !strcmp(name, own)) found = value;
    fclose(file);
    return found;
}

static int64_t said_or(const char *key, int gpu, int64_t other) {
    int64_t value = said(key, gpu);
    return value == ABSENT ? other : value;
}

/* What becomes of a call: it is noted, may hang, may fail. */
static int fate(const char *function, int gpu) {
    const char *calls = getenv("KAT_STANDIN_NVML_CALLS");
    FILE *file = calls ? fopen(calls, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", function);
        fclose(file);
    }
    char key[96];
    snprintf(key, sizeof key, "hang.%s", function);
    while (said_or(key, gpu, 0)) usleep(5000);
    if (gpu >= 0 && said_or("lost", gpu, 0)) return GPU_IS_LOST;
    snprintf(key, sizeof key, "error.%s", function);
    return (int)said_or(key, gpu, SUCCESS);
}

static device_t handle(int gpu, int slice) {  /* slice 0: the whole GPU */
    return (device_t)(uintptr_t)(0x1000 + 16 * gpu + slice);
}
static int gpu_of(device_t device) { return (int)((uintptr_t)device - 0x1000) / 16; }
static int slice_of(device_t device) { return (int)((uintptr_t)device - 0x1000) % 16; }
static int gpus(void) { return (int)said_or("gpus", -1, 0); }

static int number(const char *function, const char *key, device_t device, unsigned *out) {
    int status = fate(function, gpu_of(device));
    if (status) return status;
    int64_t value = said(key, gpu_of(device));
    if (value == ABSENT) return NOT_SUPPORTED;
    *out = (unsigned)value;
    return SUCCESS;
}

static void uuid_of(device_t device, char *out, unsigned size) {
    int gpu = gpu_of(device), slice = slice_of(device);
    snprintf(out, size, "%s-%08x-5354-414e-4449-%012x", slice ? "MIG" : "GPU", gpu + 0xa0, slice);
}

EXPORT int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return getenv("KAT_STANDIN_NVML") ? fate("nvmlInitWithFlags", -1) : NOT_LOADED;
}
EXPORT int nvmlShutdown(void) { return fate("nvmlShutdown", -1); }
EXPORT const char *nvmlErrorString(int error) {
    static char text[32];
    snprintf(text, sizeof text, "stand-in error %d", error);
    return text;
}
EXPORT int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    snprintf(out, size, "999.1");
    return fate("nvmlSystemGetDriverVersion", -1);
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *out) {
    *out = (unsigned)gpus();
    return fate("nvmlDeviceGetCount", -1);
}
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *out) {
    if ((int)index >= gpus()) return INVALID_ARGUMENT;
    *out = handle((int)index, 0);
    return fate("nvmlDeviceGetHandleByIndex", (int)index);
}
EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, device_t *out) {
    char own[96];
    for (int gpu = 0; gpu < gpus(); gpu++)
        for (int slice = 0; slice <= (int)said_or("slices", gpu, 0); slice++) {
            uuid_of(handle(gpu, slice), own, sizeof own);
            if (!strcmp(own, uuid)) {
                *out = handle(gpu, slice);
                return fate("nvmlDeviceGetHandleByUUID", gpu);
            }
        }
    return NOT_FOUND;
}
EXPORT int nvmlDeviceGetUUID(device_t device, char *out, unsigned size) {
    uuid_of(device, out, size);
    return fate("nvmlDeviceGetUUID", gpu_of(device));
}
EXPORT int nvmlDeviceGetName(device_t device, char *out, unsigned size) {
    snprintf(out, size, "NVIDIA Stand-in %d", (int)said_or("kind", gpu_of(device), 1));
    return fate("nvmlDeviceGetName", gpu_of(device));
}
EXPORT int nvmlDeviceGetPciInfo_v3(device_t device, pci_info *out) {
    memset(out, 0, sizeof *out);
    out->bus = (unsigned)said_or("bus", gpu_of(device), 0x10 + gpu_of(device));
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", out->bus);
    return fate("nvmlDeviceGetPciInfo", gpu_of(device));
}
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, device_t *out) {
    pci_info info;
    for (int gpu = 0; gpu < gpus(); gpu++) {
        nvmlDeviceGetPciInfo_v3(handle(gpu, 0), &info);
        if (!strcmp(info.bus_id, bus_id)) {
            *out = handle(gpu, 0);
            return fate("nvmlDeviceGetHandleByPciBusId", gpu);
        }
    }
    return NOT_FOUND;
}

EXPORT int nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending) {
    int64_t slices = said("slices", gpu_of(device));
    if (slices == ABSENT) return NOT_SUPPORTED;
    *current = *pending = slices > 0;
    return fate("nvmlDeviceGetMigMode", gpu_of(device));
}
EXPORT int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *out) {
    *out = 7;
    return fate("nvmlDeviceGetMaxMigDeviceCount", gpu_of(device));
}
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *out) {
    /* the first number is a gap, as after a slice was destroyed */
    if (index == 0 || (int)index > (int)said_or("slices", gpu_of(device), 0)) return NOT_FOUND;
    *out = handle(gpu_of(device), (int)index);
    return fate("nvmlDeviceGetMigDeviceHandleByIndex", gpu_of(device));
}
EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t device, device_t *out) {
    *out = handle(gpu_of(device), 0);
    return fate("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", gpu_of(device));
}
EXPORT int nvmlDeviceGetGpuInstanceId(device_t device, unsigned *out) {
    *out = (unsigned)slice_of(device);
    return fate("nvmlDeviceGetGpuInstanceId", gpu_of(device));
}

EXPORT int nvmlDeviceGetClockInfo(device_t device, int type, unsigned *out) {
    return number("nvmlDeviceGetClockInfo", type == 2 ? "memory_clock" : "sm_clock", device, out);
}
static int reasons(const char *function, device_t device, unsigned long long *out) {
    unsigned bits = 0;
    int status = number(function, "reasons", device, &bits);
    *out = bits;
    return status;
}
EXPORT int nvmlDeviceGetCurrentClocksEventReasons(device_t device, unsigned long long *out) {
    return reasons("nvmlDeviceGetCurrentClocksEventReasons", device, out);
}
EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(device_t device, unsigned long long *out) {
    return reasons("nvmlDeviceGetCurrentClocksThrottleReasons", device, out);
}
EXPORT int nvmlDeviceGetPowerUsage(device_t device, unsigned *out) {
    return number("nvmlDeviceGetPowerUsage", "power", device, out);
}
EXPORT int nvmlDeviceGetEnforcedPowerLimit(device_t device, unsigned *out) {
    return number("nvmlDeviceGetEnforcedPowerLimit", "power_limit", device, out);
}
EXPORT int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *out) {
    (void)sensor;
    return number("nvmlDeviceGetTemperature", "temperature", device, out);
}
EXPORT int nvmlDeviceGetTemperatureV(device_t device, temperature_v1 *out) {
    if (out->version != 0x100000C) return INVALID_ARGUMENT;
    return number("nvmlDeviceGetTemperatureV", "temperature", device, (unsigned *)&out->celsius);
}
EXPORT int nvmlDeviceGetCurrPcieLinkWidth(device_t device, unsigned *out) {
    return number("nvmlDeviceGetCurrPcieLinkWidth", "pcie_width", device, out);
}
EXPORT int nvmlDeviceGetCurrPcieLinkGeneration(device_t device, unsigned *out) {
    return number("nvmlDeviceGetCurrPcieLinkGeneration", "pcie_generation", device, out);
}
EXPORT int nvmlDeviceGetUtilizationRates(device_t device, unsigned out[2]) {
    out[1] = 0;
    return number("nvmlDeviceGetUtilizationRates", "utilization", device, out);
}
EXPORT int nvmlDeviceGetNvLinkState(device_t device, unsigned link, unsigned *out) {
    int64_t links = said("links", gpu_of(device));
    if (links == ABSENT) return NOT_SUPPORTED;
    if ((int64_t)link >= links) return INVALID_ARGUMENT;
    *out = 1;
    return fate("nvmlDeviceGetNvLinkState", gpu_of(device));
}
EXPORT int nvmlDeviceGetFieldValues(device_t device, int count, field_value *values) {
    int status = fate("nvmlDeviceGetFieldValues", gpu_of(device));
    for (int i = 0; !status && i < count; i++) {
        char key[64];
        snprintf(key, sizeof key, "field.%u.%u", values[i].id, values[i].scope);
        int64_t value = said(key, gpu_of(device));
        if (value == ABSENT) {
            values[i].status = NOT_SUPPORTED;
            continue;
        }
        values[i].status = SUCCESS;
        snprintf(key, sizeof key, "type.%u", values[i].id);
        values[i].type = (uint32_t)said_or(key, gpu_of(device), 3);
        memset(&values[i].value, 0xff, sizeof values[i].value);  /* what is not set is rubbish */
        if (values[i].type == 0) values[i].value.number = (double)value;
        else if (values[i].type == 1) values[i].value.small = (unsigned)value;
        else values[i].value.large = (unsigned long long)value;
    }
    return status;
}

static int watched = -1, seen[MOST_GPUS];

EXPORT int nvmlEventSetCreate(void **out) {
    *out = (void *)&watched;
    return fate("nvmlEventSetCreate", -1);
}
EXPORT int nvmlEventSetFree(void *set) {
    (void)set;
    watched = -1;
    return fate("nvmlEventSetFree", -1);
}
EXPORT int nvmlDeviceRegisterEvents(device_t device, unsigned long long types, void *set) {
    (void)set;
    if (types != 8) return INVALID_ARGUMENT;
    watched = gpu_of(device);
    seen[watched] = (int)said_or("xids", watched, 0);  /* what came before is not told */
    return fate("nvmlDeviceRegisterEvents", watched);
}
EXPORT int nvmlEventSetWait_v2(void *set, event_data *out, unsigned timeout) {
    (void)set;
    (void)timeout;
    int status = fate("nvmlEventSetWait", watched);
    if (status) return status;
    if (watched < 0 || seen[watched] >= (int)said_or("xids", watched, 0)) return TIMEOUT;
    char key[32];
    snprintf(key, sizeof key, "xid%d", ++seen[watched]);
    memset(out, 0, sizeof *out);
    out->device = handle(watched, 0);
    out->type = 8;
    out->data = (unsigned long long)said_or(key, watched, 0);
    snprintf(key, sizeof key, "slice%d", seen[watched]);
    out->gpu_instance = out->compute_instance = (unsigned)said_or(key, watched, NO_INSTANCE);
    return SUCCESS;
}
