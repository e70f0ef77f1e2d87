/* SPDX-License-Identifier: Apache-2.0
 *
 * What a node keeps of what it has given to the database, in case that it loses it: docs/decisions
 * 0052. All on the loop but pg_spare_run().
 */
#ifndef HOLDFAST_SPOOL_PG_SPARE_H
#define HOLDFAST_SPOOL_PG_SPARE_H

#include "base/buffer.h"
#include "base/id.h"
#include "base/map.h"
#include "sys/database.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pg_group;
struct pg_spool;

enum {
    PG_SPARE_MS = 60000,         /* so long what the database has is kept in case it loses it; */
    PG_SPARE_MESSAGES = 1 << 17, /* no more than so many, */
    PG_SPARE_BYTES = 512 << 20,  /* and of so much content */
    PG_SPARE_FATES = 1 << 17,    /* a power of two */
    PG_SPARE_ASKED = 1000,       /* of each, by one question */
};

struct pg_spare_message {
    struct message_id id;
    uint32_t journal;
    int64_t since_ms; /* when the database had it, on the steady clock */
};

struct pg_spare_server {
    size_t length;
    char name[];
};

struct pg_spare_fate {
    struct message_id id;
    int64_t when_ms, since_ms;
    const struct pg_spare_server *server; /* NULL: none */
    uint32_t delivery;
    uint32_t next; /* of the same hash, older: its place in `fates` and 1; 0: none */
    uint8_t fate;
};

/* Counted from the first that ever was. */
struct pg_spare_place {
    uint64_t message, fate;
};

struct pg_spare {
    int64_t keep_ms;
    size_t messages_max;
    uint64_t bytes_max;
    uint64_t room;          /* on the journal's disk, of which a quarter may be taken */
    struct buffer messages; /* struct pg_spare_message, the oldest first */
    size_t messages_at;
    uint64_t bytes;
    struct pg_spare_fate *fates;       /* a ring; NULL: none yet */
    uint32_t *heads;                   /* as `next` */
    struct map servers;                /* struct pg_spare_server, by the hash of its name */
    struct pg_spare_place first, last; /* what is kept: from that one to before this one */
    bool has_asked;                    /* the group before this one did */
    uint64_t round;
    struct pg_spare_place asked, until;       /* from that one to before this one */
    uint64_t messages_missing, fates_missing; /* so far */
};

/* Asked of the database: whether it has that. */
struct pg_send_spare {
    struct message_id id;
    uint32_t journal;  /* of a message */
    uint32_t delivery; /* of a fate */
    int64_t when_ms;
    const struct pg_spare_server *server;
    uint8_t fate; /* 0: it is a message */
    bool missing;
};

void pg_spare_init(struct pg_spare *spare);
void pg_spare_done(struct pg_spare *spare);
/* It is kept from now on: the database has it. */
void pg_spare_message(struct pg_spool *pg, uint32_t journal);
void pg_spare_fates(struct pg_spool *pg, const struct pg_group *group);
/* The next fate of that message behind that one, of the first for NULL; NULL: no more. */
const struct pg_spare_fate *pg_spare_fate_of(const struct pg_spool *pg, struct message_id id,
                                             const struct pg_spare_fate *after);
/* What is kept no longer, or has no room, goes. */
void pg_spare_expire(struct pg_spool *pg);
/* So much is left on the journal's disk. */
void pg_spare_room(struct pg_spool *pg, uint64_t bytes);
/* The database is to be asked. */
bool pg_spare_is_due(const struct pg_spare *spare);
/* The database may have lost something: it is asked for all that is kept. */
void pg_spare_doubt(struct pg_spool *pg);
/* When the oldest message was accepted that the database may have lost; INT64_MAX: none. */
int64_t pg_spare_oldest_ms(const struct pg_spool *pg);
/* None of our messages that are kept are below. */
void pg_spare_lower(const struct pg_spool *pg, struct message_id *below);
/* Becomes what that group asks. */
void pg_spare_ask(struct pg_spool *pg, struct pg_group *group);
void pg_spare_answered(struct pg_spool *pg, const struct pg_group *group);
/* The committer's. */
enum database_outcome pg_spare_run(struct pg_group *group) MUST_CHECK;

#endif
