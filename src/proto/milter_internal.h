/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of proto/milter share; nobody else includes it.
 *
 *   milter.c        life cycle, input and output, negotiation, macros
 *   milter_step.c   what we say: the steps of a session
 *   milter_reply.c  what the filter says
 */
#ifndef HOLDFAST_PROTO_MILTER_INTERNAL_H
#define HOLDFAST_PROTO_MILTER_INTERNAL_H

#include "proto/milter.h"

/* libmilter's numbers. */
enum {
    SAYS_NEGOTIATE = 'O',
    SAYS_MACROS = 'D',
    SAYS_ABORT = 'A',
    SAYS_QUIT = 'Q',
    SAYS_QUIT_NEW = 'K',
    VERSION_LEAST = 2,
    VERSION_MOST = 6,
    PROTOCOL_SKIP = 0x400,
    PROTOCOL_LEADING_SPACE = 0x100000,
    PROTOCOL_ALL = 0x1ff7ff, /* all but larger packets and refused recipients */
    MACRO_STEPS = 7,
};

/* One row a stage: the command, which bits of the negotiated protocol leave it out or unanswered,
 * and whose macros go before it. */
struct milter_step {
    char command;
    uint32_t leave_out;
    uint32_t no_answer;
    int macros; /* libmilter's number of the list; -1: none */
};
extern const struct milter_step milter_steps[MILTER_STAGES];

enum milter_state {
    STATE_NEGOTIATING,
    STATE_IDLE,    /* a step may be made */
    STATE_WAITING, /* for the verdict on `stage` */
    STATE_BROKEN,
};

struct milter {
    struct milter_settings settings;
    enum milter_state state;
    enum milter_stage stage;
    uint32_t version;
    uint32_t protocol; /* as agreed */
    uint32_t may;      /* as agreed */
    bool accepted_session, accepted_message;
    bool may_meet_another; /* nothing was said since it answered a message's end with CONTINUE */
    unsigned skipped;      /* bit of each stage that it wants no more of in this message */
    uint32_t changes;
    int64_t asked_ms; /* when the step was made */
    int64_t deadline_ms;
    int64_t now_ms;
    struct buffer input; /* a packet, until it is whole */
    size_t consumed;     /* of it, by the last event */
    struct buffer output;
    struct buffer macros[MACRO_STEPS]; /* names, separated by spaces */
    bool chose_macros[MACRO_STEPS];
    const char *broken; /* why, to be told; static */
};

/* ---- output ---------------------------------------------------------------------------------- */

/* A packet is begun, appended to, and ended. */
size_t milter_begin(struct milter *milter, char command);
void milter_finish(struct milter *milter, size_t begun);
void milter_put_u32(struct buffer *to, uint32_t number); /* big-endian, as all of this protocol */
void milter_put_text(struct milter *milter, struct slice text); /* with its NUL; none within */
void milter_break(struct milter *milter, const char *why);
/* Those of libmilter's list `step` that have a value, in front of `command`. */
void milter_say_macros(struct milter *milter, int step, char command);
/* An answer is awaited, or goes on being so. */
void milter_wait(struct milter *milter);
uint32_t milter_u32(const uint8_t *bytes);

/* A whole packet of the filter's. True: it is an event. */
bool milter_take(struct milter *milter, uint8_t command, struct slice data,
                 struct milter_event *ret_event);
/* The answer to our offer; true: READY. */
bool milter_negotiated(struct milter *milter, struct slice data, struct milter_event *ret_event);

#endif
