/* SPDX-License-Identifier: MIT */
/* The exponential sum of one row: what softmax, log-softmax, log-sum-exp and cross-entropy share.
 *
 * A row is cut into chunks of 2048 logits. Each chunk has a reference of its own, from its own
 * maximum, so that a chunk is read from memory once: maximum and exponentials while it is in L1.
 *
 *   e_c = exp(x_c - shift) / 2^n
 *
 * Normally shift = 0 and n = RNE(max log2 e): x itself is reduced, exactly, and two chunks differ by a
 * power of two. Beyond |max| = 65536 the reduction of x would lose digits; there shift = max and n = 0,
 * and x - max is exact for every logit that matters. Which way is taken depends on the chunk's logits
 * alone.
 *
 * One column can be left out of the sum: the label's for cross-entropy, the maximum for log-softmax.
 * The sum of the others keeps its digits then when the column's probability rounds to 1.
 *
 * Order of the sum: the four blocks of a group of 64 logits are added in f32 two by two, 0 + 2 and
 * 1 + 3, and these go one after the other into 16 double lanes, which are folded at the end of the
 * chunk. One rounding to f32 in a sum is what 4 ULP of a gradient leave room for. Chunks are added in
 * index order, in double, relative to the row's maximum.
 *
 * Three rows are under way at a time. While a chunk's exponentials are computed, the maximum of the
 * chunk after it is found, and the row before leaves, scaled: the exponential keeps the FMA pipes
 * busy, and what it leaves idle (loads, stores, additions) does the rest. No row waits for its own
 * maximum, sum or division. Until it leaves, a row's exponentials are in scratch memory on the stack;
 * of a row that is too long for it, in the output of the call's last row, which lends its memory to all
 * the others: it stays in the caches, where rows that are written twice come from memory and go there
 * twice. In place, where the last row's logits are still wanted, they are in the row's own output. Of a
 * row of more chunks than the job says, 128 at most, they are nowhere, and computed once more.
 *
 * Where a call has several rows of one chunk, one_chunk_rows.h takes them instead, faster.
 *
 * Logits and outputs of 16 bits go through the same passes in narrow_rows.c, which widens what a pass reads
 * and rounds what leaves. Their exponentials take two rows of the output. */
#ifndef BALLAST_SOFTMAX_ROW_H
#define BALLAST_SOFTMAX_ROW_H

#include "storage.h"

enum {
    SCRATCH = 4 * CHUNK,
    SCRATCH_ROWS = 2,
    SCRATCH_ROOM = SCRATCH + BLOCK, /* lines that are streamed may end beyond a row */
    SLOT_ROOM = 2 * BLOCK,          /* of one_chunk_rows.h, beside a row */
    SUM_LAG = 4 * GROUP /* how far the sum is behind: what it reads has left the polynomial */
};

#define DIRECT_BOUND 65536.0f

/* Columns to leave out that are no column. */
enum { LEAVE_NOTHING = -1, LEAVE_MAXIMUM = -2 };

typedef struct reference {
    float max;
    float n;
    float shift;
} reference;

LANES reference reference_of(float max)
{
    if (__builtin_expect(!(__builtin_fabsf(max) > DIRECT_BOUND), 1))
        return (reference){max, exponent_of(max), 0.0f};
    if (max == -LANE_INFINITY) /* nothing but -inf (or NaN): every exponential is 0 (or NaN) */
        return (reference){max, 0.0f, 0.0f};
    return (reference){max, 0.0f, max};
}

/* exp(chunk's reference - row's reference): what a chunk's exponentials are worth in the row. */
LANES double chunk_factor(reference chunk, reference row)
{
    if (chunk.max == -LANE_INFINITY)
        return 0.0;
    if (chunk.shift == 0.0f && row.shift == 0.0f)
        return power_of_two((double)chunk.n - (double)row.n);
    if (chunk.shift == row.shift && chunk.n == row.n)
        return 1.0;
    const double ln2 = 0x1.62e42fefa39efp-1;
    double difference = ((double)chunk.shift - (double)row.shift) +
                        ((double)chunk.n - (double)row.n) * ln2;
    return exp_of_double(difference);
}


/* What happens to a row once its sum is known. A constant after inlining, like `streamed`. */
enum leaving {
    NOTHING_LEAVES,
    SCALED,     /* e h */
    SUBTRACTED, /* (x - max) - rest */
    COMPUTED    /* e h, where e is computed once more, from x: of 16 bits only */
};

/* What a row takes in whole groups. */
LANES int64_t width_of(int64_t classes) { return (classes + GROUP - 1) & -GROUP; }

/* ---- a group of 64 logits in each pass -------------------------------------------------------- */

