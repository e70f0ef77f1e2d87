/* SPDX-License-Identifier: Apache-2.0
 *
 * The people around the program under simulation: clients that send numbered messages and note
 * every 250, servers that take them and misbehave by the dice, and the ledger in which both write
 * what happened. The ledger is the judge: every 250 reaches exactly one fate, in order.
 */
#ifndef HOLDFAST_TESTS_ACTORS_H
#define HOLDFAST_TESTS_ACTORS_H

#include "base/network.h"
#include "sys/loop.h"

enum { LEDGER_RECIPIENTS = 64, LEDGER_MESSAGES = 4000, LEDGER_RECIPIENTS_PER_MESSAGE = 3 };

/* One message for one recipient, as the outside saw it. */
struct ledger_entry {
    uint32_t recipient;
    uint32_t delivered; /* 2xx to the dot, whether or not the reply arrived */
    uint32_t doubts;    /* of those: the reply was cut off */
    uint32_t refused;   /* 5xx that reached the sender */
    bool disturbed;     /* deferred, refused, cut or doubted at some time: may be out of order */
};

struct ledger_message {
    bool acknowledged; /* 250 seen */
    bool refused;  /* 4xx or 5xx seen: must not be delivered as if promised, but may not count */
    uint64_t hash; /* of the content as it must arrive, behind our Received field */
    uint32_t count;
    struct ledger_entry entries[LEDGER_RECIPIENTS_PER_MESSAGE];
};

struct ledger {
    struct ledger_message messages[LEDGER_MESSAGES];
    uint32_t issued;
    uint32_t acknowledged;
    uint32_t allowance;                         /* duplicates that kills of ours excuse */
    uint32_t last_delivered[LEDGER_RECIPIENTS]; /* newest number that arrived undisturbed */
    bool tell;       /* every event on stdout, to understand a seed that fails */
    uint32_t faults; /* contradictions found on the way; each has been printed */
};

/* What a server does, in per mille of the occasions. */
struct server_mood {
    bool silent; /* connects, never greets */
    unsigned greet_4xx;
    unsigned hello_cut, hello_421; /* closes behind a good EHLO reply, without or with a word */
    unsigned recipient_4xx, recipient_5xx;
    unsigned dot_4xx, dot_5xx;
    unsigned cut_before_dot; /* connection lost within the content */
    unsigned cut_after_dot;  /* taken, but the reply is lost */
    unsigned slow;           /* a reply takes seconds */
};

struct sim_server;
struct sim_server *sim_server_new(struct loop *loop, const char *name, const struct ip_endpoint *at,
                                  struct ledger *ledger);
void sim_server_set_mood(struct sim_server *server, const struct server_mood *mood);
uint32_t sim_server_taken(const struct sim_server *server);
uint32_t sim_server_visits(const struct sim_server *server);

struct sim_client;
/* Sends to its own `count` recipients, numbered from `first`, until sim_client_stop(). */
struct sim_client *sim_client_new(struct loop *loop, const struct ip_endpoint *to,
                                  struct ledger *ledger, uint32_t first, uint32_t count);
void sim_client_stop(struct sim_client *client);
bool sim_client_idle(const struct sim_client *client);

/* Writes the address of recipient `number`: "rN@example.test" (held for a domain). */
void ledger_address(uint32_t number, char ret_text[64]);
/* One line with the time, if the ledger tells. */
void ledger_tell(const struct ledger *ledger, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* What is under way to this recipient may lose its turn: the two oldest messages that have not
 * arrived and were undisturbed (one in flight, one pipelined behind it). */
void ledger_disturb(struct ledger *ledger, uint32_t recipient);
void ledger_disturb_all(struct ledger *ledger);
/* Reports on stdout; the number of broken promises. */
uint32_t ledger_judge(struct ledger *ledger);

#endif
