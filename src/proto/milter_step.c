/* SPDX-License-Identifier: Apache-2.0
 *
 * What we tell a filter, step by step.
 */
#include "proto/milter_internal.h"

#include <assert.h>

const struct milter_step milter_steps[MILTER_STAGES] = {
    [MILTER_CONNECT] = {'C', 0x001, 0x01000, 0},
    [MILTER_HELO] = {'H', 0x002, 0x02000, 1},
    [MILTER_MAIL] = {'M', 0x004, 0x04000, 2},
    [MILTER_RCPT] = {'R', 0x008, 0x08000, 3},
    [MILTER_DATA] = {'T', 0x200, 0x10000, 4},
    [MILTER_HEADER] = {'L', 0x020, 0x00080, -1},
    [MILTER_EOH] = {'N', 0x040, 0x40000, 6},
    [MILTER_BODY] = {'B', 0x010, 0x80000, -1},
    [MILTER_END] = {'E', 0, 0, 5},
};

/* DATA came with version 4. */
static bool is_known(const struct milter *milter, enum milter_stage stage)
{
    return stage != MILTER_DATA || milter->version >= 4;
}

bool milter_wants(const struct milter *milter, enum milter_stage stage)
{
    return milter->state != STATE_BROKEN && milter->state != STATE_NEGOTIATING &&
           !milter->accepted_session && !(milter->accepted_message && stage >= MILTER_MAIL) &&
           (milter->skipped & 1u << stage) == 0 && is_known(milter, stage) &&
           (milter->protocol & milter_steps[stage].leave_out) == 0;
}

/* False: this step is not made. */
static bool begin(struct milter *milter, enum milter_stage stage, int64_t now_ms, size_t *ret_begun)
{
    assert(milter->state != STATE_WAITING);
    milter->now_ms = now_ms;
    milter->stage = stage;
    if (!milter_wants(milter, stage)) {
        return false;
    }
    const struct milter_step *step = &milter_steps[stage];
    milter->may_meet_another = false;
    if (step->macros >= 0) {
        milter_say_macros(milter, step->macros, step->command);
    }
    *ret_begun = milter_begin(milter, step->command);
    return true;
}

void milter_wait(struct milter *milter)
{
    uint32_t timeout_ms = milter->stage >= MILTER_HEADER ? milter->settings.content_timeout_ms
                                                         : milter->settings.command_timeout_ms;
    int64_t last_ms = milter->asked_ms + (int64_t)timeout_ms * MILTER_PROGRESS_MAX;
    milter->state = STATE_WAITING;
    milter->deadline_ms = milter->now_ms + timeout_ms;
    if (milter->deadline_ms > last_ms) {
        milter->deadline_ms = last_ms;
    }
}

static bool finish(struct milter *milter, size_t begun)
{
    milter_finish(milter, begun);
    if (milter->state == STATE_BROKEN ||
        (milter->protocol & milter_steps[milter->stage].no_answer) != 0) {
        return false;
    }
    milter->asked_ms = milter->now_ms;
    milter_wait(milter);
    return true;
}

bool milter_connect(struct milter *milter, struct slice host, const struct ip_endpoint *client,
                    int64_t now_ms)
{
    size_t begun;
    char address[IP_TEXT_SIZE];
    milter->accepted_session = milter->accepted_message = false;
    milter->skipped = 0;
    if (!begin(milter, MILTER_CONNECT, now_ms, &begun)) {
        return false;
    }
    bool v4 = ip_is_v4(&client->address);
    const uint8_t port[2] = {(uint8_t)(client->port >> 8), (uint8_t)client->port};
    ip_to_text(&client->address, address);
    milter_put_text(milter, host);
    buffer_put_u8(&milter->output, v4 ? '4' : '6');
    buffer_append(&milter->output, slice_make(port, sizeof(port)));
    milter_put_text(milter, slice_from_text(address));
    return finish(milter, begun);
}

bool milter_helo(struct milter *milter, struct slice name, int64_t now_ms)
{
    size_t begun;
    if (!begin(milter, MILTER_HELO, now_ms, &begun)) {
        return false;
    }
    milter_put_text(milter, name);
    return finish(milter, begun);
}

