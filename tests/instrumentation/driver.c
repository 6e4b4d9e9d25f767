/* A program that does what libcuda does with CUDA_INJECTION64_PATH, and a server does after it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    const char *path = getenv("CUDA_INJECTION64_PATH");
    void *library = dlopen(path, RTLD_LAZY);
    int (*initialize)(void) = library ? (int (*)(void))dlsym(library, "InitializeInjection") : NULL;
    if (!initialize) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    if (initialize() != 1) return 2;
    if (initialize() != 1) return 3; /* a second context */
    char line[16];
    if (!fgets(line, sizeof line, stdin)) return 4; /* the server serves, until it is told to end */
    puts("served");
    return 0;
}
