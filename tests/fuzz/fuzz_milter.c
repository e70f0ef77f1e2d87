/* SPDX-License-Identifier: Apache-2.0
 *
 * A hostile filter: any bytes as its packets, cut anywhere, while a session goes through its steps.
 * What it says is told only in its time, and never anything after the end.
 */
#include "proto/milter.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool value_of(void *context, struct slice name, struct slice *ret_value)
{
    (void)context;
    *ret_value = name;
    return name.length % 2 == 1;
}

static bool step(struct milter *milter, unsigned which)
{
    static const struct ip_endpoint client = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1}}, 25};
    switch (which % MILTER_STAGES) {
    case MILTER_CONNECT:
        return milter_connect(milter, SLICE_LITERAL("host"), &client, 0);
    case MILTER_HELO:
        return milter_helo(milter, SLICE_LITERAL("host"), 0);
    case MILTER_MAIL:
        return milter_mail(milter, SLICE_LITERAL("a@b"), SLICE_LITERAL("SIZE=1"), 0);
    case MILTER_RCPT:
        return milter_rcpt(milter, SLICE_LITERAL("a@b"), SLICE_EMPTY, 0);
    case MILTER_DATA:
        return milter_data(milter, 0);
    case MILTER_HEADER:
        return milter_header(milter, SLICE_LITERAL("A"), SLICE_LITERAL(" b\r\n c"), 0);
    case MILTER_EOH:
        return milter_eoh(milter, 0);
    case MILTER_BODY:
        return milter_body(milter, SLICE_LITERAL("body"), 0);
    default:
        return milter_end(milter, 0);
    }
}

static void check(const struct milter_event *event, enum milter_stage stage)
{
    for (size_t i = 0; i < event->text.length; i++) {
        assert(event->text.data[i] >= ' ' || event->text.data[i] == '\t');
    }
    if (event->kind == MILTER_VERDICT) {
        assert(event->stage == stage);
        assert(event->code == 0 || (event->code >= 400 && event->code < 600));
    } else {
        assert(event->kind < MILTER_ADD_HEADER || event->kind == MILTER_BROKEN ||
               stage == MILTER_END);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make(data, size);
    struct milter_event event;
    struct milter *milter =
        milter_new(&(struct milter_settings){.may = MILTER_MAY_ALL, .macro = value_of}, 0);
    if (milter == NULL) {
        return 0;
    }
    unsigned stage = 0;
    bool waits = true, broken = false, agreed = false;
    while (input.length > 0 && !broken) {
        size_t piece = 1 + input.data[0] % 40;
        milter_input(milter, slice_take(input, piece), 0);
        input = slice_skip(input, piece);
        while (milter_next(milter, &event)) {
            assert(!broken);
            check(&event, stage % MILTER_STAGES);
            broken = event.kind == MILTER_BROKEN;
            agreed = agreed || event.kind == MILTER_READY;
            waits = waits && event.kind != MILTER_READY && event.kind != MILTER_VERDICT;
        }
        for (int i = 0; i < 2 * MILTER_STAGES && agreed && !broken && !waits; i++) {
            waits = step(milter, ++stage);
            milter_sent(milter, milter_output(milter).length, 0);
        }
    }
    assert(!broken || !milter_next(milter, &event));
    milter_free(milter);
    return 0;
}
