/* A stand-in for Biren's management library, for tests of the binding that loads it.
 *
 * What it says stands in the file that BRML_STATE names, read anew at each call: lines `key=value`.
 *
 *   gpus=2                         how many GPUs there are
 *   gpu.1.mode=2 gpu.1.pending=2   SVI modes
 *   gpu.1.nodes=1 2                node ids of the GPU's cards: one, or one for each instance
 *   card.2.temperature.0=45        a value of the card with that node id; none: not supported
 *   pair.1.2.p2p=2 1 3             a value of two cards, the lower node id first
 *   system.driver=1.12.0           a value of the whole
 *   error.8=timed out              what a code means
 *   fail.F=8, fail.F.2=8           F returns that code, for all or for the card (or index) 2
 *   hang.F=1, hang.F.2=1           F does not return for as long as that stands there
 *
 * A text that begins with ~ fills its buffer to the last byte, without an end. Who begins to hang
 * writes one line to the FIFO BRML_STATE.hangs. Compiled with -DOLD it lacks several functions.
 *
 * Types, names and structures are those of the library's public header.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NO_STATE = 0xFF, BAD_ARGUMENT = 2 };
enum { GPUS = 256, CARDS = 4, STATE = 256 * 1024, TEXT = 80, NONE = -1 };

typedef struct { int gpu, card; } *device_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned domain, bus, device, function, pciDeviceId, pciSubSystemId; char busId[32]; } pci_t;
typedef struct { char name[96], id[96], serial[96], board_id[96]; } gpu_info_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { int type; unsigned count, port[8]; } p2p_t;

/* Handles lead here, so that one that was cut to 32 bits leads elsewhere. card NONE: the GPU. */
static struct { int gpu, card; } handles[GPUS][1 + CARDS];