/* `blocks` blocks, of which `left` elements are there; the other lanes are `fill`. */
LANES void load_blocks(vf *v, const int blocks, const storage *x, int64_t left, float fill)
{
    if (left >= blocks * BLOCK)
        FOR_BLOCKS(k, blocks) v[k] = vload(x + BLOCK * k);
    else
        FOR_BLOCKS(k, blocks) v[k] = vload_tail(x + BLOCK * k, left - BLOCK * k, fill);
}

/* A chunk whose maximum is wanted. */
typedef struct search {
    const storage *x;
    int64_t n; /* 0: none is */
    float max;
    int64_t from; /* none before it equals the maximum */
    fetching fetch;
} search;

/* Groups of x[0 .. n) that begin where lines do, from `line` on, for a load of parts of two lines waits for
 * both. The first block is apart; what would reach past the end overlaps the group before. */
LANES const storage *group_on_lines(const storage *x, int64_t n, int64_t line, int64_t i)
{
    return LOADS_LINES ? x + smaller(i + line, n - GROUP) : x + i;
}

/* What will be read f.ahead after x. It may lie beyond the array: nothing is read. */
LANES void prefetch_group(const storage *x, fetching f)
{
    const uintptr_t first = (uintptr_t)x + (uintptr_t)f.ahead * sizeof *x;
    if (LOADS_LINES && f.near)
        UNROLL for (uintptr_t at = 0; at < GROUP * sizeof *x; at += LINE)
            vprefetch_near((const void *)(first + at));
    else
        UNROLL for (uintptr_t at = 0; at < GROUP * sizeof *x; at += LINE)
            vprefetch((const void *)(first + at));
}

/* A line in each page of out[ahead .. ahead + n), which will be streamed: stores do not wait for the addresses
 * of pages then. */
LANES void prefetch_pages(const storage *out, int64_t ahead, int64_t n)
{
    const uintptr_t first = (uintptr_t)out + (uintptr_t)ahead * sizeof *out;
    for (uintptr_t at = 0; at < (uintptr_t)n * sizeof *out; at += PAGE)
        vprefetch((const void *)(first + at));
}

LANES_LARGE vf max_of_group(const storage *x, int64_t left, vf max)
{
    vf v[GROUP_BLOCKS];
    load_blocks(v, GROUP_BLOCKS, x, left, -LANE_INFINITY);
    FOR_BLOCKS(k, GROUP_BLOCKS) max = vmax(v[k], max);
    return max;
}

/* Whether it is noted beside a maximum where it is, if somebody wants to know: a compare and an addition a
 * group where compares fill mask registers. To look for it afterwards, from the row's first logit on, takes
 * 80 cycles a row, most of them for branches that nobody can predict (AMD Zen 5). */
enum { NOTE_PLACE = MASK_REGISTERS };

/* The maximum of whole groups, in each lane, and how many groups ago the lane's own was first met. */
typedef struct running_max {
    vf max, groups_ago;
} running_max;

/* `seeking`, a constant: whether somebody wants to know where the maximum is. */
LANES_LARGE void add_to_max(running_max *m, const storage *x, const int seeking)
{
    const vf before = m->max;
    m->max = max_of_group(x, GROUP, before);
    if (seeking && NOTE_PLACE)
        m->groups_ago = vkeep(vle(m->max, before), vadd(m->groups_ago, vset1(1.0f)));
}

/* A column before which nothing equals `max`: where the group begins in which it was first met, of groups
 * that end at `end` and begin on lines, the last of them at `last`. Of a maximum of -inf, nothing of use. */
LANES int64_t place_of_max(const running_max *m, float max, int64_t end, int64_t line, int64_t last)
{
    const vf groups = vadd(m->groups_ago, vset1(1.0f));
    const int64_t ago = (int64_t)vmax_across(vkeep(veq(m->max, vset1(max)), groups));
    const int64_t at = smaller(end - GROUP * ago + line, last);
    return end > 0 && at > 0 ? at : 0; /* below 0: it is in the first block, before all groups */
}

/* Stores a whole group: absent logits have exponential 0. */
LANES_LARGE void exponentials_of_group(const storage *x, int64_t left, exp_scale scale, vf shift,
                                 const int shifted, float *kept)
{
    UNROLL for (int i = 0; i < GROUP; i += BLOCKS_IN_FLIGHT * BLOCK)
    {
        vf e[BLOCKS_IN_FLIGHT];
        if (left <= i) {
            FOR_BLOCKS(k, BLOCKS_IN_FLIGHT) vstore_f32(kept + i + BLOCK * k, vset1(0.0f));
            continue;
        }
        load_blocks(e, BLOCKS_IN_FLIGHT, x + i, left - i, -LANE_INFINITY);
        if (shifted)
            FOR_BLOCKS(k, BLOCKS_IN_FLIGHT) e[k] = vsub(e[k], shift);
        vexp_scaled(e, e, BLOCKS_IN_FLIGHT, scale);
        FOR_BLOCKS(k, BLOCKS_IN_FLIGHT) vstore_f32(kept + i + BLOCK * k, e[k]);
    }
}

