/* SPDX-License-Identifier: Apache-2.0
 *
 * On-demand mail relay (RFC 2645): which domains a client who has logged in may ask for, and the
 * handing over of his connection. What waits, core says.
 *
 * The connection goes to the sending process before 250 is said: then 250 is true; with TLS one end
 * of a pair does (smtp_in_carry.c). Nothing that the client has sent behind ATRN may be in it,
 * neither with us nor in the kernel.
 */
#include "service/smtp_in_internal.h"

#include "relay/atrn.h"
#include "service/login.h"
#include "sys/net.h"

#include <assert.h>

static_assert((int)LOGIN_ADDRESSES_MAX <= (int)RELAY_ATRN_DOMAINS_MAX, "domains of one user");

static const struct smtp_answer not_now = {451, "4.3.0",
                                           SLICE_LITERAL("Unable to process ATRN request now")};
static const struct smtp_answer refused = {450, "4.7.1", SLICE_LITERAL("ATRN request refused")};
static const struct smtp_answer pipelined = {
    503, "5.5.1", SLICE_LITERAL("Nothing may follow ATRN before its reply")};

/* ---- asking core -------------------------------------------------------------------------- */

static bool may_fetch(const struct slice *his, uint32_t his_count, struct slice domain)
{
    for (uint32_t i = 0; i < his_count; i++) {
        if (slice_equal_fold(his[i], domain)) {
            return true;
        }
    }
    return false;
}

/* Those that the client named, or all that are his. 0: he may not have all of them. */
static uint32_t choose_domains(const struct session *session, struct slice list,
                               struct slice ret_domains[RELAY_ATRN_DOMAINS_MAX])
{
    const struct slice *his;
    uint32_t his_count = login_domains(session, &his), count = 0;
    if (list.length == 0 && his_count > 0) {
        memcpy(ret_domains, his, his_count * sizeof(ret_domains[0]));
        return his_count;
    }
    while (list.length > 0) {
        struct slice domain = slice_take(list, slice_find(list, ','));
        list = slice_skip(list, domain.length + 1);
        if (count == RELAY_ATRN_DOMAINS_MAX || !may_fetch(his, his_count, domain)) {
            return 0;
        }
        ret_domains[count++] = domain;
    }
    return count;
}

static bool send_request(struct session *session, struct slice name, const struct slice *domains,
                         uint32_t count)
{
    uint64_t token;
    struct buffer *frame = request_begin(session, CHANNEL_ATRN, &token);
    buffer_put_bytes(frame, name);
    buffer_put_u8(frame, (uint8_t)count);
    for (uint32_t i = 0; i < count; i++) {
        buffer_put_bytes(frame, domains[i]);
    }
    return request_send(session, REQUEST_ATRN, token);
}

/* Bytes have come behind ATRN. What TLS had of them is kept. */
static bool has_more(struct session *session)
{
    uint8_t early[256];
    size_t length = 0;
    if (smtp_server_unread(&session->server).length > 0 || session->unread_length > 0) {
        return true;
    }
    if (session->tls == NULL) {
        return net_has_input(session->fd);
    }
    enum error error = tls_receive(session->tls, early, sizeof(early), &length);
    if (error == ERROR_NONE) { /* without memory they are lost, and the answer is the same */
        (void)session_keep(session, slice_make(early, length));
    }
    return error != ERROR_AGAIN;
}

bool odmr_atrn(struct session *session, const struct smtp_server_event *event,
               struct smtp_answer *ret_answer)
{
    struct slice domains[RELAY_ATRN_DOMAINS_MAX];
    uint32_t count = choose_domains(session, event->name, domains);
    *ret_answer = count == 0 ? refused : not_now;
    if (smtp_server_unread(&session->server).length > 0) {
        *ret_answer = pipelined;
    } else if (count > 0 && send_request(session, login_user(session), domains, count)) {
        return false;
    }
    session_log_refused(session, "atrn", event->name, ret_answer);
    return true;
}

/* ---- the answer ---------------------------------------------------------------------------- */

static void answer(struct session *session, const struct smtp_answer *reply)
{
    request_forget(session);
    session_answer(session, SMTP_SERVER_ATRN, reply);
}

void odmr_give_up(struct session *session)
{
    answer(session, &not_now);
}

/* The connection itself, or where there is TLS one end of a pair. */
static bool hand_over(struct session *session, uint32_t relay_session)
{
    struct smtp_in *in = session->in;
    int fd = session->fd;
    bool is_carried = session->tls != NULL;
    if (in->turn == NULL || (is_carried && !carry_prepare(session, &fd))) {
        return false;
    }
    bool handed_over = in->turn(in->turn_context, fd, relay_session);
    if (is_carried) {
        net_close(fd);
    }
    if (!handed_over) {
        carry_free(session);
    }
    return handed_over;
}

static struct smtp_answer turn(struct session *session, uint32_t relay_session)
{
    if (has_more(session)) {
        session_log_refused(session, "atrn", SLICE_EMPTY, &pipelined);
        return pipelined;
    }
    if (!hand_over(session, relay_session)) {
        session_log_refused(session, "atrn", SLICE_EMPTY, &not_now);
        return not_now;
    }
    return SMTP_ACCEPT;
}

bool odmr_take(struct smtp_in *in, struct reader *reader)
{
    uint64_t token = reader_u64(reader);
    uint8_t outcome = reader_u8(reader);
    uint32_t relay_session = reader_u32(reader);
    if (reader->failed || outcome >= RELAY_ATRN_OUTCOMES) {
        return false;
    }
    struct session *session;
    if (!request_find(in, token, REQUEST_ATRN, &session)) {
        return false;
    }
    if (session == NULL) {
        return true; /* the sending process waits for it in vain, and says so */
    }
    struct smtp_answer reply = not_now;
    switch ((enum relay_atrn_outcome)outcome) {
    case RELAY_ATRN_DENIED:
    case RELAY_ATRN_OUT:
        reply = refused;
        break;
    case RELAY_ATRN_BUSY:
        reply = (struct smtp_answer){
            450, "4.7.1", SLICE_LITERAL("ATRN request refused: your mail is being sent already")};
        break;
    case RELAY_ATRN_NOTHING:
        reply = (struct smtp_answer){453, "4.0.0", SLICE_LITERAL("You have no mail")};
        break;
    case RELAY_ATRN_TURN:
        reply = turn(session, relay_session);
        break;
    case RELAY_ATRN_LATER:
    case RELAY_ATRN_OUTCOMES:
        break;
    }
    answer(session, &reply);
    return true;
}

void smtp_in_set_turn(struct smtp_in *in, smtp_in_turn_fn *turn_fn, void *context)
{
    in->turn = turn_fn;
    in->turn_context = context;
}
