/* SPDX-License-Identifier: Apache-2.0
 *
 * States between two bytes of the input:
 *
 *   AT_LINE       behind a true CR LF, or at the start
 *   AT_BARE_LINE  behind a bare LF, which was given out as CR LF
 *   IN_LINE       within a line
 *   HELD_CR       within a line, a CR seen and not given out yet
 *   DOT           behind CR LF "." (the dot is never given out)
 *   DOT_CR        behind CR LF "." CR
 *   ENDED
 *
 * Nearly all input passes through clean_run(), which looks at 64 bytes at a time: four bit masks
 * tell where CR, LF, dots and 8-bit bytes are, and a few shifts whether anything needs care.
 */
#include "proto/smtp_content.h"

#include <assert.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { AT_LINE, AT_BARE_LINE, IN_LINE, HELD_CR, DOT, DOT_CR, ENDED };

static const struct slice crlf = SLICE_LITERAL("\r\n");
static const struct slice space = SLICE_LITERAL(" ");
static const struct slice space_crlf = SLICE_LITERAL(" \r\n");

enum { BLOCK = 64 };

struct masks {
    uint64_t cr;
    uint64_t lf;
    uint64_t dot;
    uint64_t high;
};

#if defined(__SSE2__)
static struct masks look(const uint8_t block[BLOCK])
{
    const __m128i cr = _mm_set1_epi8('\r');
    const __m128i lf = _mm_set1_epi8('\n');
    const __m128i dot = _mm_set1_epi8('.');
    struct masks masks = {0};
    for (int i = 0; i < BLOCK / 16; i++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(block + 16 * i));
        masks.cr |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, cr)) << (16 * i);
        masks.lf |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, lf)) << (16 * i);
        masks.dot |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, dot)) << (16 * i);
        masks.high |= (uint64_t)(uint32_t)_mm_movemask_epi8(bytes) << (16 * i);
    }
    return masks;
}
#else
static struct masks look(const uint8_t block[BLOCK])
{
    struct masks masks = {0};
    for (int i = 0; i < BLOCK; i++) {
        masks.cr |= (uint64_t)(block[i] == '\r') << i;
        masks.lf |= (uint64_t)(block[i] == '\n') << i;
        masks.dot |= (uint64_t)(block[i] == '.') << i;
        masks.high |= (uint64_t)(block[i] >= 0x80) << i;
    }
    return masks;
}
#endif

void smtp_content_init(struct smtp_content *content, const struct smtp_content_limits *limits,
                       bool is_dotted)
{
    memset(content, 0, offsetof(struct smtp_content, header));
    smtp_header_init(&content->header);
    content->header.own_host = limits->own_host;
    content->limits = *limits;
    content->is_dotted = is_dotted;
    content->state = AT_LINE;
}

static void find_fault(struct smtp_content *content, enum smtp_content_fault fault)
{
    if (content->fault == SMTP_CONTENT_GOOD || fault < content->fault) {
        content->fault = fault;
    }
}

static uint64_t bits_below(unsigned position)
{
    return position >= BLOCK ? UINT64_MAX : ((uint64_t)1 << position) - 1;
}

static void measure_line(struct smtp_content *content, uint64_t length)
{
    if (content->limits.line_bytes != 0 && length > content->limits.line_bytes) {
        find_fault(content, SMTP_CONTENT_LINE_TOO_LONG);
    }
}

/* Takes note of `count` clean bytes whose masks are given. */
static void account(struct smtp_content *content, const struct masks *masks, unsigned count)
{
    uint64_t ends = masks->lf & bits_below(count);
    content->has_8bit = content->has_8bit || (masks->high & bits_below(count)) != 0;
    if (ends == 0) {
        content->line_length += count;
    } else {
        unsigned first = (unsigned)__builtin_ctzll(ends);
        unsigned last = (unsigned)(63 - __builtin_clzll(ends));
        /* The CR before the first LF may lie in the block before. */
        measure_line(content, content->line_length + first - 1);
        content->line_length = count - last - 1;
    }
    if (content->line_length > 0) {
        /* The line may go on; its last byte so far may be the CR that does not count. */
        measure_line(content, content->line_length - 1);
    }
}

/* How many bytes at the front of a block can pass as they are: all before a bare CR or LF, or
 * before a dot that begins a line. after_cr, after_lf: what ended the block before. */
static unsigned clean_block(const struct masks *masks, unsigned count, bool dots, bool after_cr,
                            bool after_lf)
{
    uint64_t must_be_lf = masks->cr << 1 | (uint64_t)after_cr;
    uint64_t stop = masks->lf ^ must_be_lf;
    if (dots) {
        stop |= masks->dot & (masks->lf << 1 | (uint64_t)after_lf);
    }
    stop &= bits_below(count);
    if (stop == 0) {
        return count;
    }
    return (unsigned)__builtin_ctzll(stop);
}

