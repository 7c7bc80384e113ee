/* A stand-in for libcuda: one device whose memory is the host's.  Launches are told to a callback.

   FAKE_CUDA_INIT is what cuInit gives, FAKE_CUDA_DEVICES how many devices there are.  What is asked
   for wrongly (freed twice, a launch without a context, a bad image) is an error, as in the driver. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200,
       NO_CONTEXT = 201, NOT_FOUND = 500 };
enum { MOST_BLOCKS = 65536, MOST_NODES = 65536, MOST_WORDS = 64 };

typedef void (*launch_callback)(const char *name, const unsigned *grid, const unsigned *block,
                                unsigned shared, const uint64_t *words);
typedef int (*count_callback)(const char *name);

struct function { char name[128]; int dynamic; };
struct node {
    int kind; /* 0: launch, 1: copy, 2: fill */
    struct function *function;
    unsigned grid[3], block[3], shared;
    uint64_t words[MOST_WORDS];
    uint64_t target, source;
    size_t count;
};
struct graph { int count; struct node *nodes; };

static launch_callback on_launch;
static count_callback on_count;
static void *current;
static void *blocks[MOST_BLOCKS];
static int block_count, live_blocks, live_modules, live_graphs, graph_launches;
static struct graph *capturing;
static char context, stream;

void fake_set_callbacks(launch_callback launch, count_callback count) {
    on_launch = launch;
    on_count = count;
}
int fake_live_blocks(void) { return live_blocks; }
int fake_live_modules(void) { return live_modules; }
int fake_live_graphs(void) { return live_graphs; }
int fake_graph_launches(void) { return graph_launches; }

static int from_environment(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : from_environment("FAKE_CUDA_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuGetErrorName(int code, const char **text) {
    *text = code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE"
          : code == INVALID_IMAGE ? "CUDA_ERROR_INVALID_PTX"
          : code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_FAKE";
    return SUCCESS;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == NO_DEVICE ? "no CUDA-capable device is detected" : "what the fake driver says";
    return SUCCESS;
}

int cuDeviceGetCount(int *count) { *count = from_environment("FAKE_CUDA_DEVICES", 1); return SUCCESS; }
int cuDeviceGet(int *device, int number) { *device = number; return SUCCESS; }
int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, size, "Fake %d", device);
    return SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 0 : 1;
    return device < 0 ? INVALID_VALUE : SUCCESS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return SUCCESS; }
int cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; return SUCCESS; }
int cuCtxSetCurrent(void *given) { current = given; return given == &context ? SUCCESS : INVALID_VALUE; }

int cuModuleLoadDataEx(void **module, const char *image, unsigned count, int *options, void **values) {
    if (!current) return NO_CONTEXT;
    if (strstr(image, "nonsense")) {
        for (unsigned i = 0; i < count; i++)
            if (options[i] == 5) strcpy(values[i], "ptxas fatal: line 1; parsing error near 'nonsense'");
        return INVALID_IMAGE;
    }
    *module = strdup(image);
    live_modules++;
    return SUCCESS;
}
int cuModuleUnload(void *module) { free(module); live_modules--; return SUCCESS; }
int cuModuleGetFunction(void **made, void *module, const char *name) {
    if (!strstr(module, name)) return NOT_FOUND;
    struct function *function = calloc(1, sizeof *function);
    snprintf(function->name, sizeof function->name, "%s", name);
    *made = function;
    return SUCCESS;
}
int cuFuncSetAttribute(struct function *function, int attribute, int value) {
    if (attribute != 8) return INVALID_VALUE;
    function->dynamic = value;
    return SUCCESS;
}
int cuFuncGetAttribute(int *value, int attribute, struct function *function) {
    *value = attribute == 8 ? function->dynamic : 0;
    return SUCCESS;
}

int cuMemAlloc_v2(uint64_t *address, size_t count) {
    if (!current) return NO_CONTEXT;
    if (!count) return INVALID_VALUE;
    if (count > (size_t)1 << 32) return OUT_OF_MEMORY;
    if (block_count == MOST_BLOCKS) return OUT_OF_MEMORY;
    blocks[block_count] = aligned_alloc(256, (count + 255) / 256 * 256);
    *address = (uint64_t)blocks[block_count++];
    live_blocks++;
    return SUCCESS;
}
int cuMemFree_v2(uint64_t address) {
    for (int i = 0; i < block_count; i++)
        if (blocks[i] && (uint64_t)blocks[i] == address) {
            free(blocks[i]);
            blocks[i] = NULL;
            live_blocks--;
            return SUCCESS;
        }
    return INVALID_VALUE;
}
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { *free_bytes = *total = (size_t)8 << 30; return SUCCESS; }

