/* SPDX-License-Identifier: Apache-2.0
 *
 * Encoding and decoding of what crosses between processes. Decoding believes nothing: every length
 * and enumeration is checked, and envelope strings that could end a line or a string elsewhere are
 * refused here once more (R10), because the process that sent them parses hostile bytes.
 */
#include "service/channel.h"

#include "base/crc32c.h"

/* Unix time in ms, of RFC 2852: far beyond what 9 digits of seconds from now can say. */
static const int64_t DELIVER_BY_MAX = 1LL << 44;

enum {
    ADDRESS_MAX = 1024,   /* more than any path that our SMTP server lets through */
    PARAMETER_MAX = 1024, /* ENVID, ORCPT */
    HELO_MAX = 512,
    MESSAGE_ID_MAX = 998,
    ORIGIN_MAX = 64 << 10, /* filters' verdicts */
    FORWARDED_MAX = 1024,
    REPLY_TEXT_MAX = 512,
    RECIPIENT_MIN = 4 + 4 + 1, /* bytes that one encoded recipient takes at least */
};

uint32_t channel_server_key(const struct relay_config *config, uint32_t index)
{
    return index < config->server_count ? crc32c(0, config->servers[index].name) : NO_INDEX;
}

uint32_t channel_server_find(const struct relay_config *config, uint32_t key)
{
    for (uint32_t i = 0; i < config->server_count; i++) {
        if (channel_server_key(config, i) == key) {
            return i;
        }
    }
    return NO_INDEX;
}

void channel_put_id(struct buffer *buffer, struct message_id id)
{
    buffer_put_u64(buffer, id.high);
    buffer_put_u64(buffer, id.low);
}

struct message_id channel_get_id(struct reader *reader)
{
    struct message_id id;
    id.high = reader_u64(reader);
    id.low = reader_u64(reader);
    return id;
}

/* A string of at most `limit` bytes without CR, LF and NUL. */
static struct slice get_line(struct reader *reader, size_t limit)
{
    struct slice text = reader_bytes(reader);
    if (text.length > limit || slice_find(text, '\r') != text.length ||
        slice_find(text, '\n') != text.length || slice_find(text, '\0') != text.length) {
        reader->failed = true;
        return SLICE_EMPTY;
    }
    return text;
}

static void put_origin(struct buffer *buffer, const struct spool_origin *origin)
{
    buffer_append(buffer, slice_make(origin->client.address.bytes, 16));
    buffer_put_u16(buffer, origin->client.port);
    buffer_put_bytes(buffer, origin->helo);
    buffer_put_bytes(buffer, origin->listener);
    buffer_put_bytes(buffer, origin->protocol);
    buffer_put_bytes(buffer, origin->tls);
    buffer_put_bytes(buffer, origin->user);
    buffer_put_bytes(buffer, origin->verdicts);
    buffer_put_bytes(buffer, origin->forwarded);
}

static struct spool_origin get_origin(struct reader *reader)
{
    struct spool_origin origin = {0};
    struct slice address = reader_take(reader, 16);
    if (address.length == 16) {
        memcpy(origin.client.address.bytes, address.data, 16);
    }
    origin.client.port = reader_u16(reader);
    origin.helo = get_line(reader, HELO_MAX);
    origin.listener = get_line(reader, HELO_MAX);
    origin.protocol = get_line(reader, HELO_MAX);
    origin.tls = get_line(reader, HELO_MAX);
    origin.user = get_line(reader, ADDRESS_MAX);
    origin.verdicts = reader_bytes(reader);
    if (origin.verdicts.length > ORIGIN_MAX) {
        reader->failed = true;
    }
    origin.forwarded = get_line(reader, FORWARDED_MAX);
    return origin;
}

