/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include "base/hash.h"
#include "sim/actors.h"
#include "sim/sim.h"

enum { PRINTED = 10 };

void ledger_tell(const struct ledger *ledger, const char *format, ...)
{
    if (ledger->tell) {
        va_list arguments;
        va_start(arguments, format);
        printf("%12.6f ", (double)sim_now_ns() / 1e9);
        vprintf(format, arguments);
        printf("\n");
        va_end(arguments);
    }
}

void ledger_fault(struct ledger *ledger, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("%12.6f fault: ", (double)sim_now_ns() / 1e9);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    ledger->faults++;
}

void ledger_address(uint32_t number, char ret_text[64])
{
    static const char *const domains[] = {"example.test", "lmtp.test", "elsewhere.test"};
    static const uint8_t by_eight[] = {0, 0, 0, 0, 1, 2, 0, 1};
    uint32_t domain = number / 8 == 6 ? number % 3 : by_eight[number / 8];
    snprintf(ret_text, 64, "r%u@%s", number, domains[domain]);
}

void ledger_sender(uint32_t number, char ret_text[64])
{
    snprintf(ret_text, 64, "s%u@client.test", number);
}

struct ledger_entry *ledger_find(struct ledger *ledger, uint32_t number, uint32_t recipient)
{
    if (number >= ledger->issued) {
        return NULL;
    }
    struct ledger_message *message = &ledger->messages[number];
    for (uint32_t i = 0; i < message->count; i++) {
        if (message->entries[i].recipient == recipient) {
            return &message->entries[i];
        }
    }
    return NULL;
}

void ledger_disturb(struct ledger *ledger, uint32_t recipient)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < ledger->issued && found < 2; i++) {
        struct ledger_message *message = &ledger->messages[i];
        for (uint32_t j = 0; j < message->count; j++) {
            struct ledger_entry *entry = &message->entries[j];
            if (entry->recipient == recipient && entry->delivered == 0 && !entry->disturbed) {
                entry->disturbed = true;
                found += message->acknowledged; /* the others may never have been accepted */
            }
        }
    }
}

void ledger_refuse_client(struct ledger *ledger, const struct ip_endpoint *client)
{
    for (uint32_t i = 0; i < ledger->issued; i++) {
        struct ledger_message *message = &ledger->messages[i];
        bool is_its = ip_equal(&message->origin.client.address, &client->address);
        for (uint32_t j = 0; is_its && j < message->count; j++) {
            message->entries[j].refused++;
            message->entries[j].disturbed = true;
        }
    }
}

void ledger_hold(struct ledger *ledger, uint32_t recipient)
{
    for (uint32_t i = 0; i < ledger->issued; i++) {
        struct ledger_entry *entry = ledger_find(ledger, i, recipient);
        if (entry != NULL && entry->delivered == 0) {
            entry->disturbed = true;
        }
    }
}

void ledger_disturb_all(struct ledger *ledger)
{
    for (uint32_t i = 0; i < LEDGER_RECIPIENTS; i++) {
        ledger_disturb(ledger, i);
    }
}

void ledger_put_off(struct ledger *ledger, uint32_t number, uint32_t index, int64_t patience_ms)
{
    if (number < ledger->issued && index < ledger->messages[number].count) {
        struct ledger_entry *entry = &ledger->messages[number].entries[index];
        if (entry->passable_ns == 0) {
            entry->passable_ns = (sim_now_ns() / 1000000 + patience_ms) * 1000000;
        }
    }
}

/* When the first later one arrived for the same recipient. */
static int64_t passed_ns(struct ledger *ledger, uint32_t recipient, uint32_t number)
{
    int64_t first_ns = INT64_MAX;
    for (uint32_t i = number + 1; i < ledger->issued; i++) {
        const struct ledger_entry *entry = ledger_find(ledger, i, recipient);
        if (entry != NULL && entry->arrived_ns > 0 && entry->arrived_ns < first_ns) {
            first_ns = entry->arrived_ns;
        }
    }
    return first_ns;
}