static int run(const struct node *node) {
    if (node->kind == 0)
        on_launch(node->function->name, node->grid, node->block, node->shared, node->words);
    else if (node->kind == 1)
        memmove((void *)node->target, (void *)node->source, node->count);
    else
        memset((void *)node->target, 0, node->count);
    return SUCCESS;
}
static int add(struct node *node) {
    if (!current) return NO_CONTEXT;
    if (!capturing) return run(node);
    if (capturing->count == MOST_NODES) return OUT_OF_MEMORY;
    capturing->nodes = realloc(capturing->nodes, (capturing->count + 1) * sizeof *node);
    capturing->nodes[capturing->count++] = *node;
    return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t count, void *on) {
    if (capturing) return INVALID_VALUE;
    memcpy((void *)target, source, count);
    return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t count, void *on) {
    if (capturing) return INVALID_VALUE;
    memcpy(target, (void *)source, count);
    return SUCCESS;
}
int cuMemcpyDtoDAsync_v2(uint64_t target, uint64_t source, size_t count, void *on) {
    struct node node = {.kind = 1, .target = target, .source = source, .count = count};
    return add(&node);
}
int cuMemsetD8Async(uint64_t target, unsigned char value, size_t count, void *on) {
    struct node node = {.kind = 2, .target = target, .count = count};
    return value ? INVALID_VALUE : add(&node);
}
int cuLaunchKernel(struct function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned shared, void *on, void **parameters, void **extra) {
    struct node node = {.kind = 0, .function = function, .grid = {gx, gy, gz}, .block = {bx, by, bz},
                        .shared = shared};
    int count = on_count(function->name);
    if (on != &stream || extra || !gx || !gy || !gz || count > MOST_WORDS) return INVALID_VALUE;
    if (shared > 49152 && (int)shared > function->dynamic) return INVALID_VALUE;
    for (int i = 0; i < count; i++) node.words[i] = *(uint64_t *)parameters[i];
    return add(&node);
}

int cuStreamCreate(void **made, unsigned flags) { *made = &stream; return current ? SUCCESS : NO_CONTEXT; }
int cuStreamSynchronize(void *on) { return capturing ? INVALID_VALUE : SUCCESS; }
int cuStreamBeginCapture_v2(void *on, int mode) {
    capturing = calloc(1, sizeof *capturing);
    return mode == 2 ? SUCCESS : INVALID_VALUE;
}
int cuStreamEndCapture(void *on, struct graph **made) {
    *made = capturing;
    capturing = NULL;
    return SUCCESS;
}
int cuGraphInstantiateWithFlags(struct graph **made, struct graph *graph, unsigned long long flags) {
    *made = calloc(1, sizeof **made);
    (*made)->count = graph->count;
    (*made)->nodes = malloc(graph->count * sizeof(struct node));
    memcpy((*made)->nodes, graph->nodes, graph->count * sizeof(struct node));
    live_graphs++;
    return flags ? INVALID_VALUE : SUCCESS;
}
int cuGraphDestroy(struct graph *graph) { free(graph->nodes); free(graph); return SUCCESS; }
int cuGraphExecDestroy(struct graph *graph) { live_graphs--; return cuGraphDestroy(graph); }
int cuGraphLaunch(struct graph *graph, void *on) {
    for (int i = 0; i < graph->count; i++) run(&graph->nodes[i]);
    graph_launches++;
    return current ? SUCCESS : NO_CONTEXT;
}

int cuEventCreate(void **made, unsigned flags) { *made = calloc(1, 8); return SUCCESS; }
int cuEventDestroy_v2(void *event) { free(event); return SUCCESS; }
int cuEventRecordWithFlags(void *event, void *on, unsigned flags) {
    return flags == 1 && capturing ? SUCCESS : INVALID_VALUE;
}
int cuEventElapsedTime(float *milliseconds, void *first, void *last) { *milliseconds = 1.5f; return SUCCESS; }
