/* SPDX-License-Identifier: MIT */
/* Softmax, log-softmax, log-sum-exp, and the backward of the first two. Rows are independent. */
#include "shared_rows.h"

enum { SOFTMAX, LOG_SOFTMAX };

typedef void backward_function(const softmax_backward_job *, int64_t begin, int64_t end);

/* ---- Forward --------------------------------------------------------------------------------- */

static void softmax_rows(const plan *p, double *partial, int64_t begin, int64_t end)
{
    (void)partial;
    p->kernel.softmax(&p->job.softmax, begin, end);
}

/* All but what only planes have. */
static inline void set_job(softmax_job *job, const ballast_const_tensor *input,
                           const ballast_tensor *output, bool is_scaled, const kernel_table *kernels,
                           tuning tuned)
{
    job->input = input->data;
    job->input_stride = input->outer_stride;
    job->output = output->data;
    job->output_stride = output->outer_stride;
    job->classes = input->classes;
    job->format = ballast__format(kernels);
    job->beyond_cache = tuned.streams;
    job->tile_classes =
        ballast__matrix_tile_classes(tuned, input->outer, LEAST_ONE_CHUNK_ROWS, input->classes, is_scaled, kernels);
    job->row_tile_classes = ballast__row_tile_classes(tuned, kernels);
    job->kept_chunks = ballast__kept_chunks(tuned);
    job->fetch = ballast__fetching();
}

static void plan_softmax(plan *p, const arguments *in, const ballast_const_tensor *input,
                         const ballast_tensor *output, bool is_scaled, const kernel_table *kernels)
{
    const row_cost cost = {20.0, 1.6};

    ballast__plan_rows(p, in, ballast__row_count(input), input->classes, cost);
    p->rows = softmax_rows;
    set_job(&p->job.softmax, input, output, is_scaled, kernels, in->tuning);
    p->job.softmax.input_class_stride = input->class_stride;
    p->job.softmax.output_class_stride = output->class_stride;
    p->job.softmax.inner = input->inner;
}

DEFINE_LAYOUT(softmax_layout, "struct_size", ballast_softmax_args, BALLAST_SOFTMAX_ARGS, output);

/* Only matrices have rows that threads may share. */
static void choose_kernel(plan *p, const kernel_table *k, int variant,
                          const ballast_softmax_args *a)
{
    const bool softmax = variant == SOFTMAX;

    if (!ballast__has_rows(a->input.classes, a->input.inner, a->input.class_stride) ||
        !ballast__has_rows(a->output.classes, a->output.inner, a->output.class_stride)) {
        p->kernel.softmax = softmax ? k->softmax_planes : k->log_softmax_planes;
        return;
    }
    p->kernel.softmax = softmax ? k->softmax : k->log_softmax;
    ballast__plan_sharing(p, softmax ? &k->shared_softmax : &k->shared_log_softmax,
                          a->input.classes, true);
}

static bool is_plain(const ballast_softmax_args *a)
{
    byte_range input, output;

    return a->input.dtype == BALLAST_F32 && a->output.data &&
           ballast__is_plain(&a->input, sizeof(float), &input) &&
           ballast__is_plain_output(&a->output, sizeof(float), &a->input, input, &output);
}

static ballast_status prepare_softmax(arguments *in, const void *args, plan *p, int variant)
{
    ballast_softmax_args room;
    const ballast_softmax_args *a = ballast__read_struct(in, &softmax_layout, args, &room);
    const ballast_const_tensor *input = &a->input;

    if (!is_plain(a)) {
        ballast__take_tensor(in, "input", input, REAL_DTYPES, NEEDED | IN_PLACE | PLANES, NULL);
        ballast__take_output(in, "output", &a->output, ballast__only(input->dtype),
                             NEEDED | IN_PLACE | PLANES, input);
        ballast__check_overlaps(in);
    }
    ballast__tune(in, variant == SOFTMAX ? TUNE_SOFTMAX : TUNE_LOG_SOFTMAX, input->dtype,
                  ballast__row_count(input), input->classes);
    const kernel_table *kernels = ballast__kernels_for(in, "input", input->dtype);
    if (in->fault.status == BALLAST_OK) {
        plan_softmax(p, in, input, &a->output, variant == SOFTMAX, kernels);
        choose_kernel(p, kernels, variant, a);
    }
    return ballast__report(in, a->error);
}

