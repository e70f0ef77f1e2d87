/* SPDX-License-Identifier: Apache-2.0
 *
 * MX routing between core and edge-out: what DNS said of a domain, and the exchanger to connect to.
 * And what else DNS is asked there for policies.
 */
#include "service/channel.h"

static bool get_address(struct reader *reader, struct ip_address *ret_address)
{
    struct slice bytes = reader_take(reader, sizeof ret_address->bytes);
    if (!reader->failed) {
        memcpy(ret_address->bytes, bytes.data, bytes.length);
    }
    return !reader->failed;
}

/* A name of a host; it is logged and shown. */
static struct slice get_host(struct reader *reader)
{
    struct slice host = reader_bytes(reader);
    for (size_t i = 0; i < host.length; i++) {
        reader->failed |= host.data[i] <= ' ' || host.data[i] == 0x7f;
    }
    reader->failed |= host.length == 0 || host.length > MX_HOST_MAX;
    return host;
}

/* ---- CHANNEL_CONNECT ------------------------------------------------------------------------- */

void channel_put_sts(struct buffer *buffer, enum sts_demand demand)
{
    buffer_put_u8(buffer, (uint8_t)demand);
}

enum sts_demand channel_get_sts(struct reader *reader)
{
    uint8_t demand = reader_u8(reader);
    reader->failed |= demand >= STS_DEMANDS;
    return reader->failed ? STS_NONE : (enum sts_demand)demand;
}

static bool get_flag(struct reader *reader)
{
    uint8_t flag = reader_u8(reader);
    reader->failed |= flag > 1;
    return flag == 1;
}

void channel_put_exchanger(struct buffer *buffer, const struct server_config *exchanger)
{
    buffer_put_bytes(buffer, exchanger->name);
    channel_put_sts(buffer, exchanger->sts);
    buffer_put_u8(buffer, exchanger->waived);
    buffer_put_bytes(buffer, exchanger->signed_by);
    buffer_put_u32(buffer, exchanger->greeting_timeout_ms);
    buffer_put_u8(buffer, (uint8_t)exchanger->address_count);
    for (uint32_t i = 0; i < exchanger->address_count; i++) {
        buffer_append(buffer, slice_make(exchanger->addresses[i].literal.bytes, 16));
        buffer_put_u16(buffer, exchanger->addresses[i].port);
    }
}

bool channel_get_exchanger(struct reader *reader, struct channel_exchanger *ret_exchanger)
{
    *ret_exchanger = (struct channel_exchanger){0};
    struct server_config *config = &ret_exchanger->config;
    config->name = get_host(reader);
    config->sts = channel_get_sts(reader);
    config->waived = get_flag(reader);
    config->signed_by = reader_bytes(reader);
    config->greeting_timeout_ms = reader_u32(reader);
    config->address_count = reader_u8(reader);
    config->addresses = ret_exchanger->addresses;
    if (reader->failed || config->signed_by.length > MX_HOST_MAX || config->address_count == 0 ||
        config->address_count > MX_ADDRESSES_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < config->address_count; i++) {
        struct server_address *address = &ret_exchanger->addresses[i];
        address->is_literal = get_address(reader, &address->literal);
        address->port = reader_u16(reader);
    }
    return !reader->failed;
}

/* ---- CHANNEL_RESOLVED ------------------------------------------------------------------------ */

void channel_put_mx(struct buffer *buffer, const struct mx_answer *answer)
{
    buffer_put_u8(buffer, (uint8_t)answer->error);
    buffer_put_u8(buffer, answer->implicit);
    buffer_put_u8(buffer, answer->secure);
    buffer_put_u32(buffer, answer->ttl_s);
    buffer_put_u8(buffer, (uint8_t)answer->count);
    for (uint32_t i = 0; i < answer->count; i++) {
        const struct mx_exchanger *exchanger = &answer->exchangers[i];
        buffer_put_u16(buffer, exchanger->preference);
        buffer_put_bytes(buffer, exchanger->host);
        buffer_put_u8(buffer, (uint8_t)exchanger->error);
        buffer_put_u8(buffer, (uint8_t)exchanger->address_count);
        for (uint32_t j = 0; j < exchanger->address_count; j++) {
            buffer_append(buffer, slice_make(exchanger->addresses[j].address.bytes, 16));
            buffer_put_u8(buffer, exchanger->addresses[j].ours);
        }
    }
}

