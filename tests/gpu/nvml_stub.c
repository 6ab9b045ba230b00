/* A libnvidia-ml.so.1 without GPUs behind it. What it says stands in the folder that NVML_STUB names, read at each call,
 * so that a test can pull a GPU out of a running machine:
 *
 *     init                what nvmlInit returns (9: driver not loaded, 18: version mismatch); no file: success
 *     hang                while it is there, nvmlInit does not return
 *     old                 a driver without the newest process functions
 *     mortal              memory of processes that are gone is free, as on a real machine
 *     gpu0, gpu1, …       a folder for each GPU:
 *         uuid, name      texts
 *         total, used     bytes; what processes hold comes on top of `used`
 *         heat            degrees; no file: 55
 *         lost            it has fallen off the bus
 *         bare            no utilisation, temperature, power or process list
 *         compute/PID     bytes that a process holds (-1: the driver hides it)
 *         graphics/PID    the same, for one that draws
 *         mig/0, 1, …     it is divided; each a folder like a GPU's
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NO_FUNCTION = 13, LOST = 15 };
enum { MOST = 64, LONGEST = 4096 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } rates_t;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; } process_t;
typedef struct { char path[LONGEST]; int board; } device_t;

static int ready;
static device_t boards[MOST], parts[MOST][MOST];

static int text_of(const char *folder, const char *name, char *text, int length) {
    char path[LONGEST + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (!fgets(text, length, file)) text[0] = 0;
    text[strcspn(text, "\n")] = 0;
    fclose(file);
    return 1;
}

static long long number_of(const char *folder, const char *name, long long otherwise) {
    char text[64];
    return text_of(folder, name, text, sizeof text) ? atoll(text) : otherwise;
}

static int has(const char *folder, const char *name) {
    char path[LONGEST + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static const char *root(void) {
    const char *folder = getenv("NVML_STUB");
    return folder ? folder : "/nonexistent";
}

static int state_of(const device_t *device) {
    if (!ready) return UNINITIALIZED;
    return has(boards[device->board].path, "lost") ? LOST : SUCCESS;
}

/* The processes of a list; `found` may be NULL. Returns how many there are, and adds what they hold to `held`. */
static unsigned int list(const device_t *device, const char *kind, process_t *found, unsigned int most, unsigned long long *held) {
    char path[LONGEST + 64];
    snprintf(path, sizeof path, "%s/%s", device->path, kind);
    DIR *folder = opendir(path);
    unsigned int count = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        int pid = atoi(entry->d_name);
        if (pid <= 0 || (has(root(), "mortal") && kill(pid, 0) != 0)) continue;
        long long bytes = number_of(path, entry->d_name, 0);
        if (bytes > 0) *held += (unsigned long long)bytes;
        if (found && count < most) {
            memset(&found[count], 0, sizeof *found);
            found[count].pid = (unsigned int)pid;
            found[count].used = (unsigned long long)bytes;
        }
        count++;
    }
    if (folder) closedir(folder);
    return count;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    while (has(root(), "hang")) usleep(10000);
    int result = (int)number_of(root(), "init", SUCCESS);
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
    char name[32];
    for (*count = 0; snprintf(name, sizeof name, "gpu%u", *count), has(root(), name);) ++*count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device_t **handle) {
    unsigned int count;
    int result = nvmlDeviceGetCount_v2(&count);
    if (result != SUCCESS) return result;
    if (index >= count || index >= MOST) return INVALID;
    snprintf(boards[index].path, LONGEST, "%s/gpu%u", root(), index);
    boards[index].board = (int)index;
    *handle = &boards[index];
    return state_of(*handle);
}

int nvmlDeviceGetMigMode(device_t *device, unsigned int *now, unsigned int *later) {
    *now = *later = (unsigned int)has(device->path, "mig");
    return state_of(device);
}

int nvmlDeviceGetMaxMigDeviceCount(device_t *device, unsigned int *count) {
    *count = 7;
    return state_of(device);
}

int nvmlDeviceGetMigDeviceHandleByIndex(device_t *device, unsigned int slot, device_t **handle) {
    char name[32];
    snprintf(name, sizeof name, "mig/%u", slot);
    if (slot >= MOST || !has(device->path, name)) return NOT_FOUND;
    device_t *part = &parts[device->board][slot];
    snprintf(part->path, LONGEST, "%s/gpu%d/%s", root(), device->board, name);
    part->board = device->board;
    *handle = part;
    return state_of(device);
}

int nvmlDeviceGetName(device_t *device, char *name, unsigned int length) {
    text_of(device->path, "name", name, (int)length);
    return state_of(device);
}

int nvmlDeviceGetUUID(device_t *device, char *uuid, unsigned int length) {
    text_of(device->path, "uuid", uuid, (int)length);
    return state_of(device);
}

int nvmlDeviceGetMemoryInfo(device_t *device, memory_t *memory) {
    unsigned long long used = (unsigned long long)number_of(device->path, "used", 0);
    list(device, "compute", NULL, 0, &used);
    list(device, "graphics", NULL, 0, &used);
    memory->total = (unsigned long long)number_of(device->path, "total", 0);
    memory->used = used;
    memory->free = memory->total - used;
    return state_of(device);
}

static int measure(device_t *device, unsigned int *value, unsigned int says) {
    if (has(device->path, "bare")) return NOT_SUPPORTED;
    *value = says;
    return state_of(device);
}

int nvmlDeviceGetUtilizationRates(device_t *device, rates_t *rates) {
    rates->memory = 11;
    return measure(device, &rates->gpu, 37);
}

int nvmlDeviceGetTemperature(device_t *device, int sensor, unsigned int *celsius) {
    (void)sensor;
    return measure(device, celsius, (unsigned int)number_of(device->path, "heat", 55));
}

int nvmlDeviceGetPowerUsage(device_t *device, unsigned int *milliwatts) { return measure(device, milliwatts, 210500); }

int nvmlDeviceGetEnforcedPowerLimit(device_t *device, unsigned int *milliwatts) { return measure(device, milliwatts, 300000); }

static int processes(const char *kind, device_t *device, unsigned int *count, process_t *found) {
    if (has(device->path, "bare")) return NOT_SUPPORTED;
    unsigned int room = *count;
    unsigned long long held = 0;
    *count = list(device, kind, found, room, &held);
    if (*count > room || (*count && !found)) return TOO_SMALL;
    return state_of(device);
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t *device, unsigned int *count, process_t *found) {
    return has(root(), "old") ? NO_FUNCTION : processes("compute", device, count, found);
}

int nvmlDeviceGetComputeRunningProcesses_v2(device_t *device, unsigned int *count, process_t *found) {
    return processes("compute", device, count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(device_t *device, unsigned int *count, process_t *found) {
    return has(root(), "old") ? NO_FUNCTION : processes("graphics", device, count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v2(device_t *device, unsigned int *count, process_t *found) {
    return processes("graphics", device, count, found);
}