void channel_put_message(struct buffer *buffer, const struct spool_message *message)
{
    channel_put_id(buffer, message->id);
    buffer_put_u64(buffer, (uint64_t)message->received_ms);
    buffer_put_u32(buffer, message->odometer_s);
    buffer_put_u32(buffer, message->elapsed_s);
    buffer_put_u32(buffer, message->flags);
    buffer_put_u8(buffer, (uint8_t)message->priority);
    buffer_put_u64(buffer, (uint64_t)message->deliver_by_ms);
    buffer_put_u64(buffer, message->header_length);
    buffer_put_u64(buffer, message->body_length);
    buffer_put_bytes(buffer, message->sender);
    buffer_put_bytes(buffer, message->envelope_id);
    buffer_put_bytes(buffer, message->message_id_header);
    put_origin(buffer, &message->origin);
    buffer_put_u32(buffer, message->recipient_count);
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        const struct spool_recipient *recipient = &message->recipients[i];
        buffer_put_bytes(buffer, recipient->address);
        buffer_put_bytes(buffer, recipient->orcpt);
        buffer_put_u8(buffer, recipient->notify);
    }
}

static bool get_recipients(struct reader *reader, struct arena *arena,
                           struct spool_message *ret_message)
{
    uint32_t count = reader_u32(reader);
    if (reader->failed || count == 0 || count > SPOOL_RECIPIENTS_MAX ||
        count > reader->rest.length / RECIPIENT_MIN) {
        return false;
    }
    struct spool_recipient *recipients = arena_allocate(arena, count * sizeof(*recipients));
    if (recipients == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        recipients[i].address = get_line(reader, ADDRESS_MAX);
        recipients[i].orcpt = get_line(reader, PARAMETER_MAX);
        recipients[i].notify = reader_u8(reader);
        if (reader->failed || recipients[i].address.length == 0) {
            return false;
        }
    }
    ret_message->recipients = recipients;
    ret_message->recipient_count = count;
    return true;
}

bool channel_get_message(struct reader *reader, struct arena *arena,
                         struct spool_message *ret_message)
{
    struct spool_message message = {0};
    size_t before = reader->rest.length;
    uint64_t total;
    message.id = channel_get_id(reader);
    message.received_ms = (int64_t)reader_u64(reader);
    message.odometer_s = reader_u32(reader);
    message.elapsed_s = reader_u32(reader);
    message.flags = reader_u32(reader);
    message.priority = (int8_t)reader_u8(reader);
    message.deliver_by_ms = (int64_t)reader_u64(reader);
    reader->failed |= message.priority < -9 || message.priority > 9 || message.deliver_by_ms < 0 ||
                      message.deliver_by_ms > DELIVER_BY_MAX;
    message.header_length = reader_u64(reader);
    message.body_length = reader_u64(reader);
    message.sender = get_line(reader, ADDRESS_MAX);
    message.envelope_id = get_line(reader, PARAMETER_MAX);
    message.message_id_header = get_line(reader, MESSAGE_ID_MAX);
    message.origin = get_origin(reader);
    if (reader->failed || id_is_null(message.id) ||
        __builtin_add_overflow(message.header_length, message.body_length, &total) ||
        !get_recipients(reader, arena, &message) ||
        before - reader->rest.length > SPOOL_ENVELOPE_MAX) {
        reader->failed = true;
        return false;
    }
    *ret_message = message;
    return true;
}

void channel_put_reply(struct buffer *buffer, const struct relay_reply *reply)
{
    buffer_put_u8(buffer, (uint8_t)reply->stage);
    buffer_put_u8(buffer, (uint8_t)reply->how);
    buffer_put_u16(buffer, reply->code);
    buffer_append(buffer, slice_make(reply->enhanced, sizeof(reply->enhanced)));
    buffer_put_bytes(buffer, slice_take(reply->text, REPLY_TEXT_MAX));
}

bool channel_get_reply(struct reader *reader, struct relay_reply *ret_reply)
{
    struct relay_reply reply = {0};
    uint8_t stage = reader_u8(reader);
    uint8_t how = reader_u8(reader);
    reply.code = reader_u16(reader);
    struct slice enhanced = reader_take(reader, sizeof(reply.enhanced));
    reply.text = reader_bytes(reader);
    if (reader->failed || stage > RELAY_AT_IDLE || how > RELAY_DECLINED || reply.code > 999 ||
        reply.text.length > REPLY_TEXT_MAX) {
        reader->failed = true;
        return false;
    }
    reply.stage = (enum relay_stage)stage;
    reply.how = (enum relay_how)how;
    memcpy(reply.enhanced, enhanced.data, sizeof(reply.enhanced));
    *ret_reply = reply;
    return true;
}