/* The same of a group that is there, in two halves, which other passes go between. `early`, a constant, the same in
 * both: whether anything begins in the first, where registers hold what is begun, and not where memory is
 * waited for anyway, which takes 2 % more then. */
enum { BEGINS_EARLY = BLOCKS_IN_FLIGHT > 1 };

LANES_LARGE void begin_exponentials(exp_reduced *begun, const storage *x, exp_scale scale, const int early)
{
    if (early) {
        vf v[BLOCKS_IN_FLIGHT];
        load_blocks(v, BLOCKS_IN_FLIGHT, x, GROUP, 0.0f);
        *begun = vexp_reduced(v, BLOCKS_IN_FLIGHT, scale);
    }
}
LANES_LARGE void end_exponentials(const exp_reduced *begun, const storage *x, exp_scale scale, const int early,
                                  float *kept)
{
    enum { REST = GROUP_BLOCKS - BLOCKS_IN_FLIGHT, BEGUN = BLOCKS_IN_FLIGHT * BLOCK };
    if (early) {
        vf e[GROUP_BLOCKS];
        vexp_of_reduced(begun, e, BLOCKS_IN_FLIGHT, exp_coefficient);
        FOR_BLOCKS(k, BLOCKS_IN_FLIGHT) vstore_f32(kept + BLOCK * k, e[k]);
        load_blocks(e, REST, x + BEGUN, GROUP, 0.0f);
        vexp_scaled(e, e, REST, scale);
        FOR_BLOCKS(k, REST) vstore_f32(kept + BEGUN + BLOCK * k, e[k]);
    } else {
        exponentials_of_group(x, GROUP, scale, vset1(0.0f), 0, kept);
    }
}

/* A group of exponentials; see the order of the sum above. */
LANES vs add_exponentials(vs total, const float *kept)
{
    total = vs_add(total, kept, kept + 2 * BLOCK);
    return vs_add(total, kept + BLOCK, kept + 3 * BLOCK);
}

/* A chunk on its way out. */
typedef struct departure {
    const float *e;   /* SCALED: out = e h, and exactly 0 where that is below the normal range */
    const storage *x; /* SUBTRACTED: out = (x - max) - rest; COMPUTED: what e is computed from */
    storage *out;
    int64_t n; /* 0: nothing leaves */
    float h, least; /* least: below this e, e h is not normal */
    float max, rest;
    float exponent; /* COMPUTED: e is relative to 2^exponent */
    int64_t label; /* SCALED, COMPUTED: this column becomes label_value; any other number: none does */
    float label_value;
    open_line *line; /* of what is streamed */
} departure;

/* Below this e, e h is not normal. */
LANES float least_of(float h)
{
    const float size = __builtin_fabsf(h);
    return size > 1.0f ? SMALLEST_NORMAL : SMALLEST_NORMAL / size;
}

LANES void set_scale(departure *d, float h)
{
    d->h = h;
    d->least = least_of(h);
}

LANES_LARGE void leave_group(const departure *d, int64_t at, int64_t left, const int leaving,
                       const int streamed)
{
    vf v[GROUP_BLOCKS];
    if (leaving != SUBTRACTED) {
        const vf scale = vset1(d->h), least = vset1(d->least);
        FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vload_f32(d->e + at + BLOCK * k);
        if (streamed)
            FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vheld(v[k]);
        FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vkeep(vle(least, v[k]), vmul(v[k], scale));
        if (streamed && __builtin_expect((uint64_t)(d->label - at) < GROUP, 0)) {
            float group[GROUP];
            FOR_BLOCKS(k, GROUP_BLOCKS) vstore_f32(group + BLOCK * k, v[k]);
            group[d->label - at] = d->label_value;
            FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vload_f32(group + BLOCK * k);
        }
    } else {
        const vf max = vset1(d->max), rest = vset1(d->rest);
        load_blocks(v, GROUP_BLOCKS, d->x + at, left, 0.0f);
        FOR_BLOCKS(k, GROUP_BLOCKS) v[k] = vsub(vsub(v[k], max), rest);
    }
    FOR_BLOCKS(k, GROUP_BLOCKS)
    leave_block(d->line, d->out + at + BLOCK * k, left < GROUP ? left - BLOCK * k : BLOCK, v[k], streamed);
}

/* The label's, where it is not streamed: a line that is must not be touched again. */
LANES void leave_label(const departure *d, const int leaving, const int streamed)
{
    if (leaving != SUBTRACTED && !streamed && (uint64_t)d->label < (uint64_t)d->n)
        d->out[d->label] = d->label_value;
}

