/* SPDX-License-Identifier: Apache-2.0 */
#include "service/smtp_in_trace.h"

#include "base/date.h"

#include <stdio.h>

enum { COLUMNS = 78, HELO_MAX = 255 };

struct writer {
    struct buffer *field;
    size_t column;
};

/* A blank, or the beginning of a new line where `width` bytes more would pass the margin. */
static void put_blank(struct writer *writer, size_t width)
{
    if (writer->column + 1 + width > COLUMNS) {
        buffer_append(writer->field, SLICE_LITERAL("\r\n\t"));
        writer->column = 8;
    } else {
        buffer_append(writer->field, SLICE_LITERAL(" "));
        writer->column++;
    }
    writer->column += width;
}

static void put_word(struct writer *writer, struct slice word)
{
    put_blank(writer, word.length);
    buffer_append(writer->field, word);
}

/* The HELO name is the client's word: what could end a token, a comment or the field, or is not
 * ASCII, becomes a question mark. */
static struct slice harmless(struct slice name, uint8_t room[HELO_MAX])
{
    name = slice_take(name, HELO_MAX);
    for (size_t i = 0; i < name.length; i++) {
        uint8_t c = name.data[i];
        bool fine = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                    (c != '\0' && strchr(".-_:[]", c) != NULL);
        room[i] = fine ? c : '?';
    }
    return slice_make(room, name.length);
}

/* A value of RFC 8601 section 2.2; no field has a byte that is not ASCII. */
static void put_login(struct buffer *field, struct slice login)
{
    buffer_append(field, SLICE_LITERAL("\""));
    for (size_t i = 0; i < login.length; i++) {
        uint8_t c = login.data[i];
        if (c == '"' || c == '\\') {
            buffer_put_u8(field, '\\');
        }
        buffer_put_u8(field, c >= ' ' && c < 0x7f ? c : '?');
    }
    buffer_append(field, SLICE_LITERAL("\""));
}

static void put_results(const struct smtp_in_trace *trace, struct buffer *field)
{
    buffer_append(field, SLICE_LITERAL("Authentication-Results: "));
    buffer_append(field, trace->authserv_id);
    buffer_append(field, SLICE_LITERAL(";\r\n\tauth=pass smtp.auth="));
    put_login(field, trace->login);
    buffer_append(field, SLICE_LITERAL("\r\n"));
}

void smtp_in_trace_write(const struct smtp_in_trace *trace, struct buffer *ret_field)
{
    uint8_t helo[HELO_MAX];
    char address[IP_TEXT_SIZE], client[IP_TEXT_SIZE + 16], id[ID_TEXT_LENGTH + 1];
    char date[DATE_TEXT_SIZE];
    struct writer writer = {ret_field, sizeof("Received:") - 1};
    ip_to_text(trace->client, address);
    if (ip_equal(trace->client, &(struct ip_address){0})) {
        snprintf(client, sizeof(client), "(unknown)");
    } else {
        snprintf(client, sizeof(client), "([%s%s])",
                 ip_is_v4(trace->client) ? "" : "IPv6:", address);
    }
    id_to_text(trace->id, id);
    date_to_text(trace->received_ms, date);

    buffer_append(ret_field, SLICE_LITERAL("Received:"));
    put_word(&writer, SLICE_LITERAL("from"));
    put_word(&writer, harmless(trace->helo, helo));
    put_word(&writer, slice_from_text(client));
    put_word(&writer, SLICE_LITERAL("by"));
    put_word(&writer, trace->hostname);
    put_word(&writer, SLICE_LITERAL("(holdfast)"));
    put_word(&writer, SLICE_LITERAL("with"));
    put_word(&writer, trace->protocol);
    if (trace->tls.length > 0) {
        struct slice version = slice_take(trace->tls, slice_find(trace->tls, ' '));
        put_blank(&writer, version.length + 2);
        buffer_append(ret_field, SLICE_LITERAL("("));
        buffer_append(ret_field, version);
        buffer_append(ret_field, SLICE_LITERAL(")"));
    }
    put_word(&writer, SLICE_LITERAL("id"));
    put_word(&writer, slice_from_text(id));
    if (trace->recipient.length > 0) {
        put_word(&writer, SLICE_LITERAL("for"));
        put_blank(&writer, trace->recipient.length + 3);
        buffer_append(ret_field, SLICE_LITERAL("<"));
        buffer_append(ret_field, trace->recipient);
        buffer_append(ret_field, SLICE_LITERAL(">"));
    }
    if (trace->suite.length > 0) {
        put_word(&writer, SLICE_LITERAL("tls"));
        put_word(&writer, trace->suite);
    }
    if (trace->has_priority) {
        char priority[8];
        snprintf(priority, sizeof(priority), "%d", trace->priority);
        put_word(&writer, SLICE_LITERAL("PRIORITY"));
        put_word(&writer, slice_from_text(priority));
    }
    buffer_append(ret_field, SLICE_LITERAL(";"));
    put_word(&writer, slice_from_text(date));
    buffer_append(ret_field, SLICE_LITERAL("\r\n"));
    if (trace->login.length > 0) {
        put_results(trace, ret_field);
    }
}
