/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the room offer each other. Nobody else includes this.
 */
#ifndef HOLDFAST_RELAY_RELAY_INTERNAL_H
#define HOLDFAST_RELAY_RELAY_INTERNAL_H

#include "relay/relay_state.h"

/* ---- directory.c: which recipients exist --------------------------------------------------- */

/* NULL: memory. */
struct directory *directory_new(void);
void directory_free(struct directory *directory); /* NULL is allowed */
/* What the result of a delivery in flight says of its recipient. */
void directory_learn(struct relay *relay, const struct server *server, uint32_t number,
                     const struct relay_delivery_result *result);
/* A new delivery: R5's known good recipients are those of the tables, too. */
void directory_seed(struct relay *relay, uint32_t number, struct slice address);
/* Another configuration is in force. */
void directory_reconfigured(struct relay *relay);

/* ---- queue.c: messages and deliveries ----------------------------------------------------- */

/* NULL: no such message here. */
struct message *message_find(const struct relay *relay, uint32_t index);
struct message *message_at(const struct relay *relay, uint32_t index);
struct delivery *delivery_at(const struct relay *relay, uint32_t number);
uint32_t delivery_number(const struct message *message, uint32_t which); /* NOBODY: finished */
enum error message_insert(struct relay *relay, uint32_t index,
                          const struct spool_message *message) MUST_CHECK;
void message_abandon(struct relay *relay, uint32_t index); /* undoes message_insert() */
/* Changes state and all counts that hang on it; the delivery is in no place before and after. */
/* R2: a server may have it, and no other gets it yet: since no reply came, until it has gone. */
bool delivery_in_doubt(const struct delivery *delivery, const struct lane *lane);
void delivery_set_state(struct relay *relay, uint32_t number, enum delivery_state state);
/* The only way to change DELIVERY_BY_RULE and DELIVERY_REFUSED_ONCE, on which a count hangs. */
void delivery_set_flags(struct relay *relay, struct delivery *delivery, unsigned clear,
                        unsigned set);
/* Empty if it has none. */
struct slice domain_of_address(struct slice address);
/* The domain interned, in lower case. INTERN_NONE: memory. */
uint32_t domain_take(struct relay *relay, struct slice domain);
/* Room in the schedule for so many more deliveries and others. False: memory. */
bool timers_reserve(struct relay *relay, uint32_t more_deliveries, uint32_t more_others);
/* It has its fate: frees it, and its message with the last one. */
void delivery_finish(struct relay *relay, uint32_t number);
/* The same without a fate of ours, and not counted as done. */
void delivery_vanish(struct relay *relay, uint32_t number);
/* The same, but its number stays taken, with what it was of, until delivery_bury(). */
void delivery_entomb(struct relay *relay, uint32_t number);
void delivery_bury(struct relay *relay, uint32_t number);
void delivery_set_reason(struct relay *relay, struct delivery *delivery, struct slice reason);
struct slice delivery_reason(const struct relay *relay, const struct delivery *delivery);
/* True if a comes before b in acceptance order. */
bool delivery_before(const struct relay *relay, uint32_t a, uint32_t b);
/* Moves a delivery that is in no place to another lane, with all that is counted by lane. */
void delivery_move(struct relay *relay, uint32_t number, uint32_t lane);
/* Counts bytes by route anew. */
void route_bytes_count(struct relay *relay);
/* An unfinished delivery's recipient is in this domain. */
bool queue_has_domain(const struct relay *relay, struct slice domain);
void queue_done(struct relay *relay);

/* ---- lane.c, lane_make.c: lanes ----------------------------------------------------------- */

struct lane *lane_of(const struct relay *relay, const struct delivery *delivery);
void lane_free(struct relay *relay, struct lane *lane);
void lanes_init(struct lane_set *set);
void lanes_done(struct relay *relay, struct lane_set *set);
/* One for each route, at the same index, and the orphan's. False: memory. */
bool lanes_make(struct relay *relay);
/* The lane of this message's mail to `domain`, which is interned; made if need be. NULL: memory. */
struct lane *lane_for(struct relay *relay, uint32_t route, uint32_t domain,
                      const struct message *message);
