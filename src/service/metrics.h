/* SPDX-License-Identifier: Apache-2.0
 *
 * Counters that all processes share: one page of shared memory with a slot per process and loop,
 * made by the keeper, so that a crash of a process loses no count and reading costs nobody
 * anything. Each slot has one writer. The web process adds the slots up.
 */
#ifndef HOLDFAST_SERVICE_METRICS_H
#define HOLDFAST_SERVICE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

enum { COUNTER_SLOTS = 64 };

/* X(name, Prometheus name, help) */
#define COUNTER_TABLE(X)                                                                           \
    X(SESSIONS, "holdfast_smtp_sessions_total", "SMTP sessions accepted")                          \
    X(SESSIONS_REFUSED, "holdfast_smtp_sessions_refused_total",                                    \
      "SMTP sessions refused at the greeting")                                                     \
    X(SESSIONS_OPEN, "holdfast_smtp_sessions_open", "SMTP sessions now open")                      \
    X(TLS_SESSIONS, "holdfast_tls_sessions_total", "TLS handshakes with clients done")             \
    X(TLS_FAILURES, "holdfast_tls_failures_total", "TLS handshakes with clients that failed")      \
    X(MESSAGES_ACCEPTED, "holdfast_messages_accepted_total", "Messages answered with 250")         \
    X(BYTES_ACCEPTED, "holdfast_bytes_accepted_total", "Content bytes of messages accepted")       \
    X(MESSAGES_REFUSED, "holdfast_messages_refused_total", "Messages refused at or after DATA")    \
    X(RECIPIENTS_REFUSED, "holdfast_recipients_refused_total", "RCPT commands refused")            \
    X(FORGED_RESULTS, "holdfast_forged_results_total",                                             \
      "Authentication-Results in our name removed on receipt")                                     \
    X(BLOCKED, "holdfast_blocked_total", "Sessions and senders refused by a block rule")           \
    X(EARLY_TALKERS, "holdfast_early_talkers_total", "Clients that spoke before the greeting")     \
    X(RATE_LIMITED, "holdfast_rate_limited_total", "Commands put off because of too many of them") \
    X(TARPITTED, "holdfast_tarpitted_total", "Refused recipients that were answered late")         \
    X(LISTS_ASKED, "holdfast_dnsbl_questions_total", "Clients that DNS lists were asked for")      \
    X(LISTED, "holdfast_dnsbl_refused_total", "Clients refused since DNS lists know them")         \
    X(GREYLISTED, "holdfast_greylisted_total", "Recipients put off by greylisting")                \
    X(SENT_TO_PRIMARY, "holdfast_sent_to_primary_total",                                           \
      "Recipients put off since the primary is up")                                                \
    X(REFUSALS_LEFT_OUT, "holdfast_refusals_left_out_total",                                       \
      "Refused clients and recipients that the trace only counts")                                 \
    X(CALLOUTS, "holdfast_callouts_total", "Recipients that a server was asked about")             \
    X(CALLOUTS_UNANSWERED, "holdfast_callouts_unanswered_total",                                   \
      "Of those, the ones without an answer in time")                                              \
    X(ETRN, "holdfast_etrn_total", "ETRN commands answered by the queue")                          \
    X(ATRN, "holdfast_atrn_total", "ATRN commands answered by the queue")                          \
    X(LOGINS, "holdfast_logins_total", "Logins of clients")                                        \
    X(LOGINS_REFUSED, "holdfast_logins_not_tried_total", "Logins not tried after too many failed") \
    X(LOGINS_AWAY, "holdfast_logins_unanswered_total",                                             \
      "Logins that could not be tried for now, as a directory did not answer")                     \
    X(LOGIN_LOCKOUTS, "holdfast_login_lockouts_total",                                             \
      "Failed logins after which others must wait")                                                \
    X(LOGINS_LEFT_OUT, "holdfast_logins_left_out_total",                                           \
      "Logins, good and failed, that the trace only counts")                                       \
    X(LOGINS_FAILED, "holdfast_logins_failed_total", "Logins of clients that failed")              \
    X(SMTP_ERRORS, "holdfast_smtp_errors_total", "Commands that broke the protocol")               \
    X(BARE_NEWLINES, "holdfast_bare_newlines_total", "Messages with a bare CR or LF")              \
    X(SERVER_CONNECTIONS, "holdfast_server_connections_total", "Connections made to servers")      \
    X(SERVER_FAILURES, "holdfast_server_failures_total", "Connections to servers that failed")     \
    X(DELIVERIES, "holdfast_deliveries_total", "Deliveries handed over")                           \
    X(DEFERRALS, "holdfast_deferrals_total", "Deliveries deferred by a server")                    \
    X(REFUSALS, "holdfast_refusals_total", "Deliveries refused for good by a server")              \
    X(EXPIRIES, "holdfast_expiries_total", "Deliveries given up or discarded by age")              \
    X(DELAY_NOTICES, "holdfast_delay_notices_total", "Senders told that their message is late")    \
    X(IN_DOUBT, "holdfast_in_doubt_total", "Dots without a reply")                                 \
    X(SWITCHES, "holdfast_switches_total", "Lanes that changed server")                            \
    X(JOURNAL_GROUPS, "holdfast_journal_groups_total", "Groups written to the journal")            \
    X(JOURNAL_SYNCS, "holdfast_journal_syncs_total", "Syncs of the journal")                       \
    X(COPIES_GIVEN_UP, "holdfast_safety_copies_given_up_total",                                    \
      "Files kept of what was handed over that went early, for want of room")                      \
    X(JOURNAL_ERRORS, "holdfast_journal_errors_total", "Failed writes or syncs of the journal")    \
    X(ALERTS, "holdfast_alerts_total", "Alerts raised")                                            \
    X(HOOKS_SENT, "holdfast_hooks_sent_total", "Messages about alerts that were sent")             \
    X(HOOK_FAILURES, "holdfast_hook_failures_total", "Tries to send one that failed")              \
    X(GUARD_RUNS, "holdfast_guard_runs_total", "Scripts of guards that have ended")                \
    X(GUARD_FAILURES, "holdfast_guard_failures_total", "Of those, the ones that failed")           \
    X(MILTER_AWAY, "holdfast_milter_connect_failures_total", "Connections to filters that failed") \
    X(MILTER_FAILURES, "holdfast_milter_failures_total", "Filters that failed in a session")       \
    X(MILTER_REFUSALS, "holdfast_milter_refusals_total", "Steps of clients that a filter refused") \
    X(MILTER_DISCARDED, "holdfast_milter_discarded_total", "Messages that a filter threw away")    \
    X(RESTARTS, "holdfast_process_restarts_total", "Processes restarted by the keeper")

enum counter {
#define COUNTER_ENUM(name, text, help) COUNTER_##name,
    COUNTER_TABLE(COUNTER_ENUM)
#undef COUNTER_ENUM
        COUNTER_COUNT
};

/* One slot: written by one thread only. */
struct counters {
    _Atomic uint64_t value[COUNTER_COUNT];
} __attribute__((aligned(64)));

static inline void counter_add(struct counters *counters, enum counter which, uint64_t amount)
{
    uint64_t now = atomic_load_explicit(&counters->value[which], memory_order_relaxed);
    atomic_store_explicit(&counters->value[which], now + amount, memory_order_relaxed);
}

/* The whole page. */
struct counter_page {
    struct counters slots[COUNTER_SLOTS];
};

uint64_t counter_sum(const struct counter_page *page, enum counter which);
const char *counter_name(enum counter which);
const char *counter_help(enum counter which);

#endif