/* Of one thread, a plan is no more than the call. */
static inline bool at_once(const void *args, const ballast_exec *exec, const int variant)
{
    const ballast_softmax_args *a = args;
    const ballast_implementation *implementation = ballast__serial_implementation(exec);

    if (!implementation || !a || a->struct_size != sizeof *a || !is_plain(a))
        return false;
    const tuning tuned = ballast__tuning_of(variant == SOFTMAX ? TUNE_SOFTMAX : TUNE_LOG_SOFTMAX,
                                            BALLAST_F32, a->input.outer, a->input.classes);
    if (tuned.word != 0) /* a profile says how */
        return false;
    const kernel_table *kernels = implementation->f32;
    softmax_job job;
    set_job(&job, &a->input, &a->output, variant == SOFTMAX, kernels, tuned);
    (variant == SOFTMAX ? kernels->softmax : kernels->log_softmax)(&job, 0, a->input.outer);
    return true;
}

static bool softmax_at_once(const void *args, const ballast_exec *exec)
{
    return at_once(args, exec, SOFTMAX);
}

static bool log_softmax_at_once(const void *args, const ballast_exec *exec)
{
    return at_once(args, exec, LOG_SOFTMAX);
}

DEFINE_OPERATION(softmax, ballast_softmax_args, prepare_softmax, SOFTMAX, softmax_at_once)
DEFINE_OPERATION(log_softmax, ballast_softmax_args, prepare_softmax, LOG_SOFTMAX, log_softmax_at_once)

/* ---- Log-sum-exp ----------------------------------------------------------------------------- */

DEFINE_LAYOUT(log_sum_exp_layout, "struct_size", ballast_log_sum_exp_args, BALLAST_LOG_SUM_EXP_ARGS,
              output);

static ballast_status prepare_log_sum_exp(arguments *in, const void *args, plan *p, int variant)
{
    ballast_log_sum_exp_args room;
    const ballast_log_sum_exp_args *a = ballast__read_struct(in, &log_sum_exp_layout, args, &room);
    const ballast_const_tensor *input = &a->input;

    (void)variant;
    ballast__take_tensor(in, "input", input, REAL_DTYPES, NEEDED | PLANES, NULL);
    ballast__take_array(in, "output", a->output, ballast__row_dtype(input->dtype), ROW_DTYPES,
                        ballast__row_count(input), NEEDED | WRITTEN);
    ballast__check_overlaps(in);
    ballast__tune(in, TUNE_LOG_SUM_EXP, input->dtype, ballast__row_count(input), input->classes);
    const kernel_table *kernels = ballast__kernels_for(in, "input", input->dtype);
    if (in->fault.status == BALLAST_OK) {
        const ballast_tensor output = {.data = a->output};

        plan_softmax(p, in, input, &output, false, kernels);
        p->job.softmax.tile_classes = ballast__tile_classes(in->tuning, input->outer, LEAST_ONE_CHUNK_ROWS,
                                                            kernels->log_sum_exp_tile_classes);
        p->kernel.softmax = kernels->log_sum_exp_planes;
        if (ballast__has_rows(input->classes, input->inner, input->class_stride)) {
            p->kernel.softmax = kernels->log_sum_exp;
            ballast__plan_sharing(p, &kernels->shared_log_sum_exp, input->classes, false);
        }
    }
    return ballast__report(in, a->error);
}

static bool is_plain_log_sum_exp(const ballast_log_sum_exp_args *a)
{
    const byte_range output =
        ballast__bytes(a->output, (size_t)a->input.outer * sizeof(float));
    byte_range input;

    return a->input.dtype == BALLAST_F32 && a->output &&
           ballast__is_plain(&a->input, sizeof(float), &input) &&
           ballast__is_plain_range(output, sizeof(float)) && ballast__are_apart(output, input);
}

