/* SPDX-License-Identifier: Apache-2.0
 *
 * What relay itself costs: bytes per held delivery and time per step, without disk or network. Not
 * a test: bench_relay [MESSAGES [RECIPIENTS]].
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "relay/one_route.h"
#include "relay/relay.h"

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static size_t resident_bytes(void)
{
    size_t pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%zu %zu", &pages, &resident) != 2) {
        exit(1);
    }
    fclose(file);
    return resident * 4096;
}

static void add_as(struct relay *relay, uint32_t i, uint64_t sequence, uint32_t recipients,
                   struct relay_time now)
{
    char address[64];
    int length = snprintf(address, sizeof address, "recipient-%07u@example.com", i % recipients);
    struct spool_recipient recipient = {.address = slice_make(address, (size_t)length)};
    struct spool_message message = {.sequence = sequence,
                                    .received_ms = now.wall_ms,
                                    .header_length = 500,
                                    .body_length = 3500,
                                    .sender = slice_from_text("sender@elsewhere.example"),
                                    .recipients = &recipient,
                                    .recipient_count = 1};
    if (relay_add(relay, (struct spool_handle){i}, &message, now) != ERROR_NONE) {
        exit(1);
    }
}

static void add(struct relay *relay, uint32_t i, uint32_t recipients, struct relay_time now)
{
    add_as(relay, i, (uint64_t)i + 1, recipients, now);
}

/* Shares taken over: as many older messages as are held, of so many shares whose mail is mixed,
 * each loaded in its own order, so many messages of one at a time. */
static void take_over(struct relay *relay, uint32_t messages, uint32_t recipients,
                      struct relay_time now, uint32_t shares, uint32_t slice)
{
    uint32_t each = messages / shares, added = 0;
    size_t before = resident_bytes();
    int64_t began = now_ns(), worst = 0;
    for (uint32_t at = 0; at < each; at += slice) {
        for (uint32_t share = 0; share < shares; share++) {
            int64_t slice_began = now_ns();
            relay_together_begin(relay, now);
            for (uint32_t i = at; i < each && i < at + slice; i++) {
                add_as(relay, messages + added++, (uint64_t)i * shares + share + 1, recipients,
                       now);
            }
            relay_together_end(relay, now);
            struct relay_action action;
            while (relay_next(relay, &action)) {
            }
            int64_t took = now_ns() - slice_began;
            worst = took > worst ? took : worst;
        }
    }
    printf("taken over, %u shares, %u at a time: %.1f bytes and %.0f ns a delivery, longest slice "
           "%.1f ms\n",
           shares, slice, (double)(resident_bytes() - before) / added,
           (double)(now_ns() - began) / added, (double)worst / 1e6);
}

/* Answers everything at once; true while something came. */
static bool answer(struct relay *relay, struct relay_time now, bool refuse, uint64_t *delivered)
{
    static struct relay_action taken[4096];
    static const struct relay_capabilities capabilities = {.flags = RELAY_CAP_PIPELINING};
    struct relay_reply refused = {.stage = RELAY_AT_CONNECT, .how = RELAY_LOST};
    struct relay_delivery_result result = {
        0, RELAY_ACCEPTED, {.stage = RELAY_AT_DOT, .how = RELAY_REPLY, .code = 250}};
    size_t count = 0;
    while (count < 4096 && relay_next(relay, &taken[count])) {
        count += taken[count].kind <= RELAY_DELIVER;
    }
    for (size_t i = 0; i < count; i++) {
        struct relay_action *action = &taken[i];
        if (action->kind == RELAY_CONNECT && refuse) {
            relay_session_ended(relay, action->session, &refused, now);
        } else if (action->kind == RELAY_CONNECT) {
            relay_session_opened(relay, action->session, &capabilities, now);
        } else if (action->kind == RELAY_DELIVER) {
            uint16_t kind;
            struct slice payload;
            struct spool_handle handle;
            const uint32_t *deliveries;
            uint32_t deliveries_count;
            (void)!relay_attempt_note(relay, action->job, now, &kind, &payload, &handle,
                                      &deliveries, &deliveries_count);
            relay_result(relay, action->job, action->session, true, &result, 1, now);
            relay_result_durable(relay, action->job, now);
            ++*delivered;
        } else {
            refused.how = RELAY_LOCAL;
            refused.stage = RELAY_AT_IDLE;
            relay_session_ended(relay, action->session, &refused, now);
        }
    }
    return count > 0;
}

/* A queue of its own for each, of mail that is newer than what is taken over. */
static void bench_taking_over(uint32_t messages, uint32_t recipients)
{
    static const uint32_t shares[][2] = {{1, 2000}, {2, 1}, {64, 2000}, {64, 1}};
    struct relay_time now = {1000000, 1700000000000};
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        uint64_t delivered = 0;
        struct relay *relay = relay_new(&one_route, 7, now);
        relay_start(relay, now);
        answer(relay, now, true, &delivered);
        for (uint32_t j = 0; j < messages; j++) {
            add_as(relay, j, (uint64_t)messages * 10 + j, recipients, now);
            struct relay_action action;
            while (relay_next(relay, &action)) {
            }
        }
        take_over(relay, messages, recipients, now, shares[i][0], shares[i][1]);
        relay_free(relay);
    }
}

int main(int count, char **arguments)
{
    uint32_t messages = count > 1 ? (uint32_t)strtoul(arguments[1], NULL, 10) : 1000000;
    uint32_t recipients = count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 10) : 200;
    struct relay_time now = {1000000, 1700000000000};
    uint64_t delivered = 0;
    struct relay *relay = relay_new(&one_route, 7, now);
    relay_start(relay, now);
    answer(relay, now, true, &delivered);
    size_t before = resident_bytes();
    int64_t began = now_ns();
    for (uint32_t i = 0; i < messages; i++) {
        add(relay, i, recipients, now);
        struct relay_action action;
        while (relay_next(relay, &action)) {
        }
    }
    double add_ns = (double)(now_ns() - began) / messages;
    printf("held: %.1f bytes and %.0f ns a delivery\n",
           (double)(resident_bytes() - before) / messages, add_ns);

    began = now_ns();
    enum { PROBES = 100000 };
    for (int i = 0; i < PROBES; i++) {
        int64_t step = relay_deadline(relay) - now.steady_ms;
        now.steady_ms += step;
        now.wall_ms += step;
        relay_tick(relay, now);
        answer(relay, now, true, &delivered);
    }
    printf("down: %.0f ns a probe\n", (double)(now_ns() - began) / PROBES);

    began = now_ns();
    int64_t worst = 0;
    while (delivered < messages) {
        int64_t step_began = now_ns();
        int64_t due = relay_deadline(relay);
        if (due > now.steady_ms) {
            now.wall_ms += due - now.steady_ms;
            now.steady_ms = due;
        }
        relay_tick(relay, now);
        int64_t took = now_ns() - step_began;
        worst = took > worst ? took : worst;
        while (answer(relay, now, false, &delivered)) {
        }
    }
    printf("drain: %.0f ns a delivery, longest step %.1f ms\n",
           (double)(now_ns() - began) / messages, (double)worst / 1e6);
    relay_free(relay);
    bench_taking_over(messages, recipients);
    return 0;
}
