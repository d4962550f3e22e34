/* SPDX-License-Identifier: MIT */
/* Softmax and log-softmax of oneDNN 2. The library is loaded when it is first asked for, so that
 * the tool starts, and is installed, without it. */
#include "baselines.h"

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>

#define EACH_FUNCTION(F)                                                                          \
    F(engine_create) F(engine_destroy) F(stream_create) F(stream_destroy) F(stream_wait)          \
    F(memory_desc_init_by_tag) F(memory_create) F(memory_destroy) F(softmax_forward_desc_init)    \
    F(logsoftmax_forward_desc_init) F(primitive_desc_create) F(primitive_desc_destroy)            \
    F(primitive_create) F(primitive_execute) F(primitive_destroy)

#define DECLARE(name) __typeof__(dnnl_##name) *name;
static struct {
    EACH_FUNCTION(DECLARE)
    void (*set_threads)(int);
} dnnl;

#define LIBRARY_NAME(major) "libdnnl.so." LIBRARY_NUMBER(major)
#define LIBRARY_NUMBER(major) #major

static int find_library(void)
{
    static int found = -1;
    if (found >= 0)
        return found;
    void *library = dlopen(LIBRARY_NAME(DNNL_VERSION_MAJOR), RTLD_NOW | RTLD_LOCAL);
    found = library != NULL;
#define FIND(function)                                                                            \
    if (found) {                                                                                  \
        *(void **)&dnnl.function = dlsym(library, "dnnl_" #function);                             \
        found = dnnl.function != NULL;                                                            \
    }
    EACH_FUNCTION(FIND)
    if (found) /* where it is built with OpenMP: the threads are ours */
        *(void **)&dnnl.set_threads = dlsym(library, "omp_set_num_threads");
    return found;
}

typedef struct softmax {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t from, to;
} softmax;

static void release(void *state)
{
    softmax *p = state;
    if (p->primitive)
        dnnl.primitive_destroy(p->primitive);
    if (p->from)
        dnnl.memory_destroy(p->from);
    if (p->to)
        dnnl.memory_destroy(p->to);
    if (p->stream)
        dnnl.stream_destroy(p->stream);
    if (p->engine)
        dnnl.engine_destroy(p->engine);
    free(p);
}

/* Softmax and log-softmax have descriptors of one type. */
static int make(softmax *p, const slice *s, __typeof__(dnnl_softmax_forward_desc_init) *describe)
{
    const dnnl_dims_t shape = {s->rows, s->classes};
    dnnl_memory_desc_t array;
    dnnl_softmax_desc_t description;
    dnnl_primitive_desc_t chosen;
    if (dnnl.engine_create(&p->engine, dnnl_cpu, 0) != dnnl_success
        || dnnl.stream_create(&p->stream, p->engine, dnnl_stream_default_flags) != dnnl_success
        || dnnl.memory_desc_init_by_tag(&array, 2, shape, dnnl_f32, dnnl_ab) != dnnl_success
        || dnnl.memory_create(&p->from, &array, p->engine, (void *)s->x) != dnnl_success
        || dnnl.memory_create(&p->to, &array, p->engine, s->out) != dnnl_success
        || describe(&description, dnnl_forward_inference, &array, 1) != dnnl_success
        || dnnl.primitive_desc_create(&chosen, &description, NULL, p->engine, NULL) != dnnl_success)
        return 0;
    const int made = dnnl.primitive_create(&p->primitive, chosen) == dnnl_success;
    dnnl.primitive_desc_destroy(chosen);
    return made;
}

static void *prepare(const slice *s, int is_log)
{
    if (!find_library())
        return NULL;
    softmax *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    if (make(p, s, is_log ? dnnl.logsoftmax_forward_desc_init : dnnl.softmax_forward_desc_init))
        return p;
    release(p);
    return NULL;
}

static void *prepare_softmax(const slice *s) { return prepare(s, 0); }
static void *prepare_log_softmax(const slice *s) { return prepare(s, 1); }

static void run(slice *s)
{
    softmax *p = s->state;
    const dnnl_exec_arg_t arrays[] = {{DNNL_ARG_SRC, p->from}, {DNNL_ARG_DST, p->to}};
    if (dnnl.set_threads)
        dnnl.set_threads(1);
    dnnl.primitive_execute(p->primitive, p->stream, 2, arrays);
    dnnl.stream_wait(p->stream);
}

const baseline onednn_baselines[] = {
    {"softmax", run, prepare_softmax, release},
    {"log_softmax", run, prepare_log_softmax, release},
    {0, 0, 0, 0},
};