/* Nothing hides it: as many maxima side by side as blocks of polynomials. */
LANES_SELDOM float max_of(const storage *x, int64_t n)
{
    vf max[GROUP_BLOCKS], all = vset1(-LANE_INFINITY);
    FOR_BLOCKS(k, BLOCKS_IN_FLIGHT) max[k] = all;
    for (int64_t i = 0; i < n; i += GROUP) {
        vf v[GROUP_BLOCKS];
        load_blocks(v, GROUP_BLOCKS, x + i, n - i, -LANE_INFINITY);
        FOR_BLOCKS(k, GROUP_BLOCKS)
        max[k % BLOCKS_IN_FLIGHT] = vmax(v[k], max[k % BLOCKS_IN_FLIGHT]);
    }
    FOR_BLOCKS(k, BLOCKS_IN_FLIGHT) all = vmax(max[k], all);
    return vmax_across(all) + 0.0f; /* no -0 */
}

/* The first element of a group that equals `value`; GROUP for none. */
LANES int first_in_group(const vf *t, float value)
{
    vm equal[GROUP_BLOCKS];
    FOR_BLOCKS(k, GROUP_BLOCKS) equal[k] = veq(t[k], vset1(value));
    if (vany(vmask_or(vmask_or(equal[0], equal[1]), vmask_or(equal[2], equal[3]))))
        for (int k = 0; k < GROUP_BLOCKS; k++) {
            const int lane = vfirst(equal[k]);
            if (lane < BLOCK)
                return BLOCK * k + lane;
        }
    return GROUP;
}

/* The first column of the maximum, none of which is before `from`. */
LANES int64_t column_of_maximum(const storage *x, int64_t n, float max, int64_t from)
{
    if (max == -LANE_INFINITY)
        return LEAVE_NOTHING;
    for (int64_t i = from; i < n; i += GROUP) {
        vf t[GROUP_BLOCKS];
        load_blocks(t, GROUP_BLOCKS, x + i, n - i, LANE_NAN);
        const int at = first_in_group(t, max);
        if (at < GROUP)
            return i + at;
    }
    return LEAVE_NOTHING;
}

/* ---- a chunk in each pass, side by side ------------------------------------------------------- */

/* A chunk whose exponentials are wanted, in `kept`, which has room for whole groups. */
typedef struct chunk {
    const storage *x;
    int64_t n;
    reference ref;
    int64_t left_out; /* this column is not in the sum; any other number: all are */
    float *kept;
} chunk;

typedef struct chunk_sum {
    double others;  /* without the column left out */
    float left_out; /* that column's exponential; 0 where there is none */
} chunk_sum;

/* The column's exponential, which is 0 in the sum then. A whole block is stored: the sum reads
 * blocks, and CPUs do not forward to them what was stored in pieces. */
LANES float take_out(float *e, int64_t column)
{
    const float taken = e[column];
    float *block = e + (column & -BLOCK);
    vstore_f32(block, vkeep(vmask_without((int)(column % BLOCK)), vload_f32(block)));
    return taken;
}

/* From `from` on, beside nothing; returns the exponential of the column left out, else 0. */
LANES_SELDOM float exponentials_from(int64_t from, const chunk c, exp_scale scale, const int shifted)
{
    float left_out = 0.0f;
    for (int64_t i = from; i < c.n; i += GROUP)
        exponentials_of_group(c.x + i, c.n - i, scale, vset1(c.ref.shift), shifted, c.kept + i);
    if (c.left_out >= from && c.left_out >= 0 && c.left_out < c.n)
        left_out = take_out(c.kept, c.left_out);
    return left_out;
}

/* What leaves before `begin`, and from `from` on. */
LANES_SELDOM void leave_ends(const departure *d, int64_t begin, int64_t from, const int leaving,
                             const int streamed)
{
    if (begin > 0)
        leave_group(d, 0, begin, leaving, streamed);
    for (int64_t i = from; i < d->n; i += GROUP)
        leave_group(d, i, d->n - i, leaving, streamed);
}