/* What makes a lane another one. */
struct lane_key {
    uint32_t route;
    struct destination *destination;
    enum lane_pin pin;
    uint32_t pinned_server;
    struct slice redirect;
    bool redirect_address;
};
/* A lane beside those of the routes, made if need be. NULL: memory. */
struct lane *lane_sibling(struct relay *relay, const struct lane_key *key);
/* Of mail redirected to an address, by this route. NULL: memory. */
struct lane *lane_for_address(struct relay *relay, uint32_t route, struct slice address);
/* Of mail of lane `base` that only `server` may have. NULL: memory. */
struct lane *lane_for_doubt(struct relay *relay, const struct lane *base, uint32_t server);
/* Its place is for another lane. Nothing may be in it. */
void lane_retire(struct relay *relay, struct lane *lane);
/* The servers it may go to when nothing pins it, in order. */
const uint32_t *lane_chain(const struct relay *relay, const struct lane *lane,
                           uint32_t *ret_length);
/* The first of them, or NO_INDEX. */
uint32_t lane_chain_head(const struct relay *relay, const struct lane *lane);
/* A destination of a relay: one of very many, of which no switch or stop is told. */
bool lane_is_one_of_many(const struct relay *relay, const struct lane *lane);
/* The server for the lane's next delivery, or NO_INDEX. */
uint32_t lane_choose(const struct relay *relay, const struct lane *lane);
/* Its mail goes to that server now: tells so, if it went to another before. */
void lane_tell_switch(struct relay *relay, struct lane *lane, uint32_t server);
/* It went there when that was noted. */
void lane_load_switch(struct relay *relay, struct slice name, struct slice server,
                      int64_t since_ms);
/* Whether that can ever be this one. */
bool lane_may_go_to(const struct relay *relay, const struct lane *lane, uint32_t server);
/* The server that its mail was redirected to, which is its whole chain; else empty. */
struct slice lane_place_by_hand(const struct relay *relay, const struct lane *lane);
/* All servers of its chain are down or disabled. */
bool lane_is_stopped(const struct relay *relay, const struct lane *lane);
/* It goes over calls of its client alone (ODMR), and there is none for it: no trouble. */
bool lane_awaits_call(const struct relay *relay, const struct lane *lane);
/* A call has been greeted: the drains of what waited for it begin. */
void lanes_called(struct relay *relay, const struct server *server);
/* It is over: they are broken off. */
void lanes_call_ended(struct relay *relay, const struct server *server);
/* Puts it into the turn list where it belongs; tells stops and drains. */
void lane_place(struct relay *relay, struct lane *lane);
void lanes_place(struct relay *relay);
/* The server is up after trouble, since `since_wall_ms`: what the lanes that go to it have to send.
 */
void lanes_recover(struct relay *relay, const struct server *server, int64_t since_wall_ms);
void lanes_drained(struct relay *relay); /* tells which have nothing left of what waited */
/* Counts of a state: called by delivery_set_state(). */
void lane_count(struct relay *relay, uint32_t number, enum delivery_state state, int change);
/* One of what it drains has its fate, and is about to be counted out. */
void lane_count_done(const struct relay *relay, uint32_t number);
/* So many more, or less, stand in it. */
void lane_change_ready(struct relay *relay, struct lane *lane, int change);
/* Begins to count what is left of what it has now. */
void lane_drain(struct relay *relay, struct lane *lane, uint32_t server);

/* ---- lane_queue.c: what stands in a lane -------------------------------------------------- */

