/* A libnvidia-ml.so.1 without GPUs behind it, told by the environment what to say.
 *
 * NVML_STUB_INIT        what nvmlInit returns (9: driver not loaded, 18: version mismatch)
 * NVML_STUB_GPUS        how many GPUs there are
 * NVML_STUB_LOST        the index of the one that has fallen off the bus
 * NVML_STUB_BARE        1: no utilisation, no temperature, no process list
 * NVML_STUB_NO_V3       1: a driver without the newest process functions
 * NVML_STUB_PROCESSES   pid:bytes of a process on GPU 0 (bytes of -1: not known)
 * NVML_STUB_DRAWS       pid:bytes of a process in GPU 0's graphics list
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7, NO_FUNCTION = 13, LOST = 15 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } rates_t;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_t;

static int ready;

static long asked(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

static long index_of(void *handle) { return (long)handle - 1; }

static int state_of(void *handle) {
    if (!ready) return UNINITIALIZED;
    return index_of(handle) == asked("NVML_STUB_LOST", -1) ? LOST : SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    int result = (int)asked("NVML_STUB_INIT", SUCCESS);
    if (result == SUCCESS) ready++;
    return result;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    if (!ready) return UNINITIALIZED;
    ready--;
    return SUCCESS;
}

const char *nvmlErrorString(int result) {
    (void)result;
    return "an error of the stub";
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    if (!ready) return UNINITIALIZED;
    *count = (unsigned int)asked("NVML_STUB_GPUS", 0);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    if (!ready) return UNINITIALIZED;
    if (index >= asked("NVML_STUB_GPUS", 0)) return INVALID;
    *handle = (void *)(long)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned int length) {
    snprintf(name, length, "Stub %ld", index_of(handle));
    return state_of(handle);
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-%08ld", index_of(handle));
    return state_of(handle);
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    memory->total = 80ULL << 30;
    memory->used = (unsigned long long)(index_of(handle) + 1) << 30;
    memory->free = memory->total - memory->used;
    return state_of(handle);
}

int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) {
    if (asked("NVML_STUB_BARE", 0)) return NOT_SUPPORTED;
    rates->gpu = 37;
    rates->memory = 11;
    return state_of(handle);
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned int *temperature) {
    (void)sensor;
    if (asked("NVML_STUB_BARE", 0)) return NOT_SUPPORTED;
    *temperature = 55;
    return state_of(handle);
}

static int processes(const char *name, void *handle, unsigned int *count, process_t *found) {
    const char *value = getenv(name);
    if (asked("NVML_STUB_BARE", 0)) return NOT_SUPPORTED;
    if (!value || index_of(handle) != 0) {
        *count = 0;
        return SUCCESS;
    }
    if (*count < 1 || !found) {
        *count = 1;
        return TOO_SMALL;
    }
    memset(found, 0, sizeof *found);
    found->pid = (unsigned int)atol(value);
    found->used = (unsigned long long)atoll(strchr(value, ':') + 1);
    *count = 1;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *count, process_t *found) {
    return asked("NVML_STUB_NO_V3", 0) ? NO_FUNCTION : processes("NVML_STUB_PROCESSES", handle, count, found);
}

int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned int *count, process_t *found) {
    return processes("NVML_STUB_PROCESSES", handle, count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned int *count, process_t *found) {
    return asked("NVML_STUB_NO_V3", 0) ? NO_FUNCTION : processes("NVML_STUB_DRAWS", handle, count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v2(void *handle, unsigned int *count, process_t *found) {
    return processes("NVML_STUB_DRAWS", handle, count, found);
}
