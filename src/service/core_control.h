/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside core: the operator's requests. A connection has one request at a time; a request works in
 * steps of a few milliseconds at most, between which mail goes on, and only while the connection
 * takes the answers.
 */
#ifndef HOLDFAST_SERVICE_CORE_CONTROL_H
#define HOLDFAST_SERVICE_CORE_CONTROL_H

#include "service/control_frame.h"
#include "service/core_internal.h"

enum {
    CONTROL_CONNECTIONS_MAX = 128,
    CONTROL_OUT_HIGH = 256 << 10, /* bytes waiting for the socket: no further step */
    CONTROL_OUT_MAX = 8 << 20,
    CONTROL_STEP_NS = 2000000,
    CONTROL_WAIT_MS = 5000, /* for the journal; then the truth is that it cannot be written */
    CONTROL_LIST_MAX = 100, /* recipients in one row */
    CONTROL_PIECE_BYTES = 192 << 10, /* of one array in one frame, and the entry that reaches it */
    CONTROL_PROGRESS_EVERY = 100,    /* messages */
};

struct control {
    struct link link; /* core->controls */
    struct core *core;
    int fd;
    bool privileged;
    bool broken; /* to be closed at the next turn */
    struct loop_watch *watch;
    struct control_reader reader;
    struct buffer out;
    struct control_request *request;
    struct control_import *import; /* a message coming in, or NULL */
};

enum control_step {
    STEP_MORE, /* ask again */
    STEP_WAIT, /* something else will ask: control_ask() */
    STEP_END,  /* code and error are set */
};

/* What the queue commands select by. */
struct selection {
    json_t *ids; /* or NULL */
    struct slice domain, sender, recipient;
    bool has_domain, has_sender, has_recipient;
    struct slice server; /* several exchangers may have one name; empty: any */
    int64_t older_s;
    bool has_older;
    bool dead;
    bool dead_too; /* dead letters beside all others, where no ids are given */
    bool all;
};

/* A message that matches: its envelope and the numbers of its matching deliveries. */
struct match {
    struct spool_handle handle;
    struct spool_message message;
    bool unreadable; /* of the message only id and number of recipients are known */
    uint32_t *deliveries;
    uint32_t count;
    const uint8_t *fates; /* of all its deliveries, by control_read_fates(); NULL: not read */
};

struct control_command;
struct control_forward;
struct control_history;
struct control_resend;
struct drill;

struct control_request {
    struct control *control; /* NULL: who asked has gone */
    struct core *core;
    const struct control_command *command;
    json_t *arguments;
    enum control_exit code;
    const char *error; /* static */
    bool again;        /* it may be asked again in a moment */
    unsigned waiting;  /* batches on their way */
    int64_t waiting_since_ms;
    bool write_failed;
    struct buffer rows; /* sent when nothing is waiting */
    struct arena arena; /* of one message */

    struct selection selection;
    size_t next_id;
    int32_t share; /* of the part of it that was looked at last; -1: none */
    uint64_t cursor;
    struct relay_cursor messages;
    uint64_t looked_at, matched, done;
    uint64_t progress_told; /* looked_at as last told; `queue watch`: all as last told */

    /* A message whose row is longer than a frame, or whose deliveries are many. */
    bool has_match;
    bool pinned; /* match.handle is, until the next is looked for */
    struct match match;
    uint32_t match_at;
    uint64_t content_at;
    struct control_history *history; /* of the match's deliveries, in the arena */
    uint32_t server_at;
    uint32_t alert_at;
    uint64_t alert_after;  /* number of the last edge told */
    bool alert_standing;   /* those that stand are to be told last */
    uint64_t *waiting_for; /* deliveries by server, for "server list" */
    uint32_t waiting_for_count;
    struct events_search *search;
    struct control_trace *trace;
    struct control_resend *resend;
    bool callout_done;               /* "recipients verify": the row is there */
    struct control_forward *forward; /* to another node of the cluster, or NULL */
    struct drill *drill;             /* of which this waits for the report, or NULL */
    bool watching; /* "queue watch": rows come as events happen, until the connection ends */
    int64_t window_ms;
    uint32_t window_rows; /* in the second that began then */
    uint64_t missed;      /* events not told since the last row */
};

struct control_command {
    const char *name;
    bool privileged; /* only for those who may change things */
    bool selects;
    enum control_step (*begin)(struct control_request *request); /* may be NULL */
    enum control_step (*step)(struct control_request *request);
    bool travels; /* another member of the cluster may be asked it */
};

/* core_control.c */
void control_ask(struct control_request *request);
/* A row; a failure ends the connection. The reference is taken over. */
void control_row(struct control_request *request, json_t *row);
void control_more(struct control_request *request, json_t *more);
enum control_step control_fail(struct control_request *request, enum control_exit code,
                               const char *error);
/* The journal is not loaded yet. */
enum control_step control_not_yet(struct control_request *request);
/* Text argument; empty if absent or not a string. */
struct slice control_argument(const struct control_request *request, const char *name);
bool control_flag(const struct control_request *request, const char *name);
void control_unpin(struct control_request *request);
/* One batch is on its way for this request. Pass what it returns to core_act(). */
struct core_after control_after(struct control_request *request);

/* core_control_select.c */
/* False: error is set. */
bool control_select(struct control_request *request);
/* The same but for "server", which is left to the caller. */
bool control_select_envelope(struct control_request *request);
/* "ID" or "ID/N". */
bool control_parse_id(const json_t *text, struct message_id *ret_id, uint32_t *ret_delivery);
/* Nothing was said that chooses messages; "all" does not. */
bool control_selection_is_empty(const struct selection *selection);
/* Looks for the next message that matches, for one step's time. STEP_END: no more; STEP_MORE: look
 * at request->has_match. */
