/* SPDX-License-Identifier: MIT */
/* Accuracy: the worst error of every operation against the oracle, and the bounds that the header
 * states.
 *
 *   accuracy [--long] [OPERATION]
 *
 * The fastest implementation of this CPU is measured: tests/identity.c shows that all have its
 * bits. Prints a table of the worst errors with their witnesses; exits 0, or 1 where one is above
 * its bound. */
#include "../bench/cases.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int is_long;
static int failures;

/* ---- Worst errors ---------------------------------------------------------------------------- */

/* Of one output of one operation with one set of options. */
typedef struct record {
    const char *output;
    case_error error;
    double bound;
    problem witness;
    int64_t values; /* measured */
} record;

typedef struct group {
    char name[128];
    record records[CASE_OUTPUTS];
} group;

static void note(group *g, const problem *p, const case_results *r, int k, const case_error *e)
{
    record *w = &g->records[k];
    const double bound = case_bound(p, k);

    w->values += r->out[k].rows * r->out[k].columns;
    if (!(e->ulp <= bound))
        failures++;
    if (w->output && !(e->ulp / bound > w->error.ulp / w->bound))
        return;
    w->output = p->operation->outputs[k].name;
    w->error = *e;
    w->bound = bound;
    w->witness = *p;
}

static int measure(group *g, const problem *p)
{
    case_error errors[CASE_OUTPUTS];
    case_results r;
    case_data c;

    case_make(p, &c);
    case_results_make(&c, &r);
    const ballast_status status = case_run(&c, NULL, NULL, &r);
    if (status == BALLAST_OK) {
        case_measure(&c, &r, errors);
        for (int k = 0; k < CASE_OUTPUTS; k++)
            if (errors[k].measured)
                note(g, p, &r, k, &errors[k]);
    } else if (status != BALLAST_ERR_UNSUPPORTED) {
        printf("%s: %s\n", p->operation->name, ballast_status_name(status));
        failures++;
    }
    case_results_free(&r);
    case_free(&c);
    return status == BALLAST_OK;
}

static void print_record(const char *name, const record *w)
{
    const case_error *e = &w->error;
    char text[PROBLEM_TEXT], place[64];

    snprintf(place, sizeof place, "%s[%" PRId64 "][%" PRId64 "]", w->output, e->row, e->column);
    printf("%-44s %-12s %9.3g %8.3f%s of %-3g%s  %s at %s: x = %a, got %a, want %.10La\n", name,
           w->output, (double)w->values, e->ulp, e->of_terms ? "t" : " ", w->bound,
           e->ulp <= w->bound ? "" : " FAILED", problem_format(&w->witness, text, sizeof text),
           place, e->x, e->got, e->want);
}

static void print_group(const group *g)
{
    for (int k = 0; k < CASE_OUTPUTS; k++)
        if (g->records[k].output)
            print_record(g->name, &g->records[k]);
    fflush(stdout);
}

/* ---- What is measured ------------------------------------------------------------------------ */

__attribute__((format(printf, 2, 3))) static int try_problem(group *g, const char *format, ...)
{
    char text[PROBLEM_TEXT], message[PROBLEM_TEXT];
    problem p;
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (!problem_parse(text, &p, message, sizeof message)) {
        printf("%s: %s\n", text, message);
        failures++;
        return 0;
    }
    return measure(g, &p);
}

static const int widths[] = {1,   2,    3,    10,   16,   33,     64,    100,
                             256, 1000, 2048, 2049, 8192, 131072, 262144};
enum { WIDTHS = sizeof widths / sizeof widths[0], MAX_ROWS = 2000000 };

static const char *const row_inputs[] = {"normal",     "uniform", "confident", "offset1e4",
                                         "offset1e30", "masked",  "equal",     "exponents"};
enum { ROW_INPUTS = sizeof row_inputs / sizeof row_inputs[0] };

static int is_f32(const char *dtype) { return strcmp(dtype, "f32") == 0; }

/* Elements of a problem: other dtypes and --long beside f32. What 16 bits give follows from f32, see
 * tests/storage.c. */
static int64_t budget(const char *dtype)
{
    const int64_t quick = is_f32(dtype) ? 40000 : strcmp(dtype, "f64") == 0 ? 8000 : 1000;

    return is_long ? 100 * quick : quick;
}

static int64_t rows_for(const char *dtype, int64_t width)
{
    const int64_t rows = budget(dtype) / width;

    return rows < 1 ? 1 : rows > MAX_ROWS ? MAX_ROWS : rows;
}

/* Rows of all widths. */
static void measure_rows(const char *name, const char *dtype, const char *options)
{
    group g = {0};

    snprintf(g.name, sizeof g.name, "%s:%s %s", name, dtype, options);
    for (int w = 0; w < WIDTHS && (is_long || is_f32(dtype) || widths[w] < 10000); w++)
        for (int i = 0; i < ROW_INPUTS; i++)
            if (!try_problem(&g, "%s:%s:rows=%" PRId64 ",classes=%d,inputs=%s,%s", name, dtype,
                             rows_for(dtype, widths[w]), widths[w], row_inputs[i], options))
                return;
    print_group(&g);
}