LANES_LARGE chunk_sum pass_chunk(const chunk c, search *next, const departure d, const int leaving,
                           const int streamed, const int shifted, const int seeking)
{
    static const float nothing[GROUP] = {0.0f};
    const search ahead = *next;
    const exp_scale scale = exp_scale_of(c.ref.n);
    const int early = BEGINS_EARLY && !streamed;
    const int64_t group_of_left_out = c.left_out & -GROUP;
    const int64_t whole = c.n & -GROUP;
    const int64_t unaligned = leaving && streamed ? before_line(d.out, d.n) : 0;
    const int64_t line = LOADS_LINES ? before_line(ahead.x, ahead.n) : 0;
    /* of a shorter chunk ahead the last group is seen again */
    const int64_t seen = LOADS_LINES ? whole : smaller(whole, ahead.n & -GROUP);
    int64_t together = shifted || ahead.n < GROUP ? 0 : seen;
    chunk_sum sum = {0.0, 0.0f};
    vf rest = vset1(-LANE_INFINITY); /* the maximum of what is not passed together */
    running_max max = {rest, vset1(0.0f)};
    vs total = vs_zero();

    /* First what the passes do not share, so that nothing of it is waited for at the end. What leaves
     * may be in c.kept: it is read before that is written, and lines that are streamed are ahead. */
    if (leaving) {
        together = smaller(together, (smaller(whole, d.n) - unaligned) & -GROUP);
        if (together < 0)
            together = 0;
        if (streamed)
            prefetch_pages(d.out, 2 * CHUNK, d.n);
        if (unaligned > 0 || together + unaligned < d.n) {
            const departure ends = d; /* d itself stays in registers */
            leave_ends(&ends, unaligned, together + unaligned, leaving, streamed);
        }
    }
    for (int64_t i = together; i < ahead.n; i += GROUP) {
        prefetch_group(ahead.x + i, ahead.fetch);
        rest = max_of_group(ahead.x + i, ahead.n - i, rest);
    }
    if (!(seeking && NOTE_PLACE))
        max.max = rest;
    if (!streamed && together < c.n)
        sum.left_out = exponentials_from(together, c, scale, shifted);
    if (LOADS_LINES && together > 0)
        max.max = vmax(vload(ahead.x), max.max);
    for (int64_t i = 0; i < together; i += GROUP) {
        exp_reduced begun;
        begin_exponentials(&begun, c.x + i, scale, early);
        total = add_exponentials(total, i >= SUM_LAG ? c.kept + i - SUM_LAG : nothing);
        if (leaving)
            leave_group(&d, i + unaligned, GROUP, leaving, streamed);
        prefetch_group(ahead.x + i, ahead.fetch);
        add_to_max(&max, group_on_lines(ahead.x, ahead.n, line, i), seeking);
        end_exponentials(&begun, c.x + i, scale, early, c.kept + i);
        if (__builtin_expect(i == group_of_left_out, 0))
            sum.left_out = take_out(c.kept, c.left_out);
    }
    if (streamed && together < c.n)
        sum.left_out += exponentials_from(together, c, scale, shifted);
    if (leaving)
        leave_label(&d, leaving, streamed);
    next->max = vmax_across(seeking && NOTE_PLACE ? vmax(max.max, rest) : max.max) + 0.0f; /* no -0 */
    if (seeking && NOTE_PLACE)
        next->from = place_of_max(&max, next->max, together, line, ahead.n - GROUP);
    for (int64_t i = together > SUM_LAG ? together - SUM_LAG : 0; i < c.n; i += GROUP)
        total = add_exponentials(total, c.kept + i);
    sum.others = vs_across(total);
    return sum;
}

/* In softmax_row.c, one copy each: pass_chunk() where logits are shifted, so that ordinary rows keep their
 * registers; and while nothing leaves, for the other passes should not wait then as if something did: at
 * the first rows of a call, and in rows too long for the scratch. */
#define pass_chunk_shifted KERNEL(pass_chunk_shifted)
chunk_sum pass_chunk_shifted(chunk c, search *next, departure d, int leaving, int streamed);

#define pass_chunk_alone KERNEL(pass_chunk_alone)
chunk_sum pass_chunk_alone(chunk c, search *next, int seeking);

/* In narrow_rows.c: what is here for chunks and rows of f32, of 16 bits. */
#define max_of_narrow KERNEL(max_of_narrow)
float max_of_narrow(const storage_format *format, const void *x, int64_t n);
#define sum_narrow_chunk KERNEL(sum_narrow_chunk)
chunk_sum sum_narrow_chunk(const storage_format *format, const chunk *c, int64_t left_out, search *next,
                           const departure *d, int leaving);
#define leave_narrow_now KERNEL(leave_narrow_now)
void leave_narrow_now(const storage_format *format, const departure *d, int leaving);

/* ---- rows ------------------------------------------------------------------------------------- */

/* What a row comes to, relative to its reference: the sum of the exponentials without the column left
 * out, and that column's own. */
typedef struct row_sum {
    reference ref;
    double others;
    double left_out;
} row_sum;

/* NaN or +inf in the row, or nothing but -inf. */
LANES int row_is_special(row_sum r)
{
    return !(r.others + r.left_out > 0.0);
}

/* log(sum / e_max) = log1p(the others / e_max): never negative, accurate when the maximum is nearly
 * all of the sum. */
