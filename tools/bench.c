/* SPDX-License-Identifier: MIT */
/* ballast bench: time and cycles of every implementation, measured in turn in one process. */
#include "bench.h"

#include "../bench/cases.h"
#include "../bench/measure.h"
#include "json.h"
#include "options.h"

#include <string.h>

enum { OPT_PROBLEM = 1, OPT_SECONDS, MAX_PROBLEMS = 64 };

static const option_spec specs[] = {
    {"problem", "PROBLEM", "measure this case, such as cross_entropy:f32:rows=50,classes=1000 (may "
                           "be repeated; default: a list for L1 and L2)", OPT_PROBLEM},
    {"seconds", "S", "time for each case (default 1)", OPT_SECONDS},
    {NULL, NULL, NULL, 0},
};

static const char *const examples[] = {
    "ballast bench",
    "ballast bench --problem sigmoid_focal:f32:rows=50,classes=1000,gamma=0.5",
    NULL,
};

static const command_spec spec = {
    .name = "bench",
    .operands = "",
    .about = "Time, cycles and traffic of each implementation that this CPU runs, one thread, "
             "measured in turn; the clock is measured beside each run. Cycles are per element: "
             "the median, and the 5th percentile for machines that are shared. Time is over "
             "the first implementation's, pair by pair.",
    .options = specs,
    .examples = examples,
    .operand_count = 0,
};

static const char *const default_problems[] = {
    "cross_entropy:f32:rows=50,classes=1000",
    "cross_entropy:f32:rows=6,classes=8192",
    "cross_entropy:f32:rows=500,classes=100",
    "cross_entropy:f32:rows=5000,classes=10",
    "cross_entropy:f32:rows=50,classes=1000,outputs=loss",
    "log_softmax:f32:rows=50,classes=1000",
    "softmax:f32:rows=50,classes=1000",
    "binary_cross_entropy:f32:rows=50,classes=1000,targets=u8,outputs=loss+grad",
    "sigmoid_focal:f32:rows=50,classes=1000,targets=u8,gamma=2,outputs=loss+grad",
    "sigmoid_focal:f32:rows=50,classes=1000,targets=u8,gamma=0.5,outputs=loss+grad",
    "sigmoid_focal:f32:rows=50,classes=1000,targets=u8,gamma=1.7,outputs=loss+grad",
    "weighted_sum:f32:count=4000,weights=none",
    "dot:f32:count=3000",
    NULL,
};

typedef struct settings {
    const char *problems[MAX_PROBLEMS + 1];
    int count;
    double seconds;
} settings;

/* ---- One case ---------------------------------------------------------------------------------- */

typedef struct row {
    const char *problem, *implementation;
    double elements, bytes;
    measurement m;
} row;

typedef struct run {
    const case_data *data;
    case_results *results;
    ballast_exec exec;
    ballast_status status;
} run;

static void run_case(void *context)
{
    run *r = context;
    r->status = r->data->p.operation->run(r->data, r->results, &r->exec);
}

/* What must cross between memory and registers: every input and output once. */
static double traffic(const case_data *data, const case_results *results)
{
    double bytes = 0.0;
    for (int i = 0; i < CASE_INPUTS; i++)
        if (data->in[i].data)
            bytes += (double)data->in[i].bytes;
    for (int i = 0; i < CASE_OUTPUTS; i++)
        if (results->out[i].data)
            bytes += (double)results->out[i].bytes;
    return bytes;
}