/* The first of the level whose turn it is, whether it may go now or not; or NOBODY. */
uint32_t lane_head(const struct relay *relay, const struct lane *lane);
/* The one that was accepted first, of all that stand in the lane; or NOBODY. */
uint32_t lane_oldest(const struct relay *relay, const struct lane *lane);
/* NULL: nothing has ever stood there. */
const struct lane_queue *lane_queue(const struct lane *lane, unsigned level);
/* It is about to be sent: whose turn comes next. */
void lane_takes_turn(const struct relay *relay, struct lane *lane, uint32_t number);
void lane_queues_init(struct lane *lane);
void lane_queues_done(struct lane *lane);
/* Into a list of deliveries in acceptance order, and out of it. */
void fifo_insert(struct relay *relay, uint32_t *head, uint32_t *tail, uint32_t number);
void fifo_unlink(struct relay *relay, uint32_t *head, uint32_t *tail, uint32_t number);
/* Into the queues of its lane, and out of them; nothing else. `level` as far as there is memory. */
void lane_stand(struct relay *relay, uint32_t number, unsigned level, bool is_new);
void lane_unstand(struct relay *relay, uint32_t number);

/* ---- recipient.c: the order of a recipient's mail ----------------------------------------- */

/* Appends a new delivery (state WAITING, NOWHERE). */
void lane_append(struct relay *relay, uint32_t number);
/* Puts one back in acceptance order (state WAITING, NOWHERE); behind its recipient's blocker, if
 * that is another and has come before it. */
void lane_return(struct relay *relay, uint32_t number);
/* Out of wherever it is: lane, recipient's queue, schedule, job's hands. Its recipient stays
 * blocked if it was the blocker. */
void delivery_take_out(struct relay *relay, uint32_t number);
/* The first that may go now, left in its place, or NOBODY. Moves those whose recipient is busy
 * behind it, at most *budget of them. */
uint32_t lane_first(struct relay *relay, struct lane *lane, uint32_t *budget);
/* What tells a recipient's order from others': the address, and the lane unless it is a domain's.
 */
uint64_t record_key(const struct relay *relay, const struct delivery *delivery);
/* May this one, waiting in its lane, go now? */
bool recipient_allows(const struct relay *relay, uint32_t number);
/* From now on it keeps its recipient's others back. False: memory. */
bool recipient_block(struct relay *relay, uint32_t number);
/* It does so no longer; the next in line is let go. Nothing if it did not. */
void recipient_release(struct relay *relay, uint32_t number);
/* The first behind a blocker, if nothing follows that one yet; or NOBODY. */
uint32_t recipient_next(const struct relay *relay, uint32_t blocker);
/* It is in flight, though another blocks its recipient: if that is later, they change roles. */
void recipient_precede(struct relay *relay, uint32_t number);
/* It goes along behind the blocker; it is in flight. */
void recipient_follow(struct relay *relay, uint32_t number);
bool recipient_follows(const struct relay *relay, uint32_t number);
/* That of its route; 0: it has none. */
int64_t order_patience_ms(const struct relay *relay, uint32_t number);
/* It is deferred: keeps the others back as long as patience says, or lets go. */
void recipient_patience(struct relay *relay, uint32_t number, int64_t patience_ms);
/* Steady ms; INT64_MAX: it does not run. */
int64_t recipient_patience_end(const struct relay *relay, uint32_t number);
void recipient_timer(struct relay *relay, uint32_t record);
/* Before all is laned anew, and after: who is under way keeps the others of his new lane back. */
void recipients_dissolve(struct relay *relay);
void recipients_rekey(struct relay *relay);

/* ---- freeze.c: fire drills ---------------------------------------------------------------- */

bool lane_is_frozen(const struct relay *relay, const struct lane *lane);
int64_t lane_frozen_until(const struct relay *relay, const struct lane *lane); /* wall, or 0 */
void freeze_load(struct relay *relay, struct slice name, struct slice payload);
void freezes_start(struct relay *relay); /* what was loaded goes on */
void freezes_due(struct relay *relay);
/* A real failure. The lane is its route's first. */
bool freeze_must_end(const struct relay *relay, const struct lane *lane);
void freeze_end(struct relay *relay, struct lane *lane, enum relay_thaw why);
/* What was held when it ended has gone, or its servers have failed before that. */
void freeze_drained(struct relay *relay, const struct lane *lane, bool whole);
void freeze_delivered(struct relay *relay, uint32_t number);
void freeze_asked(struct relay *relay, uint32_t number, bool accepted);
void freeze_doubted(struct relay *relay, uint32_t number);
void freeze_carry(const struct relay *relay, struct lane *from, struct lane *to);
void freeze_abandon(struct relay *relay, struct lane *lane); /* its route is no more */
void freeze_free(struct lane *lane);

