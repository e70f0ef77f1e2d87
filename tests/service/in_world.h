/* SPDX-License-Identifier: Apache-2.0
 *
 * A world for the incoming door: one loop, a core that is a few lines of test, clients. It runs on
 * the simulated net and clock (in_world_sim.c) or on the real ones (in_world_real.c).
 */
#ifndef HOLDFAST_TESTS_IN_WORLD_H
#define HOLDFAST_TESTS_IN_WORLD_H

#include "base/arena.h"
#include "relay/atrn.h"
#include "relay/etrn.h"
#include "service/channel.h"
#include "service/smtp_in.h"

enum { WORLD_TOKENS = 64 };

/* What core was given last. */
struct world_mail {
    struct arena arena;
    struct spool_message message;
    struct buffer content;
};

struct world {
    struct loop *loop;
    struct smtp_in_shared *shared;
    struct smtp_in *in;
    struct ring *edge; /* the door's side */
    struct ring *core;
    struct counters counters;
    int listener;
    uint16_t port;

    /* Configuration; world_start() takes it. */
    struct service_config config;
    struct listener_config listeners[1];
    struct server_config servers[2];
    struct server_address addresses[2];
    struct route_config routes[3];
    struct domain_pattern domains[2];
    struct ip_network from[1];
    uint32_t chains[2];
    uint32_t ring_bytes;

    /* How core behaves. */
    bool is_running; /* in the loop */
    bool is_working; /* inside core: what happens now is not the door's doing */
    enum error store_error;
    bool holds_answers; /* commits are noted, not answered */
    bool is_deaf;       /* reads nothing */
    bool is_loading;    /* does not know what was stored */
    enum relay_etrn_outcome etrn_outcome;
    enum relay_atrn_outcome atrn_outcome;

    /* What it has seen. */
    struct buffer streams[WORLD_TOKENS];
    uint64_t stream_tokens[WORLD_TOKENS];
    uint64_t unanswered[WORLD_TOKENS];
    uint32_t unanswered_count;
    uint32_t appends, commits, aborts, contacts, etrns, atrns, refusals;
    uint64_t etrn_token;    /* of the last ETRN or ATRN */
    char atrn_request[256]; /* "user: domain domain" */
    size_t largest_frame;
    struct world_mail mail;
};

struct client {
    struct world *world;
    int fd;
    bool closed;
    struct buffer heard;
};

/* Fills in the configuration: hostname mx.example.net, domains example.com (server 0) and
 * example.org (server 1), a relay for 192.0.2.0/24, postmaster ann@example.com. */
void world_init(struct world *world);
/* Makes the door; with a ring unless ring_bytes is 0. False: memory. */
bool world_start(struct world *world);
void world_end(struct world *world);
/* A new ring to a new core; what the old one was told is forgotten. */
bool world_new_core(struct world *world);
void world_core_gone(struct world *world);
void world_tell_route(struct world *world, uint32_t generation, uint32_t route, enum error error,
                      bool known, uint32_t flags, uint64_t size_limit);
void world_tell_accepting(struct world *world, enum error error);
void world_answer_etrn(struct world *world); /* the last one */
void world_answer_atrn(struct world *world); /* likewise; session 7 */
void world_answer_all(struct world *world, enum error error);
void world_hear(struct world *world); /* core reads what waits */
/* Lets things happen until nothing more does. */
void world_settle(struct world *world);

/* `address` NULL: loopback. */
struct client *client_new(struct world *world, const char *address);
void client_free(struct client *client); /* closes the connection */
void client_send(struct client *client, struct slice bytes);
void client_say(struct client *client, const char *line);
/* The next reply line, without CRLF; "" when there is none. Valid until the next call. */
const char *client_hear(struct client *client);
/* Says the line (if any) and takes one whole reply; true if its last line begins with `code`. */
bool client_talk(struct client *client, const char *line, const char *code);
/* EHLO, MAIL, RCPT: true if all is accepted. */
bool client_envelope(struct client *client, const char *recipient);

/* Given by in_world_sim.c or in_world_real.c. */
void backend_begin(void);
void backend_end(void);
void backend_run(struct world *world, int64_t ms);

#endif
