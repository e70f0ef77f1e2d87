/* SPDX-License-Identifier: Apache-2.0
 *
 * `recipients list`, `import`, `forget` and `verify`: what is known of recipients, and what an
 * operator says of them.
 */
#include "service/core_control.h"

#include <stdlib.h>

/* ---- list ------------------------------------------------------------------------------------ */

static const char *standing_text(const struct mailbox *mailbox)
{
    return mailbox->standing == MAILBOX_GOOD  ? "good"
           : mailbox->standing == MAILBOX_BAD ? "bad"
                                              : "unknown";
}

static const char *source_text(enum mailbox_source source)
{
    static const char *const texts[MAILBOX_SOURCES] = {
        [MAILBOX_FROM_NOBODY] = "nobody",     [MAILBOX_FROM_LIST] = "list",
        [MAILBOX_FROM_CALLOUT] = "callout",   [MAILBOX_FROM_DELIVERY] = "delivery",
        [MAILBOX_FROM_OPERATOR] = "operator",
    };
    return source < MAILBOX_SOURCES ? texts[source] : "";
}

static json_t *mailbox_row(const struct mailbox *mailbox, struct slice domain)
{
    json_t *row = json_object();
    control_set(row, "address", control_mailbox(mailbox->name, domain));
    control_set(row, "standing", json_string(standing_text(mailbox)));
    control_set(row, "source", json_string(source_text(mailbox->source)));
    control_set(row, "said", control_time(mailbox->said_ms));
    control_set(row, "refused", control_time(mailbox->refused_ms));
    return row;
}

static json_t *counts_row(struct slice domain, const struct mailboxes *table)
{
    struct mailboxes_count count = mailboxes_count(table);
    json_t *row = json_object();
    control_set(row, "domain", control_string(domain));
    control_set(row, "good", json_integer(count.good));
    control_set(row, "bad", json_integer(count.bad));
    control_set(row, "refused", json_integer(count.refused));
    control_set(row, "list", control_time(mailboxes_list_ms(table)));
    return row;
}

static json_t *domain_row(const struct core *core, struct slice domain,
                          const struct mailboxes *table)
{
    json_t *row = counts_row(domain, table);
    control_set(row, "bytes", json_integer((json_int_t)mailboxes_bytes(table)));
    control_put_list(core, relay_domain_block(core->relay, domain), row);
    return row;
}

json_t *control_recipients_summary(const struct core *core)
{
    json_t *array = json_array();
    size_t cursor = 0;
    struct slice domain;
    const struct mailboxes *table;
    while (json_array_size(array) < CONTROL_RECIPIENTS_SHOWN &&
           (table = relay_next_mailboxes(core->relay, &cursor, &domain)) != NULL) {
        if (json_array_append_new(array, counts_row(domain, table)) != 0) {
            break;
        }
    }
    return array;
}

/* The table of the request's domain; NULL, and the request has failed: there is none. */
static struct mailboxes *table_of(struct control_request *request, struct slice *ret_domain)
{
    struct slice domain = control_argument(request, "domain");
    struct mailboxes *table = relay_mailboxes(request->core->relay, domain, ret_domain);
    if (table == NULL) {
        (void)control_fail(request, CONTROL_NOTHING_MATCHED,
                           "no domain of that name that knows its recipients");
    }
    return table;
}

static enum control_step list_domains(struct control_request *request)
{
    size_t cursor = (size_t)request->cursor;
    struct slice domain;
    const struct mailboxes *table = NULL;
    while (request->rows.length < CONTROL_OUT_HIGH &&
           (table = relay_next_mailboxes(request->core->relay, &cursor, &domain)) != NULL) {
        control_row(request, domain_row(request->core, domain, table));
        request->cursor = cursor;
    }
    return table != NULL ? STEP_MORE : STEP_END;
}

enum control_step recipients_list_step(struct control_request *request)
{
    struct slice domain;
    struct mailbox mailbox;
    if (control_argument(request, "domain").length == 0) {
        return list_domains(request);
    }
    const struct mailboxes *table = table_of(request, &domain);
    if (table == NULL) {
        return STEP_END;
    }
    uint32_t at = (uint32_t)request->cursor;
    bool more = true;
    while (request->rows.length < CONTROL_OUT_HIGH &&
           (more = mailboxes_next(table, &at, &mailbox))) {
        control_row(request, mailbox_row(&mailbox, domain));
    }
    request->cursor = at;
    return more ? STEP_MORE : STEP_END;
}