/* ---- waiting.c ---------------------------------------------------------------------------- */

void waiting_done(struct waiting *waiting);
/* Room for so many at once. False: memory. */
bool waiting_reserve(struct relay *relay, uint32_t count);
void waiting_clear(struct relay *relay);
/* Room must have been reserved. Nothing if one of its recipient is there. */
void waiting_put(struct relay *relay, uint32_t number);
/* Nothing if it is not there. */
void waiting_remove(struct relay *relay, uint32_t number);
/* The one of this one's recipient, or NOBODY. */
uint32_t waiting_find(const struct relay *relay, uint32_t number);

/* ---- server.c: servers, sessions, jobs ---------------------------------------------------- */

/* What a warm-up leaves between two messages. */
int64_t server_guest_interval_ms(const struct server *server);
enum error servers_new(struct relay *relay, const struct relay_config *config,
                       struct server **ret_servers) MUST_CHECK;
/* All but the probe. */
void server_close_sessions(struct relay *relay, struct server *server);
struct session *session_open(struct relay *relay, struct server *server, bool probe);
void session_close(struct relay *relay, struct session *session);
void relay_session_free(struct relay *relay, struct session *session);
/* One more job for it, and one less. */
void session_add_job(struct session *session, struct job *job);
void session_remove_job(struct session *session, const struct job *job);
/* Into the pool that fits its number of jobs. */
void session_pool(struct relay *relay, struct session *session);
/* Suspect, known of nothing. */
void server_init(struct relay *relay, struct server *server, const struct server_config *config,
                 uint32_t index);
/* NULL: no such server. */
struct server *server_at(const struct relay *relay, uint32_t index);
/* By the configuration, which while it is replaced is not yet that of the servers. */
struct slice server_name(const struct relay *relay, uint32_t index);
/* Something may have changed for it: relay_settle() will look. */
void server_touch(struct relay *relay, struct server *server);
void server_arm(struct relay *relay, struct server *server);
void server_timer(struct relay *relay, struct server *server);
/* `id` 0: a new one. NULL: memory. */
struct job *job_new(struct relay *relay, uint64_t id, uint32_t count);
struct job *job_find(const struct relay *relay, uint64_t id);
/* `server down` holds until `server up`, also if the server is not configured for a while. */
void hand_remember(struct relay *relay, struct slice name);
/* It is configured: whether it was remembered, which it is no longer. */
bool hand_recall(struct relay *relay, struct slice name);
void job_free(struct relay *relay, struct job *job);

/* ---- governor.c: when a server is up ------------------------------------------------------ */

bool server_usable(const struct server *server);
/* R4, for each server of a chain from its head on until true: *found, NO_INDEX at first, is the one
 * that mail goes to. A server whose canary is out leaves the rest to the next that may have it, if
 * there is any. */
bool server_is_choice(const struct relay *relay, const struct server *server, uint32_t *found);
void governor_start(struct relay *relay, struct server *server);
/* A message was taken, so long after its dot, or < 0: unknown. */
void governor_took(struct relay *relay, struct server *server, const struct session *session,
                   int64_t latency_ms);
/* `session`: over which it was seen, or NULL. */
void governor_judge(struct relay *relay, struct server *server, const struct session *session,
                    enum verdict verdict, const struct relay_reply *reply);
void governor_opened(struct relay *relay, struct server *server, struct session *session);
void governor_deferred(struct relay *relay, struct server *server, const struct session *session,
                       uint32_t sender, uint64_t recipient);
