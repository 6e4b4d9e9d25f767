/* Our NVTX tool: NVTX_INJECTION64_PATH names this library, and the NVTX in a program calls the two
 * functions at the end. Ranges are recorded when they close; while capture does not run they are
 * only counted in and out. */
#define _GNU_SOURCE
#include "nvtx.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

#define DEPTH 128u        /* open ranges a thread */
#define OPEN 4096u        /* open start-end ranges of the process */
#define MOST_TEXTS 65536u /* registered strings and domains */

struct open {
    const void *domain;
    uint32_t generation; /* of the ids in range; 0: capture did not run when it began */
    struct kat_range range;
};

static _Thread_local struct {
    struct open ranges[DEPTH];
    uint32_t depth;
    uint32_t beyond; /* opened, and not kept */
} stack;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* started, and its generations */
static struct started {
    bool taken;
    uint32_t turn; /* of the slot: an id is one range's */
    struct open open;
} started[OPEN];
static uint32_t next_slot;
static _Atomic uint32_t texts;

void kat_nvtx_in_child(void) {
    pthread_mutex_init(&lock, NULL);
    kat_payload_in_child();
}

/* --- texts ------------------------------------------------------------------------------- */

/* Other characters than ASCII's read as '?'. */
static void narrow(const wchar_t *wide, char *out, size_t size) {
    size_t i = 0;
    for (; wide && wide[i] && i + 1 < size; i++)
        out[i] = wide[i] > 0 && wide[i] < 128 ? (char)wide[i] : '?';
    out[i] = 0;
}

/* A handle is a copy of its text. They are few and live as long as the program, as NVTX has it;
 * of a program that makes no end of them the rest has one text. */
static const char *keep(const char *text) {
    if (!text || atomic_load(&texts) >= MOST_TEXTS) return "(names full)";
    char *copy = strndup(text, KAT_LONGEST_NAME);
    if (!copy) return "(names full)";
    atomic_fetch_add(&texts, 1);
    return copy;
}

static const char *keep_wide(const wchar_t *wide) {
    char text[1024];
    narrow(wide, text, sizeof text);
    return keep(text);
}

static void *domain_a(const char *name) { return (void *)(uintptr_t)keep(name); }

static void *domain_w(const wchar_t *name) { return (void *)(uintptr_t)keep_wide(name); }

static void *string_a(const void *domain, const char *text) {
    (void)domain;
    return (void *)(uintptr_t)keep(text);
}

static void *string_w(const void *domain, const wchar_t *text) {
    (void)domain;
    return (void *)(uintptr_t)keep_wide(text);
}

/* --- ranges ------------------------------------------------------------------------------ */

/* The domain's name when it has been said what it is: a handle, or NULL for the default one. */
static void begin(struct open *open, const void *domain, const char *name) {
    memset(open, 0, sizeof *open);
    open->domain = domain;
    if (!kat_wants_ranges()) return;
    open->generation = kat_generation();
    open->range = (struct kat_range){.kind = KIND_KAT_RANGE, .peer = -1, .bytes = -1,
        .thread = kat_thread(), .name = name ? kat_range_name(name) : 0,
        .domain = domain ? kat_range_name(domain) : 0};
    open->range.start = kat_now_ns();
}

static void begin_with(struct open *open, const void *domain, const struct nvtx_attributes *a) {
    char text[1024];
    const char *name = NULL;
    if (a && a->message_type == NVTX_MESSAGE_UNICODE) {
        narrow(a->message.wide, text, sizeof text);
        name = text;
    } else if (a && (a->message_type == NVTX_MESSAGE_ASCII ||
                        a->message_type == NVTX_MESSAGE_REGISTERED)) {
        name = a->message.ascii;
    }
    begin(open, domain, name);
    if (a && open->generation && a->payload_type == NVTX_PAYLOAD_TYPE_EXT && a->payload_count > 0)
        kat_payload_read(domain, a->payload.extended, (size_t)a->payload_count, &open->range);
}

static void end(struct open *open, const struct nvtx_payload_data *data, size_t count) {
    if (!open->generation || !kat_wants_ranges() || open->generation != kat_generation()) return;
    open->range.end = kat_now_ns();
    if (open->range.end < open->range.start) open->range.end = open->range.start; /* set clock */
    kat_payload_read(open->domain, data, count, &open->range);
    kat_put_range(&open->range);
}

/* The place for a range that is pushed; NULL if it is one too many. */
static struct open *push(void) {
    if (stack.depth < DEPTH) return &stack.ranges[stack.depth++];
    stack.beyond++;
    return NULL;
}

static int level(void) { return (int)(stack.depth + stack.beyond) - 1; }

static int pop(const void *domain, const struct nvtx_payload_data *data, size_t count) {
    int was = level();
    if (stack.beyond) {
        stack.beyond--;
        return was;
    }
    for (uint32_t i = stack.depth; i-- > 0;) { /* each domain nests on its own */
        if (stack.ranges[i].domain != domain) continue;
        struct open open = stack.ranges[i];
        memmove(&stack.ranges[i], &stack.ranges[i + 1],
            (--stack.depth - i) * sizeof *stack.ranges);
        end(&open, data, count);
        return was;
    }
    return -1;
}

static uint64_t start(const struct open *open) {
    uint64_t id = 0; /* NVTX's own "no range" */
    pthread_mutex_lock(&lock);
    for (uint32_t probe = 0; probe < 64 && !id; probe++) {
        uint32_t slot = next_slot++ % OPEN;
        if (started[slot].taken) continue;
        started[slot].taken = true;
        started[slot].turn++;
        started[slot].open = *open;
        id = (uint64_t)started[slot].turn * OPEN + slot;
    }
    pthread_mutex_unlock(&lock);
    return id;
}