/* ---- import and forget ----------------------------------------------------------------------- */

/* The name that an argument has in the table. Empty: it is of another domain, or too long. */
static struct slice name_of(const struct control_request *request, const json_t *argument,
                            struct slice domain, uint8_t buffer[MAILBOX_NAME_MAX])
{
    struct slice name, other;
    struct slice address = slice_make(json_string_value(argument), json_string_length(argument));
    struct slice said = slice_skip(address, slice_find_last(address, '@') + 1);
    struct relay *relay = request->core->relay;
    return json_is_string(argument) && relay_mailboxes(relay, said, &other) != NULL &&
                   slice_equal(other, domain) &&
                   relay_mailbox_name(relay, address, false, buffer, &name)
               ? name
               : SLICE_EMPTY;
}

static enum control_step each_name(struct control_request *request, bool forgets)
{
    const json_t *names = json_object_get(request->arguments, "addresses");
    uint8_t buffer[MAILBOX_NAME_MAX];
    struct slice domain;
    struct mailboxes *table = table_of(request, &domain);
    uint32_t done = 0, passed = 0;
    if (table == NULL) {
        return STEP_END;
    }
    if (forgets && control_flag(request, "all")) {
        struct mailboxes_count count = mailboxes_count(table);
        mailboxes_forget_all(table);
        done = count.names;
    }
    for (size_t i = 0; i < json_array_size(names); i++) {
        struct slice name = name_of(request, json_array_get(names, i), domain, buffer);
        bool good =
            name.length > 0 &&
            (forgets ? mailboxes_forget(table, name)
                     : mailboxes_told(table, name, core_now(request->core).wall_ms) == ERROR_NONE);
        done += good;
        passed += !good;
    }
    json_t *row = json_object();
    control_set(row, "domain", control_string(domain));
    control_set(row, forgets ? "forgotten" : "imported", json_integer(done));
    control_set(row, "passed_over", json_integer(passed));
    control_row(request, row);
    request->code = done > 0 || passed == 0 ? CONTROL_DONE : CONTROL_NOTHING_MATCHED;
    return STEP_END;
}

enum control_step recipients_import_step(struct control_request *request)
{
    return each_name(request, false);
}

enum control_step recipients_forget_step(struct control_request *request)
{
    return each_name(request, true);
}

/* ---- verify ---------------------------------------------------------------------------------- */

static json_t *reply_text(const struct relay_reply *reply)
{
    char text[600];
    return reply == NULL ? json_null()
                         : control_string_or_null(relay_reply_text(reply, text, sizeof(text)));
}

static void verified(void *context, enum mailbox_answer answer, const struct relay_reply *reply,
                     const struct relay_reply *random)
{
    struct control_request *request = context;
    json_t *row = json_object();
    control_set(row, "address", control_string_or_null(control_argument(request, "address")));
    control_set(row, "exists",
                reply == NULL || (answer == MAILBOX_TAKE && reply->code / 100 != 2) ? json_null()
                : answer == MAILBOX_REFUSE                                          ? json_false()
                : answer == MAILBOX_TAKE                                            ? json_true()
                                                                                    : json_null());
    control_set(row, "reply", reply_text(reply));
    control_set(row, "takes_all",
                random == NULL || random->how != RELAY_REPLY || random->stage != RELAY_AT_RECIPIENT
                    ? json_null()
                    : json_boolean(random->code / 100 == 2));
    control_set(row, "random_reply", reply_text(random));
    control_row(request, row);
    request->callout_done = true;
    control_ask(request);
}

enum control_step recipients_verify_begin(struct control_request *request)
{
    struct slice domain, address = control_argument(request, "address");
    if (table_of(request, &domain) == NULL) {
        return STEP_END;
    }
    struct buffer random;
    buffer_init(&random, 0);
    if (address.length == 0) {
        address = core_recipients_random(domain, &random);
    }
    bool asked = core_recipients_verify(request->core, address, verified, request);
    buffer_done(&random);
    return asked ? STEP_WAIT
                 : control_fail(request, CONTROL_FAILED,
                                "its server cannot be asked now: it is not up, or was asked too "
                                "much just now");
}

enum control_step recipients_verify_step(struct control_request *request)
{
    return request->callout_done ? STEP_END : STEP_WAIT;
}