uint32_t governor_probe_interval(struct relay *relay, const struct server *server);
void governor_probe_now(struct relay *relay, struct server *server);
void governor_doubted(struct relay *relay, struct server *server); /* relay_server_doubted() */
void governor_probe_due(struct relay *relay, struct server *server);
/* R5: it routes mail that it had from us back to us. */
void governor_loop(struct relay *relay, struct server *server);
/* Out of service by hand, or back, with no note of it; nothing if it is so already. */
void governor_hand(struct relay *relay, struct server *server, bool disabled);
void governor_write_hand(struct relay *relay, struct server *server, bool disabled);
/* What another node, or this one some time ago, has noted: unless a later one is known. */
void governor_hear_hand(struct relay *relay, struct server *server, const struct hand_note *note);
/* `to`, new, is the server of the same name that stood elsewhere: what that had to prove it must
 * prove, too, and its refusals are not believed before it is up. */
void governor_moved(struct relay *relay, struct server *to, const struct server *from);
void governor_loaded(struct relay *relay, struct server *server, const struct state_note *note);
/* Counts a value that is new. */
void variety_add(struct variety *variety, uint32_t value);
/* Sessions that may have a job at once. */
uint32_t governor_width(const struct server *server);
/* Sessions that may be opened just now. */
uint32_t governor_room(struct relay *relay, struct server *server);
/* The session was opened after the server's trouble began. */
bool governor_is_fresh(const struct server *server, const struct session *session);
/* While it recovers one job at a time goes there, over a fresh session. */
bool governor_may_send(const struct server *server);
/* Its canary may have gone or come back: others' mail is placed accordingly. */
void governor_look_at_canary(struct relay *relay, struct server *server);

/* ODMR: a call has been greeted, or its session has ended. */
void governor_called(struct relay *relay, struct server *server);
void governor_call_ended(struct relay *relay, struct server *server);

/* ---- atrn.c ------------------------------------------------------------------------------- */

/* Its client calls us (ODMR); and it does not just now, which is no trouble. */
bool server_calls(const struct server *server);
bool server_awaits_call(const struct server *server);
/* Mail of this route may go there: always, unless it is called for others. */
bool server_takes_route(const struct server *server, uint32_t route);
/* Nothing is left to send: the call's session is closed. */
void call_close_if_done(struct relay *relay, struct server *server);
void call_forget(struct server *server);

/* ---- canary.c ----------------------------------------------------------------------------- */

/* Out of the lanes in a turn list; NULL: there is none. */
struct lane *canary_choose(struct relay *relay, const struct server *server, struct link *turns,
                           uint32_t *budget, uint32_t *ret_number);
/* The recovering server is tried with mail for this recipient. */
void canary_try(struct server *server, uint64_t recipient);
/* It was, and has taken none since, as far as CANARIES_KEPT reach. */
bool canary_was_tried(const struct server *server, uint64_t recipient);
/* False: there was nothing to forget. */
bool canary_forget(struct server *server);

/* ---- dispatch.c: who goes next ------------------------------------------------------------ */

void relay_settle(struct relay *relay); /* at the end of every input */
void server_fill(struct relay *relay, struct server *server);
/* Takes the delivery from where it is into the job. False: memory; it stays where it was. */
bool job_take(struct relay *relay, struct job *job, uint32_t number);

/* ---- fate.c: what becomes of a delivery --------------------------------------------------- */

void fate_delivered(struct relay *relay, uint32_t number, const struct relay_reply *reply);
/* A drill's message whose envelope was all: nothing is left of it. */
void fate_rehearsed(struct relay *relay, uint32_t number, const struct relay_reply *reply);
/* By the retry schedule; `reply` may be NULL. */
void fate_deferred(struct relay *relay, uint32_t number, const struct relay_reply *reply,
                   struct slice reason);
void fate_doubt(struct relay *relay, uint32_t number, const struct relay_reply *reply);
/* Until the operator releases it. */
void fate_held(struct relay *relay, uint32_t number, bool by_rule, const struct relay_reply *reply,
               struct slice reason);
