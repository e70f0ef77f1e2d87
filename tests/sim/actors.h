/* SPDX-License-Identifier: Apache-2.0
 *
 * The people around the program under simulation: clients that send numbered messages and note
 * every 250, servers that take them and misbehave by the dice, and the ledger in which both write
 * what happened. The ledger is the judge: every 250 reaches exactly one fate, in order.
 */
#ifndef HOLDFAST_TESTS_ACTORS_H
#define HOLDFAST_TESTS_ACTORS_H

#include "base/network.h"
#include "base/slice.h"
#include "sys/loop.h"

enum {
    LEDGER_RECIPIENTS = 64,
    LEDGER_MESSAGES = 8000,
    LEDGER_RECIPIENTS_PER_MESSAGE = 3,
    LEDGER_NOTICES = 8000,
    LEDGER_NOBODY = UINT32_MAX,
};

/* One message for one recipient, as the outside saw it. */
struct ledger_entry {
    uint32_t recipient;
    uint32_t delivered;  /* 2xx to the dot, whether or not the reply arrived */
    uint32_t doubts;     /* of those: the reply was cut off */
    uint32_t refused;    /* 5xx that was said about it */
    uint32_t bounced;    /* notices to its sender that it failed */
    uint32_t told;       /* and that it is late, or where nobody promises a time */
    bool disturbed;      /* deferred, refused, cut or doubted at some time: may be out of order */
    int64_t arrived_ns;  /* undisturbed; 0: not so */
    int64_t passable_ns; /* put off for our own want of memory: later ones may pass from then on */
};

/* Whose mail a message is. */
struct ledger_origin {
    bool has_address, has_port, has_protocol;
    struct ip_endpoint client;
    bool is_extended; /* ESMTP */
    char helo[32];    /* empty: not known */
    char login[32];   /* empty: none */
};

enum telling { TOLD_BY_XCLIENT, TOLD_BY_XFORWARD, TOLD_BY_PROXY, TELLINGS };

struct ledger_message {
    struct ledger_origin origin;
    bool acknowledged; /* 250 seen */
    bool verified;     /* its sender may be told of a refusal: a relay client, an address */
    int8_t priority;   /* MT-PRIORITY; 0: not asked for */
    char by_mode;      /* BY: 'R', 'N'; 0: not asked for */
    bool refused;  /* 4xx or 5xx seen: must not be delivered as if promised, but may not count */
    uint64_t hash; /* of the content as it must arrive, behind our Received field */
    uint32_t count;
    struct ledger_entry entries[LEDGER_RECIPIENTS_PER_MESSAGE];
};

/* A delivery status notification as servers saw it; known again by its Message-ID. */
struct ledger_notice {
    uint64_t id;
    uint32_t number; /* of the message that it is about */
    uint32_t delivered, doubts, refused;
};

struct ledger {
    struct ledger_message messages[LEDGER_MESSAGES];
    struct ledger_notice notices[LEDGER_NOTICES];
    uint32_t issued;
    uint32_t notice_count;
    uint32_t acknowledged;
    uint32_t allowance;                         /* duplicates that kills of ours excuse */
    uint32_t last_delivered[LEDGER_RECIPIENTS]; /* newest number that arrived undisturbed */
    bool patient;                               /* clients set no time of delivery */
    bool headless;           /* memory is out: a notice may come without the original's header */
    bool brought;            /* clients come by others, too, who say whose mail it is */
    bool telling;            /* each server that asks whose mail it is must be told */
    uint32_t told[TELLINGS]; /* messages that arrived with their origin, and each way to tell it */
    bool tell;               /* every event on stdout, to understand a seed that fails */
    uint32_t faults;         /* contradictions found on the way; each has been printed */
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
    /* Of who says whose mail it is. */
    unsigned offers_xclient, offers_xforward; /* at each EHLO */
    unsigned offers_all;                      /* of their attributes, not some */
    unsigned xclient_refused, xforward_refused;
    unsigned client_4xx, client_5xx, client_421, client_cut; /* the one that XCLIENT names */
};

