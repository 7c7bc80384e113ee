/* Launches kernels that mapsto made, through the CUDA driver, from C.

       mapsto build examples/gpu/scale.mto:layer --target nvptx64-sm_80 \
           --static n=4 --static d=3 --static m=2 -o scale.ptx
       cc -I. examples/gpu/launch.c -lcuda -o launch && ./launch scale.ptx

   Everything but `main` is the same for all programs: it does the steps that scale.h lists, on
   buffers that the caller has allocated.  Prints the result of a layer of ones. */

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>

#include "scale.h"

#define MOST_ARGUMENTS 256

static void check(CUresult result, const char *what) {
    const char *text = NULL;
    if (result == CUDA_SUCCESS) return;
    cuGetErrorString(result, &text);
    fprintf(stderr, "%s: %s\n", what, text ? text : "unknown error");
    exit(1);
}

/* Starts the steps of a function, in order, on a stream. */
static void run(CUmodule module, CUstream stream, const mapsto_step *steps, int count,
                const CUdeviceptr *buffers) {
    for (int i = 0; i < count; i++) {
        const mapsto_step *step = &steps[i];
        unsigned long long words[MOST_ARGUMENTS];
        void *arguments[MOST_ARGUMENTS];
        if (step->count > MOST_ARGUMENTS) exit(1);
        for (int k = 0; k < step->count; k++) {
            words[k] = buffers[step->places[k].buffer] + step->places[k].offset;
            arguments[k] = &words[k];
        }
        if (step->kernel) {
            CUfunction kernel;
            check(cuModuleGetFunction(&kernel, module, step->kernel), step->kernel);
            if (step->shared_bytes)
                check(cuFuncSetAttribute(kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                         (int)step->shared_bytes), step->kernel);
            check(cuLaunchKernel(kernel, step->grid[0], step->grid[1], step->grid[2],
                                 step->block[0], step->block[1], step->block[2],
                                 step->shared_bytes, stream, arguments, NULL), step->kernel);
        } else if (step->count == 2) {
            check(cuMemcpyDtoDAsync(words[0], words[1], step->bytes, stream), "copy");
        } else {
            check(cuMemsetD8Async(words[0], 0, step->bytes, stream), "zero");
        }
    }
}

static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    if (!file || fseek(file, 0, SEEK_END)) return NULL;
    long size = ftell(file);
    rewind(file);
    text = calloc((size_t)size + 1, 1);
    if (text && fread(text, 1, (size_t)size, file) != (size_t)size) text = NULL;
    fclose(file);
    return text;
}

int main(int count, char **arguments) {
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUstream stream;
    char *code = count > 1 ? read_file(arguments[1]) : NULL;
    if (!code) {
        fprintf(stderr, "usage: launch scale.ptx\n");
        return 2;
    }
    check(cuInit(0), "cuInit");
    check(cuDeviceGet(&device, 0), "device");
    check(cuDevicePrimaryCtxRetain(&context, device), "context");
    check(cuCtxSetCurrent(context), "context");
    check(cuModuleLoadDataEx(&module, code, 0, NULL, NULL), arguments[1]);
    check(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "stream");

    CUdeviceptr buffers[scale_layer_BUFFERS];
    for (int i = 0; i < scale_layer_BUFFERS; i++) {
        check(cuMemAlloc(&buffers[i], scale_layer_buffers[i].bytes), scale_layer_buffers[i].name);
        check(cuMemsetD8Async(buffers[i], 0, scale_layer_buffers[i].bytes, stream), "zero");
    }
    float x[4][3], w[3][2], y[4][2], norms[4];
    for (int i = 0; i < 12; i++) x[i / 3][i % 3] = (float)(i / 3);
    for (int i = 0; i < 6; i++) w[i / 2][i % 2] = 1.0f;
    check(cuMemcpyHtoDAsync(buffers[scale_layer_x], x, sizeof x, stream), "x");
    check(cuMemcpyHtoDAsync(buffers[scale_layer_w], w, sizeof w, stream), "w");
    run(module, stream, scale_layer_steps, scale_layer_STEPS, buffers);
    check(cuMemcpyDtoHAsync(y, buffers[scale_layer_result0], sizeof y, stream), "result");
    check(cuMemcpyDtoHAsync(norms, buffers[scale_layer_result1], sizeof norms, stream), "result");
    check(cuStreamSynchronize(stream), "the kernels");
    for (int i = 0; i < 4; i++) printf("%g %g, %g\n", y[i][0], y[i][1], norms[i]);
    return 0;
}