/* The same with flags of `delivery`; tried again by itself at `due_ms`, unless that is 0. */
void fate_hold(struct relay *relay, uint32_t number, unsigned flags, int64_t due_ms,
               const struct relay_reply *reply, struct slice reason);
/* R8: bounced or a dead letter, all of one message with the same reply. */
void fate_final(struct relay *relay, const uint32_t *numbers, uint32_t count,
                const struct relay_reply *reply);
/* A session broke on its message (R4): back to its lane, or deferred the second time. */
void fate_strike(struct relay *relay, uint32_t number, const struct relay_reply *reply);
/* The lane it belongs to when nothing pins it for a doubt; itself if memory is out. */
struct lane *lane_base(struct relay *relay, struct lane *lane);
/* Back to its lane in order. `note`: an attempt note must be taken back. */
void fate_again(struct relay *relay, uint32_t number, bool note);
/* Whether the sender is to hear from us of its delivery to a server that `tells_dsn` or not. */
bool fate_tells_success(const struct relay *relay, uint32_t number, bool tells_dsn);
/* Asks for the notice of it; all of one message with the same reply, each still to be delivered. */
void fate_notice(struct relay *relay, const uint32_t *numbers, uint32_t count,
                 const struct relay_reply *reply);
/* Asks for the notice that they are late, all of one message, and remembers it. `reply` may be
 * NULL. */
void fate_delayed(struct relay *relay, const uint32_t *numbers, uint32_t count,
                  int64_t until_wall_ms, const struct relay_reply *reply);
void fate_elsewhere(struct relay *relay, uint32_t number, enum spool_fate fate,
                    struct slice reason);
void fate_discarded(struct relay *relay, uint32_t number, const struct relay_reply *reply,
                    struct slice reason);
/* A final reply that is not the server's: its time is over (RFC 3463 X.4.7). */
extern const struct relay_reply fate_time_is_over;
/* The same for the time that its sender has set (RFC 2852). */
extern const struct relay_reply fate_by_is_over;
/* A dead letter. `reply` may be NULL. */
void fate_dead(struct relay *relay, uint32_t number, const struct relay_reply *reply,
               struct slice reason);
enum relay_bounce_bar fate_bounce_bar(const struct relay *relay, uint32_t number);
void fate_bounced(struct relay *relay, const uint32_t *numbers, uint32_t count, struct slice reason,
                  const struct relay_reply *reply);
/* Moves one in doubt, or doubted, in no place, to the lane of the server that may have it, if that
 * is still to be asked. False: memory. */
bool doubt_pin(struct relay *relay, uint32_t number);
/* A timed delivery is due. */
void delivery_due(struct relay *relay, uint32_t number);
void delivery_schedule(struct relay *relay, uint32_t number, int64_t due_ms);
uint32_t retry_delay(const struct relay *relay, const struct delivery *delivery);
/* Doubts pinned to a server that has been away too long may go elsewhere. */
void doubts_unpin(struct relay *relay, struct server *server);
/* The oldest of what it has deferred since its trouble began is due, so that it has something to be
 * tried with, and that try counts no attempt. False: there is none. */
bool deferrals_canary(struct relay *relay, struct server *server);
/* R3: what was deferred since its trouble began is due, its count restored; by it, or by one that
 * stood in for it. */
void deferrals_forgive(struct relay *relay, struct server *server);
/* Its epochs begin anew: nothing that was deferred in one of them belongs to a later trouble. */
void deferrals_forget(struct relay *relay, const struct server *server);

/* ---- odometer.c: time in which somebody could have taken it (R7) ---------------------------- */