LANES float others_over_max(row_sum row) { return (float)(row.others / row.left_out); }
LANES float log1p_of(float u) { return vlane0(vlog1p(vset1(u))); }
LANES float log_of_sum_over_max(row_sum row) { return log1p_of(others_over_max(row)); }

/* To f32, rounded once; 0 below the normal range. No branch: loops over rows are vectorised. */
LANES float narrowed(double h)
{
    return (float)(__builtin_fabs(h) < (double)SMALLEST_NORMAL ? 0.0 : h);
}

/* A row on its way out, chunk by chunk. */
typedef struct departing_row {
    departure whole; /* but for what it is made of and where it goes, which may be of 16 bits */
    const void *x;
    void *out;
    float *e; /* SCALED: see place_of_chunk(); NULL: nowhere, and it is COMPUTED */
    float h[MOST_KEPT_CHUNKS], exponent[MOST_KEPT_CHUNKS]; /* of its chunks; the latter: COMPUTED */
} departing_row;

/* The rows of one call, in order. Rows that fit SCRATCH leave while a later one is computed: `slots`
 * rows later, so that its exponentials take the place of theirs. */
typedef struct row_pipe {
    int64_t classes;
    int64_t slots, turn;
    search next; /* the maximum found ahead, and of which chunk */
    reference ref[MOST_KEPT_CHUNKS]; /* of the row summed last */
    chunk_sum sum[MOST_KEPT_CHUNKS];
    departing_row row[SCRATCH_ROWS];
    float *lent; /* memory of output rows from lent_from on; NULL: none is */
    void *lent_from;
    open_line line;
    fetching fetch;
    /* The caller's, on a LINE: SCRATCH_ROOM, or what SCRATCH_ROWS rows of whole groups and a block take. */
    float *scratch;
    const storage_format *format; /* of 16 bits; NULL: f32 */
} row_pipe;

LANES int64_t chunks_of(int64_t classes) { return (classes + CHUNK - 1) / CHUNK; }
LANES int64_t chunk_length(int64_t classes, int64_t at) { return smaller(classes - at, CHUNK); }

LANES int fits_scratch(int64_t classes) { return classes <= SCRATCH; }

LANES float *slot_of(row_pipe *p, int64_t slot)
{
    return p->scratch + slot * width_of(p->classes);
}

LANES void open_pipe(row_pipe *p, int64_t classes, float *scratch, fetching chosen,
                     const storage_format *format)
{
    p->fetch = fetching_of(chosen);
    p->scratch = scratch;
    p->classes = classes;
    p->slots = 2 * classes <= SCRATCH ? 2 : 1;
    p->turn = 0;
    p->next = (search){.n = 0};
    p->lent = NULL;
    p->line = (open_line){.n = 0};
    p->sum[0] = (chunk_sum){0.0, 0.0f}; /* stays the sum of a row without classes */
    for (int k = 0; k < SCRATCH_ROWS; k++)
        p->row[k].whole.n = 0;
    p->format = format;
}

/* The chunk whose maximum is found while the present one is summed; NULL: none. */
LANES void look_ahead(row_pipe *p, const void *source, int64_t n)
{
    p->next = (search){.n = 0};
    if (source)
        p->next = (search){.x = source, .n = n, .fetch = p->fetch};
}

/* Where the exponentials of the chunk at `at` are, of a row for which there is room at `row`. Those of the last
 * chunk of a row too long for the scratch are there all the same, for they end with a whole group; and where that
 * chunk is short, those of the one before it: what is streamed is read up to a line further than it goes. */
LANES float *place_of_chunk(const row_pipe *p, float *row, int64_t at)
{
    const int apart = !fits_scratch(p->classes) && p->classes - at < CHUNK + 2 * BLOCK;
    return apart ? p->scratch + (at & CHUNK) : row + at;
}

/* The part of a row that begins at `at`. */
LANES departure departing_chunk(row_pipe *p, const departing_row *row, int64_t at, const int leaving)
{
    departure d = row->whole;
    if (d.n == 0) /* h has no room for the chunks of any row */
        return d;
    d.n = smaller(d.n - at, CHUNK);
    d.out = output_address(p->format, row->out, at);
    if (leaving == SUBTRACTED) {
        d.x = input_address(p->format, row->x, at);
        return d;
    }
    d.label -= at;
    set_scale(&d, row->h[at / CHUNK]);
    if (row->e) {
        d.e = place_of_chunk(p, row->e, at);
    } else {
        d.x = input_address(p->format, row->x, at);
        d.exponent = row->exponent[at / CHUNK];
    }
    return d;
}

/* NaN leaves only where a factor is beyond f32: rows that hold one do not leave this way. */
LANES int leaves_numbers(const departure *d, const int leaving)
{
    return leaving == SUBTRACTED || (d->h - d->h == 0.0f && d->label_value == d->label_value);
}

