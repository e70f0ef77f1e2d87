/* SPDX-License-Identifier: Apache-2.0 */
#include "service/login.h"

void login_put_request(struct buffer *buffer, const struct login_request *request)
{
    buffer_put_u64(buffer, request->token);
    buffer_put_u8(buffer, (uint8_t)request->question);
    buffer_append(buffer, slice_make(request->client.bytes, sizeof(request->client.bytes)));
    buffer_put_bytes(buffer, request->listener);
    buffer_put_bytes(buffer, request->name);
    buffer_put_bytes(buffer, request->secret);
    buffer_put_bytes(buffer, request->auth_message);
}

bool login_get_request(struct slice bytes, struct login_request *ret_request)
{
    struct reader reader = reader_make(bytes);
    *ret_request = (struct login_request){.token = reader_u64(&reader)};
    uint8_t question = reader_u8(&reader);
    struct slice client = reader_take(&reader, sizeof(ret_request->client.bytes));
    ret_request->listener = reader_bytes(&reader);
    ret_request->name = reader_bytes(&reader);
    ret_request->secret = reader_bytes(&reader);
    ret_request->auth_message = reader_bytes(&reader);
    if (reader.failed || reader.rest.length > 0 || question < LOGIN_PASSWORD ||
        question > LOGIN_CRAM || ret_request->name.length == 0 ||
        ret_request->name.length > LOGIN_NAME_MAX || ret_request->secret.length > SASL_SECRET_MAX ||
        ret_request->auth_message.length > 3 * SASL_MESSAGE_MAX) {
        return false;
    }
    ret_request->question = (enum login_question)question;
    memcpy(ret_request->client.bytes, client.data, client.length);
    return true;
}

void login_put_answer(struct buffer *buffer, const struct login_answer *answer)
{
    buffer_put_u64(buffer, answer->token);
    buffer_put_u8(buffer, (uint8_t)answer->verdict);
    buffer_put_bytes(buffer, answer->salt);
    buffer_put_u32(buffer, answer->iterations);
    buffer_append(buffer, slice_make(answer->signature, sizeof(answer->signature)));
    buffer_put_bytes(buffer, answer->account);
    buffer_put_bytes(buffer, answer->identity);
    buffer_put_u32(buffer, answer->address_count);
    for (uint32_t i = 0; i < answer->address_count; i++) {
        buffer_put_bytes(buffer, answer->addresses[i]);
    }
}

bool login_get_answer(struct slice bytes, struct login_answer *ret_answer)
{
    struct reader reader = reader_make(bytes);
    *ret_answer = (struct login_answer){.token = reader_u64(&reader)};
    uint8_t verdict = reader_u8(&reader);
    ret_answer->salt = reader_bytes(&reader);
    ret_answer->iterations = reader_u32(&reader);
    struct slice signature = reader_take(&reader, SASL_PROOF_BYTES);
    ret_answer->account = reader_bytes(&reader);
    ret_answer->identity = reader_bytes(&reader);
    uint32_t count = reader_u32(&reader);
    if (reader.failed || verdict >= LOGIN_VERDICTS || ret_answer->salt.length > SASL_SALT_MAX ||
        ret_answer->account.length > LOGIN_NAME_MAX ||
        ret_answer->identity.length > LOGIN_IDENTITY_MAX || count > LOGIN_ADDRESSES_MAX) {
        return false;
    }
    ret_answer->verdict = (enum login_verdict)verdict;
    memcpy(ret_answer->signature, signature.data, signature.length);
    for (; ret_answer->address_count < count; ret_answer->address_count++) {
        struct slice address = reader_bytes(&reader);
        if (address.length > LOGIN_ADDRESS_MAX) {
            return false;
        }
        ret_answer->addresses[ret_answer->address_count] = address;
    }
    return !reader.failed && reader.rest.length == 0;
}

void login_put_news(struct buffer *buffer, const struct login_news *news)
{
    buffer_put_u8(buffer, (uint8_t)news->verdict);
    buffer_append(buffer, slice_make(news->client.bytes, sizeof(news->client.bytes)));
    buffer_put_bytes(buffer, slice_take(news->listener, LOGIN_LISTENER_MAX));
    buffer_put_bytes(buffer, news->name);
    buffer_put_bytes(buffer, news->how);
    buffer_put_bytes(buffer, news->identity);
    buffer_put_u8(buffer, news->is_known);
    buffer_put_u32(buffer, news->client_wait_ms);
    buffer_put_u32(buffer, news->account_wait_ms);
    buffer_put_u32(buffer, news->wait_ms);
}

bool login_get_news(struct slice bytes, struct login_news *ret_news)
{
    struct reader reader = reader_make(bytes);
    uint8_t verdict = reader_u8(&reader);
    struct slice client = reader_take(&reader, sizeof(ret_news->client.bytes));
    *ret_news = (struct login_news){
        .listener = reader_bytes(&reader),
        .name = reader_bytes(&reader),
        .how = reader_bytes(&reader),
        .identity = reader_bytes(&reader),
    };
    uint8_t is_known = reader_u8(&reader);
    ret_news->client_wait_ms = reader_u32(&reader);
    ret_news->account_wait_ms = reader_u32(&reader);
    ret_news->wait_ms = reader_u32(&reader);
    if (reader.failed || reader.rest.length > 0 || verdict >= LOGIN_UNKNOWN || is_known > 1 ||
        ret_news->listener.length > LOGIN_LISTENER_MAX || ret_news->name.length == 0 ||
        ret_news->name.length > LOGIN_NAME_MAX || ret_news->how.length > LOGIN_HOW_MAX ||
        ret_news->identity.length > LOGIN_IDENTITY_MAX) {
        return false;
    }
    ret_news->verdict = (enum login_verdict)verdict;
    ret_news->is_known = is_known != 0;
    memcpy(ret_news->client.bytes, client.data, client.length);
    return true;
}