struct odometer *odometers_new(uint32_t route_count);                   /* NULL: memory */
uint32_t odometer_reading_s(const struct relay *relay, uint32_t route); /* NO_INDEX: 0 */
bool odometer_moves(const struct relay *relay, uint32_t route);
/* The state of a server has changed, or a chain. */
void odometers_turn(struct relay *relay);
void odometers_write_due(struct relay *relay);
void odometer_load(struct relay *relay, struct slice lane, int64_t ms);
/* From the old routes to their places in a new configuration; `route_map` by old route. */
void odometers_carry(struct relay *relay, struct odometer *to, const uint32_t *route_map);
/* A message's time begins, or goes on. */
void span_accepted(struct relay *relay, struct message *message, const struct spool_message *from,
                   uint32_t route);
void span_load(struct relay *relay, struct message *message, const struct span_note *note);
/* After it was laned anew: what has elapsed goes along. `old` by old route, as carried. */
void span_remap(struct relay *relay, struct message *message, const struct odometer *old,
                const uint32_t *route_map);
/* One whose time stands goes on with its first route, if it has one. */
void span_adopt(struct relay *relay, struct message *message);
/* From the beginning, on this delivery's route. */
void span_restart(struct relay *relay, uint32_t number);
/* The delivery, still held by the operator, is let go: that time has not counted. Written down by
 * the message, so its other deliveries have it, too. */
void span_give_back(struct relay *relay, uint32_t number);
uint32_t span_elapsed_s(const struct relay *relay, const struct message *message);
/* Of those, what will be given back when its deliveries on operator hold are released. */
uint32_t span_on_hold_s(const struct relay *relay, const struct message *message);
int64_t span_age_ms(const struct message *message, int64_t wall_ms);
void span_put_note(const struct relay *relay, const struct message *message, struct buffer *buffer);
void span_write_note(struct relay *relay, uint32_t message);

/* ---- expiry.c: what is too old -------------------------------------------------------------- */

/* The wall clock is believed as far as this, now. */
void expiry_believe_clock(struct relay *relay, int64_t wall_ms);
/* Notes how far it is believed; when that is due, in steady ms. */
void expiry_note_clock(struct relay *relay);
int64_t expiry_note_due(const struct relay *relay);
void expiry_start(struct relay *relay);
/* Something may end sooner than the last round has seen, or a span note is wanted. */
void expiry_soon(struct relay *relay);
void expiry_due(struct relay *relay);
/* The message is about to go. */
void expiry_forget(struct relay *relay, uint32_t message);
/* Unix time in ms at which it ends as things are; 0: not known, or never. */
int64_t expiry_of(const struct relay *relay, uint32_t number);

/* In flight, in doubt, or held by the operator: its time may be over, but that has to wait. */
bool expiry_is_untouched(const struct relay *relay, uint32_t number);

/* ---- foresight.c: relay_foresee(), for relay_reconfigure() ------------------------------------
 */

#define UNFORESEEN (NO_INDEX - 1) /* its domain says it, or its relay, or it cannot be read */
/* Looks at all that has not been yet. False: memory. */
bool foresight_complete(struct relay *relay, const struct relay_config *config,
                        const struct relay_envelopes *envelopes) MUST_CHECK;
/* After that: its route, NO_INDEX, or UNFORESEEN. */
uint32_t foresight_route(const struct relay *relay, uint32_t number);
struct routing *foresight_routing(struct relay *relay); /* gives it away */
void foresight_drop(struct relay *relay);
/* The place in the slab has another delivery now. */
void foresight_renew(struct relay *relay, uint32_t number);
/* The message is about to go. */
void foresight_forget(struct relay *relay, uint32_t message);

/* ---- deliver_by.c: RFC 2852 ----------------------------------------------------------------- */

/* Of a message just made, its deliveries not yet. Room for a timer must have been reserved. False:
 * memory. */