void ledger_check_order(struct ledger *ledger, struct ledger_entry *entry, uint32_t number)
{
    uint32_t *last = &ledger->last_delivered[entry->recipient];
    if (entry->delivered != 1 || entry->disturbed) {
        return;
    }
    entry->arrived_ns = sim_now_ns();
    if (*last <= number + 1) {
        *last = number + 1;
    } else if (entry->passable_ns == 0 ||
               passed_ns(ledger, entry->recipient, number) < entry->passable_ns) {
        ledger_fault(ledger, "message %u for r%u arrived after %u", number, entry->recipient,
                     *last - 1);
        *last = number + 1;
    }
}

/* ---- notices --------------------------------------------------------------------------------- */

/* What follows the first `mark` at the beginning of a line, to that line's end; moves *rest on. */
static bool next_line(struct slice *rest, const char *mark, struct slice *ret_value)
{
    struct slice label = slice_from_text(mark);
    for (;;) {
        size_t end = slice_find(*rest, '\n');
        if (end == rest->length) {
            return false;
        }
        struct slice line = slice_take(*rest, end);
        *rest = slice_skip(*rest, end + 1);
        if (slice_starts_fold(line, label)) {
            *ret_value = slice_take(slice_skip(line, label.length),
                                    slice_find(slice_skip(line, label.length), '\r'));
            return true;
        }
    }
}

/* The digits behind the letter. */
static bool number_behind(struct slice text, char letter, uint32_t *ret_number)
{
    uint64_t value;
    if (text.length < 2 || text.data[0] != letter ||
        !slice_to_u64(slice_skip(slice_take(text, slice_find(text, '@')), 1), &value)) {
        return false;
    }
    *ret_number = (uint32_t)value;
    return true;
}

static void check_recipient(struct ledger *ledger, uint32_t number, struct slice address,
                            struct slice action)
{
    const struct ledger_message *message = &ledger->messages[number];
    uint32_t recipient = LEDGER_NOBODY;
    struct ledger_entry *entry = NULL;
    if (number_behind(address, 'r', &recipient)) {
        entry = ledger_find(ledger, number, recipient);
    }
    if (entry == NULL) {
        ledger_fault(ledger, "a notice about %u names somebody else: %.*s", number,
                     SLICE_PRINT(address));
        return;
    }
    if (!slice_equal(action, SLICE_LITERAL("failed"))) {
        if (message->by_mode != 'N' || ++entry->told > 2) { /* late, and relayed */
            ledger_fault(ledger, "a notice tells that %u is %.*s for r%u", number,
                         SLICE_PRINT(action), recipient);
        }
        return;
    }
    if (entry->refused == 0 && message->by_mode != 'R') {
        ledger_fault(ledger, "a notice tells of r%u, who did not refuse %u", recipient, number);
    }
    if (++entry->bounced > 1) {
        ledger_fault(ledger, "a second notice tells of %u for r%u", number, recipient);
    }
}

static void check_notice(struct ledger *ledger, uint32_t number, struct slice content)
{
    struct slice rest = content, value;
    uint64_t quoted;
    if (number >= ledger->issued || !ledger->messages[number].verified) {
        ledger_fault(ledger, "a notice to the unverified sender of %u", number);
    }
    if (!next_line(&rest, "Auto-Submitted: ", &value)) {
        ledger_fault(ledger, "a notice about %u is not marked as such", number);
    }
    rest = content;
    bool quotes = next_line(&rest, "X-Number: ", &value);
    if (!(ledger->headless && !quotes) &&
        (!quotes || !slice_to_u64(value, &quoted) || quoted != number)) {
        ledger_fault(ledger, "a notice to the sender of %u is about another message", number);
    }
    rest = content;
    uint32_t named = 0;
    struct slice action = SLICE_EMPTY;
    while (number < ledger->issued && next_line(&rest, "Final-Recipient: rfc822; ", &value) &&
           next_line(&rest, "Action: ", &action)) {
        check_recipient(ledger, number, value, action);
        named++;
    }
    if (named == 0) {
        ledger_fault(ledger, "a notice about %u names nobody", number);
    }
}

