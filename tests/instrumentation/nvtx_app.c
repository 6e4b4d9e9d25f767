/* A program with NVTX in it, as far as a tool sees one: the tables that a tool fills in, and calls
 * through them, with payloads as NCCL registers and sends them. Layouts are NVTX 3's ABI. */
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <wchar.h>

typedef void (*function)(void);
static function core[16], core2[16];
static function *core_table[16], *core2_table[16];
static intptr_t slots[64];

static int get_table(int module, function ***table, unsigned *size) {
    for (int i = 1; i < 16; i++) core_table[i] = &core[i], core2_table[i] = &core2[i];
    *table = module == 1 ? core_table : module == 5 ? core2_table : NULL;
    *size = 16;
    return *table != NULL;
}

static const void *get_export_table(uint32_t id) {
    static struct {
        size_t size;
        int (*get)(int, function ***, unsigned *);
    } callbacks = {sizeof callbacks, get_table};
    return id == 1 ? &callbacks : NULL;
}

struct segment {
    size_t id, count;
    intptr_t *slots;
};
struct module {
    uint16_t version, size, id, compatibility;
    size_t count;
    struct segment *segments;
    void *get_export, *info;
};

struct payload_data {
    uint64_t schema;
    size_t size;
    const void *payload;
};
struct attributes {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, payload_count;
    const void *payload;
    int32_t message_type;
    const void *message;
};
struct entry {
    uint64_t flags, type;
    const char *name, *description;
    uint64_t array, offset;
    const void *semantics, *reserved;
};
struct schema {
    uint64_t mask;
    const char *name;
    uint64_t type, flags;
    const struct entry *entries;
    size_t count, size, align;
    uint64_t id;
    void *extension;
};

#define CALL(table, id, type, ...) ((type)table[id])(__VA_ARGS__)

int app_attach(const char *path) {
    void *tool = dlopen(path, RTLD_LAZY);
    if (!tool) return 1;
    int (*nvtx)(const void *(*)(uint32_t)) = (void *)dlsym(tool, "InitializeInjectionNvtx2");
    int (*extension)(struct module *) = (void *)dlsym(tool, "InitializeInjectionNvtxExtension");
    struct segment segment = {0, 63, slots};
    struct module module = {3, sizeof module, 2, 0x0103, 1, &segment, NULL, NULL};
    if (!nvtx || !nvtx(get_export_table)) return 2;
    if (!extension || !extension(&module)) return 3;
    struct module other = module;
    other.id = 3; /* counters: not ours */
    return extension(&other) == 0 ? 0 : 4;
}

int app_push(const char *name) { return CALL(core, 9, int (*)(const char *), name); }
int app_push_wide(const wchar_t *name) { return CALL(core, 10, int (*)(const wchar_t *), name); }
int app_pop(void) { return CALL(core, 11, int (*)(void)); }
uint64_t app_start(const char *name) { return CALL(core, 5, uint64_t (*)(const char *), name); }
void app_end(uint64_t id) { CALL(core, 7, void (*)(uint64_t), id); }
void *app_domain(const char *name) { return CALL(core2, 12, void *(*)(const char *), name); }
int app_domain_pop(void *domain) { return CALL(core2, 5, int (*)(void *), domain); }

int app_domain_push(void *domain, const char *name) {
    struct attributes a = {.version = 3, .size = 48, .message_type = 1, .message = name};
    return CALL(core2, 4, int (*)(void *, struct attributes *), domain, &a);
}

/* As ncclSend since 2.26: communicator, bytes, peer; registered name. */
int app_send(void *domain, uint64_t communicator, uint64_t bytes, int peer) {
    struct payload {
        uint64_t communicator;
        size_t bytes;
        int peer;
    } payload = {communicator, bytes, peer};
    const struct entry entries[] = {
        {0, 18, "NCCL communicator ID", NULL, 0, offsetof(struct payload, communicator), NULL, NULL},
        {0, 22, "Message size [bytes]", NULL, 0, offsetof(struct payload, bytes), NULL, NULL},
        {0, 5, "Peer rank", NULL, 0, offsetof(struct payload, peer), NULL, NULL},
    };
    struct schema schema = {1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8, NULL, 1, 0, entries, 3,
        sizeof payload, 0, (1 << 24) + 9, NULL};
    ((uint64_t (*)(void *, struct schema *))slots[0])(domain, &schema);
    void *name = CALL(core2, 10, void *(*)(void *, const char *), domain, "ncclSend");
    struct payload_data data[] = {{schema.id, sizeof payload, &payload}};
    struct attributes a = {.version = 3, .size = 48, .payload_type = (int32_t)0xDFBD0009,
        .payload_count = 1, .payload = data, .message_type = 3, .message = name};
    return CALL(core2, 4, int (*)(void *, struct attributes *), domain, &a);
}

/* As ncclReduce in 2.19: no communicator, no offset of the first entry, an enumeration between. */
int app_reduce(void *domain, uint64_t bytes, int root) {
    struct payload {
        size_t bytes;
        int root;
        int operation;
    } payload = {bytes, root, 0};
    const struct entry entries[] = {
        {0, 22, "Message size [bytes]", NULL, 0, 0, NULL, NULL},
        {0, 5, "Root", NULL, 0, offsetof(struct payload, root), NULL, NULL},
        {0, (1 << 24) + 11, "Reduction operation", NULL, 0, offsetof(struct payload, operation),
            NULL, NULL},
    };
    struct schema schema = {1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8, "Reduce", 1, 0, entries, 3,
        0, 0, (1 << 24) + 8, NULL};
    ((uint64_t (*)(void *, struct schema *))slots[0])(domain, &schema);
    struct payload_data data[] = {{schema.id, sizeof payload, &payload}};
    struct attributes a = {.version = 3, .size = 48, .payload_type = (int32_t)0xDFBD0009,
        .payload_count = 1, .payload = data, .message_type = 1, .message = "ncclReduce"};
    return CALL(core2, 4, int (*)(void *, struct attributes *), domain, &a);
}

/* As ncclCommInitRank since 2.24: the payload comes with the end; its schema has a dynamic id. */
int app_init_rank(void *domain, uint64_t communicator, size_t said_size) {
    const struct entry entries[] = {{0, 18, "NCCL communicator ID", NULL, 0, 0, NULL, NULL}};
    struct schema schema = {1 << 2 | 1 << 4 | 1 << 5, NULL, 1, 0, entries, 1, 0, 0, 77, NULL};
    uint64_t id = ((uint64_t (*)(void *, struct schema *))slots[0])(domain, &schema);
    struct payload_data data = {id, said_size, &communicator};
    app_domain_push(domain, "ncclCommInitRank");
    return ((int (*)(void *, struct payload_data *, size_t))slots[4])(domain, &data, 1);
}
