/* Threads that emit recorded rows at their times, or a made-up load at a rate. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "standin.h"

#define EXPORT __attribute__((visibility("default")))
#define MOST_THREADS 64

struct replay {
    struct row *rows;
    uint64_t count;
    const char **names;
    int64_t start; /* Unix ns */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t threads[MOST_THREADS];
static int running;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void sleep_until(int64_t when) {
    struct timespec t = {when / 1000000000, when % 1000000000};
    if (when > now()) clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, NULL);
}

static void *run(void *argument) {
    struct replay *replay = argument;
    for (uint64_t i = 0; i < replay->count; i++) {
        sleep_until(replay->start + replay->rows[i].at);
        standin_emit(&replay->rows[i], replay->names, replay->start);
    }
    free(replay->rows); /* names stay: CUPTI's pointers are valid for good */
    free(replay);
    return NULL;
}

static int begin(void *(*work)(void *), void *argument) {
    pthread_mutex_lock(&lock);
    int failed = running == MOST_THREADS || pthread_create(&threads[running], NULL, work, argument);
    if (!failed) running++;
    pthread_mutex_unlock(&lock);
    return failed ? -1 : 0;
}

static bool reuse;

/* The next replay's names take the memory of the last one's, as when a module is unloaded and
 * another loaded; they must not be longer. */
EXPORT void standin_reuse(int on) { reuse = on; }

/* Rows sorted by `at`; texts are `name_count` strings, each with its 0. Returns at once. */
EXPORT int standin_replay(const struct row *rows, uint64_t count, const char *texts,
    uint64_t bytes, uint64_t name_count, int64_t start_unix_ns) {
    static char *last;
    struct replay *replay = malloc(sizeof *replay);
    char *copy = reuse && last ? last : malloc(bytes + 1);
    memcpy(copy, texts, bytes);
    last = copy;
    *replay = (struct replay){malloc(count * sizeof *rows + 1), count,
        malloc((name_count + 1) * sizeof(char *)), start_unix_ns ? start_unix_ns : now()};
    memcpy(replay->rows, rows, count * sizeof *rows);
    for (uint64_t i = 0; i < name_count; i++, copy += strlen(copy) + 1) replay->names[i] = copy;
    return begin(run, replay);
}

/* A file of standin.write(): "KATROWS1", counts of rows, bytes and names, rows, texts. */
EXPORT int standin_replay_file(const char *path, int64_t start_unix_ns) {
    int fd = open(path, O_RDONLY);
    struct stat status;
    if (fd < 0 || fstat(fd, &status)) return -1;
    const char *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED || memcmp(map, "KATROWS1", 8)) return -1;
    uint64_t counts[3];
    memcpy(counts, map + 8, sizeof counts);
    const struct row *rows = (const struct row *)(map + 32);
    return standin_replay(
        rows, counts[0], (const char *)(rows + counts[0]), counts[1], counts[2], start_unix_ns);
}

EXPORT void standin_wait(void) {
    pthread_mutex_lock(&lock);
    while (running) pthread_join(threads[--running], NULL);
    pthread_mutex_unlock(&lock);
}

/* STANDIN_CUPTI_REPLAY=FILE: begun when kernels are first enabled, for programs without Python. */
void standin_started(void) {
    static bool begun;
    const char *path = getenv("STANDIN_CUPTI_REPLAY");
    if (path && !begun) begun = !standin_replay_file(path, 0);
}

struct load {
    uint64_t kernels, rate;
    uint32_t thread;
};

/* A launch and its kernel, `rate` times a second, in slices of a millisecond; every tenth kernel
 * is a collective. */
static void *make_load(void *argument) {
    struct load load = *(struct load *)argument;
    free(argument);
    enum { NAMES = 64, COLLECTIVE, LAUNCH };
    static char texts[NAMES][200];
    const char *names[LAUNCH + 1];
    for (int i = 0; i < NAMES; i++) {
        snprintf(texts[i], sizeof texts[i],
            "_ZN7cutlass6Kernel2I%dcutlass_80_tensorop_bf16_s16816gemm_relu_bf16_%dx%d_32x5_tn_align8"
            "EEvNT_6ParamsE_some_more_of_a_long_mangled_name_%d", i, 64 + i, 128 + i, i * 7919);
        names[i] = texts[i];
    }
    names[COLLECTIVE] = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)";
    names[LAUNCH] = "cudaLaunchKernel";
    int64_t start = now();
    for (uint64_t i = 0; i < load.kernels; i++) {
        int64_t at = (int64_t)(i * 1000000000ull / load.rate);
        if (i % (load.rate / 1000 + 1) == 0) sleep_until(start + at);
        struct row launch = {.kind = 5, .name = LAUNCH, .start = at, .end = at + 2500,
            .correlation = (uint32_t)i + 1, .thread = load.thread};
        uint32_t name = i % 10 == 9 ? COLLECTIVE : (uint32_t)(i * 2654435761u >> 16) % NAMES;
        struct row kernel = {.kind = 10, .name = name,
            .start = at + 4000, .end = at + 9000, .correlation = (uint32_t)i + 1, .stream = 7,
            .grid = {128, 1, 1}, .block = {256, 1, 1}};
        standin_emit(&launch, names, start);
        standin_emit(&kernel, names, start);
    }
    return NULL;
}

/* As if the calling thread launched them. */
EXPORT int standin_load(uint64_t kernels, uint64_t rate) {
    struct load *load = malloc(sizeof *load);
    *load = (struct load){kernels, rate, (uint32_t)syscall(SYS_gettid)};
    return begin(make_load, load);
}