/* left_out as seen from the chunk that begins at `at`. */
LANES int64_t left_out_from(int64_t left_out, int64_t at)
{
    return left_out >= at && left_out - at < CHUNK ? left_out - at : LEAVE_NOTHING;
}

/* Whether the maximum of the chunk at x was found beside the one before. */
LANES int is_found(const search *s, const void *x) { return s->n > 0 && s->x == x; }

LANES_SELDOM float max_of_elements(const storage_format *format, const void *x, int64_t n)
{
    return __builtin_expect(!format, 1) ? max_of(x, n) : max_of_narrow(format, x, n);
}

LANES reference reference_of_chunk(row_pipe *p, const void *x, int64_t n)
{
    return reference_of(is_found(&p->next, x) ? p->next.max : max_of_elements(p->format, x, n));
}

LANES chunk_sum sum_chunk(search *next, chunk c, departure d, const int leaving, const int streamed,
                          const int seeking)
{
    if (__builtin_expect(c.ref.shift != 0.0f, 0))
        return pass_chunk_shifted(c, next, d, leaving, streamed);
    if (leaving && d.n == 0)
        return pass_chunk_alone(c, next, seeking);
    return pass_chunk(c, next, d, leaving, streamed, 0, seeking);
}

/* The n logits at x with nothing beside them, their exponentials in `e`. */
LANES chunk_sum sum_alone(const storage *x, int64_t n, reference ref, int64_t left_out, float *e)
{
    search nothing = {.n = 0};
    const departure nobody = {.n = 0};
    const int64_t column = left_out == LEAVE_MAXIMUM ? column_of_maximum(x, n, ref.max, 0) : left_out;
    const chunk c = {x, n, ref, column, e};
    return sum_chunk(&nothing, c, nobody, NOTHING_LEAVES, 0, 0);
}

/* Of f32 or of 16 bits. Of these the column of a maximum that is left out is not yet known. */
LANES chunk_sum sum_any_chunk(const storage_format *format, search *next, chunk c, departure d,
                              const int leaving, const int streamed, const int seeking)
{
    if (__builtin_expect(!format, 1))
        return sum_chunk(next, c, d, leaving, streamed, seeking);
    const chunk own = c;
    const departure leaves = d;
    return sum_narrow_chunk(format, &own, seeking ? LEAVE_MAXIMUM : c.left_out, next, &leaves, leaving);
}

/* Chunks are added in index order, relative to `row.ref`; `best` is the chunk that it comes from. */
LANES_SELDOM void add_chunk(row_sum *row, chunk_sum s, reference ref, int in_sum)
{
    const double factor = s.others != s.others ? 1.0 : chunk_factor(ref, row->ref);
    row->others += s.others * factor;
    if (in_sum)
        row->others += (double)s.left_out * factor;
    else
        row->left_out += (double)s.left_out * factor;
}

/* Sums the row at x; the row after it begins at `next` (NULL: none). Meanwhile the row whose turn it
 * is leaves. The exponentials are in the slot then, or, of a row that does not fit there, in `kept`
 * unless that is NULL - but for those of the last chunk, which are in the slot. `seeking`, a constant:
 * whether left_out is LEAVE_MAXIMUM. */
LANES_LARGE row_sum sum_row(row_pipe *p, const void *x, int64_t left_out, const void *next,
                      float *kept, const int leaving, const int streamed, const int seeking)
{
    const int64_t classes = p->classes;
    const int fits = fits_scratch(classes), kept_sums = classes <= (int64_t)MOST_KEPT_CHUNKS * CHUNK;
    departing_row *old = &p->row[p->turn];
    float *slot = slot_of(p, p->turn);
    row_sum row = {{-LANE_INFINITY, 0.0f, 0.0f}, 0.0, 0.0};
    int64_t best = 0;

    if (!kept_sums)
        row.ref = reference_of(max_of_elements(p->format, x, classes));
    for (int64_t at = 0, k = 0; at < classes; at += CHUNK, k++) {
        const int64_t n = chunk_length(classes, at);
        const int last = at + n == classes;
        const void *source = input_address(p->format, x, at);
        chunk c = {source, n, reference_of_chunk(p, source, n), left_out_from(left_out, at), slot};
        if (seeking && !p->format)
            c.left_out = column_of_maximum(source, n, c.ref.max,
                                           is_found(&p->next, source) ? p->next.from : 0);
        if (fits || kept)
            c.kept = place_of_chunk(p, fits ? slot : kept, at);
        if (last)
            look_ahead(p, next, smaller(classes, CHUNK));
        else
            look_ahead(p, input_address(p->format, x, at + n), chunk_length(classes, at + n));
        const departure d = departing_chunk(p, old, at, leaving);
        const chunk_sum s = sum_any_chunk(p->format, &p->next, c, d, leaving, streamed, seeking);
        if (kept_sums) {
            p->ref[k] = c.ref;
            p->sum[k] = s;
            if (c.ref.max > row.ref.max) {
                row.ref = c.ref;
                best = k;
            }
        } else {
            best += row.ref.max != c.ref.max && best == k;
            add_chunk(&row, s, c.ref, seeking && k != best);
        }
    }
    old->whole.n = 0;
    if (classes <= CHUNK)
        return (row_sum){row.ref, p->sum[0].others, (double)p->sum[0].left_out};
    if (kept_sums)
        for (int64_t k = 0; k * CHUNK < classes; k++)
            add_chunk(&row, p->sum[k], p->ref[k], seeking && k != best);
    return row;
}