/* The value of a key, copied to `value`; 0 if there is none. */
static int find(char *value, size_t size, const char *format, ...)
{
    char key[128], *state, *line, *rest;
    const char *path = getenv("BRML_STATE");
    int file, found = 0;
    ssize_t length;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(key, sizeof key - 1, format, arguments);
    va_end(arguments);
    strcat(key, "=");
    if (!path || (file = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return 0;
    state = malloc(STATE);
    length = read(file, state, STATE - 1);
    close(file);
    state[length > 0 ? length : 0] = 0;
    for (line = strtok_r(state, "\n", &rest); line && !found; line = strtok_r(NULL, "\n", &rest))
        if (!strncmp(line, key, strlen(key))) {
            snprintf(value, size, "%s", line + strlen(key));
            found = 1;
        }
    free(state);
    return found;
}

static int told(const char *what, const char *function, int number, char *value, size_t size)
{
    return find(value, size, "%s.%s", what, function)
        || (number != NONE && find(value, size, "%s.%s.%d", what, function, number));
}

/* What every function does first: hangs if it is told to, then the code that it must return. */
static int begin(const char *function, int number)
{
    char value[TEXT], path[4096];
    int fifo;

    if (told("hang", function, number, value, sizeof value)) {
        snprintf(path, sizeof path, "%s.hangs", getenv("BRML_STATE"));
        if ((fifo = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0) {
            dprintf(fifo, "%s %d\n", function, number);
            close(fifo);
        }
        while (told("hang", function, number, value, sizeof value))
            usleep(2000); /* a file that changes wakes nobody */
    }
    return told("fail", function, number, value, sizeof value) ? atoi(value) : SUCCESS;
}

static int node_of(device_t device)
{
    char value[TEXT], *place = value;
    int card;

    if (!device || !find(value, sizeof value, "gpu.%d.nodes", device->gpu))
        return NONE;
    for (card = device->card > 0 ? device->card : 0; card; card--)
        strtol(place, &place, 10);
    return (int)strtoul(place, NULL, 10);
}

/* `count` numbers of a key's value, into a list; NOT_SUPPORTED if the key is not there. */
static int numbers(unsigned long long *list, int count, const char *key)
{
    char value[512], *place = value;

    if (!find(value, sizeof value, "%s", key))
        return NOT_SUPPORTED;
    while (count--)
        *list++ = strtoull(place, &place, 10);
    return SUCCESS;
}

/* A text, and after its end as many other bytes as the buffer takes. */
static int text(char *buffer, unsigned size, unsigned least, const char *key)
{
    char value[512];

    if (!find(value, sizeof value, "%s", key))
        return NOT_SUPPORTED;
    if (size < least)
        return BAD_ARGUMENT;
    memset(buffer, 'Z', size);
    if (*value == '~')
        memset(buffer, value[1], size);
    else
        snprintf(buffer, size, "%s", value);
    return SUCCESS;
}

#define BEGIN(number) do { int code = begin(__func__, number); if (code) return code; } while (0)
#define KEY(...) char key[128]; snprintf(key, sizeof key, __VA_ARGS__)
#define NUMBERS(count) unsigned long long list[count]; \
    do { int code = numbers(list, count, key); if (code) return code; } while (0)

int brmlInit(void) { BEGIN(NONE); return SUCCESS; }
int brmlShutdown(void) { BEGIN(NONE); return SUCCESS; }

int brmlSystemGetDriverVersion(char *version, unsigned size)
{
    BEGIN(NONE);
    return text(version, size, TEXT, "system.driver");
}

int brmlSystemGetBRMLVersion(char *version, unsigned size)
{
    BEGIN(NONE);
    return text(version, size, TEXT, "system.library");
}

int brmlDeviceGetCount(unsigned *count)
{
    BEGIN(NONE);
    KEY("gpus");
    NUMBERS(1);
    *count = list[0];
    return SUCCESS;
}

static int handle(device_t *device, unsigned gpu, int card)
{
    char value[TEXT];

    if (gpu >= GPUS || card >= CARDS)
        return BAD_ARGUMENT;
    handles[gpu][1 + card].gpu = gpu;
    handles[gpu][1 + card].card = card;
    *device = find(value, sizeof value, "no_handles") ? NULL : (device_t)&handles[gpu][1 + card];
    return SUCCESS;
}

int brmlDeviceGetHandleByIndex(unsigned index, device_t *device)
{
    BEGIN(index);
    return handle(device, index, NONE);
}

int brmlDeviceGetHandleByNodeId(unsigned node, device_t *device)
{
    char value[TEXT], *place, *end;
    int gpu, card;

    BEGIN(node);
    for (gpu = 0; gpu < GPUS && find(value, sizeof value, "gpu.%d.nodes", gpu); gpu++)
        for (card = 0, place = value; *place; card++, place = end) {
            if (strtoul(place, &end, 10) == node)
                return handle(device, gpu, end[0] || card ? card : NONE);
            if (end == place)
                break;
        }
    return BAD_ARGUMENT;
}

int brmlDeviceGetNodeId(device_t device, unsigned *node)
{
    BEGIN(node_of(device));
    *node = node_of(device);
    return SUCCESS;
}

int brmlDeviceGetSviMode(device_t device, unsigned *current, unsigned *pending)
{
    char value[TEXT];

    BEGIN(node_of(device));
    if (!find(value, sizeof value, "gpu.%d.mode", device->gpu))
        return NOT_SUPPORTED;
    *current = atoi(value);
    *pending = find(value, sizeof value, "gpu.%d.pending", device->gpu) ? atoi(value) : -1;
    return SUCCESS;
}

int brmlDeviceGetUUID(device_t device, char *uuid, unsigned size)
{
    BEGIN(node_of(device));
    KEY("card.%d.uuid", node_of(device));
    return text(uuid, size, TEXT, key);
}

int brmlDeviceGetMemoryInfo(device_t device, memory_t *memory)
{
    BEGIN(node_of(device));
    KEY("card.%d.memory", node_of(device));
    NUMBERS(3);
    *memory = (memory_t){list[0], list[1], list[2]};
    return SUCCESS;
}

int brmlDeviceGetPciInfo(device_t device, pci_t *pci)
{
    BEGIN(node_of(device));
    KEY("card.%d.bus_id", node_of(device));
    memset(pci, 0xA5, sizeof *pci);
    return text(pci->busId, sizeof pci->busId, sizeof pci->busId, key);
}

int brmlDeviceGetGpuInfo(device_t device, gpu_info_t *info)
{
    int code;

    BEGIN(node_of(device));
    KEY("card.%d.name", node_of(device));
    char serial[128];
    snprintf(serial, sizeof serial, "card.%d.serial", node_of(device));
    memset(info, 0xA5, sizeof *info);
    code = text(info->name, sizeof info->name, sizeof info->name, key);
    return code ? code : text(info->serial, sizeof info->serial, sizeof info->serial, serial);
}

int brmlDeviceGetTemperature(device_t device, int sensor, unsigned *degrees)
{
    BEGIN(node_of(device));
    KEY("card.%d.temperature.%d", node_of(device), sensor);
    NUMBERS(1);
    *degrees = list[0];
    return SUCCESS;
}

int brmlDeviceGetTemperatureThreshold(device_t device, int kind, unsigned *degrees)
{
    BEGIN(node_of(device));
    KEY("card.%d.threshold.%d", node_of(device), kind);
    NUMBERS(1);
    *degrees = list[0];
    return SUCCESS;
}

int brmlDeviceGetTotalEccErrors(device_t device, int type, int counter, unsigned long long *errors)
{
    BEGIN(node_of(device));
    KEY("card.%d.ecc.%d.%d", node_of(device), type, counter);
    NUMBERS(1);
    *errors = list[0];
    return SUCCESS;
}

int brmlDeviceGetPowerUsage(device_t device, unsigned *milliwatts)
{
    BEGIN(node_of(device));
    KEY("card.%d.power", node_of(device));
    NUMBERS(1);
    *milliwatts = list[0];
    return SUCCESS;
}

int brmlDeviceGetCurrentClocksThrottleReasons(device_t device, unsigned long long *reasons)
{
    BEGIN(node_of(device));
    KEY("card.%d.throttle", node_of(device));
    NUMBERS(1);
    *reasons = list[0];
    return SUCCESS;
}

int brmlDeviceGetBrLinkNumber(device_t device, unsigned *number)
{
    BEGIN(node_of(device));
    KEY("card.%d.links", node_of(device));
    NUMBERS(1);
    *number = list[0];
    return SUCCESS;
}

int brmlDeviceGetBrLinkState(device_t device, unsigned link, int *state)
{
    BEGIN(node_of(device));
    KEY("card.%d.link_states", node_of(device));
    NUMBERS(32);
    if (link >= 32)
        return BAD_ARGUMENT;
    *state = list[link];
    return SUCCESS;
}

int brmlDeviceGetUtilizationRates(device_t device, utilization_t *rates)
{
    BEGIN(node_of(device));
    KEY("card.%d.utilization", node_of(device));
    NUMBERS(2);
    *rates = (utilization_t){list[0], list[1]};
    return SUCCESS;
}

int brmlDeviceGetNumaNode(device_t device, unsigned *node)
{
    BEGIN(node_of(device));
    KEY("card.%d.numa_node", node_of(device));
    NUMBERS(1);
    *node = list[0];
    return SUCCESS;
}

#ifndef OLD

int brmlDeviceGetGpuInstanceById(device_t device, unsigned id, device_t *instance)
{
    BEGIN(node_of(device));
    return handle(instance, device->gpu, id);
}

int brmlDeviceGetInstanceNumber(device_t device, unsigned *number)
{
    BEGIN(node_of(device));
    KEY("card.%d.instance", node_of(device));
    NUMBERS(1);
    *number = list[0];
    return SUCCESS;
}

int brmlDeviceGetHealthStatus(device_t device, int *status)
{
    BEGIN(node_of(device));
    KEY("card.%d.status", node_of(device));
    NUMBERS(1);
    *status = list[0];
    return SUCCESS;
}

#define PAIR(name) \
    int a = node_of(one), b = node_of(other); \
    BEGIN(a); \
    KEY("pair.%d.%d." name, a < b ? a : b, a < b ? b : a)

int brmlDeviceGetP2PStatus_v2(device_t one, device_t other, p2p_t *status)
{
    PAIR("p2p");
    NUMBERS(2);
    *status = (p2p_t){list[0], list[1], {8, 7, 6, 5, 4, 3, 2, 1}};
    return SUCCESS;
}

int brmlDeviceGetTopologyCommonAncestor(device_t one, device_t other, int *level)
{
    PAIR("ancestor");
    NUMBERS(1);
    *level = list[0];
    return SUCCESS;
}

/* The text ends where the readable memory does: who reads on dies of it. */
const char *brmlErrorString(int code)
{
    static _Thread_local char *page;
    size_t size = sysconf(_SC_PAGESIZE), length;
    char value[TEXT], *start;

    if (!find(value, sizeof value, "error.%d", code))
        return NULL;
    if (!page) {
        page = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(page + size, size, PROT_NONE);
    }
    length = *value == '~' ? TEXT : strlen(value) + 1;
    start = page + size - length;
    if (*value == '~')
        memset(start, value[1], length);
    else
        memcpy(start, value, length);
    return start;
}

#endif