/* Elements: over all exponents and bit patterns; and sums of rows of several widths. */
static void measure_elements(const char *name, const char *dtype, const char *options)
{
    static const char *const kinds[] = {"patterns", "exponents", "uniform", "normal", "confident",
                                        "offset1e4", "mixed_specials"};
    static const int sums[] = {1, 10, 256, 8192, 131072};
    const int64_t elements = budget(dtype) * (is_long ? 4 : 10);
    group g = {0};

    snprintf(g.name, sizeof g.name, "%s:%s %s", name, dtype, options);
    for (int i = 0; i < 7; i++)
        if (!try_problem(&g, "%s:%s:rows=%" PRId64 ",classes=1000,inputs=%s,%s", name, dtype,
                         i < 2 ? elements / 1000 : elements / 5000, kinds[i], options))
            return;
    for (int i = 0; i < 5; i++)
        try_problem(&g, "%s:%s:rows=%" PRId64 ",classes=%d,inputs=uniform,%s", name, dtype,
                    rows_for(dtype, sums[i]), sums[i], options);
    print_group(&g);
}

static void measure_vectors(const char *name, const char *dtype, const char *options)
{
    static const int counts[] = {1, 7, 100, 2049, 4096, 100003, 1000003};
    const int kinds = is_long ? 20 : 2;
    group g = {0};

    snprintf(g.name, sizeof g.name, "%s:%s %s", name, dtype, options);
    for (int w = 0; w < 7; w++)
        for (int i = 0; i < ROW_INPUTS; i++)
            for (int seed = 0; seed < (counts[w] < 10000 ? 10 * kinds : 1); seed++)
                if (!try_problem(&g, "%s:%s:count=%d,inputs=%s,seed=%d,%s", name, dtype,
                                 counts[w], row_inputs[i], seed, options))
                    return;
    print_group(&g);
}

/* ---- The table ------------------------------------------------------------------------------- */

static const struct {
    const char *operation;
    void (*measure)(const char *name, const char *dtype, const char *options);
    const char *options;
} groups[] = {
    {"softmax", measure_rows, ""},
    {"log_softmax", measure_rows, ""},
    {"log_sum_exp", measure_rows, ""},
    {"softmax_backward", measure_rows, ""},
    {"log_softmax_backward", measure_rows, ""},
    {"cross_entropy", measure_rows, "reduction=sum"},
    {"cross_entropy", measure_rows, "weights=both,ignored=10"},
    {"class_balanced_loss", measure_rows, ""},
    {"binary_cross_entropy", measure_elements, "reduction=sum,targets=u8"},
    {"binary_cross_entropy", measure_elements, "reduction=sum,targets=soft"},
    {"binary_cross_entropy", measure_elements, "weights=both"},
    {"sigmoid_focal", measure_elements, "reduction=sum,alpha=-1,targets=u8"},
    {"sigmoid_focal", measure_elements, "reduction=sum,alpha=-1,targets=u8,gamma=0"},
    {"sigmoid_focal", measure_elements, "reduction=sum,alpha=-1,targets=u8,gamma=0.5"},
    {"sigmoid_focal", measure_elements, "reduction=sum,alpha=-1,targets=u8,gamma=1"},
    {"sigmoid_focal", measure_elements, "reduction=sum,alpha=-1,targets=u8,gamma=1.5"},
    {"sigmoid_focal", measure_elements, "reduction=sum,alpha=-1,targets=u8,gamma=1.9999"},
    {"sigmoid_focal", measure_elements, "reduction=sum,alpha=-1,targets=u8,gamma=3"},
    {"sigmoid_focal", measure_elements, "reduction=sum,alpha=-1,targets=u8,gamma=5"},
    {"sigmoid_focal", measure_elements, "weights=both"},
    {"class_balanced_loss", measure_elements, "kind=sigmoid"},
    {"class_balanced_loss", measure_elements, "kind=focal"},
    {"weighted_sum", measure_vectors, ""},
    {"weighted_sum", measure_vectors, "weights=row"},
    {"weighted_mean", measure_vectors, "weights=row"},
    {"weighted_sum_of_squares", measure_vectors, ""},
    {"weighted_sum_of_squares", measure_vectors, "weights=row"},
    {"dot", measure_vectors, ""},
    {"weighted_log_sum_exp", measure_vectors, ""},
    {"weighted_log_sum_exp", measure_vectors, "weights=row"},
};

int main(int argc, char **argv)
{
    const char *only = NULL;
    char reason[128];

    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--long") == 0)
            is_long = 1;
        else
            only = argv[i];
    printf("measured on %s\n", ballast_implementation_name(
                                   ballast_implementation_default(reason, sizeof reason)));
    printf("%-44s %-12s %9s %s\n", "operation", "output", "values",
           "worst ULP (t: of the sum of |terms|) of bound, and its witness");
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        if (only && strcmp(only, groups[i].operation) != 0)
            continue;
        for (int d = 0; problem_dtype(d); d++)
            groups[i].measure(groups[i].operation, problem_dtype_name(problem_dtype(d)),
                              groups[i].options);
    }
    if (failures)
        printf("%d problems above their bounds\n", failures);
    return failures ? 1 : 0;
}
