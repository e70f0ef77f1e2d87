/* SPDX-License-Identifier: Apache-2.0
 *
 * What relay writes into the journal beside messages and fates, and reads back after a restart.
 * Integers are little-endian, strings have a u32 length in front (base/buffer.h).
 *
 * Notes about a delivery, kinds of enum relay_note_kind, all with one payload:
 *
 *   offset  size  field
 *   0       1     version, 1
 *   1       8     when: Unix time in ms
 *   9       8     next: Unix time in ms of the next attempt, 0 if none is set
 *   17      8     patience: Unix time in ms until which later mail of the recipient is kept back
 *                 for it (R6), 0 if it is not
 *   25      2     attempts counted so far
 *   27      1     strikes: sessions that broke on this delivery's message (R4)
 *   28      1     doubts: dots without a reply (R2)
 *   29      1     flags: 1 held by rule (not by the operator), 2 patience has run (R6),
 *                 4 a refusal was held and is tried once more (R5), 8 the sender need not be told
 *                 any more that it is late, 16 deferred or held by a server that may have it (R2),
 *                 32 the sender need not be told that the time that he set is over (RFC 2852), 64
 *                 that does not count any more
 *   30      8     job, of an attempt; else 0
 *   38      4+n   server: name, at most 255 bytes, may be empty
 *   42+n    4+m   text: reason, or the place of a redirect; at most 1024 bytes
 *   46+n+m  4     of a hold: what the odometer of its route read then, in seconds; absent: 0
 *
 * The last note of a delivery tells its state; redirect alone stands beside it. Of a hold and of a
 * dead letter `when` is its beginning. What follows the known fields is ignored, so a later version
 * may append; another version number is refused.
 *
 * NOTE_SPAN is about a whole message (SPOOL_ALL_DELIVERIES), and stands beside all of these: what
 * has become of its time (R7) since its acceptance.
 *
 *   0       1     version, 1
 *   1       4     seconds that had elapsed on the odometer
 *   5       4     what that read then, in seconds
 *   9       4     seconds of the wall clock, since reception, that do not count
 *   13      4+n   whose odometer: a lane's name, at most 300 bytes; empty: nobody's, it stands
 * still
 *
 * Notes about no message, by key:
 *
 *   server/NAME/hand          u8 2, 8 octets, the highest first: when (Unix ms), u8 1: taken out of
 *                             service by the operator, 0: brought back; so the later of two is the
 *                             greater. Older ones: u8 1, u8 1: out; empty: back
 *   server/NAME/state         u8 version, u8 enum server_state, u64 since (Unix ms), string reason,
 *                             u8 1: up after trouble (R5), u8 what it has to prove (governor.c): 0
 *                             nothing, or not known, 1 that it can be connected, 2 that it greets,
 *                             3 that it takes mail; the last two are absent in older notes
 *   server/NAME/capabilities  u8 version, u32 flags, u64 size limit, u32 recipients, u32 mails,
 *                             u32 seconds, the least time of delivery (RFC 2852); absent: 0
 *   exchanger/HOST/hand, ...  the first two, of a host that MX routing has named for a domain block
 *   mx/DOMAIN                 u8 version, u8 count, then for each of the exchangers that were last
 *                             found for a name of a domain block: u16 preference, string host, u8
 *                             count, that many addresses of 16 bytes (R3)
 *   odometer/LANE             u8 version, u64 ms in which its chain could take mail (R7); LANE as
 *                             in "domain:example.com"
 *   freeze/ROUTE              u8 version, u64 began, u64 until (both Unix ms): a drill keeps the
 *                             lane ROUTE ("domain:NAME") from handing over; empty: it has ended
 *   switched/LANE             u8 version, string name of the server to which its mail has gone
 *                             since the last switch (R4), empty: to the head of its chain; u64
 *                             since when (Unix ms), absent in older notes
 *   clock                     u8 version, u64 Unix ms: until when expiry.c believed the wall clock
 */
#ifndef HOLDFAST_RELAY_NOTES_H
#define HOLDFAST_RELAY_NOTES_H

#include "base/buffer.h"
#include "relay/relay.h"

enum relay_note_kind {
    NOTE_ATTEMPT = 1, /* a dot is about to be sent; without a later note or fate: in doubt */
    NOTE_WAITING = 2, /* an attempt came to nothing, or the operator released it: it waits */
    NOTE_DEFER = 3,
    NOTE_DOUBT = 4,
    NOTE_HOLD = 5,
    NOTE_DEAD = 6,
    NOTE_REDIRECT = 7,
    NOTE_SPAN = 8,
};

enum {
    NOTE_VERSION = 1,
    NOTE_TEXT_MAX = 1024,
    NOTE_NAME_MAX = 255,
    NOTE_LANE_MAX = 300,
    NOTE_PAYLOAD_MAX = 52 + NOTE_NAME_MAX + NOTE_TEXT_MAX,
};