/* The length of the longest front of `input` that is clean; 0 when the first byte needs care. */
static size_t clean_run(struct smtp_content *content, struct slice input)
{
    bool after_cr = false;
    bool after_lf = content->state != IN_LINE;
    for (size_t at = 0; at < input.length;) {
        uint8_t tail[BLOCK] = {0};
        const uint8_t *block = input.data + at;
        unsigned count = BLOCK;
        if (input.length - at < BLOCK) {
            count = (unsigned)(input.length - at);
            memcpy(tail, block, count);
            block = tail;
        }
        struct masks masks = look(block);
        unsigned clean = clean_block(&masks, count, content->is_dotted, after_cr, after_lf);
        bool is_last = clean < count || at + count == input.length;
        bool ends_in_cr = clean > 0 ? (masks.cr >> (clean - 1) & 1) != 0 : after_cr;
        account(content, &masks, clean);
        if (is_last && ends_in_cr) {
            /* Bare, or its LF has not come: the slow path decides. It may be the last byte of the
             * block before. */
            content->line_length -= 1;
            return at + clean - 1;
        }
        if (is_last) {
            return at + clean;
        }
        after_cr = ends_in_cr;
        after_lf = (masks.lf >> (clean - 1) & 1) != 0;
        at += clean;
    }
    return input.length;
}

static void note_bare(struct smtp_content *content)
{
    content->bare_newlines++;
    if (content->limits.reject_bare_newline) {
        find_fault(content, SMTP_CONTENT_BARE_NEWLINE);
    }
}

static void end_line(struct smtp_content *content, uint8_t state)
{
    measure_line(content, content->line_length);
    content->line_length = 0;
    content->state = state;
}

/* One step over the input; an empty run means only that the state has moved on. */
static struct slice take(struct smtp_content *content, struct slice *input)
{
    uint8_t c = input->data[0];
    switch (content->state) {
    case HELD_CR:
        if (c != '\n') {
            note_bare(content);
            content->state = IN_LINE;
            content->line_length++;
            return space;
        }
        *input = slice_skip(*input, 1);
        end_line(content, AT_LINE);
        return crlf;
    case DOT:
        if (c == '\r') {
            *input = slice_skip(*input, 1);
            content->state = DOT_CR;
        } else {
            content->state = IN_LINE;
        }
        return SLICE_EMPTY;
    case DOT_CR:
        if (c != '\n') {
            note_bare(content);
            content->state = IN_LINE;
            content->line_length++;
            return space;
        }
        *input = slice_skip(*input, 1);
        content->state = ENDED;
        return SLICE_EMPTY;
    default:
        break;
    }
    if (c == '.' && content->is_dotted && content->state != IN_LINE) {
        *input = slice_skip(*input, 1);
        content->state = content->state == AT_LINE ? DOT : IN_LINE;
        return SLICE_EMPTY;
    }
    size_t length = clean_run(content, *input);
    if (length > 0) {
        struct slice run = slice_take(*input, length);
        *input = slice_skip(*input, length);
        content->state = run.data[length - 1] == '\n' ? AT_LINE : IN_LINE;
        return run;
    }
    *input = slice_skip(*input, 1);
    if (c == '\r') {
        content->state = HELD_CR;
        return SLICE_EMPTY;
    }
    assert(c == '\n');
    note_bare(content);
    end_line(content, AT_BARE_LINE);
    return crlf;
}

/* Everything that is given out passes here, and what would be if there were no fault. */
static void count_run(struct smtp_content *content, struct slice run)
{
    content->length += run.length;
    if (content->limits.bytes != 0 && content->length > content->limits.bytes) {
        find_fault(content, SMTP_CONTENT_TOO_LARGE);
    }
    if (content->header.complete) {
        return;
    }
    smtp_header_feed(&content->header, run);
    if (content->limits.header_bytes != 0 &&
        content->header.length > content->limits.header_bytes) {
        find_fault(content, SMTP_CONTENT_HEADER_TOO_LARGE);
    }
    if (content->limits.hops != 0 && content->header.received > content->limits.hops) {
        find_fault(content, SMTP_CONTENT_TOO_MANY_HOPS);
    }
}

enum smtp_content_result smtp_content_next(struct smtp_content *content, struct slice *input,
                                           struct slice *ret_run)
{
    assert(content->state != ENDED);
    while (input->length > 0) {
        struct slice run = take(content, input);
        if (content->state == ENDED) {
            return SMTP_CONTENT_END;
        }
        if (run.length == 0) {
            continue;
        }
        count_run(content, run);
        if (content->fault == SMTP_CONTENT_GOOD) {
            *ret_run = run;
            return SMTP_CONTENT_RUN;
        }
    }
    return SMTP_CONTENT_MORE;
}

struct slice smtp_content_finish(struct smtp_content *content)
{
    struct slice rest = SLICE_EMPTY;
    if (content->state == HELD_CR) {
        note_bare(content);
        rest = space_crlf;
    } else if (content->state == IN_LINE) {
        rest = crlf;
    }
    content->state = ENDED;
    count_run(content, rest);
    return content->fault == SMTP_CONTENT_GOOD ? rest : SLICE_EMPTY;
}

uint64_t smtp_content_header_length(const struct smtp_content *content)
{
    return content->header.complete ? content->header.length : content->length;
}