void channel_put_capabilities(struct buffer *buffer, const struct relay_capabilities *capabilities)
{
    buffer_put_u32(buffer, capabilities->flags);
    buffer_put_u64(buffer, capabilities->size_limit);
    buffer_put_u32(buffer, capabilities->recipients_max);
    buffer_put_u32(buffer, capabilities->mails_max);
    buffer_put_u32(buffer, capabilities->deliver_by_min_s);
}

bool channel_get_capabilities(struct reader *reader, struct relay_capabilities *ret_capabilities)
{
    struct relay_capabilities capabilities = {0};
    capabilities.flags = reader_u32(reader);
    capabilities.size_limit = reader_u64(reader);
    capabilities.recipients_max = reader_u32(reader);
    capabilities.mails_max = reader_u32(reader);
    capabilities.deliver_by_min_s = reader_u32(reader);
    if (reader->failed) {
        return false;
    }
    *ret_capabilities = capabilities;
    return true;
}

/* ---- DNS lists --------------------------------------------------------------------------- */

void channel_put_refusal(struct buffer *buffer, const struct channel_refusal *refusal)
{
    const struct slice texts[] = {refusal->stage, refusal->helo, refusal->sender,
                                  refusal->recipient, refusal->text};
    channel_put_id(buffer, refusal->id);
    buffer_append(buffer, slice_make(refusal->client.bytes, sizeof(refusal->client.bytes)));
    buffer_put_u16(buffer, refusal->code);
    buffer_put_u8(buffer, refusal->has_sender);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        buffer_put_bytes(buffer, slice_take(texts[i], CHANNEL_REFUSAL_TEXT_MAX));
    }
}

bool channel_get_refusal(struct reader *reader, struct channel_refusal *ret_refusal)
{
    struct slice *const texts[] = {&ret_refusal->stage, &ret_refusal->helo, &ret_refusal->sender,
                                   &ret_refusal->recipient, &ret_refusal->text};
    *ret_refusal = (struct channel_refusal){.id = channel_get_id(reader)};
    struct slice client = reader_take(reader, sizeof(ret_refusal->client.bytes));
    if (reader->failed) {
        return false;
    }
    memcpy(ret_refusal->client.bytes, client.data, client.length);
    ret_refusal->code = reader_u16(reader);
    ret_refusal->has_sender = reader_u8(reader) != 0;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        *texts[i] = reader_bytes(reader);
        if (texts[i]->length > CHANNEL_REFUSAL_TEXT_MAX) {
            return false;
        }
    }
    return !reader->failed && reader->rest.length == 0;
}

void channel_put_listing_question(struct buffer *buffer, const struct channel_listing *listing)
{
    buffer_put_u8(buffer, listing->edge);
    buffer_put_u32(buffer, listing->epoch);
    buffer_put_u64(buffer, listing->token);
    buffer_append(buffer, slice_make(listing->client.bytes, sizeof(listing->client.bytes)));
}

bool channel_get_listing_question(struct reader *reader, struct channel_listing *ret_listing)
{
    *ret_listing = (struct channel_listing){.edge = reader_u8(reader)};
    ret_listing->epoch = reader_u32(reader);
    ret_listing->token = reader_u64(reader);
    struct slice client = reader_take(reader, sizeof(ret_listing->client.bytes));
    if (reader->failed) {
        return false;
    }
    memcpy(ret_listing->client.bytes, client.data, client.length);
    return true;
}

void channel_put_listing(struct buffer *buffer, const struct channel_listing *listing)
{
    channel_put_listing_question(buffer, listing);
    buffer_put_u32(buffer, (uint32_t)listing->score);
    buffer_put_u32(buffer, listing->ttl_s);
    buffer_put_bytes(buffer, listing->name);
}

bool channel_get_listing(struct reader *reader, struct channel_listing *ret_listing)
{
    if (!channel_get_listing_question(reader, ret_listing)) {
        return false;
    }
    ret_listing->score = (int32_t)reader_u32(reader);
    ret_listing->ttl_s = reader_u32(reader);
    ret_listing->name = reader_bytes(reader);
    return !reader->failed && ret_listing->name.length <= CHANNEL_LIST_NAME_MAX;
}