static void end_started(uint64_t id, const struct nvtx_payload_data *data, size_t count) {
    struct open open = {0};
    struct started *slot = &started[id % OPEN];
    pthread_mutex_lock(&lock);
    bool ours = slot->taken && slot->turn == (uint32_t)(id / OPEN);
    if (ours) {
        open = slot->open;
        slot->taken = false;
    }
    pthread_mutex_unlock(&lock);
    if (ours) end(&open, data, count);
}

/* --- what NVTX calls --------------------------------------------------------------------- */

static int domain_push_ex(const void *domain, const struct nvtx_attributes *attributes) {
    struct open *open = push();
    if (open) begin_with(open, domain, attributes);
    return level();
}

static int push_ex(const struct nvtx_attributes *attributes) {
    return domain_push_ex(NULL, attributes);
}

static int push_a(const char *name) {
    struct open *open = push();
    if (open) begin(open, NULL, name);
    return level();
}

static int push_w(const wchar_t *name) {
    char text[1024];
    narrow(name, text, sizeof text);
    return push_a(text);
}

static int domain_pop(const void *domain) { return pop(domain, NULL, 0); }

static int default_pop(void) { return pop(NULL, NULL, 0); }

static uint64_t domain_start_ex(const void *domain, const struct nvtx_attributes *attributes) {
    struct open open;
    begin_with(&open, domain, attributes);
    return start(&open);
}

static uint64_t start_ex(const struct nvtx_attributes *attributes) {
    return domain_start_ex(NULL, attributes);
}

static uint64_t start_a(const char *name) {
    struct open open;
    begin(&open, NULL, name);
    return start(&open);
}

static uint64_t start_w(const wchar_t *name) {
    char text[1024];
    narrow(name, text, sizeof text);
    return start_a(text);
}

static void domain_end(const void *domain, uint64_t id) {
    (void)domain;
    end_started(id, NULL, 0);
}

static void default_end(uint64_t id) { end_started(id, NULL, 0); }

static int payload_push(
    const void *domain, const struct nvtx_payload_data *data, size_t count) {
    struct nvtx_attributes attributes = {.payload_type = NVTX_PAYLOAD_TYPE_EXT,
        .payload_count = (int32_t)count, .payload.extended = data};
    return domain_push_ex(domain, &attributes);
}

static uint64_t payload_start(
    const void *domain, const struct nvtx_payload_data *data, size_t count) {
    struct nvtx_attributes attributes = {.payload_type = NVTX_PAYLOAD_TYPE_EXT,
        .payload_count = (int32_t)count, .payload.extended = data};
    return domain_start_ex(domain, &attributes);
}

static void payload_end(
    const void *domain, uint64_t id, const struct nvtx_payload_data *data, size_t count) {
    (void)domain;
    end_started(id, data, count);
}

static uint8_t payload_enabled(const void *domain) {
    (void)domain;
    return kat_wants_ranges();
}

/* --- attaching --------------------------------------------------------------------------- */

struct slot {
    unsigned id;
    nvtx_function function;
};
#define SLOT(id, function) {id, (nvtx_function)function}
#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool attach(const struct nvtx_callbacks *callbacks, int module, const struct slot *slots,
    size_t count) {
    nvtx_function **table = NULL;
    unsigned size = 0;
    if (!callbacks->get_module_function_table(module, &table, &size) || !table) return false;
    for (size_t i = 0; i < count; i++)
        if (slots[i].id < size && table[slots[i].id]) *table[slots[i].id] = slots[i].function;
    return true;
}

KAT_EXPORT int InitializeInjectionNvtx2(const void *(*get_export_table)(uint32_t)) {
    static const struct slot core[] = {SLOT(CORE_START_EX, start_ex), SLOT(CORE_START_A, start_a),
        SLOT(CORE_START_W, start_w), SLOT(CORE_END, default_end), SLOT(CORE_PUSH_EX, push_ex),
        SLOT(CORE_PUSH_A, push_a), SLOT(CORE_PUSH_W, push_w), SLOT(CORE_POP, default_pop)};
    static const struct slot core2[] = {SLOT(CORE2_START_EX, domain_start_ex),
        SLOT(CORE2_END, domain_end), SLOT(CORE2_PUSH_EX, domain_push_ex),
        SLOT(CORE2_POP, domain_pop), SLOT(CORE2_STRING_A, string_a),
        SLOT(CORE2_STRING_W, string_w), SLOT(CORE2_DOMAIN_A, domain_a),
        SLOT(CORE2_DOMAIN_W, domain_w)};
    const struct nvtx_callbacks *callbacks = get_export_table(NVTX_TABLE_CALLBACKS);
    if (!callbacks || callbacks->struct_size < sizeof *callbacks) return 0;
    return attach(callbacks, NVTX_MODULE_CORE, core, COUNT(core)) &&
           attach(callbacks, NVTX_MODULE_CORE2, core2, COUNT(core2));
}

KAT_EXPORT int InitializeInjectionNvtxExtension(struct nvtx_extension_module *module) {
    static const struct slot slots[] = {SLOT(PAYLOAD_SCHEMA, kat_payload_schema),
        SLOT(PAYLOAD_PUSH, payload_push), SLOT(PAYLOAD_POP, pop),
        SLOT(PAYLOAD_START, payload_start), SLOT(PAYLOAD_END, payload_end),
        SLOT(PAYLOAD_ENABLED, payload_enabled)};
    if (!module || module->module_id != NVTX_MODULE_PAYLOAD || module->segment_count < 1) return 0;
    struct nvtx_extension_segment *segment = &module->segments[0];
    for (size_t i = 0; i < COUNT(slots); i++)
        if (slots[i].id < segment->slot_count)
            segment->slots[slots[i].id] = (intptr_t)slots[i].function;
    return 1;
}
