/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the SMTP server core share: smtp_server.c (driver and answers),
 * smtp_server_command.c (command lines), smtp_server_auth.c, smtp_server_odmr.c (ATRN),
 * smtp_server_envelope.c (MAIL and RCPT), smtp_server_xclient.c,
 * smtp_server_data.c (DATA and BDAT), smtp_server_reply.c (output).
 */
#ifndef HOLDFAST_PROTO_SMTP_SERVER_INTERNAL_H
#define HOLDFAST_PROTO_SMTP_SERVER_INTERNAL_H

#include "proto/smtp_server.h"

/* A step does one thing with the input and returns the next; see the table in smtp_server.c. */
enum smtp_server_step {
    STEP_GREETING,
    STEP_COMMAND,
    STEP_SKIP_LINE, /* the rest of a command line that is too long */
    STEP_RESPONSE,  /* a line that answers the challenge of AUTH */
    STEP_ANSWER,    /* waits for smtp_server_answer() */
    STEP_HANDSHAKE, /* waits for smtp_server_secured() */
    STEP_DATA,
    STEP_CHUNK,
    STEP_SKIP_CHUNK, /* bytes of a BDAT chunk that was refused */
    STEP_END,        /* the last BDAT chunk has passed */
    STEP_CLOSING,
    STEP_CLOSED,
    STEP_COUNT
};

typedef enum smtp_server_step smtp_server_step_fn(struct smtp_server *server,
                                                  struct smtp_server_event *event);

smtp_server_step_fn smtp_server_step_command;
smtp_server_step_fn smtp_server_step_skip_line;
smtp_server_step_fn smtp_server_step_response;
smtp_server_step_fn smtp_server_step_data;
smtp_server_step_fn smtp_server_step_chunk;
smtp_server_step_fn smtp_server_step_skip_chunk;
smtp_server_step_fn smtp_server_step_end;

/* Handlers of commands; `arguments` is what follows the verb and its blank. */
typedef enum smtp_server_step smtp_server_command_fn(struct smtp_server *server,
                                                     struct slice arguments,
                                                     struct smtp_server_event *event);
smtp_server_command_fn smtp_server_command_mail;
smtp_server_command_fn smtp_server_command_rcpt;
smtp_server_command_fn smtp_server_command_data;
smtp_server_command_fn smtp_server_command_bdat;
smtp_server_command_fn smtp_server_command_auth;
/* Those by which the client may log in now, 1 << enum sasl_mechanism. */
unsigned smtp_server_mechanisms(const struct smtp_server *server);
smtp_server_command_fn smtp_server_command_atrn;
smtp_server_command_fn smtp_server_command_xclient;
smtp_server_command_fn smtp_server_command_xforward;
/* The chunk of a refused BDAT is read and dropped all the same, for the client has sent it. */
enum smtp_server_step smtp_server_skip_bdat(struct smtp_server *server, struct slice arguments);
void smtp_server_consume(struct smtp_server *server, size_t count);

/* The event waits for an answer. */
enum smtp_server_step smtp_server_ask(struct smtp_server *server, struct smtp_server_event *event,
                                      enum smtp_server_event_kind kind);
/* Forgets the transaction and its content. */
void smtp_server_forget(struct smtp_server *server);
/* Says that the open transaction has ended. */
void smtp_server_abort(struct smtp_server *server, struct smtp_server_event *event,
                       const char *reason);

/* Takes a whole line off the input, without its end. ERROR_AGAIN: there is none yet; ERROR_LIMIT:
 * it is too long; ERROR_INVALID: it may not be a command, and the client has been told. */
enum error smtp_server_take_line(struct smtp_server *server, struct slice *ret_line,
                                 enum smtp_server_step *ret_next);
/* One whole line, without its end. */
void smtp_server_reply(struct smtp_server *server, const char *line);
/* Counts a client's mistake. True: there were too many, and 421 has been said. */
bool smtp_server_errs(struct smtp_server *server);
/* The same as smtp_server_reply() for a mistake; too many of them end the session. */
enum smtp_server_step smtp_server_mistake(struct smtp_server *server, const char *line);
void smtp_server_reply_answer(struct smtp_server *server, const struct smtp_answer *answer,
                              const char *usual);
/* "334 " and the challenge, whole and as it is: base64, perhaps empty. */
void smtp_server_reply_challenge(struct smtp_server *server, struct slice challenge);
void smtp_server_reply_hello(struct smtp_server *server);
void smtp_server_reply_help(struct smtp_server *server);
void smtp_server_reply_chunk(struct smtp_server *server, uint64_t size);
void smtp_server_reply_greeting(struct smtp_server *server);
/* "421 4.x.y HOSTNAME text" */
void smtp_server_reply_goodbye(struct smtp_server *server, const char *code, const char *text);

#endif
