/* SPDX-License-Identifier: Apache-2.0
 *
 * What a reply, a loss or a silence means: R4's table as data, one row a rule, first match wins.
 * Knows no lane and no server, only what was said where.
 */
#ifndef HOLDFAST_RELAY_OUTCOME_H
#define HOLDFAST_RELAY_OUTCOME_H

#include "relay/relay.h"

/* What becomes of the delivery. */
enum outcome {
    OUTCOME_DELIVERED,
    OUTCOME_DEFERRED,  /* by the retry schedule, an attempt counted */
    OUTCOME_FINAL,     /* refused for good: R5 and R8 decide what that makes of it */
    OUTCOME_HELD,      /* a refusal at MAIL that says nothing about the message */
    OUTCOME_UNTOUCHED, /* waits as before, nothing counted */
    OUTCOME_STRIKE,    /* the message broke the session: waits as before, or is deferred */
    OUTCOME_DOUBT,     /* the dot's reply is missing */
    OUTCOME_REHEARSED, /* of a drill's envelope the reply was all */
};

/* What it says about the server. */
enum verdict {
    SERVER_SAYS_NOTHING,
    SERVER_WORKS,       /* a 2xx to the dot */
    SERVER_DEFERS,      /* counts for the run of deferrals (R5) */
    SERVER_REFUSES,     /* a 5xx: works, but not for this one */
    SERVER_UNREACHABLE, /* its name has no address, or it could not be connected */
    SERVER_UNGREETED,   /* connects, but gives no good greeting or EHLO */
    SERVER_FAILS,       /* fails within a session */
    SERVER_FAILS_THIS,  /* the same, but the message has had its strikes and is to blame */
    SERVER_AT_LIMIT,    /* its limit if another session of ours works there, else ungreeted */
    SERVER_CREDENTIALS, /* refuses our login */
};

struct judgement {
    enum outcome outcome;
    enum verdict verdict;
};

struct outcome_question {
    enum relay_verdict verdict;
    const struct relay_reply *reply;
    bool reused_session;
    bool broke_before;  /* the message has had its two strikes */
    bool envelope_only; /* a drill's: to end behind RCPT */
};

/* Of one delivery in a job. */
struct judgement outcome_of_delivery(const struct outcome_question *question);
/* Of a session that has ended; `worked`: a job's result came over it. Jobs are judged apart. */
enum verdict outcome_of_session(const struct relay_reply *reply, bool worked);

#endif
