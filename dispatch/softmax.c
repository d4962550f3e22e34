/* SPDX-License-Identifier: MIT */
/* Softmax, log-softmax, log-sum-exp, and the backward of the first two. Rows are independent. */
#include "shared_rows.h"

enum { SOFTMAX, LOG_SOFTMAX };

/* ---- Forward --------------------------------------------------------------------------------- */

static void softmax_rows(const plan *p, double *partial, int64_t begin, int64_t end)
{
    (void)partial;
    p->kernel.softmax(&p->job.softmax, begin, end);
}

static void plan_softmax(plan *p, const arguments *in, const ballast_const_tensor *input,
                         void *output, int64_t output_stride)
{
    const row_cost cost = {20.0, 1.3};

    ballast__plan_rows(p, in, input->outer, input->classes, cost);
    p->rows = softmax_rows;
    p->job.softmax = (softmax_job){
        .input = input->data,
        .input_stride = input->outer_stride,
        .output = output,
        .output_stride = output_stride,
        .classes = input->classes,
        .beyond_cache = ballast__beyond_cache(input->outer, input->classes, sizeof(float)),
    };
}

DEFINE_LAYOUT(softmax_layout, "struct_size", ballast_softmax_args, BALLAST_SOFTMAX_ARGS, output);

static ballast_status prepare_softmax(arguments *in, const void *args, plan *p, int variant)
{
    ballast_softmax_args room;
    const ballast_softmax_args *a = ballast__read_struct(in, &softmax_layout, args, &room);
    const ballast_const_tensor *input = &a->input;

    ballast__take_tensor(in, "input", input, REAL_DTYPES, NEEDED | IN_PLACE, NULL);
    ballast__take_output(in, "output", &a->output, ballast__only(input->dtype), NEEDED | IN_PLACE,
                         input);
    ballast__check_overlaps(in);
    const kernel_table *kernels = ballast__kernels_for(in, "input", input->dtype);
    if (in->fault.status == BALLAST_OK) {
        plan_softmax(p, in, input, a->output.data, a->output.outer_stride);
        p->kernel.softmax = variant == SOFTMAX ? kernels->softmax : kernels->log_softmax;
        ballast__plan_sharing(p, variant == SOFTMAX ? &kernels->shared_softmax
                                                    : &kernels->shared_log_softmax,
                              input->classes, true);
    }
    return ballast__report(in, a->error);
}

DEFINE_OPERATION(softmax, ballast_softmax_args, prepare_softmax, SOFTMAX)
DEFINE_OPERATION(log_softmax, ballast_softmax_args, prepare_softmax, LOG_SOFTMAX)

/* ---- Log-sum-exp ----------------------------------------------------------------------------- */

DEFINE_LAYOUT(log_sum_exp_layout, "struct_size", ballast_log_sum_exp_args, BALLAST_LOG_SUM_EXP_ARGS,
              output);

static ballast_status prepare_log_sum_exp(arguments *in, const void *args, plan *p, int variant)
{
    ballast_log_sum_exp_args room;
    const ballast_log_sum_exp_args *a = ballast__read_struct(in, &log_sum_exp_layout, args, &room);
    const ballast_const_tensor *input = &a->input;

    (void)variant;
    ballast__take_tensor(in, "input", input, REAL_DTYPES, NEEDED, NULL);
    ballast__take_array(in, "output", a->output, input->dtype, REAL_DTYPES, input->outer,
                        NEEDED | WRITTEN);
    ballast__check_overlaps(in);
    const kernel_table *kernels = ballast__kernels_for(in, "input", input->dtype);
    if (in->fault.status == BALLAST_OK) {
        plan_softmax(p, in, input, a->output, 1);
        p->kernel.softmax = kernels->log_sum_exp;
        ballast__plan_sharing(p, &kernels->shared_log_sum_exp, input->classes, false);
    }
    return ballast__report(in, a->error);
}

DEFINE_OPERATION(log_sum_exp, ballast_log_sum_exp_args, prepare_log_sum_exp, 0)

/* ---- Backward -------------------------------------------------------------------------------- */

static void backward_rows(const plan *p, double *partial, int64_t begin, int64_t end)
{
    (void)partial;
    p->kernel.softmax_backward(&p->job.softmax_backward, begin, end);
}

static void plan_backward(plan *p, const arguments *in, const ballast_softmax_backward_args *a)
{
    const row_cost cost = {20.0, 0.5};

    ballast__plan_rows(p, in, a->output.outer, a->output.classes, cost);
    p->rows = backward_rows;
    p->job.softmax_backward = (softmax_backward_job){
        .output = a->output.data,
        .output_stride = a->output.outer_stride,
        .grad_output = a->grad_output.data,
        .grad_output_stride = a->grad_output.outer_stride,
        .grad_input = a->grad_input.data,
        .grad_input_stride = a->grad_input.outer_stride,
        .classes = a->output.classes,
    };
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

    ballast__take_tensor(in, "output", output, REAL_DTYPES, NEEDED | IN_PLACE, NULL);
    ballast__take_tensor(in, "grad_output", &a->grad_output, dtype, NEEDED | IN_PLACE, output);
    ballast__take_output(in, "grad_input", &a->grad_input, dtype, NEEDED | IN_PLACE, output);
    ballast__check_overlaps(in);
    const kernel_table *kernels = ballast__kernels_for(in, "output", output->dtype);
    if (in->fault.status == BALLAST_OK) {
        plan_backward(p, in, a);
        p->kernel.softmax_backward = variant == SOFTMAX ? kernels->softmax_backward
                                                        : kernels->log_softmax_backward;
    }
    return ballast__report(in, a->error);
}

DEFINE_OPERATION(softmax_backward, ballast_softmax_backward_args, prepare_backward, SOFTMAX)
DEFINE_OPERATION(log_softmax_backward, ballast_softmax_backward_args, prepare_backward, LOG_SOFTMAX)
