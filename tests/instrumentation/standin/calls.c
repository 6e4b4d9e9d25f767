/* Names of the CUDA calls by callback id: a few real ones, and new ones as tests ask for them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "standin.h"

#define IDS 2048u
#define FIRST_NEW 1500u

static const char *names[3][IDS] = {
    [1] = {[17] = "cuCtxSynchronize", [126] = "cuStreamSynchronize", [279] = "cuMemcpyDtoHAsync_v2",
        [295] = "cuStreamWaitEvent", [307] = "cuLaunchKernel", [514] = "cuGraphLaunch",
        [652] = "cuLaunchKernelEx"},
    [2] = {[3] = "cudaGetDeviceCount_v3020", [31] = "cudaMemcpy_v3020",
        [41] = "cudaMemcpyAsync_v3020", [51] = "cudaMemsetAsync_v3020",
        [131] = "cudaStreamSynchronize_v3020", [134] = "cudaEventRecord_v3020",
        [137] = "cudaEventSynchronize_v3020", [147] = "cudaStreamWaitEvent_v3020",
        [161] = "cudaMemcpyPeerAsync_v4000", [165] = "cudaDeviceSynchronize_v3020",
        [211] = "cudaLaunchKernel_v7000", [214] = "cudaLaunchKernel_ptsz_v7000",
        [269] = "cudaLaunchCooperativeKernel_v9000", [311] = "cudaGraphLaunch_v10000",
        [430] = "cudaLaunchKernelExC_v11060"},
};
static uint32_t next[3] = {0, FIRST_NEW, FIRST_NEW};

const char *standin_call_name(int domain, uint32_t id) {
    return domain >= 1 && domain <= 2 && id < IDS ? names[domain][id] : NULL;
}

uint32_t standin_call_id(int domain, const char *plain) {
    size_t length = strlen(plain);
    for (uint32_t id = 0; id < IDS; id++) {
        const char *name = names[domain][id];
        if (name && !strncmp(name, plain, length) && (!name[length] || !strncmp(name + length, "_v", 2)))
            return id;
    }
    char *made = malloc(length + 8);
    snprintf(made, length + 8, domain == 1 ? "%s" : "%s_v12000", plain);
    names[domain][next[domain]] = made;
    return next[domain]++;
}