bool deliver_by_insert(struct relay *relay, uint32_t index, const struct spool_message *from);
void deliver_by_forget(struct relay *relay, uint32_t message); /* nothing if it has none */
void deliver_by_done(struct relay *relay);
void deliver_by_timer_moved(struct relay *relay, uint32_t message, uint32_t place);
void deliver_by_due(struct relay *relay, uint32_t message);
/* For notes: the sender was told that it is late; the operator has given it all the time. */
bool deliver_by_is_told(const struct relay *relay, uint32_t number);
bool deliver_by_is_waived(const struct relay *relay, uint32_t number);
void deliver_by_load(struct relay *relay, uint32_t number, bool told, bool waived);
void deliver_by_waive(struct relay *relay, uint32_t number);
/* Unix ms at which it is returned; 0: not for this reason. */
int64_t deliver_by_end_ms(const struct relay *relay, uint32_t number);
/* Why it must not be handed over there; or NULL. */
const char *deliver_by_objection(const struct relay *relay, const struct server *server,
                                 const struct session *session, uint32_t number);
/* Ends it for that, with its message's others that stand in the lane. */
void deliver_by_object(struct relay *relay, uint32_t number, const char *objection);
/* Whether the sender is to hear that it was relayed there. */
bool deliver_by_tells(const struct relay *relay, uint32_t number, const struct server *server,
                      bool takes_deliver_by);

/* ---- action.c: what comes out ------------------------------------------------------------- */

/* The new action, zeroed, with server, from_server and handle empty. */
struct relay_action *action_add(struct relay *relay, enum relay_action_kind kind);
struct relay_action *action_event(struct relay *relay, enum relay_event_kind event);
struct relay_action *action_delivery_event(struct relay *relay, enum relay_event_kind event,
                                           uint32_t number);
/* Bytes that live as long as the action. */
struct slice action_copy(struct relay *relay, struct slice bytes);
void action_set_reply(struct relay *relay, struct relay_action *action,
                      const struct relay_reply *reply);
void action_note(struct relay *relay, uint32_t number, uint16_t kind, struct slice text);
void action_state_note(struct relay *relay, uint32_t number); /* the kind that fits its state */
void note_put_delivery(const struct relay *relay, uint32_t number, uint16_t kind, struct slice text,
                       struct buffer *buffer);
uint32_t *action_numbers(struct relay *relay, uint32_t count);
/* What has been put into relay->scratch, under a key of the server's. */
void action_server_note(struct relay *relay, const struct server *server,
                        enum global_note_kind kind);

/* ---- part.c: what is another node's ---------------------------------------------------------- */

/* Out of wherever it is, with nothing told: it has a fate, or is another's now. The job that it is
 * on keeps its number. */
void delivery_withdraw(struct relay *relay, uint32_t number, bool is_left);
/* It was withdrawn, and only its job still names it. */
bool delivery_is_withdrawn(const struct relay *relay, uint32_t number);
/* What its job has come to: a fact, if it was left and has been handed over. Its number is free. */
void withdrawn_settle(struct relay *relay, const struct job *job, uint32_t number, bool delivered,
                      const struct relay_reply *reply);

/* ---- load.c ------------------------------------------------------------------------------- */

/* What was noted of a server, with nothing told. */
void server_load_note(struct relay *relay, struct server *server, enum global_note_kind kind,
                      struct slice payload);
/* R2: what was loaded with an attempt and no result is in doubt; all of it, or what has come while
 * we run. */
void attempts_doubt_all(struct relay *relay);
void attempts_doubt_loaded(struct relay *relay);
/* To another place, or with an empty text back to its route. ERROR_INVALID: no such place.
 * The delivery is in no place and blocks nobody. */
enum error redirect_apply(struct relay *relay, uint32_t number, struct slice to) MUST_CHECK;
/* Otherwise than by ERROR_INVALID, wherever the delivery is. */
bool redirect_is_possible(const struct relay *relay, uint32_t number, struct slice to);

/* ---- relay.c ------------------------------------------------------------------------------ */

/* Somebody else may have older mail to bring: relay_older_due(). */
bool delivery_waits_for_older(const struct relay *relay, uint32_t number);

uint64_t relay_random(struct relay *relay);
uint32_t route_of_recipient(const struct relay *relay, const struct spool_message *message,
                            uint32_t which);
uint64_t recipient_hash(const struct relay *relay, struct slice address);
void relay_begin(struct relay *relay, struct relay_time now);
#endif
