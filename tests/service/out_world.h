/* SPDX-License-Identifier: Apache-2.0
 *
 * The surroundings of the outgoing door in one process: a core that does as the test says and notes
 * what it hears, stored messages in memory, and mail servers that misbehave by a script.
 */
#ifndef HOLDFAST_TESTS_OUT_WORLD_H
#define HOLDFAST_TESTS_OUT_WORLD_H

#include "base/buffer.h"
#include "service/channel.h"
#include "service/smtp_out.h"

/* ---- servers ---- */

enum { VISITS_MAX = 400 };

/* What a server answers. NULL: nothing, ever. "": the connection is cut. */
struct server_script {
    const char *greeting, *hello, *mail, *recipient, *data, *dot;
    const char *second_recipient; /* the reply to all RCPT but the first; NULL: as the first */
    uint32_t dots;                /* of a connection, after which `dot` turns into `last_dot` */
    const char *last_dot;
    bool lmtp;        /* a reply to the dot per accepted recipient */
    bool flood;       /* a greeting without end */
    size_t reads;     /* bytes read at a time; 0: as many as there are */
    int64_t pause_ms; /* after each read */
    bool stalls;      /* reads nothing behind DATA */
};

struct server; /* listens at an endpoint */
struct server *server_new(struct loop *loop, const char *address, uint16_t port,
                          const struct server_script *script);
void server_free(struct server *server);
uint16_t server_port(const struct server *server); /* when it was given as 0 */
void server_set(struct server *server, const struct server_script *script);
/* A line now, whatever the script says; it may be the late answer where there was none. */
void server_say(struct server *server, uint32_t visit, const char *text);
/* Everything that the visit-th connection has sent. */
struct slice server_heard(const struct server *server, uint32_t visit);
uint32_t server_visits(const struct server *server);
/* Contents taken with a 2xx, in order, each followed by "|". */
struct slice server_taken(const struct server *server);

/* ---- stored messages (out_store.c); a ticket is a number as one byte ---- */

struct stored_message {
    const char *sender;
    const char *recipients[8]; /* NULL at the end */
    struct slice content;
    uint32_t flags;
    uint64_t damaged_at; /* reading this byte fails; 0: none */
    enum error error;    /* with which reading fails; ERROR_NONE: ERROR_CORRUPT */
    bool missing;        /* cannot be opened */
};
void store_put(uint8_t ticket, const struct stored_message *message);
void store_clear(void);
int store_open_count(void); /* messages now open: must be 0 in the end */

/* ---- the core ---- */

struct fake_core {
    struct loop *loop;
    struct ring *ring;
    bool go, durable, close; /* answers READY with GO, RESULT with DURABLE and CLOSE, at once */
    struct buffer heard;     /* a line per frame */
    uint32_t results;
    /* Told of each frame after that; may be NULL. */
    void (*also)(struct fake_core *core, enum channel_frame type, uint32_t session);
};
void core_attach(struct fake_core *core, struct loop *loop, struct ring *ring);
void core_done(struct fake_core *core);
/* Whether these words are among what was heard. */
bool core_heard(const struct fake_core *core, const char *words);
/* The same with a ticket of the spool. */
void core_deliver_ticket(struct fake_core *core, uint32_t session, uint64_t job,
                         struct slice ticket, const char *redirect, uint32_t count);
void core_tell_name(struct fake_core *core, const char *host, const char *address);
/* Heard then: "mx DOMAIN ERROR implicit TTL; PREFERENCE HOST ERROR ADDRESS ...; ...", where errors
 * are numbers of base/error.h. */
void core_resolve(struct fake_core *core, const char *domain);
void core_connect(struct fake_core *core, uint32_t session, uint32_t server);
void core_probe(struct fake_core *core, uint32_t session, uint32_t server,
                uint32_t knock_interval_ms);
void core_deliver(struct fake_core *core, uint32_t session, uint64_t job, uint8_t ticket,
                  const char *redirect, uint32_t count);
void core_say(struct fake_core *core, enum channel_frame type, uint32_t session, uint64_t job);

#endif
