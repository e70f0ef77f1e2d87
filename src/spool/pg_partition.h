/* SPDX-License-Identifier: Apache-2.0
 *
 * The partitions of the tables for mail (messages, chunks, parts, fates, notes), each five for one
 * range of ids, that is of time. They are made ahead, and retired as a whole when nearly all of
 * their messages are finished; the few that are not (survivors) move to kept_*, unchanged.
 *
 * Where a row belongs is said by the table `partitions` alone: into the partitioned tables if an
 * *open* range covers the id, else into kept_*. For fates and notes a transaction asks in this
 * order, in two statements at READ COMMITTED, INSERT INTO holdfast.fates SELECT ... WHERE
 * PG_PARTITION_OPEN("i.id"); INSERT INTO holdfast.kept_fates SELECT ... WHERE NOT
 * PG_PARTITION_OPEN("i.id"); The first locks out, until it commits, that a range's survivors move
 * (they do under SHARE ROW EXCLUSIVE on fates and notes); so one and only one of the two finds the
 * row to be its own. The same for messages, chunks and parts that may be older than the present
 * (forwarded from a journal, or below the node's watermark), for which ROW EXCLUSIVE on fates is
 * taken before anything is asked; new mail is written without asking: SQLSTATE 23514 says that
 * there is no partition, so make one.
 *
 * Who reads, reads both kinds: a message is found in exactly one of them by each statement, so what
 * is to fit together (parts without all their fates) is asked in one statement, or at REPEATABLE
 * READ.
 *
 * A range is retired only when it has passed, for `keep_ms` too, and when no node can bring mail
 * for it any more: its watermark is above, or it was removed, or it has given no sign for 7 days.
 * What was handed over less than `keep_ms` ago survives, as what is unfinished does.
 *
 * Each step is a transaction, or can be taken up where it was left; so it may die anywhere, and two
 * may be at it at once. A step that cannot have its locks soon leaves it (DATABASE_AGAIN), for mail
 * waits behind who waits for a lock.
 */
#ifndef HOLDFAST_SPOOL_PG_PARTITION_H
#define HOLDFAST_SPOOL_PG_PARTITION_H

#include "sys/database.h"

/* SQL: an open range covers the uuid that the expression `id` names. */
#define PG_PARTITION_OPEN(id)                                                                      \
    "EXISTS (SELECT FROM holdfast.partitions o WHERE o.state = 2 AND o.low <= " id " AND " id      \
    " < o.high)"

/* SQL: the id that is `ms` old by the database's clock. */
#define PG_ID_OF_AGE(ms)                                                                           \
    "(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint - " ms                    \
    "), 12, '0') || repeat('0', 20))::uuid"

enum pg_partition_state {
    PG_PARTITION_IS_OPEN = 2,
    PG_PARTITION_RETIRING = 3, /* its survivors have moved */
};

struct pg_partition_settings {
    int64_t bytes;         /* what one range should hold at most */
    int64_t keep_ms;       /* mail is kept for so long after it was handed over */
    int64_t survivors_max; /* more than these are not moved */
    int survivors_percent; /* nor more than so many of a range's deliveries */
    int ranges_a_call;     /* looked at by one pg_partition_retire() */
    int cleaned_a_call;    /* messages looked at by one pg_partition_clean() */
};
void pg_partition_settings_default(struct pg_partition_settings *settings);

/* One range, from low_ms (of ids: Unix time) to below high_ms; DATABASE_DONE also if there is one
 * with that low_ms already. Ranges must not overlap: DATABASE_REFUSED. */
enum database_outcome pg_partition_add(struct database *database, int64_t low_ms,
                                       int64_t high_ms) MUST_CHECK;
/* Makes what is missing up to 10 minutes and 2 ranges ahead of the database's time; none is wider
 * than a day. They have no gaps, also after a time when nobody made any; but if that is more than
 * 32 days the clock may have leapt, and nothing covers it: *ret_gap_ms says how long (else 0), and
 * mail of that time goes into kept_*. To be called each minute by the leader, and by anybody whose
 * COPY finds no partition. */
enum database_outcome pg_partition_make(struct database *database,
                                        const struct pg_partition_settings *settings,
                                        int64_t *ret_gap_ms) MUST_CHECK;
/* Goes on with what is being retired, then looks at ranges that may be; *ret_retired (may be NULL):
 * so many have gone. Stops at the first trouble. */
enum database_outcome pg_partition_retire(struct database *database,
                                          const struct pg_partition_settings *settings,
                                          size_t *ret_retired) MUST_CHECK;
/* Removes from kept_* what is finished of the next messages behind *after (which goes on with it,
 * and is null at the end: all have been looked at), and marks of the order older than 8 days;
 * *ret_removed (may be NULL): messages. */
enum database_outcome pg_partition_clean(struct database *database,
                                         const struct pg_partition_settings *settings,
                                         struct message_id *after, size_t *ret_removed) MUST_CHECK;

#endif
