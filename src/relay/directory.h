/* SPDX-License-Identifier: Apache-2.0
 *
 * Which recipients exist (R8), domain by domain: the tables (relay/mailboxes.h), in what form an
 * address is looked up there, what is answered to one at RCPT, and what is learned from a server
 * that was asked or was handed mail. Of domains with `recipients = any` nothing is kept.
 *
 * The form: a domain by `alias` is the first of its route; what stands behind the first separator
 * is no part of the name, unless the table has the whole; ASCII letters are folded, unless case
 * matters; quotes that are not needed are none.
 */
#ifndef HOLDFAST_RELAY_DIRECTORY_H
#define HOLDFAST_RELAY_DIRECTORY_H

#include "relay/mailboxes.h"
#include "relay/relay.h"

enum { DIRECTORY_DOMAINS_MAX = 1 << 16 };

/* ---- at RCPT ----------------------------------------------------------------------------- */

struct relay_recipient {
    enum mailbox_answer answer;
    enum mailbox_standing standing; /* as far as is known */
    enum mailbox_source source;
    int64_t said_ms;
    /* MAILBOX_ASK: */
    uint32_t server;  /* whom; index */
    bool asks_random; /* and about an address that cannot exist as well */
};

/* An address of a domain of ours; of others, and of those that take any, MAILBOX_TAKE. */
void relay_recipient(struct relay *relay, struct slice address, struct relay_time now,
                     struct relay_recipient *ret_recipient);

/* The same as if nothing were known: MAILBOX_ASK if there is a server to ask, and for an address
 * that cannot exist as well. */
void relay_recipient_to_ask(struct relay *relay, struct slice address, struct relay_time now,
                            struct relay_recipient *ret_recipient);

/* What a server has said of one: `reply` is that to RCPT, or of wherever it ended. */
struct relay_callout {
    struct slice address;
    uint32_t server;
    const struct relay_reply *reply;
    const struct relay_reply *random; /* that of the other address, or NULL */
};
/* Learns it; the answer for who waits. */
enum mailbox_answer relay_recipient_asked(struct relay *relay, const struct relay_callout *callout,
                                          struct relay_time now);
/* Nobody has said anything. */
enum mailbox_answer relay_recipient_unanswered(const struct relay *relay, struct slice address);

/* ---- the tables --------------------------------------------------------------------------- */

/* The table of a domain, made if it is kept for that domain and there is none; its name, as the
 * table's, in *ret_name, valid as long as the table. NULL: not kept, too many, or memory. */
struct mailboxes *relay_mailboxes(struct relay *relay, struct slice domain, struct slice *ret_name);
/* One after the other, from a cursor that begins as 0; NULL: that was the last. */
struct mailboxes *relay_next_mailboxes(const struct relay *relay, size_t *cursor,
                                       struct slice *ret_domain);
/* The block of a domain; NULL: it is none of ours. */
const struct route_config *relay_domain_block(const struct relay *relay, struct slice domain);
/* The name of an address in its table: written to `buffer`. False: it is no address of the table's
 * domain. `whole`: with what stands behind a separator. */
bool relay_mailbox_name(const struct relay *relay, struct slice address, bool whole,
                        uint8_t buffer[MAILBOX_NAME_MAX], struct slice *ret_name);

/* ---- lists ------------------------------------------------------------------------------------
 *
 * What a source (a file, a directory, a page) says of all the blocks that name it. One is taken at
 * a time; until its end the earlier one holds. A reload gives it up.
 */

/* One that was begun before is given up. ERROR_MISSING: no block names this source; ERROR_MEMORY,
 * ERROR_LIMIT. */
enum error relay_list_begin(struct relay *relay, struct slice source) MUST_CHECK;
/* One more; without a local part ("@domain"): everybody there. ERROR_CLOSED: none is being taken.
 * ERROR_INVALID: of no domain of the source's blocks, or no name. ERROR_MEMORY, ERROR_LIMIT. */
enum error relay_list_add(struct relay *relay, struct slice address) MUST_CHECK;
/* It is in force from now on: who is not in it does not exist. ERROR_CLOSED. */
enum error relay_list_end(struct relay *relay, struct relay_time now) MUST_CHECK;
void relay_list_give_up(struct relay *relay);

/* ---- learning from deliveries ------------------------------------------------------------- */

/* How relay comes to the addresses that it does not keep; copied. Without it nothing is learned. */
void relay_set_envelopes(struct relay *relay, const struct relay_envelopes *envelopes);

#endif