/* Fastest implementation last, as the library lists them. Returns how many rows were filled in. */
static int measure_problem(const char *text, double seconds, row *rows)
{
    problem p;
    case_data data;
    case_results results;
    char message[PROBLEM_TEXT];
    run runs[MEASURE_CONTENDERS];
    contender contenders[MEASURE_CONTENDERS];
    measurement measured[MEASURE_CONTENDERS];
    int count = 0;

    if (!problem_parse(text, &p, message, sizeof message)) {
        complain("--problem '%s': %s", text, message);
        return -1;
    }
    case_make(&p, &data);
    case_results_make(&data, &results);
    const ballast_implementation *implementation;
    for (int i = 0; (implementation = ballast_implementation_at(i)) != NULL; i++) {
        if (!ballast_implementation_supported(implementation, NULL, 0))
            continue;
        runs[count] = (run){&data, &results, BALLAST_EXEC, BALLAST_OK};
        runs[count].exec.implementation = implementation;
        contenders[count] = (contender){run_case, &runs[count]};
        rows[count] = (row){.problem = text,
                            .implementation = ballast_implementation_name(implementation),
                            .elements = (double)p.rows * (problem_is_vector(&p) ? 1.0 : (double)p.classes),
                            .bytes = traffic(&data, &results)};
        count++;
    }
    measure_in_turn(contenders, count, seconds, measured);
    for (int i = 0; i < count; i++) {
        rows[i].m = measured[i];
        if (runs[i].status != BALLAST_OK) {
            complain("--problem '%s': %s", text, ballast_status_name(runs[i].status));
            count = -1;
        }
    }
    case_results_free(&results);
    case_free(&data);
    return count;
}

/* ---- Output ------------------------------------------------------------------------------------ */

static void print_heads(void)
{
    printf("%s%-14s %10s %8s %8s %8s %7s  %s%s\n", output_style(stdout, STYLE_HEAD), "implementation",
           "ns/element", "cycles", "least", "GB/s", "time", "95 % interval",
           output_style(stdout, STYLE_PLAIN));
}

static void print_rows(const row *rows, int count)
{
    printf("%s\n", rows[0].problem);
    for (int i = 0; i < count; i++) {
        const measurement *m = &rows[i].m;
        printf("  %-12s %10.3f %8.3f %8.3f %8.2f %7.3f  %.3f to %.3f\n", rows[i].implementation,
               1e9 * m->seconds / rows[i].elements, m->cycles / rows[i].elements,
               m->least_cycles / rows[i].elements, 1e-9 * rows[i].bytes / m->seconds, m->ratio, m->ratio_low, m->ratio_high);
    }
    fflush(stdout);
}

static void write_json(json *j, const row *rows, int count)
{
    for (int i = 0; i < count; i++) {
        const measurement *m = &rows[i].m;
        json_object(j, NULL);
        json_text(j, "problem", rows[i].problem);
        json_text(j, "implementation", rows[i].implementation);
        json_real(j, "ns_per_element", 1e9 * m->seconds / rows[i].elements);
        json_real(j, "cycles_per_element", m->cycles / rows[i].elements);
        json_real(j, "least_cycles_per_element", m->least_cycles / rows[i].elements);
        json_real(j, "gigabytes_per_second", 1e-9 * rows[i].bytes / m->seconds);
        json_real(j, "time_ratio", m->ratio);
        json_integer(j, "rounds", m->rounds);
        json_end(j);
    }
}

static bool apply(const options *o, settings *s, int id)
{
    if (id == OPT_SECONDS)
        return options_real(o, &s->seconds);
    if (s->count == MAX_PROBLEMS) {
        complain("--problem: %d at most", (int)MAX_PROBLEMS);
        return false;
    }
    s->problems[s->count++] = o->value;
    return true;
}

static int measure_all(const settings *s, bool as_json)
{
    const char *const *problems = s->count ? s->problems : default_problems;
    json j;
    if (as_json) {
        json_begin(&j, stdout);
        json_array(&j, "cases");
    } else {
        printf("one thread; clock %.2f GHz\n",
               1e-9 / measure_cycle());
        print_heads();
    }
    for (int i = 0; problems[i]; i++) {
        row rows[MEASURE_CONTENDERS];
        const int count = measure_problem(problems[i], s->seconds, rows);
        if (count < 0)
            return EXIT_BAD_INPUT;
        if (as_json)
            write_json(&j, rows, count);
        else
            print_rows(rows, count);
    }
    if (as_json) {
        json_end(&j);
        json_end(&j);
    }
    return EXIT_GOOD;
}

int bench_main(int argc, char **argv)
{
    settings s = {.seconds = 1.0};
    options o;
    int id;
    options_begin(&o, &spec, argc, argv);
    while ((id = options_next(&o)) > 0)
        if (!apply(&o, &s, id))
            return EXIT_BAD_INPUT;
    if (id == OPTIONS_STOP)
        return o.exit_code;
    return measure_all(&s, o.json);
}
