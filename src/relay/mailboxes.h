/* SPDX-License-Identifier: Apache-2.0
 *
 * Which recipients of one domain exist, as far as is known (R8): said by whom, and when. A table in
 * memory, some 45 bytes for each name, and the form in which a file keeps it. Names are local parts
 * in their one form (relay/recipients.h makes it).
 *
 * Two kinds of saying meet here. A list (file, LDAP, HTTP) says all there is: whoever stands in it
 * is good, and whoever does not is bad. The rest is learned, one by one, from what a server
 * answers, and is believed for a time.
 */
#ifndef HOLDFAST_RELAY_MAILBOXES_H
#define HOLDFAST_RELAY_MAILBOXES_H

#include "base/buffer.h"
#include "base/hash.h"

#define MAILBOX_GOOD_FOR_MS INT64_C(604800000)  /* 7 d: while the server can be asked */
#define MAILBOX_REFUSED_FOR_MS INT64_C(600000)  /* 10 min: likewise */
#define MAILBOX_BAD_DOWN_MS INT64_C(604800000)  /* 7 d: while it cannot */
#define MAILBOX_APART_MS INT64_C(3600000)       /* 1 h: between two refusals that make one bad */
#define MAILBOX_KEPT_MS INT64_C(15552000000)    /* 180 d: a good one that nobody confirms */
#define MAILBOX_RANDOM_FOR_MS INT64_C(86400000) /* 24 h: what a random address has shown */

enum {
    MAILBOX_NAME_MAX = 255,
    MAILBOXES_MAX = 1 << 26,         /* names in one domain */
    MAILBOXES_REFUSED_MAX = 1 << 20, /* of them refused or bad: strangers think those up */
    MAILBOXES_BLOCK_MAX = 64 << 10,  /* bytes of one block of the file, its head included */
    MAILBOXES_BLOCK_HEAD = 8,        /* u32 bytes behind the head, u32 CRC32C of them */
};

enum mailbox_standing { MAILBOX_UNKNOWN, MAILBOX_GOOD, MAILBOX_BAD };

/* As numbers they stand in files. */
enum mailbox_source {
    MAILBOX_FROM_NOBODY,
    MAILBOX_FROM_LIST,
    MAILBOX_FROM_CALLOUT,  /* the server was asked */
    MAILBOX_FROM_DELIVERY, /* it answered so when mail was handed over */
    MAILBOX_FROM_OPERATOR,
    MAILBOX_SOURCES,
};

struct mailbox {
    struct slice name; /* valid until the table changes */
    enum mailbox_standing standing;
    enum mailbox_source source;
    int64_t said_ms; /* Unix time, to the second: when that was last said. Of a list: its time */
    /* Refusals by a server that have not come to a verdict, or the last that confirmed it. */
    int64_t refused_ms; /* the last; 0: none */
    int64_t first_refused_ms;
    bool other_accepted; /* another one was accepted since the first */
};

struct mailboxes;

/* NULL: memory. */
struct mailboxes *mailboxes_new(struct hash_key key);
void mailboxes_free(struct mailboxes *mailboxes);          /* NULL is allowed */
size_t mailboxes_bytes(const struct mailboxes *mailboxes); /* of memory */
/* Room for so many names in all, so that adding them moves nothing. ERROR_MEMORY, ERROR_LIMIT. */
enum error mailboxes_reserve(struct mailboxes *mailboxes, uint32_t count) MUST_CHECK;

struct mailboxes_count {
    uint32_t names, good, bad, refused; /* refused: neither, but refused of late */
};
/* Counted as names come and go: costs nothing. Without what a list does not name. */
struct mailboxes_count mailboxes_count(const struct mailboxes *mailboxes);
/* Changes with each change: whether to write the table again. */
uint64_t mailboxes_serial(const struct mailboxes *mailboxes);
/* Changes when a good one is refused or forgotten: who remembers that one was good has to ask anew.
 */
uint64_t mailboxes_doubts(const struct mailboxes *mailboxes);

/* ---- what is known --------------------------------------------------------------------------- */

/* False: nothing at all. With a list, one that is not in it is bad, and true comes with it. */
bool mailboxes_find(const struct mailboxes *mailboxes, struct slice name,
                    struct mailbox *ret_mailbox);
/* It has an entry of its own, whatever that says. */
bool mailboxes_has(const struct mailboxes *mailboxes, struct slice name);
/* The next after *at, which begins as 0; false: that was the last. What changes meanwhile may be
 * told or not. */
bool mailboxes_next(const struct mailboxes *mailboxes, uint32_t *at, struct mailbox *ret_mailbox);

/* ---- what is learned ------------------------------------------------------------------------- */