struct ledger_notice *ledger_take_notice(struct ledger *ledger, uint32_t number,
                                         struct slice content)
{
    static const struct hash_key key = {1, 2};
    struct slice rest = content, value;
    if (!next_line(&rest, "Message-ID: ", &value) || ledger->notice_count == LEDGER_NOTICES) {
        ledger_fault(ledger, "mail to the sender of %u without a Message-ID", number);
        return NULL;
    }
    uint64_t id = hash_bytes(key, value);
    for (uint32_t i = 0; i < ledger->notice_count; i++) {
        if (ledger->notices[i].id == id) {
            return &ledger->notices[i];
        }
    }
    check_notice(ledger, number, content);
    struct ledger_notice *notice = &ledger->notices[ledger->notice_count++];
    *notice = (struct ledger_notice){.id = id, .number = number};
    return notice;
}

/* ---- the verdict ----------------------------------------------------------------------------- */

static bool has_fate(const struct ledger_entry *entry)
{
    return entry->delivered > 0 || entry->bounced > 0;
}

bool ledger_is_settled(const struct ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->issued; i++) {
        const struct ledger_message *message = &ledger->messages[i];
        for (uint32_t j = 0; message->acknowledged && j < message->count; j++) {
            if (!has_fate(&message->entries[j])) {
                return false;
            }
        }
    }
    for (uint32_t i = 0; i < ledger->notice_count; i++) {
        if (ledger->notices[i].delivered == 0) {
            return false;
        }
    }
    return true;
}

struct tally {
    uint32_t lost, doubled, doubts, delivered, refused, bounced;
};

static void count_copies(struct tally *tally, uint32_t delivered, uint32_t doubts)
{
    tally->delivered += delivered > 0;
    tally->doubts += doubts;
    if (delivered > 1 + doubts) {
        tally->doubled += delivered - 1 - doubts;
    }
}

static void count_message(struct tally *tally, const struct ledger_message *message,
                          uint32_t number)
{
    for (uint32_t j = 0; j < message->count; j++) {
        const struct ledger_entry *entry = &message->entries[j];
        count_copies(tally, entry->delivered, entry->doubts);
        tally->refused += entry->refused > 0;
        tally->bounced += entry->bounced > 0;
        if (message->acknowledged && !has_fate(entry) && tally->lost++ < PRINTED) {
            printf("lost: message %u for r%u\n", number, entry->recipient);
        }
        if (entry->delivered > 0 && entry->bounced > 0 && entry->doubts == 0) {
            tally->doubled++; /* two fates; a kill between reply and result excuses it as well */
        }
    }
}

uint32_t ledger_judge(struct ledger *ledger)
{
    struct tally tally = {0};
    for (uint32_t i = 0; i < ledger->issued; i++) {
        count_message(&tally, &ledger->messages[i], i);
    }
    for (uint32_t i = 0; i < ledger->notice_count; i++) {
        const struct ledger_notice *notice = &ledger->notices[i];
        count_copies(&tally, notice->delivered, notice->doubts);
        if (notice->delivered == 0 && tally.lost++ < PRINTED) {
            printf("lost: a notice about message %u\n", notice->number);
        }
    }
    printf("issued %u, acknowledged %u, deliveries %u, refused %u, bounced %u in %u notices, "
           "doubts %u, doubled %u (%u excused), lost %u, faults %u\n",
           ledger->issued, ledger->acknowledged, tally.delivered, tally.refused, tally.bounced,
           ledger->notice_count, tally.doubts, tally.doubled, ledger->allowance, tally.lost,
           ledger->faults);
    uint32_t broken = ledger->faults + tally.lost;
    if (tally.doubled > ledger->allowance) {
        printf("doubled beyond excuse: %u of %u\n", tally.doubled, ledger->allowance);
        broken += tally.doubled - ledger->allowance;
    }
    return broken;
}
