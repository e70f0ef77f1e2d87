/* SPDX-License-Identifier: Apache-2.0
 *
 * What edge-out reports of mail that is not here: in a cluster it outlives core, and is heard
 * before the next one has its shares again; somebody else may have taken them meanwhile.
 *
 * That a delivery was taken is a fact. It goes to the spool under the message's id, and edge-out
 * may forget it when that is durable. The report itself is kept beyond that, and read again as if
 * it came just now as soon as its message is there: jobs still under way are adopted before
 * anything else is done with the message, and of results the rest is heard (refusals, and a fact
 * that was written when the share had been read, but not handed over yet). A message that never
 * comes is somebody else's, who hears of the fact, or has an attempt in doubt.
 */
#include "service/core_out.h"

#include "sys/clock.h"

#include <stdlib.h>

enum {
    EARLY_KEPT_MS = 600000, /* after the fact is durable: a share is loaded long before */
    EARLY_MAX = 100000,     /* results beyond that are not kept so long */
};

struct early {
    struct link link; /* core->early, in the order of their coming */
    struct core *core;
    uint32_t edge;
    uint32_t session;
    uint64_t job;
    struct message_id message;
    uint32_t delivery; /* one of them; all are in one part */
    bool is_result;
    bool writing; /* the spool has a pointer to it */
    bool durable;
    bool told; /* the log has been */
    bool over; /* freed as soon as the spool lets go */
    int64_t until_ms;
    size_t length;
    uint8_t frame[]; /* without its type */
};

static void early_free(struct early *early)
{
    list_remove(&early->link);
    early->over = true;
    if (!early->writing) {
        early->core->early_count--;
        free(early);
    }
}

static struct early *find(const struct core *core, uint32_t edge, uint64_t job)
{
    LIST_EACH(&core->early, at, after)
    {
        struct early *early = LIST_ENTRY(at, struct early, link);
        if (early->edge == edge && early->job == job) {
            return early;
        }
    }
    return NULL;
}

static struct early *keep(struct core_edge_out *out, const struct core_report *report,
                          struct slice frame)
{
    struct early *early = calloc(1, sizeof(*early) + frame.length);
    if (early == NULL) {
        core_out_of_memory();
    }
    early->core = out->core;
    early->edge = out->index;
    early->session = report->session;
    early->job = report->job;
    early->message = report->message;
    early->delivery = report->delivery;
    early->length = frame.length;
    memcpy(early->frame, frame.data, frame.length);
    list_init(&early->link);
    list_append(&out->core->early, &early->link);
    out->core->early_count++;
    return early;
}

/* Relay does not know of it, and it has no fate: its part is not here, or is being left. */
static bool is_unknown(const struct core *core, struct message_id message, uint32_t delivery)
{
    struct relay_delivery_view view;
    struct spool_handle handle = spool_find_delivery(core->spool, message, delivery);
    return handle.index == SPOOL_NO_HANDLE.index ||
           (!relay_delivery(core->relay, handle, delivery, &view) &&
            spool_fate_of(core->spool, handle, delivery) == 0);
}

bool core_early_is(const struct core *core, const struct core_report *report)
{
    return core->cluster != NULL && report->count > 0 && !id_is_null(report->message) &&
           is_unknown(core, report->message, report->delivery);
}

void core_early_working(struct core_edge_out *out, const struct core_report *report,
                        struct slice frame)
{
    if (find(out->core, out->index, report->job) == NULL) {
        (void)keep(out, report, frame);
    }
}

/* ---- facts ----------------------------------------------------------------------------------- */

/* Nothing of its session is under way any more, as far as we know. */
static void close_if_last(struct core *core, const struct early *early)
{
    LIST_EACH(&core->early, at, after)
    {
        const struct early *other = LIST_ENTRY(at, struct early, link);
        if (!other->durable && other->session == early->session && other->edge == early->edge) {
            return;
        }
    }
    struct core_session *session = core_session_on(&core->out[early->edge], early->session);
    if (session != NULL && session->foreign && list_is_empty(&session->jobs)) {
        core_out_send_plain(core, &core->out[early->edge], CHANNEL_CLOSE, session->id);
        core_session_free(core, session);
    }
}

static void say_durable(struct core *core, const struct early *early)
{
    struct buffer *frame = core_out_frame(core, CHANNEL_DURABLE, early->session);
    buffer_put_u64(frame, early->job);
    core_out_send(&core->out[early->edge], frame);
}