static bool log_sum_exp_at_once(const void *args, const ballast_exec *exec)
{
    const ballast_log_sum_exp_args *a = args;
    const ballast_implementation *implementation = ballast__serial_implementation(exec);

    if (!implementation || !a || a->struct_size != sizeof *a || !is_plain_log_sum_exp(a))
        return false;
    const tuning tuned =
        ballast__tuning_of(TUNE_LOG_SUM_EXP, BALLAST_F32, a->input.outer, a->input.classes);
    if (tuned.word != 0)
        return false;
    const ballast_tensor output = {.data = a->output};
    const kernel_table *kernels = implementation->f32;
    softmax_job job;
    set_job(&job, &a->input, &output, false, kernels, tuned);
    job.tile_classes =
        ballast__tile_classes(tuned, a->input.outer, LEAST_ONE_CHUNK_ROWS, kernels->log_sum_exp_tile_classes);
    kernels->log_sum_exp(&job, 0, a->input.outer);
    return true;
}

DEFINE_OPERATION(log_sum_exp, ballast_log_sum_exp_args, prepare_log_sum_exp, 0, log_sum_exp_at_once)

/* ---- Backward -------------------------------------------------------------------------------- */

static void backward_rows(const plan *p, double *partial, int64_t begin, int64_t end)
{
    (void)partial;
    p->kernel.softmax_backward(&p->job.softmax_backward, begin, end);
}

static void plan_backward(plan *p, const arguments *in, const ballast_softmax_backward_args *a,
                          const kernel_table *kernels)
{
    const row_cost cost = {40.0, 0.6};

    ballast__plan_rows(p, in, ballast__row_count(&a->output), a->output.classes, cost);
    p->rows = backward_rows;
    p->job.softmax_backward = (softmax_backward_job){
        .output = a->output.data,
        .output_stride = a->output.outer_stride,
        .output_class_stride = a->output.class_stride,
        .grad_output = a->grad_output.data,
        .grad_output_stride = a->grad_output.outer_stride,
        .grad_output_class_stride = a->grad_output.class_stride,
        .grad_input = a->grad_input.data,
        .grad_input_stride = a->grad_input.outer_stride,
        .grad_input_class_stride = a->grad_input.class_stride,
        .classes = a->output.classes,
        .inner = a->output.inner,
        .beyond_cache = in->tuning.streams,
        .format = kernels->format,
    };
}

static backward_function *backward_kernel(const kernel_table *k, int variant,
                                          const ballast_softmax_backward_args *a)
{
    const bool rows = ballast__has_rows(a->output.classes, a->output.inner, a->output.class_stride) &&
                      ballast__has_rows(a->grad_output.classes, a->grad_output.inner,
                                        a->grad_output.class_stride) &&
                      ballast__has_rows(a->grad_input.classes, a->grad_input.inner,
                                        a->grad_input.class_stride);

    if (variant == SOFTMAX)
        return rows ? k->softmax_backward : k->softmax_backward_planes;
    return rows ? k->log_softmax_backward : k->log_softmax_backward_planes;
}

DEFINE_LAYOUT(backward_layout, "struct_size", ballast_softmax_backward_args,
              BALLAST_SOFTMAX_BACKWARD_ARGS, grad_input);

static ballast_status prepare_backward(arguments *in, const void *args, plan *p, int variant)
{
    ballast_softmax_backward_args room;
    const ballast_softmax_backward_args *a =
        ballast__read_struct(in, &backward_layout, args, &room);
    const ballast_const_tensor *output = &a->output;
    const unsigned dtype = ballast__only(output->dtype);
    const unsigned use = NEEDED | IN_PLACE | PLANES;

    ballast__take_tensor(in, "output", output, REAL_DTYPES, use, NULL);
    ballast__take_tensor(in, "grad_output", &a->grad_output, dtype, use, output);
    ballast__take_output(in, "grad_input", &a->grad_input, dtype, use, output);
    ballast__check_overlaps(in);
    ballast__tune(in, variant == SOFTMAX ? TUNE_SOFTMAX_BACKWARD : TUNE_LOG_SOFTMAX_BACKWARD,
                  output->dtype, ballast__row_count(output), output->classes);
    const kernel_table *kernels = ballast__kernels_for(in, "output", output->dtype);
    if (in->fault.status == BALLAST_OK) {
        plan_backward(p, in, a, kernels);
        p->kernel.softmax_backward = backward_kernel(kernels, variant, a);
    }
    return ballast__report(in, a->error);
}

DEFINE_OPERATION(softmax_backward, ballast_softmax_backward_args, prepare_backward, SOFTMAX, NULL)
DEFINE_OPERATION(log_softmax_backward, ballast_softmax_backward_args, prepare_backward, LOG_SOFTMAX,
                 NULL)