struct sim_server;
/* `at` NULL: nobody connects to it, it is given connections. */
struct sim_server *sim_server_new(struct loop *loop, const char *name, const struct ip_endpoint *at,
                                  bool lmtp, struct ledger *ledger);
void sim_server_set_mood(struct sim_server *server, const struct server_mood *mood);
/* Plays the server on a connection, which becomes its. */
void sim_server_visit(struct sim_server *server, int fd);
uint32_t sim_server_taken(const struct sim_server *server);
uint32_t sim_server_visits(const struct sim_server *server);
/* Envelopes for a postmaster that it was asked about: those of a fire drill, which ends there. */
uint32_t sim_server_drills(const struct sim_server *server);

/* A site that calls for its mail (RFC 2645) now and then, whether it is being served or not. What
 * it is sent `server` takes, which belongs to nobody else. */
struct sim_site;
struct sim_site *sim_site_new(struct loop *loop, const struct ip_endpoint *to, const char *name,
                              const char *password, struct sim_server *server);
/* Calls that were turned round. */
uint32_t sim_site_turns(const struct sim_site *site);

struct sim_client;
/* Sends to its own `count` recipients, numbered from `first`, until sim_client_stop(). With a
 * `source` it is a relay client, at that address. */
struct sim_client *sim_client_new(struct loop *loop, const struct ip_endpoint *to,
                                  const struct ip_address *source, struct ledger *ledger,
                                  uint32_t first, uint32_t count);
void sim_client_stop(struct sim_client *client);
bool sim_client_idle(const struct sim_client *client);

/* Writes the address of recipient `number`: "rN@" and the domain that it is in. By its number:
 * 0..31 example.test, 32..39 lmtp.test, 40..47 elsewhere.test, 48..55 each of these in turn, 56..63
 * lmtp.test. Only relay clients write to those from 40 on. */
void ledger_address(uint32_t number, char ret_text[64]);
/* The sender of message `number`, "sN@client.test": where a notice about it goes. */
void ledger_sender(uint32_t number, char ret_text[64]);
/* This client is refused: each of its messages may count as that. */
void ledger_refuse_client(struct ledger *ledger, const struct ip_endpoint *client);
/* What the outside saw of message `number` for a recipient; NULL: it was not sent to him. */
struct ledger_entry *ledger_find(struct ledger *ledger, uint32_t number, uint32_t recipient);
/* Prints a contradiction and counts it. */
void ledger_fault(struct ledger *ledger, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A notice about message `number` is at a server: the ledger's entry for it, newly made if it is
 * seen for the first time; whatever is wrong with it is a fault. NULL: it is none. */
struct ledger_notice *ledger_take_notice(struct ledger *ledger, uint32_t number,
                                         struct slice content);
/* One line with the time, if the ledger tells. */
void ledger_tell(const struct ledger *ledger, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* What is under way to this recipient may lose its turn: the two oldest messages that have not
 * arrived and were undisturbed (one in flight, one pipelined behind it). */
void ledger_disturb(struct ledger *ledger, uint32_t recipient);
void ledger_disturb_all(struct ledger *ledger);
/* The operator holds all that there is for this recipient: what comes later passes it (R6). */
void ledger_hold(struct ledger *ledger, uint32_t recipient);
/* The program itself puts off message `number` for the recipient at `index` of its envelope,
 * without any server's doing: that moves nothing, but its patience (R6) begins, and once over,
 * later ones may pass. It runs once, in whole milliseconds of the clock: a second time changes
 * nothing. */
void ledger_put_off(struct ledger *ledger, uint32_t number, uint32_t index, int64_t patience_ms);
/* Message `number` has been taken, by a reply that can arrive: a fault if a later one has passed it
 * that may not. */
void ledger_check_order(struct ledger *ledger, struct ledger_entry *entry, uint32_t number);
/* Each acknowledged delivery has arrived, or its sender has been told. */
bool ledger_is_settled(const struct ledger *ledger);
/* Reports on stdout; the number of broken promises. */
uint32_t ledger_judge(struct ledger *ledger);

#endif
