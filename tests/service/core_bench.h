/* SPDX-License-Identifier: Apache-2.0
 *
 * A core under test in one process: real loop, rings and relay; the spool in memory or on a
 * directory whose disk can be made to fail; both edges played here.
 */
#ifndef HOLDFAST_TESTS_CORE_BENCH_H
#define HOLDFAST_TESTS_CORE_BENCH_H

#include "service/channel.h"
#include "service/control_frame.h"
#include "service/core_internal.h"

enum { BENCH_MAX = 4096 };

/* What the disk of the spool does while it is set. */
enum bench_fault {
    BENCH_GOOD,
    BENCH_NO_WRITE,    /* EIO */
    BENCH_NO_SYNC,     /* EIO */
    BENCH_SHORT_WRITE, /* half of it, then ENOSPC */
    BENCH_READ_ONLY,   /* EROFS for all that changes anything */
};

struct bench {
    char path[64]; /* events/ and spool/ below it */
    struct loop *loop;
    struct service_config config;
    struct server_config servers[2]; /* m1, m2 */
    struct server_address addresses[2];
    struct route_config routes[2]; /* domain example.com to m1; relay out to m2 */
    struct counters counters;
    struct spool_memory_store *store; /* NULL: a log on a directory */
    const struct lease_page *lease;   /* NULL: none */
    _Atomic bool failing;             /* the directory's disk: writes and syncs fail */
    _Atomic bool unreadable;          /* and reads */
    _Atomic enum bench_fault fault;   /* the same in other ways */
    struct core *core;

    struct ring *in;
    uint32_t stored; /* CHANNEL_STORED seen */
    enum error stored_error[BENCH_MAX];
    enum error accepting;
    bool knows;     /* what was stored, as it has said last */
    uint32_t etrns; /* CHANNEL_ETRN_DONE seen, and what the last one said */
    uint64_t etrn_token;
    uint8_t etrn_outcome;
    uint64_t etrn_messages;
    uint32_t recipients_told; /* CHANNEL_RECIPIENT_DONE seen, and what the last one said */
    uint64_t recipient_token;
    uint8_t recipient_answer;
    size_t recipient_bytes; /* of the frame */
    uint32_t callouts;      /* CHANNEL_CALLOUT seen */
    uint32_t routes_told;
    uint32_t routes_generation;

    struct ring *out;
    bool connects; /* sessions open at once; else they fail */
    bool readies;  /* jobs ask for GO at once */
    bool answers;  /* GO is followed by a result at once */
    enum relay_verdict verdict;
    enum relay_stage stage; /* of results; the dot */
    uint16_t code;
    uint32_t opened, delivered, gone, durable, closed; /* frames seen */
    uint32_t session;                                  /* of the last CHANNEL_DELIVER */
    uint64_t job;
    uint64_t first_job; /* of the first one since the start */
    struct message_id first_message;
    uint32_t connected_keys[16]; /* of servers, as asked for; the last ones are not kept */
    uint32_t connected;
    struct message_id message; /* set by the test: goes into results */
    uint32_t deliveries[BENCH_MAX];
    uint32_t delivery_count;
    char redirect[200];
    uint32_t names_told;
    char name_told[200];               /* the last: host and number of addresses */
    uint8_t notify;                    /* of recipients of what is sent */
    uint32_t flags;                    /* of what is sent, beside its own */
    struct message_id sent[BENCH_MAX]; /* by the number that bench_send() gave */
    uint32_t sent_count;

    int control;
    struct control_reader reader;
    json_t *rows;      /* of the last request */
    uint32_t progress; /* frames of it, and the last one's numbers */
    json_int_t progress_done, progress_all;
    int exit;
    char error[200];
    bool ended;
};

int bench_set_up_memory(void **state);
int bench_set_up_disk(void **state);
int bench_tear_down(void **state);

/* Opens core on what is stored; edge-out attaches as `fresh` or not by bench_attach_out(). */
void bench_open(struct bench *bench);
void bench_close(struct bench *bench); /* orderly */
void bench_attach_in(struct bench *bench);
void bench_attach_out(struct bench *bench, bool fresh, bool resumed);
void bench_resumed(struct bench *bench, bool fresh);
/* Runs the loop until *counter is at least `least`; fails after ten seconds. */
void bench_until(struct bench *bench, const uint32_t *counter, uint32_t least);
void bench_run_ms(struct bench *bench, int64_t ms);
/* Runs it until the servers are up, so that their refusals are believed. */
void bench_until_up(struct bench *bench);
/* Sends a message to the domain (or as a relay client) with `recipients` recipients. */
uint32_t bench_send(struct bench *bench, uint32_t recipients, bool as_relay_client);
void bench_send_frame(struct bench *bench, struct ring *ring, const struct buffer *frame);
/* One recipient, rNUMBER@example.com. */
uint32_t bench_send_to(struct bench *bench, uint32_t number);
/* Asks GO for the last job. */
void bench_ready(struct bench *bench);
void bench_result_of_first(struct bench *bench, enum relay_verdict verdict, uint16_t code);
/* Says the result of the last job. */
void bench_result(struct bench *bench, enum relay_verdict verdict, uint16_t code);
/* A request and all its answers: rows, exit, error. `arguments` is JSON with ' for ". */
int bench_ask(struct bench *bench, const char *command, const char *arguments);
const char *bench_id(struct bench *bench, uint32_t number); /* text of sent[number], static */

#endif