/* An error that a later version may know is one that we do not: no answer. */
static enum error get_error(struct reader *reader)
{
    uint8_t error = reader_u8(reader);
    return error == ERROR_NONE || error == ERROR_MISSING || error == ERROR_CORRUPT ||
                   error == ERROR_TIMEOUT
               ? (enum error)error
               : ERROR_IO;
}

static bool get_exchanger(struct reader *reader, struct mx_exchanger *exchanger,
                          struct mx_address *addresses)
{
    exchanger->preference = reader_u16(reader);
    exchanger->host = get_host(reader);
    exchanger->error = get_error(reader);
    exchanger->address_count = reader_u8(reader);
    exchanger->addresses = addresses;
    if (reader->failed || exchanger->address_count > MX_ADDRESSES_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < exchanger->address_count; i++) {
        if (!get_address(reader, &addresses[i].address)) {
            return false;
        }
        addresses[i].ours = get_flag(reader);
    }
    return !reader->failed;
}

bool channel_get_mx(struct reader *reader, struct channel_mx *ret_mx)
{
    *ret_mx = (struct channel_mx){0};
    struct mx_answer *answer = &ret_mx->answer;
    answer->error = get_error(reader);
    answer->implicit = get_flag(reader);
    answer->secure = get_flag(reader);
    answer->ttl_s = reader_u32(reader);
    answer->count = reader_u8(reader);
    answer->exchangers = ret_mx->exchangers;
    if (reader->failed || answer->count > MX_EXCHANGERS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < answer->count; i++) {
        if (!get_exchanger(reader, &ret_mx->exchangers[i], ret_mx->addresses[i])) {
            return false;
        }
    }
    return true;
}

/* ---- CHANNEL_TEXTS --------------------------------------------------------------------------- */

void channel_put_texts(struct buffer *buffer, const struct channel_texts *texts)
{
    buffer_put_u8(buffer, (uint8_t)texts->error);
    buffer_put_u32(buffer, texts->ttl_s);
    buffer_put_u8(buffer, (uint8_t)texts->count);
    for (uint32_t i = 0; i < texts->count; i++) {
        buffer_put_bytes(buffer, texts->texts[i]);
    }
}

bool channel_get_texts(struct reader *reader, struct channel_texts *ret_texts)
{
    *ret_texts = (struct channel_texts){0};
    ret_texts->error = get_error(reader);
    ret_texts->ttl_s = reader_u32(reader);
    ret_texts->count = reader_u8(reader);
    if (reader->failed || ret_texts->count > CHANNEL_TEXTS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < ret_texts->count; i++) {
        ret_texts->texts[i] = reader_bytes(reader);
        reader->failed |= ret_texts->texts[i].length > CHANNEL_TEXT_MAX;
    }
    return !reader->failed;
}

/* ---- CHANNEL_TLS ----------------------------------------------------------------------------- */

void channel_put_tls(struct buffer *buffer, const struct channel_tls *tls)
{
    buffer_put_u8(buffer, (uint8_t)tls->result);
    buffer_put_u8(buffer, (uint8_t)tls->policy);
    buffer_append(buffer, slice_make(tls->local.bytes, 16));
    buffer_append(buffer, slice_make(tls->remote.bytes, 16));
    buffer_put_bytes(buffer, slice_take(tls->reason, CHANNEL_TLS_REASON_MAX));
}

bool channel_get_tls(struct reader *reader, struct channel_tls *ret_tls)
{
    uint8_t result = reader_u8(reader), policy = reader_u8(reader);
    *ret_tls = (struct channel_tls){0};
    if (!get_address(reader, &ret_tls->local) || !get_address(reader, &ret_tls->remote) ||
        result >= TLS_RESULTS || policy >= TLS_POLICIES) {
        return false;
    }
    ret_tls->result = (enum tls_result)result;
    ret_tls->policy = (enum tls_policy)policy;
    ret_tls->reason = reader_bytes(reader);
    for (size_t i = 0; i < ret_tls->reason.length; i++) {
        reader->failed |= ret_tls->reason.data[i] < ' ' || ret_tls->reason.data[i] >= 0x7f;
    }
    return !reader->failed && ret_tls->reason.length <= CHANNEL_TLS_REASON_MAX;
}
