/* For servers without Python (TensorRT-LLM, Triton): CUDA_INJECTION64_PATH names this library, the
 * driver loads it and calls InitializeInjection in cuInit. Capture starts, and a helper process
 * that makes spans of the records. Whatever fails is one line on stderr: the server runs on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "capture.h"

#define BUFFER_BYTES (64u << 10)
#define BIT(kind) (1ULL << (kind))

extern char **environ;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

/* settings.py has the whole table; a value that makes no sense is its default here too. */
static uint32_t buffer_count(void) {
    char *end;
    const char *text = setting("KAT_BUFFER_MIB");
    unsigned long mib = strtoul(text, &end, 10);
    if (!*text || *end || mib < 2 || mib > 4096) mib = 32;
    return (uint32_t)((mib << 20) / BUFFER_BYTES);
}

static uint64_t kinds(void) {
    uint64_t wanted = BIT(KIND_CONCURRENT_KERNEL) | BIT(KIND_MEMCPY) | BIT(KIND_MEMCPY2) |
                      BIT(KIND_MEMSET) | BIT(KIND_SYNCHRONIZATION) | BIT(KIND_RUNTIME) |
                      BIT(KIND_DRIVER) | BIT(KIND_EXTERNAL_CORRELATION) | BIT(KIND_OVERHEAD);
    if (strcmp(setting("KAT_CUDA_GRAPHS"), "node")) wanted |= BIT(KIND_GRAPH_TRACE);
    if (!strstr(setting("NVTX_INJECTION64_PATH"), "libkat_capture.so")) wanted |= BIT(KIND_MARKER);
    return wanted;
}

static bool started(const char *cupti, struct kat_outcome *outcome) {
    struct kat_options options = {.geometry = {.buffer_count = buffer_count(),
                                      .buffer_bytes = BUFFER_BYTES, .ring_bytes = 1u << 20,
                                      .names_most = 32768, .names_bytes = 8u << 20},
        .flush_ms = 100, .kinds = kinds(), .cupti = cupti};
    return kat_start(&options, outcome) == KAT_OK;
}

static bool start_with_some_cupti(struct kat_outcome *outcome) {
    static const char *const names[] = {"libcupti.so.13", "libcupti.so.12", "libcupti.so",
        "/usr/local/cuda/extras/CUPTI/lib64/libcupti.so", "/usr/local/cuda/lib64/libcupti.so"};
    const size_t count = sizeof names / sizeof *names;
    const char *given = setting("KAT_CUPTI_LIBRARY");
    if (*given) return started(given, outcome);
    for (size_t i = 0; i < count; i++) /* one that the process has goes before all others */
        if (dlopen(names[i], RTLD_NOW | RTLD_NOLOAD)) return started(names[i], outcome);
    for (size_t i = 0; i < count; i++) {
        if (started(names[i], outcome)) return true;
        if (outcome->code != KAT_NO_LIBRARY) return false;
    }
    return false;
}

/* The helper must not be captured, nor instrument itself. */
static char **environment_of_helper(void) {
    static const char *const without[] = {
        "CUDA_INJECTION64_PATH=", "NVTX_INJECTION64_PATH=", "LD_PRELOAD=", "KAT_HELPER="};
    static char helper[] = "KAT_HELPER=1";
    size_t count = 0, kept = 0;
    while (environ[count]) count++;
    char **copy = calloc(count + 2, sizeof *copy);
    for (size_t i = 0; copy && i < count; i++) {
        bool keep = true;
        for (size_t j = 0; j < sizeof without / sizeof *without; j++)
            keep = keep && strncmp(environ[i], without[j], strlen(without[j]));
        if (keep) copy[kept++] = environ[i];
    }
    if (copy) copy[kept] = helper;
    return copy;
}

static int spawn_helper(void) {
    char fd[16];
    snprintf(fd, sizeof fd, "%d", kat_fd());
    const char *python = setting("KAT_HELPER_PYTHON");
    const char *with_python[] = {
        python, "-P", "-m", "kat_otel.instrumentation.sending.helper", "--fd", fd, NULL};
    const char *by_name[] = {"kat-otel-helper", "--fd", fd, NULL};
    const char **command = *python ? with_python : by_name;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, kat_fd(), kat_fd()); /* not closed at exec */
    /* The server's output is not ours to write to, nor its pipe to be held open by us. */
    if (kat_fd() > STDIN_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (kat_fd() > STDOUT_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_init(&attributes);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
#ifdef POSIX_SPAWN_SETSID
    flags |= POSIX_SPAWN_SETSID; /* Ctrl-C is for the server: the helper drains after it */
#endif
    posix_spawnattr_setflags(&attributes, flags);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    char **environment = environment_of_helper();
    pid_t helper;
    int error = environment ? posix_spawnp(&helper, command[0], &actions, &attributes,
                                  (char *const *)command, environment)
                            : ENOMEM;
    free(environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* session.py's is_off: the kill switches, and our own helper. */
static bool is_off(void) {
    const char *disabled = setting("OTEL_SDK_DISABLED");
    return !strcasecmp(disabled, "true") || !strcmp(disabled, "1") ||
           !strcmp(setting("KAT_MODE"), "off") || !strcmp(setting("KAT_HELPER"), "1");
}

/* 1: loaded. Always: an injection that refuses would stop the server's cuInit. */
KAT_EXPORT int InitializeInjection(void) {
    static _Atomic bool begun;
    if (atomic_exchange(&begun, true)) return 1;
    if (is_off()) return 1;
    struct kat_outcome outcome = {0};
    if (!start_with_some_cupti(&outcome)) {
        if (outcome.code != KAT_ALREADY) /* a Python server that has the package, too */
            fprintf(stderr, "kat-otel: no capture in this process: %s: %s (%d);"
                            " kat doctor explains, the server runs on\n",
                *outcome.function ? outcome.function : "libcupti", outcome.detail,
                outcome.result);
        return 1;
    }
    int error = spawn_helper();
    if (error) {
        kat_stop();
        fprintf(stderr, "kat-otel: no capture in this process: the helper does not start: %s;"
                        " set KAT_HELPER_PYTHON to a Python that has kat-otel\n",
            strerror(error));
        return 1;
    }
    if (!strcmp(setting("KAT_MODE"), "digest")) kat_order(MODE_DIGEST);
    return 1;
}
