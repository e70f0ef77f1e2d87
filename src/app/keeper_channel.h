/* SPDX-License-Identifier: Apache-2.0
 *
 * What keeper and child say to each other: whole messages with descriptors on a socket pair. One
 * form for all kinds; the kind tells which fields mean something. A child's words are checked like
 * any peer's: it may have been taken over.
 *
 * A start: CONFIG, IDENTITY, COUNTERS, what the role needs, then START; the child answers READY.
 * A reload: CONFIG, LISTENER for each, then APPLY; the child answers READY.
 * Whether it lives: ASK; the child answers ALIVE.
 */
#ifndef HOLDFAST_APP_KEEPER_CHANNEL_H
#define HOLDFAST_APP_KEEPER_CHANNEL_H

#include "base/buffer.h"
#include "base/error.h"

enum keeper_kind {
    KEEPER_CONFIG = 1,  /* generation; descriptor: the whole text, sealed */
    KEEPER_IDENTITY,    /* identity */
    KEEPER_COUNTERS,    /* descriptor: a struct counter_page */
    KEEPER_GREYLIST,    /* to core and edge-in; descriptor: a struct greylist */
    KEEPER_LISTENER,    /* index of the configuration's listener; descriptor */
    KEEPER_DIRECTORIES, /* descriptors: spool; to core also events, recipients, other state, the
                           lock; to login its own */
    KEEPER_CONTROL,     /* descriptor: the listening control socket */
    KEEPER_LINK,        /* index: enum keeper_link; descriptor: this role's end of the stream */
    KEEPER_RING,        /* edge, index of its loop, count of loops; descriptors: memory, wakes */
    KEEPER_FILTERS,     /* index of its loop; descriptors: a link to ask for connections to filters
                           (app/dial.h), a file without a name for content on its way through them */
    KEEPER_LISTS,    /* to helper; descriptor: a link to ask for the files of lists (app/dial.h) */
    KEEPER_SETTINGS, /* to helper; descriptor: a link to bring the cluster's settings by
                        (app/settings_offer.h) */
    KEEPER_LEASE,    /* to core; descriptor: a struct lease_page, read only */
    KEEPER_START,
    KEEPER_APPLY,
    KEEPER_STOP,  /* grace_ms */
    KEEPER_STALE, /* to core; bytes: why the last reload was refused; empty: it was not */
    KEEPER_ASK,   /* index: of the question, which ALIVE has again */
    /* from a child */
    KEEPER_READY,  /* generation, error: NONE if it is in force */
    KEEPER_ALIVE,  /* index; each loop of the process has turned since it was asked */
    KEEPER_BROKEN, /* edge: core has cut it off, and it must be started again */
    /* from the reader */
    KEEPER_PLAN,    /* bytes: the plan; descriptors: warnings, a line each, and the whole text for
                       each of enum keeper_text */
    KEEPER_REFUSED, /* descriptor: what is wrong, a line each */
};

enum keeper_edge { KEEPER_EDGE_IN, KEEPER_EDGE_OUT };

/* Streams between two children; from LINK_TURN on they have messages (sys/fdpass.h). */
enum keeper_link {
    KEEPER_LINK_WEB,       /* core, web: the control protocol, to ask only */
    KEEPER_LINK_HELPER,    /* core, helper: the control protocol, to command too */
    KEEPER_LINK_ERRANDS,   /* core, helper: the same again, for errands (app/errands.h) */
    KEEPER_LINK_LISTS,     /* core, helper: the same again, for lists of recipients */
    KEEPER_LINK_RUNNER,    /* helper, runner: what to run (app/hook_run.h) */
    KEEPER_LINK_GUARDS,    /* core, runner: the control protocol again, for guards */
    KEEPER_LINK_TURN,      /* edge-in, edge-out: connections that are turned round (app/turn.h) */
    KEEPER_LINK_LOGIN,     /* edge-in, login: an end of a pair for each loop (service/login.h) */
    KEEPER_LINK_DIRECTORY, /* login, directory: passwords (service/login_remote.h) */
    KEEPER_LINK_PAM,       /* login, pam: likewise */
    KEEPER_LINK_LOGINS,    /* core, login: of each login (service/login.h) */
    KEEPER_LINK_ENTRIES,   /* helper, directory: lists of recipients (app/dial.h) */
    KEEPER_LINKS
};

/* The whole text, with the secrets of those that it is for; without any, it may be the common one.
 */
enum keeper_text {
    KEEPER_TEXT_COMMON,
    KEEPER_TEXT_EDGE_OUT,
    KEEPER_TEXT_EDGE_IN,
    KEEPER_TEXT_HELPER,
    KEEPER_TEXT_LOGIN,
    KEEPER_TEXT_DIRECTORY,
    KEEPER_TEXT_CORE,
    KEEPER_TEXTS
};

enum { KEEPER_DESCRIPTORS_MAX = 1 + KEEPER_TEXTS, KEEPER_MESSAGE_MAX = 48 << 10 };

struct keeper_identity {
    bool change; /* become user and group, in `root`; else stay */
    uint32_t user;
    uint32_t group;
    bool has_control_group;
    uint32_t control_group; /* its members may command over the control socket */
};

struct keeper_message {
    enum keeper_kind kind;
    uint32_t generation;
    uint32_t index;
    uint32_t count;
    uint32_t grace_ms;
    enum keeper_edge edge;
    enum error error;
    struct keeper_identity identity;
    struct slice bytes;
    int descriptors[KEEPER_DESCRIPTORS_MAX];
    size_t descriptor_count;
};

/* The descriptors stay the caller's. Waits a moment when the other side is slow; ERROR_TIMEOUT. */
enum error keeper_send(int channel, const struct keeper_message *message) MUST_CHECK;
/* Descriptors are the caller's; `bytes` points into `buffer`. ERROR_AGAIN: none waits.
 * ERROR_CLOSED. ERROR_INVALID: not a message. */
enum error keeper_receive(int channel, uint8_t buffer[KEEPER_MESSAGE_MAX],
                          struct keeper_message *ret_message) MUST_CHECK;
/* Blocks until a message or the end comes. */
enum error keeper_receive_wait(int channel, uint8_t buffer[KEEPER_MESSAGE_MAX],
                               struct keeper_message *ret_message) MUST_CHECK;
void keeper_message_close(struct keeper_message *message);

/* A sealed memory file of `text`, and back; the text is malloc'ed and NUL-terminated. */
enum error keeper_text_to_descriptor(struct slice text, int *ret_fd) MUST_CHECK;
enum error keeper_text_from_descriptor(int fd, char **ret_text, size_t *ret_length) MUST_CHECK;

#endif