enum {
    NOTE_BY_RULE = 1,
    NOTE_PATIENCE_RUN = 2,
    NOTE_REFUSED_ONCE = 4,
    NOTE_DELAY_TOLD = 8,
    NOTE_DOUBTED = 16,
    NOTE_BY_TOLD = 32,
    NOTE_BY_WAIVED = 64
};

struct delivery_note {
    int64_t when_ms;
    int64_t next_ms;
    int64_t patience_ms;
    uint16_t attempts;
    uint8_t strikes;
    uint8_t doubts;
    uint8_t flags;
    uint64_t job;
    struct slice server;
    struct slice text;
    uint32_t odometer_s;
};

struct span_note {
    uint32_t elapsed_s;
    uint32_t reading_s;
    uint32_t credit_s;
    struct slice lane;
};

/* The kind that tells this state to the next life; NOTE_WAITING for those that need no telling. */
enum relay_note_kind note_kind_of_state(enum delivery_state state);
/* Too long strings are cut. The result is at most NOTE_PAYLOAD_MAX bytes. */
void note_encode(struct buffer *buffer, const struct delivery_note *note);
/* Slices point into the payload. False: another version or malformed. */
bool note_decode(struct slice payload, struct delivery_note *ret_note);
void note_encode_span(struct buffer *buffer, const struct span_note *note);
bool note_decode_span(struct slice payload, struct span_note *ret_note);

enum global_note_kind { GLOBAL_HAND, GLOBAL_STATE, GLOBAL_CAPABILITIES };

struct state_note {
    enum server_state state;
    int64_t since_ms;
    struct slice reason;
    bool recovered;
    uint8_t trouble; /* 0: none, or not known */
};

enum note_owner { NOTE_OF_SERVER, NOTE_OF_EXCHANGER };
struct note_key {
    enum note_owner owner;
    struct slice name;
    enum global_note_kind kind;
};

/* In a cluster: what holds for all of it, as one or by the largest (odometers), and what one node
 * has seen or does, with every key that is not relay's. */
enum note_scope { NOTE_OF_NODE, NOTE_OF_CLUSTER };
enum note_scope note_scope(struct slice key);

/* "server/NAME/...", "exchanger/HOST/...". False: the name is too long for a key; nothing is
 * remembered then. */
bool note_key(struct buffer *buffer, const struct note_key *key);
/* Takes a key apart. False: not one of ours. */
bool note_key_parse(struct slice text, struct note_key *ret_key);
/* The same for "odometer/LANE". */
bool note_odometer_key(struct buffer *buffer, struct slice lane);
bool note_odometer_key_parse(struct slice key, struct slice *ret_lane);
void note_encode_odometer(struct buffer *buffer, int64_t ms);
bool note_decode_odometer(struct slice payload, int64_t *ret_ms);
/* The same for "mx/DOMAIN". */
bool note_mx_key(struct buffer *buffer, struct slice domain);
bool note_mx_key_parse(struct slice key, struct slice *ret_domain);
/* Those that do not fit, the last ones, are left out. */
void note_encode_mx(struct buffer *buffer, const struct mx_decision *decision);
/* Hosts point into the payload; the verdict is MX_FOUND. False: another version or malformed. */
bool note_decode_mx(struct slice payload, struct mx_decision *ret_decision);
/* The same for "switched/LANE". */
bool note_switched_key(struct buffer *buffer, struct slice lane);
bool note_switched_key_parse(struct slice key, struct slice *ret_lane);
void note_encode_switched(struct buffer *buffer, struct slice server, int64_t since_ms);
/* `ret_since_ms`: 0 in an older note. */
bool note_decode_switched(struct slice payload, struct slice *ret_server, int64_t *ret_since_ms);
#define NOTE_CLOCK_KEY SLICE_LITERAL("clock")
void note_encode_clock(struct buffer *buffer, int64_t wall_ms);
bool note_decode_clock(struct slice payload, int64_t *ret_wall_ms);
struct hand_note {
    int64_t when_ms; /* 0: an older note */
    bool disabled;
};
void note_encode_hand(struct buffer *buffer, const struct hand_note *note);
void note_encode_state(struct buffer *buffer, const struct state_note *note);
void note_encode_capabilities(struct buffer *buffer, const struct relay_capabilities *capabilities);
bool note_decode_hand(struct slice payload, struct hand_note *ret_note);
bool note_decode_state(struct slice payload, struct state_note *ret_note);
bool note_decode_capabilities(struct slice payload, struct relay_capabilities *ret_capabilities);

/* "freeze/ROUTE", likewise. */
bool note_freeze_key(struct buffer *buffer, struct slice route);
bool note_freeze_key_parse(struct slice key, struct slice *ret_route);
void note_encode_freeze(struct buffer *buffer, int64_t began_ms, int64_t until_ms);
bool note_decode_freeze(struct slice payload, int64_t *ret_began_ms, int64_t *ret_until_ms);

#endif
