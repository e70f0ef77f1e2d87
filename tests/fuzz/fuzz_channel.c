/* SPDX-License-Identifier: Apache-2.0
 *
 * What a broken edge could send to core: decoding must refuse or give values within their bounds.
 */
#include "service/channel.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

static void check_texts(struct slice input)
{
    struct reader reader = reader_make(input);
    struct channel_texts texts;
    if (channel_get_texts(&reader, &texts)) {
        assert(texts.count <= CHANNEL_TEXTS_MAX);
        for (uint32_t i = 0; i < texts.count; i++) {
            assert(texts.texts[i].length <= CHANNEL_TEXT_MAX);
        }
    }
    reader = reader_make(input);
    struct channel_tls tls;
    if (channel_get_tls(&reader, &tls)) {
        struct buffer again;
        buffer_init(&again, 0);
        channel_put_tls(&again, &tls);
        assert(again.length == input.length - reader.rest.length);
        assert(memcmp(again.data, input.data, again.length) == 0);
        buffer_done(&again);
    }
    reader = reader_make(input);
    assert(channel_get_sts(&reader) < STS_DEMANDS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_message(struct slice input)
{
    struct reader reader = reader_make(input);
    struct spool_message message;
    struct arena arena;
    arena_init(&arena);
    if (channel_get_message(&reader, &arena, &message)) {
        assert(message.recipient_count > 0 && message.recipient_count <= SPOOL_RECIPIENTS_MAX);
        assert(message.header_length + message.body_length >= message.header_length);
        struct buffer again;
        buffer_init(&again, 0);
        channel_put_message(&again, &message);
        assert(again.length == input.length - reader.rest.length);
        assert(memcmp(again.data, input.data, again.length) == 0);
        buffer_done(&again);
    }
    arena_done(&arena);
}

/* What is read is within its bounds, and written as it was. */
static void check_mx(struct slice input)
{
    static struct channel_mx mx;
    struct reader reader = reader_make(input);
    struct channel_exchanger exchanger;
    if (channel_get_mx(&reader, &mx)) {
        struct mx_policy policy = {.hostname = SLICE_LITERAL("mx")};
        struct mx_decision decision;
        assert(mx.answer.count <= MX_EXCHANGERS_MAX);
        mx_decide(&mx.answer, &policy, input.length, &decision);
        assert((decision.verdict == MX_FOUND) == (decision.count > 0));
        assert(decision.ttl_s >= MX_TTL_MIN_S && decision.ttl_s <= MX_TTL_MAX_S);
    }
    reader = reader_make(input);
    if (channel_get_exchanger(&reader, &exchanger)) {
        struct buffer again;
        buffer_init(&again, 0);
        channel_put_exchanger(&again, &exchanger.config);
        assert(again.length == input.length - reader.rest.length);
        assert(memcmp(again.data, input.data, again.length) == 0);
        buffer_done(&again);
    }
}

static void check_refusal(struct slice input)
{
    struct reader reader = reader_make(input);
    struct channel_refusal refusal;
    if (channel_get_refusal(&reader, &refusal)) {
        struct buffer again;
        buffer_init(&again, 0);
        channel_put_refusal(&again, &refusal);
        assert(again.length == input.length && input.length <= CHANNEL_REFUSAL_MAX);
        buffer_done(&again);
    }
}

static void check_listing(struct slice input)
{
    struct reader reader = reader_make(input);
    struct channel_listing listing;
    if (channel_get_listing(&reader, &listing)) {
        struct buffer again;
        buffer_init(&again, 0);
        assert(listing.name.length <= CHANNEL_LIST_NAME_MAX);
        channel_put_listing(&again, &listing);
        assert(again.length == input.length - reader.rest.length);
        assert(memcmp(again.data, input.data, again.length) == 0);
        buffer_done(&again);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_reply reply;
    struct relay_capabilities capabilities;
    check_message(slice_make(data, size));
    check_listing(slice_make(data, size));
    check_texts(slice_make(data, size));
    check_refusal(slice_make(data, size));
    check_mx(slice_make(data, size));
    struct reader reader = reader_make(slice_make(data, size));
    if (channel_get_reply(&reader, &reply)) {
        assert(reply.text.length <= 512);
    }
    reader = reader_make(slice_make(data, size));
    assert(channel_get_capabilities(&reader, &capabilities) == (size >= 24));
    return 0;
}
