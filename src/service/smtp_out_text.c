/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions of core for TXT records: those that announce policies, and where reports go. Nothing is
 * kept beyond the answer.
 */
#include "service/smtp_out_internal.h"

#include <stdlib.h>

enum { TEXTS_UNDER_WAY_MAX = 1000 }; /* more are answered with a failure, and asked again later */

struct text_question {
    struct link link; /* on out->texts, or on out->texts_answered */
    struct smtp_out *out;
    struct dns_query *query;
    struct channel_texts answer; /* points into `bytes` */
    struct buffer bytes;
    size_t length;
    uint8_t name[];
};

static void question_free(struct text_question *question)
{
    if (question->query != NULL) {
        dns_cancel(question->query);
    }
    list_remove(&question->link);
    buffer_done(&question->bytes);
    free(question);
}

static void answer(struct text_question *question)
{
    struct smtp_out *out = question->out;
    list_remove(&question->link);
    list_append(&out->texts_answered, &question->link);
    out->text_count--;
    loop_later_ask(out->later);
}

static void keep(struct text_question *question, const struct dns_records *found)
{
    struct channel_texts *texts = &question->answer;
    for (size_t i = 0; i < found->count; i++) {
        buffer_append(&question->bytes, slice_take(found->records[i].data, CHANNEL_TEXT_MAX + 1));
    }
    size_t at = 0;
    for (size_t i = 0; i < found->count && texts->count < CHANNEL_TEXTS_MAX; i++) {
        size_t length = slice_take(found->records[i].data, CHANNEL_TEXT_MAX + 1).length;
        if (length <= CHANNEL_TEXT_MAX && !question->bytes.failed) {
            texts->texts[texts->count++] = slice_make(question->bytes.data + at, length);
        }
        at += length;
    }
    texts->error = question->bytes.failed ? ERROR_IO : ERROR_NONE;
}

static void answered(void *context, const struct dns_records *found)
{
    struct text_question *question = context;
    question->query = NULL;
    question->answer.error = found->error;
    question->answer.ttl_s = found->ttl_s;
    if (found->error == ERROR_NONE) {
        keep(question, found);
    }
    answer(question);
}

bool texts_take(struct smtp_out *out, struct reader *reader)
{
    struct slice name = reader_bytes(reader);
    if (reader->failed) {
        return false;
    }
    struct text_question *question = calloc(1, sizeof(*question) + name.length);
    if (question == NULL) {
        return true; /* core gives up by itself */
    }
    question->out = out;
    question->length = name.length;
    buffer_init(&question->bytes, 0);
    if (name.length > 0) {
        memcpy(question->name, name.data, name.length);
    }
    list_append(&out->texts, &question->link);
    out->text_count++;
    question->answer.error = ERROR_TIMEOUT;
    if (out->text_count <= TEXTS_UNDER_WAY_MAX && out->dns != NULL) {
        question->query = dns_lookup(out->dns, name, DNS_TXT, answered, question);
    }
    if (question->query == NULL) {
        answer(question);
    }
    return true;
}

bool texts_report(struct smtp_out *out)
{
    LIST_EACH(&out->texts_answered, at, after)
    {
        struct text_question *question = LIST_ENTRY(at, struct text_question, link);
        struct buffer *frame = smtp_out_frame(out, CHANNEL_TEXTS);
        buffer_put_bytes(frame, slice_make(question->name, question->length));
        channel_put_texts(frame, &question->answer);
        if (!smtp_out_send(out)) {
            return false;
        }
        question_free(question);
    }
    return true;
}

void texts_free_all(struct smtp_out *out)
{
    LIST_EACH(&out->texts, at, after)
    {
        question_free(LIST_ENTRY(at, struct text_question, link));
    }
    LIST_EACH(&out->texts_answered, answered_at, next)
    {
        question_free(LIST_ENTRY(answered_at, struct text_question, link));
    }
}