static void put_path(struct milter *milter, struct slice address, struct slice parameters)
{
    struct buffer *output = &milter->output;
    buffer_put_u8(output, '<');
    buffer_append(output, address);
    milter_put_text(milter, SLICE_LITERAL(">"));
    while (parameters.length > 0) {
        size_t end = slice_find(parameters, ' ');
        if (end > 0) {
            milter_put_text(milter, slice_take(parameters, end));
        }
        parameters = slice_skip(parameters, end + 1);
    }
}

bool milter_mail(struct milter *milter, struct slice sender, struct slice parameters,
                 int64_t now_ms)
{
    size_t begun;
    milter->accepted_message = false;
    milter->skipped = 0;
    milter->changes = 0;
    if (!begin(milter, MILTER_MAIL, now_ms, &begun)) {
        return false;
    }
    put_path(milter, sender, parameters);
    return finish(milter, begun);
}

bool milter_rcpt(struct milter *milter, struct slice recipient, struct slice parameters,
                 int64_t now_ms)
{
    size_t begun;
    if (!begin(milter, MILTER_RCPT, now_ms, &begun)) {
        return false;
    }
    put_path(milter, recipient, parameters);
    return finish(milter, begun);
}

bool milter_data(struct milter *milter, int64_t now_ms)
{
    size_t begun;
    return begin(milter, MILTER_DATA, now_ms, &begun) && finish(milter, begun);
}

/* CRLF within become LF, as libmilter expects; the space behind the colon stays if it asks for it.
 */
static void put_folded(struct milter *milter, struct slice value)
{
    bool leads = (milter->protocol & PROTOCOL_LEADING_SPACE) != 0;
    if (!leads && value.length > 0 && value.data[0] == ' ') {
        value = slice_skip(value, 1);
    }
    while (value.length > 0) {
        size_t end = slice_find(value, '\r');
        bool folds = end + 1 < value.length && value.data[end + 1] == '\n';
        buffer_append(&milter->output, slice_take(value, folds ? end : end + 1));
        value = slice_skip(value, end + 1);
    }
    buffer_put_u8(&milter->output, 0);
}

bool milter_header(struct milter *milter, struct slice name, struct slice value, int64_t now_ms)
{
    size_t begun;
    if (!begin(milter, MILTER_HEADER, now_ms, &begun)) {
        return false;
    }
    milter_put_text(milter, name);
    size_t nul = value.length == 0 ? 0 : slice_find(value, 0);
    put_folded(milter, slice_take(value, nul));
    return finish(milter, begun);
}

bool milter_eoh(struct milter *milter, int64_t now_ms)
{
    size_t begun;
    return begin(milter, MILTER_EOH, now_ms, &begun) && finish(milter, begun);
}

bool milter_body(struct milter *milter, struct slice bytes, int64_t now_ms)
{
    size_t begun;
    assert(bytes.length <= MILTER_CHUNK_MAX);
    if (bytes.length == 0 || !begin(milter, MILTER_BODY, now_ms, &begun)) {
        return false;
    }
    buffer_append(&milter->output, bytes);
    return finish(milter, begun);
}

bool milter_end(struct milter *milter, int64_t now_ms)
{
    size_t begun;
    return begin(milter, MILTER_END, now_ms, &begun) && finish(milter, begun);
}

void milter_abort(struct milter *milter, int64_t now_ms)
{
    milter->now_ms = now_ms;
    if (milter->state == STATE_BROKEN || milter->state == STATE_NEGOTIATING) {
        return;
    }
    if (milter->state == STATE_WAITING) {
        /* Its answer would be taken for that to the next step. */
        milter_break(milter, "given up while it was asked");
        return;
    }
    milter_finish(milter, milter_begin(milter, SAYS_ABORT));
    milter->accepted_message = milter->may_meet_another = false;
}

bool milter_quit(struct milter *milter, bool reuse, int64_t now_ms)
{
    milter->now_ms = now_ms;
    reuse =
        reuse && milter->state == STATE_IDLE && milter->version >= 6 && milter->may_meet_another;
    if (milter->state == STATE_IDLE) {
        milter_finish(milter, milter_begin(milter, reuse ? SAYS_QUIT_NEW : SAYS_QUIT));
        milter->accepted_session = milter->accepted_message = milter->may_meet_another = false;
    }
    return reuse && milter->state == STATE_IDLE;
}
