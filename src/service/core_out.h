/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside core: what the parts that deal with edge-out share. Functions that read a frame return
 * false when it is malformed.
 */
#ifndef HOLDFAST_SERVICE_CORE_OUT_H
#define HOLDFAST_SERVICE_CORE_OUT_H

#include "service/core_internal.h"

/* ---- core_out.c ------------------------------------------------------------------------------ */

/* Begins a frame in core->frame, to be sent with core_out_send(). */
struct buffer *core_out_frame(struct core *core, enum channel_frame type, uint32_t session);
/* A frame that says only which session it is about. */
void core_out_send_plain(struct core *core, struct core_edge_out *out, enum channel_frame type,
                         uint32_t session);

/* ---- core_job.c ------------------------------------------------------------------------------ */

struct core_session *core_session_new(struct core *core, uint32_t id, uint32_t server,
                                      uint32_t edge);
void core_session_keep(struct core *core, struct core_session *session); /* in the table */
void core_session_free(struct core *core, struct core_session *session);
/* NULL: not a session of this edge. */
struct core_session *core_session_on(struct core_edge_out *out, uint32_t id);
/* Tells edge-out, once what a policy demands of the server is known. */
void core_session_connect(struct core *core, const struct relay_action *action);
/* Edge-out is told of it now, whatever is known. */
void core_session_wait_no_longer(struct core *core, struct core_session *session);
/* It is over: tells relay; unreported jobs are settled. */
void core_session_end(struct core *core, struct core_session *session,
                      const struct relay_reply *reply);
/* Our records of what nobody will report any more, when relay has decided about it by itself. */
void core_session_forget_jobs(struct core *core, struct core_session *session);

struct job *core_job_new(struct core *core, uint64_t id, struct spool_handle handle,
                         struct core_session *session, const uint32_t *deliveries, uint32_t count);
void core_job_deliver(struct core *core, const struct relay_action *action);
void core_job_say(struct core *core, const struct job *job, enum channel_frame type);
/* Writes the attempt note, now or when relay allows it; GO follows it. A session that relay has
 * given up is closed. */
void core_job_ask(struct core *core, struct job *job);
bool core_job_may_go(const struct core *core);
/* A node of a cluster: whether its lease has the time left that a dot needs (relay_lease()). While
 * it has not, GO is said to nobody; what waited for it goes on when it has again. */
void core_job_lease(struct core *core, bool is_held);
/* Gives relay the results and writes what follows. */
void core_job_settle(struct core *core, struct job *job, bool reused,
                     const struct relay_delivery_result *results, uint32_t count);
/* Nobody will report on this job any more: `verdict` unless its dot may have been sent. */
void core_job_settle_alone(struct core *core, struct job *job, enum relay_verdict verdict,
                           uint16_t code, const char *why);

/* ---- core_early.c ----------------------------------------------------------------------------
 */

/* What CHANNEL_RESULT and CHANNEL_WORKING have in common. */
struct core_report {
    uint32_t session;
    uint32_t server;
    uint64_t job;
    bool reused;
    struct message_id message;
    uint32_t count;
    uint32_t delivery; /* the first of them; meaningful if there are any */
};

/* A node of a cluster: whether the message, or the part of it, is not here (yet). */
bool core_early_is(const struct core *core, const struct core_report *report);
/* `frame` is what core_take_working() and core_take_result() read; it is copied. */
void core_early_working(struct core_edge_out *out, const struct core_report *report,
                        struct slice frame);
void core_early_result(struct core_edge_out *out, const struct core_report *report,
                       struct slice frame);
/* More is here: before relay does anything with it. */
void core_early_loaded(struct core *core);
/* No result will come of what was under way on that session, or (`all`) on that edge. */
void core_early_forget(struct core *core, uint32_t edge, uint32_t session, bool all);
void core_early_tick(struct core *core);
void core_early_done(struct core *core); /* the spool is closed */

/* ---- core_out_report.c ----------------------------------------------------------------------- */

/* The beginning of a report; false: it is malformed. */
bool core_report_read(const struct core_edge_out *out, struct reader *reader, bool is_result,
                      struct core_report *ret_report);
bool core_take_opened(struct core_edge_out *out, struct reader *reader);
bool core_take_ended(struct core_edge_out *out, struct reader *reader);
bool core_take_ready(struct core_edge_out *out, struct reader *reader);
bool core_take_result(struct core_edge_out *out, struct reader *reader);
bool core_take_working(struct core_edge_out *out, struct reader *reader);
bool core_take_tls(struct core_edge_out *out, struct reader *reader);
bool core_take_texts(struct core_edge_out *out, struct reader *reader);
bool core_take_resolved(struct core_edge_out *out, struct reader *reader);
bool core_take_addresses(struct core_edge_out *out, struct reader *reader);

#endif