/* What leaves, leaves now, with nothing beside it. */
#define leave_now KERNEL(leave_now)
void leave_now(const departure *d, int leaving, int streamed);

/* Of f32 or of 16 bits. */
LANES void leave_any_now(const storage_format *format, const departure *d, int leaving, int streamed)
{
    if (format)
        leave_narrow_now(format, d, leaving);
    else
        leave_now(d, leaving, streamed);
}

LANES void leave_row_now(row_pipe *p, const departing_row *row, const int leaving,
                         const int streamed)
{
    for (int64_t at = 0; at < row->whole.n; at += CHUNK) {
        const departure d = departing_chunk(p, row, at, leaving);
        leave_any_now(p->format, &d, leaving, streamed);
    }
}

/* The rows that have not left yet, the oldest first; nothing is under way afterwards. */
LANES_SELDOM void close_pipe(row_pipe *p, const int leaving, const int streamed)
{
    for (int64_t k = 0; k < p->slots; k++) {
        departing_row *row = &p->row[(p->turn + k) % p->slots];
        leave_row_now(p, row, leaving, streamed);
        row->whole.n = 0;
    }
    if (streamed)
        end_streams(&p->line);
}

LANES void take_turn(row_pipe *p) { p->turn = p->turn + 1 < p->slots ? p->turn + 1 : 0; }

/* The outputs of the last rows of a call lend their memory to the exponentials of long rows, until their own
 * turn comes: one row, or two of 16 bits. `out` is that of the first of `rows`; none of it may be read as
 * logits by then. */
#define lend_outputs KERNEL(lend_outputs)
void lend_outputs(row_pipe *p, void *out, int64_t rows, int64_t stride);

/* Whether exponentials of rows before it may wait in the row `out`. */
LANES int is_lent(const row_pipe *p, const void *out)
{
    return p->lent && (uintptr_t)out >= (uintptr_t)p->lent_from;
}

/* Where a long row's exponentials are kept until its sum is known, if a job's kept_chunks allow it; NULL:
 * nowhere, so that they are computed twice. What is kept in a row's own output is written twice, and past the
 * caches once only if nothing is. */
#define kept_in KERNEL(kept_in)
float *kept_in(const row_pipe *p, void *out, int64_t kept_chunks, int streamed);

/* A row too long for the scratch. It leaves beside the row after it; now, if its output is lent, or if it is of
 * f32 and has to be computed once more. */
#define leave_long_row KERNEL(leave_long_row)
void leave_long_row(row_pipe *p, departing_row *row, row_sum sum, double h, float *kept, int streamed);

/* The row just summed will leave as out_c = h e_c / (the row's reference), but for the column `label`,
 * which becomes label_value. `kept` as given to sum_row. The row must not be special. */
LANES_LARGE void leave_scaled(row_pipe *p, const void *x, row_sum sum, double h, int64_t label,
                        float label_value, float *kept, void *out, const int streamed)
{
    departing_row *row = &p->row[p->turn];
    row->whole = (departure){
        .n = p->classes, .label = label, .label_value = label_value, .line = &p->line};
    row->x = x;
    row->out = out;
    row->e = slot_of(p, p->turn);
    if (__builtin_expect(!fits_scratch(p->classes), 0)) {
        leave_long_row(p, row, sum, h, kept, streamed);
        return;
    }
    row->h[0] = narrowed(h);
    if (p->classes > CHUNK)
        for (int64_t k = 0; k * CHUNK < p->classes; k++)
            row->h[k] = narrowed(h * chunk_factor(p->ref[k], sum.ref));
    take_turn(p);
}

/* The row just summed will leave as out_c = (x_c - max) - rest. */
LANES_LARGE void leave_subtracted(row_pipe *p, const void *x, float max, float rest, void *out)
{
    departing_row *row = &p->row[p->turn];
    row->whole = (departure){.n = p->classes, .max = max, .rest = rest, .line = &p->line};
    row->x = x;
    row->out = out;
    take_turn(p);
}

#endif
