/* SPDX-License-Identifier: Apache-2.0 */
#include "app/hook_text.h"

#include "base/date.h"
#include "base/utf8.h"
#include "service/control_frame.h"

#include <stdio.h>

/* ---- variables and JSON ------------------------------------------------------------------- */

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

/* A person reads it on a terminal, as a rule, and a part of it may be a server's words. */
static const char *clean(const char *text, char buffer[HOOK_TEXT_SIZE])
{
    return utf8_clean(slice_from_text(text), "\n\t", buffer, HOOK_TEXT_SIZE);
}

static json_t *string(const char *text)
{
    char buffer[HOOK_TEXT_SIZE];
    return control_string(slice_from_text(clean(text, buffer)));
}

static json_t *string_or_null(const char *text)
{
    return text[0] != 0 ? string(text) : json_null();
}

static const char *kind_of(const struct hook_message *message)
{
    return message->edge == HOOK_SUMMARY ? "summary" : alert_kind_text(message->kind);
}

json_t *hook_object(const struct hook_letter *letter)
{
    const struct hook_message *message = letter->message;
    json_t *object = json_object();
    set(object, "version", json_integer(1));
    set(object, "id", string(message->id));
    set(object, "time", json_integer(letter->now_ms));
    set(object, "hostname", control_string(letter->hostname));
    set(object, "alert", control_string(letter->alert));
    set(object, "event", string(hook_event(message)));
    set(object, "edge", string(hook_edge_text(message->edge)));
    set(object, "kind", string(kind_of(message)));
    set(object, "subject", string_or_null(message->subject));
    set(object, "text", string(message->text));
    set(object, "was", string_or_null(message->was));
    set(object, "happened", json_integer(message->time_ms));
    set(object, "since", json_integer(message->since_ms));
    set(object, "from", string_or_null(message->from));
    set(object, "to", string_or_null(message->to));
    set(object, "more", json_integer(message->more));
    return object;
}

/* Its keys in capitals behind HOLDFAST_; what is null is an empty string. */
json_t *hook_environment(const struct hook_letter *letter)
{
    json_t *object = hook_object(letter);
    json_t *environment = json_object();
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        char name[32] = "HOLDFAST_", number[24];
        size_t length = strlen(name);
        for (size_t i = 0; key[i] != 0 && length + 1 < sizeof(name); i++) {
            name[length++] = (char)(key[i] - 'a' + 'A');
        }
        const char *text = json_string_value(value);
        if (json_is_integer(value)) {
            snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
            text = number;
        }
        set(environment, name, json_string(text != NULL ? text : ""));
    }
    json_decref(object);
    return environment;
}

/* ---- mail --------------------------------------------------------------------------------- */

/* One line of a header: printable ASCII only. */
static void put_plain(struct buffer *mail, const char *text, size_t most)
{
    for (size_t i = 0; text[i] != 0 && i < most; i++) {
        char c = text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?';
        buffer_append(mail, slice_make(&c, 1));
    }
}

static void put_subject(struct buffer *mail, const struct hook_letter *letter)
{
    const struct hook_message *message = letter->message;
    char words[40];
    snprintf(words, sizeof(words), "%s", hook_event(message));
    for (char *at = words; *at != 0; at++) {
        *at = *at == '-' ? ' ' : *at;
    }
    buffer_printf(mail, "Subject: [%.*s] ", SLICE_PRINT(letter->hostname));
    if (message->edge == HOOK_SUMMARY) {
        buffer_printf(mail, "%u more alerts\r\n", message->more);
        return;
    }
    bool over = message->edge == HOOK_ENDED && message->kind != ALERT_SWITCHED &&
                message->kind != ALERT_STOPPED && message->kind != ALERT_SERVER;
    buffer_printf(mail, "%s%s%s", message->edge == HOOK_REPEATED ? "still " : "", words,
                  over ? " over" : "");
    if (message->subject[0] != 0) {
        buffer_append_text(mail, ": ");
        put_plain(mail, message->subject, 200);
    }
    buffer_append_text(mail, "\r\n");
}

/* Lines of the text, each within what RFC 5321 4.5.3.1.6 allows. */
static void put_lines(struct buffer *mail, const char *text)
{
    char buffer[HOOK_TEXT_SIZE];
    for (text = clean(text, buffer); *text != 0; text++) {
        if (*text == '\n') {
            buffer_append_text(mail, "\r\n");
        } else {
            buffer_append(mail, slice_make(text, 1));
        }
    }
    buffer_append_text(mail, "\r\n");
}

void hook_mail_text(const struct hook_letter *letter, struct slice to, struct buffer *ret_mail,
                    size_t *ret_header_length)
{
    const struct hook_message *message = letter->message;
    char date[DATE_TEXT_SIZE];
    date_to_text(letter->now_ms, date);
    buffer_printf(ret_mail, "Date: %s\r\nFrom: holdfast <postmaster@%.*s>\r\nTo: <%.*s>\r\n", date,
                  SLICE_PRINT(letter->hostname), SLICE_PRINT(to));
    put_subject(ret_mail, letter);
    buffer_printf(ret_mail,
                  "Message-ID: <%s.alert@%.*s>\r\n"
                  "Auto-Submitted: auto-generated\r\n"
                  "MIME-Version: 1.0\r\n"
                  "Content-Type: text/plain; charset=utf-8\r\n"
                  "Content-Transfer-Encoding: 8bit\r\n\r\n",
                  message->id, SLICE_PRINT(letter->hostname));
    *ret_header_length = ret_mail->length;
    put_lines(ret_mail, message->text);
    date_to_text(message->time_ms, date);
    buffer_printf(ret_mail, "\r\nevent: %s\r\nhappened: %s\r\n", hook_event(message), date);
    if (message->since_ms != message->time_ms) {
        date_to_text(message->since_ms, date);
        buffer_printf(ret_mail, "since: %s\r\n", date);
    }
    if (message->was[0] != 0) {
        buffer_append_text(ret_mail, "was: ");
        put_lines(ret_mail, message->was);
    }
    if (message->from[0] != 0) {
        buffer_printf(ret_mail, "from: %s\r\nto: %s\r\n", message->from, message->to);
    }
    buffer_append_text(ret_mail, "\r\nholdfast status shows what stands now.\r\n");
}