enum control_step control_next_match(struct control_request *request);
/* Tells how far the walk over the queue has come, if that is worth a frame. */
void control_progress(struct control_request *request);
bool control_sender_matches(const struct selection *selection, struct slice sender);
bool control_recipient_matches(const struct selection *selection, struct slice address);

/* core_control_watch.c: each second, those who watch are told how far the drains are. */
void control_watch_tick(struct core *core);

/* core_control_rows.c */
json_t *control_message_row(struct control_request *request, const struct match *match);
json_t *control_envelope(struct control_request *request, const struct spool_message *message);
json_t *control_origin(const struct spool_message *message);
json_t *control_copy_of(const struct spool_message *message); /* id, or null */
json_t *control_recipient(const struct match *match, uint32_t delivery);
/* In a cluster: which part of the message this is. */
void control_part(const struct core *core, const struct match *match, json_t *row);
/* What has ended in other parts of it: so much that control_delivery() can tell of that. */
void control_read_fates(struct control_request *request, struct match *match);
json_t *control_delivery(struct control_request *request, const struct match *match,
                         uint32_t delivery);
const char *control_delivery_state(enum delivery_state state);
const char *control_fate(unsigned fate);
json_t *control_server_or_null(const struct core *core, uint32_t server);
json_t *control_alert(const struct alert *alert);           /* as "status" lists it */
json_t *control_id(struct message_id id, int64_t delivery); /* delivery < 0: the message */
json_t *control_time(int64_t wall_ms);                      /* 0: null */
json_t *control_server_address(const struct server_address *address);
/* A row of "trace". `sender` may be NULL: not known. */
json_t *control_event_row(const struct event *event, const struct slice *sender,
                          const struct slice *recipients, uint32_t recipient_count);
bool control_event_begins(const struct event *event); /* it has sender and recipients itself */
/* Appends an entry (taken over) to the part of an array that one frame has, and counts its bytes:
 * no more when they have reached CONTROL_PIECE_BYTES. */
void control_piece_add(json_t *array, size_t *bytes, json_t *entry);
/* Adds to an object; false on memory. Takes the value over. */
void control_set(json_t *object, const char *key, json_t *value);

/* The commands. */
enum control_step status_step(struct control_request *request);
enum control_step server_begin(struct control_request *request);
enum control_step server_list_step(struct control_request *request);
enum control_step server_down_begin(struct control_request *request);
enum control_step server_up_begin(struct control_request *request);
enum control_step server_probe_begin(struct control_request *request);
/* core_control_nodes.c */
enum control_step node_list_step(struct control_request *request);
enum control_step node_drain_begin(struct control_request *request);
enum control_step node_undrain_begin(struct control_request *request);
enum control_step node_remove_begin(struct control_request *request);
enum control_step node_changed_step(struct control_request *request);
json_t *control_nodes(const struct core *core); /* of the cluster, for status */
json_t *control_cluster(struct core *core);     /* null without one */
/* core_guard.c */
enum control_step guard_list_begin(struct control_request *request);
enum control_step guard_list_step(struct control_request *request);
enum control_step guard_start_begin(struct control_request *request);
enum control_step guard_undo_begin(struct control_request *request);
enum control_step guard_reset_begin(struct control_request *request);
enum control_step guard_changed_step(struct control_request *request);
enum control_step guard_work_step(struct control_request *request);
json_t *control_guards(const struct core *core); /* of the configuration, for status */
enum control_step recipients_list_step(struct control_request *request);
enum control_step recipients_import_step(struct control_request *request);
enum control_step recipients_forget_step(struct control_request *request);
enum control_step recipients_verify_begin(struct control_request *request);
/* core_control_lists.c */
enum control_step recipients_load_step(struct control_request *request);
/* Where the recipients of a block's domain come from, and how that goes. */
void control_put_list(const struct core *core, const struct route_config *route, json_t *row);

/* Of each domain that knows its recipients, for status: of so many. */
enum { CONTROL_RECIPIENTS_SHOWN = 500 };
json_t *control_recipients_summary(const struct core *core);

enum control_step recipients_verify_step(struct control_request *request);
enum control_step alert_news_begin(struct control_request *request);
enum control_step alert_news_step(struct control_request *request);
enum control_step tls_reports_list_step(struct control_request *request);
enum control_step tls_reports_send_step(struct control_request *request);
enum control_step errands_step(struct control_request *request);
enum control_step errand_done_step(struct control_request *request);
enum control_step queue_list_step(struct control_request *request);
enum control_step queue_show_step(struct control_request *request);
enum control_step queue_change_begin(struct control_request *request);
enum control_step queue_change_step(struct control_request *request);
enum control_step queue_export_begin(struct control_request *request);
enum control_step queue_export_step(struct control_request *request);
enum control_step queue_import_begin(struct control_request *request);
enum control_step queue_import_step(struct control_request *request);
enum control_step history_begin(struct control_request *request);
enum control_step trace_begin(struct control_request *request);
enum control_step trace_step(struct control_request *request);
enum control_step queue_watch_begin(struct control_request *request);
enum control_step queue_watch_step(struct control_request *request);
enum control_step drill_begin(struct control_request *request);
enum control_step drill_step(struct control_request *request);
enum control_step drill_stop_begin(struct control_request *request);
enum control_step drill_stop_step(struct control_request *request);
/* Nobody waits for the report any more. */
void drill_forget_request(struct control_request *request);
enum control_step queue_resend_begin(struct control_request *request);
enum control_step queue_resend_step(struct control_request *request);
void control_resend_free(struct control_resend *resend); /* NULL is allowed */
void control_import_free(struct control_import *import); /* NULL is allowed */
void control_trace_free(struct control_trace *trace);
void control_forward_free(struct control_forward *forward); /* NULL is allowed */

#endif