/* The head of the chain or an authoritative server has accepted it at RCPT. `teaches`: it refuses
 * what does not exist, so that this makes it good; else it only ends the refusals before. ERROR_
 * MEMORY, ERROR_LIMIT: too many names, or one too long. */
enum error mailboxes_accepted(struct mailboxes *mailboxes, struct slice name, bool teaches,
                              enum mailbox_source source, int64_t now_ms) MUST_CHECK;
/* One of them, that need not be said by name: refusals of others may count from now on. */
void mailboxes_accepted_another(struct mailboxes *mailboxes);
/* Such a server has refused it as R8 wants it refused, and is to be believed: the second time, an
 * hour later, with another one accepted in between, makes it bad. ERROR_LIMIT: also if so many
 * others have been refused lately; it is not remembered then. */
enum error mailboxes_refused(struct mailboxes *mailboxes, struct slice name,
                             enum mailbox_source source, int64_t now_ms) MUST_CHECK;
/* An operator says that it is good: so until something else is learned. */
enum error mailboxes_told(struct mailboxes *mailboxes, struct slice name,
                          int64_t now_ms) MUST_CHECK;
/* What was learned of it; that it stands in a list stays. False: nothing was. */
bool mailboxes_forget(struct mailboxes *mailboxes, struct slice name);
/* All that was learned. */
void mailboxes_forget_all(struct mailboxes *mailboxes);
/* Looks at some of them, further on each time, and forgets what is too old to be used again. */
void mailboxes_clean(struct mailboxes *mailboxes, uint32_t some, int64_t now_ms);

/* What a server did with an address that cannot exist; `server` is a hash of its name. */
void mailboxes_random(struct mailboxes *mailboxes, uint64_t server, bool refused, int64_t now_ms);
enum mailboxes_catch { CATCH_NOT_KNOWN, CATCH_NONE, CATCH_ALL };
/* Within MAILBOX_RANDOM_FOR_MS. */
enum mailboxes_catch mailboxes_catch(const struct mailboxes *mailboxes, uint64_t server,
                                     int64_t now_ms);

/* ---- lists ----------------------------------------------------------------------------------- */

/* A list is read: first this, then each name, then the end. Until the end the earlier one holds. */
void mailboxes_list_begin(struct mailboxes *mailboxes);
enum error mailboxes_list_add(struct mailboxes *mailboxes, struct slice name) MUST_CHECK;
/* One has been begun, and not ended. */
bool mailboxes_list_is_read(const struct mailboxes *mailboxes);
/* `everybody`: who is not in it is good as well. */
void mailboxes_list_end(struct mailboxes *mailboxes, bool everybody, int64_t now_ms);
/* It could not be read to its end: as if it had not been begun. */
void mailboxes_list_give_up(struct mailboxes *mailboxes);
/* There is no list any more. */
void mailboxes_list_drop(struct mailboxes *mailboxes);
/* When the one in force was read; 0: there is none. */
int64_t mailboxes_list_ms(const struct mailboxes *mailboxes);

/* ---- in a file ------------------------------------------------------------------------------- */

/* Appends the next block to `buffer`. *at begins as 0; false: that was the last. What changes
 * meanwhile may be in it or not. */
bool mailboxes_write(const struct mailboxes *mailboxes, uint64_t *at, struct buffer *buffer);
/* Reads a file from its beginning: as many whole blocks as there are. *ret_used: the bytes they
 * had. *ret_end: the last one was among them. ERROR_CORRUPT: what came before it stays, without the
 * list; ERROR_NEWER; ERROR_MEMORY. `file_bytes`: all that the file has; room is made for no more
 * than it can name. */
enum error mailboxes_read(struct mailboxes *mailboxes, struct slice bytes, uint64_t file_bytes,
                          size_t *ret_used, bool *ret_end) MUST_CHECK;

/* ---- what to answer (R8) --------------------------------------------------------------------- */

enum mailbox_answer {
    MAILBOX_TAKE,
    MAILBOX_REFUSE, /* 550 5.1.1 */
    MAILBOX_DEFER,  /* 450 4.1.1 */
    MAILBOX_ASK,    /* the server; if it does not say, by mailbox_unanswered() */
};

struct mailbox_question {
    const struct mailbox *found; /* what mailboxes_find() gave, or NULL */
    bool up;                     /* a server that may be asked can be */
    bool catches_all;            /* and takes whatever it is asked about */
    bool accept_unknown;
    int64_t now_ms;
};
enum mailbox_answer mailbox_decide(const struct mailbox_question *question);
enum mailbox_answer mailbox_unanswered(bool accept_unknown);

#endif
