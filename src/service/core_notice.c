/* SPDX-License-Identifier: Apache-2.0
 *
 * A delivery status notification for one message: built from its envelope and the beginning of its
 * header block, to be stored in one batch with the fates that it tells of (R8).
 */
#include "service/core_internal.h"

#include "proto/dsn.h"
#include "sys/clock.h"

#include <stdlib.h>

/* The header block's beginning; without it when it cannot be read: the rest is worth sending. */
static struct slice read_header(struct core *core, struct arena *arena, struct spool_handle handle,
                                const struct spool_message *original)
{
    size_t want =
        original->header_length < DSN_HEADER_MAX ? (size_t)original->header_length : DSN_HEADER_MAX;
    uint8_t *bytes = arena_allocate(arena, want + 1);
    size_t have = 0;
    while (bytes != NULL && have < want) {
        size_t length;
        if (spool_read_content(core->spool, handle, have, bytes + have, want - have, &length) !=
                ERROR_NONE ||
            length == 0) {
            break;
        }
        have += length;
    }
    return slice_make(bytes, bytes != NULL ? have : 0);
}

static bool names_all(const struct spool_message *original, const struct relay_action *action)
{
    for (uint32_t i = 0; i < action->delivery_count; i++) {
        if (action->deliveries[i] >= original->recipient_count) {
            return false;
        }
    }
    return action->delivery_count > 0;
}

static const struct dsn_recipient *list_recipients(struct core *core, struct arena *arena,
                                                   const struct spool_message *original,
                                                   const struct relay_action *action)
{
    struct dsn_recipient *recipients =
        arena_allocate(arena, action->delivery_count * sizeof(*recipients));
    for (uint32_t i = 0; recipients != NULL && i < action->delivery_count; i++) {
        const struct spool_recipient *recipient = &original->recipients[action->deliveries[i]];
        bool replied = action->reply.how == RELAY_REPLY && action->reply.code != 0;
        recipients[i] = (struct dsn_recipient){
            .address = recipient->address,
            .orcpt = recipient->orcpt,
            .code = replied ? action->reply.code : 0,
            .diagnostic = replied ? action->reply.text : action->reason,
            .remote = core_server_name(core, action->server),
            .last_attempt_ms = core_wall_ms(core),
        };
        memcpy(recipients[i].enhanced, action->reply.enhanced, sizeof(recipients[i].enhanced));
    }
    return recipients;
}

/* With LMTP the reply is that of the mailbox (RFC 2033). */
static enum dsn_action action_of(const struct core *core, const struct relay_action *action)
{
    const struct relay_config *relay = &core->config->relay;
    if (action->kind == RELAY_BOUNCE || action->kind == RELAY_DELAYED) {
        return action->kind == RELAY_BOUNCE ? DSN_FAILED : DSN_DELAYED;
    }
    bool final = action->server < relay->server_count &&
                 relay->servers[action->server].protocol == SERVER_LMTP;
    return final ? DSN_DELIVERED : DSN_RELAYED;
}

/* What the arena keeps must outlive the action: the notification itself is a copy. */
static enum error fill(struct core *core, struct notice *notice, const struct relay_action *action)
{
    struct spool_message original;
    enum error error = spool_read_envelope(core->spool, action->handle, &notice->arena, &original);
    if (error != ERROR_NONE) {
        return error;
    }
    if (original.sender.length == 0 || !names_all(&original, action)) {
        return ERROR_CORRUPT;
    }
    struct message_id id = core_make_id(core);
    char id_text[ID_TEXT_LENGTH + 1];
    char original_text[ID_TEXT_LENGTH + 1];
    id_to_text(id, id_text);
    id_to_text(original.id, original_text);
    const struct dsn_report report = {
        .action = action_of(core, action),
        .hostname = core->config->hostname,
        .id = id_text,
        .now_ms = core_wall_ms(core),
        .sender = original.sender,
        .envelope_id = original.envelope_id,
        .original_id = original_text,
        .arrival_ms = original.received_ms,
        .deliver_by_ms = original.deliver_by_ms,
        .retry_until_ms = action->kind == RELAY_DELAYED ? action->next_wall_ms : 0,
        .message_id = original.message_id_header,
        .tls_optional = (original.flags & SPOOL_TLS_OPTIONAL) != 0 &&
                        !core->config->relay.exchanger.ignores_waivers,
        .header = read_header(core, &notice->arena, action->handle, &original),
        .recipients = list_recipients(core, &notice->arena, &original, action),
        .recipient_count = action->delivery_count,
    };
    uint64_t header_length;
    bool utf8;
    struct spool_recipient *to = arena_allocate(&notice->arena, sizeof(*to));
    if (report.recipients == NULL || to == NULL ||
        !dsn_write(&report, &notice->content, &header_length, &utf8)) {
        return ERROR_MEMORY;
    }
    *to = (struct spool_recipient){.address = original.sender, .notify = SPOOL_NOTIFY_NEVER};
    notice->message = (struct spool_message){
        .id = id,
        .received_ms = report.now_ms,
        .flags =
            SPOOL_OWN_DSN | (utf8 ? SPOOL_SMTPUTF8 : 0U) |
            (original.flags & SPOOL_REQUIRE_TLS) | /* RFC 8689 section 5: it quotes the header */
            (report.tls_optional ? SPOOL_TLS_OPTIONAL : 0U),
        .priority = original.priority, /* RFC 6710: as urgent as what it tells of */
        .header_length = header_length,
        .body_length = notice->content.length - header_length,
        .origin = {.listener = SLICE_LITERAL("dsn"), .helo = core->config->hostname},
        .recipients = to,
        .recipient_count = 1,
    };
    notice->message.odometer_s = relay_odometer(core->relay, &notice->message, core_now(core));
    return ERROR_NONE;
}

struct notice *notice_empty(void)
{
    struct notice *notice = calloc(1, sizeof(*notice));
    if (notice != NULL) {
        arena_init(&notice->arena);
        buffer_init(&notice->content, 0);
        notice->about = SPOOL_NO_HANDLE;
    }
    return notice;
}

enum error notice_new(struct core *core, const struct relay_action *action,
                      struct notice **ret_notice)
{
    struct notice *notice = notice_empty();
    if (notice == NULL) {
        return ERROR_MEMORY;
    }
    enum error error = fill(core, notice, action);
    if (error != ERROR_NONE) {
        notice_free(notice);
        return error;
    }
    notice->about = action->handle;
    *ret_notice = notice;
    return ERROR_NONE;
}

void notice_free(struct notice *notice)
{
    if (notice != NULL) {
        arena_done(&notice->arena);
        buffer_done(&notice->content);
        free(notice);
    }
}