static void facts_durable(struct early *early)
{
    struct core *core = early->core;
    early->durable = true;
    early->until_ms = clock_steady_ms() + EARLY_KEPT_MS;
    say_durable(core, early);
    close_if_last(core, early);
    if (core->early_count > EARLY_MAX) {
        early_free(early);
    }
}

static void written(void *context, enum error error, const struct spool_handle *handles,
                    size_t count)
{
    (void)handles;
    (void)count;
    struct early *early = context;
    struct core *core = early->core;
    core->notes_pending--;
    early->writing = false;
    if (early->over) {
        early_free(early);
    } else if (error == ERROR_NONE) {
        facts_durable(early);
    } /* else the tick tries again */
    core_check_stopped(core);
}

static void write_facts(struct early *early)
{
    struct core *core = early->core;
    struct core_report report;
    struct reader reader = reader_make(slice_make(early->frame, early->length));
    if (!core_report_read(&core->out[early->edge], &reader, true, &report)) {
        return; /* it was read before */
    }
    uint32_t facts = 0;
    int64_t now_ms = core_now(core).wall_ms;
    spool_batch_begin(core->spool);
    for (uint32_t i = 0; i < report.count; i++) {
        struct relay_reply reply;
        uint32_t delivery = reader_u32(&reader);
        enum relay_verdict verdict = (enum relay_verdict)reader_u8(&reader);
        bool good = channel_get_reply(&reader, &reply) && delivery < SPOOL_RECIPIENTS_MAX;
        if (!good || verdict != RELAY_ACCEPTED) {
            continue;
        }
        struct slice server = core_server_name(core, report.server);
        spool_batch_fact(core->spool, report.message, delivery, SPOOL_DELIVERED, now_ms, server);
        if (!early->told) {
            report_early(core, report.message, delivery, server);
        }
        facts++;
    }
    if (facts == 0) {
        spool_batch_cancel(core->spool);
        facts_durable(early);
        return;
    }
    early->told = true;
    early->writing = true;
    core->notes_pending++;
    spool_batch_submit(core->spool, SPOOL_SYNCED, written, early);
}

void core_early_result(struct core_edge_out *out, const struct core_report *report,
                       struct slice frame)
{
    struct early *early = find(out->core, out->index, report->job);
    if (early != NULL && early->is_result) {
        if (early->durable) {
            say_durable(out->core, early); /* the first may have gone with a ring */
        }
        return;
    }
    if (early != NULL) {
        early_free(early);
    }
    early = keep(out, report, frame);
    early->is_result = true;
    write_facts(early);
}

/* ---- what becomes of them -------------------------------------------------------------------- */

/* It leaves the list before its report is read. */
static void read_again(struct early *early)
{
    struct core *core = early->core;
    struct core_edge_out *out = &core->out[early->edge];
    list_remove(&early->link);
    struct reader reader = reader_make(slice_make(early->frame, early->length));
    if (early->is_result) {
        (void)core_take_result(out, &reader);
    } else {
        (void)core_take_working(out, &reader);
    }
    early_free(early);
}

void core_early_loaded(struct core *core)
{
    struct link here;
    list_init(&here);
    LIST_EACH(&core->early, at, after)
    {
        const struct early *early = LIST_ENTRY(at, struct early, link);
        if (!is_unknown(core, early->message, early->delivery)) {
            list_remove(at);
            list_append(&here, at);
        }
    }
    while (!list_is_empty(&here)) {
        read_again(LIST_ENTRY(here.next, struct early, link));
    }
}

void core_early_forget(struct core *core, uint32_t edge, uint32_t session, bool all)
{
    LIST_EACH(&core->early, at, after)
    {
        struct early *early = LIST_ENTRY(at, struct early, link);
        if (early->edge == edge && !early->is_result && (all || early->session == session)) {
            early_free(early);
        }
    }
}

void core_early_tick(struct core *core)
{
    int64_t now_ms = clock_steady_ms();
    LIST_EACH(&core->early, at, after)
    {
        struct early *early = LIST_ENTRY(at, struct early, link);
        if (early->durable && now_ms >= early->until_ms) {
            early_free(early);
        } else if (early->is_result && !early->durable && !early->writing) {
            write_facts(early);
        }
    }
}

void core_early_done(struct core *core)
{
    LIST_EACH(&core->early, at, after)
    {
        early_free(LIST_ENTRY(at, struct early, link));
    }
}
