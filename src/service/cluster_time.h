/* SPDX-License-Identifier: Apache-2.0
 *
 * The database's time, as this node knows it: what the member has measured, made smooth
 * (service/shared_clock.h), and kept in a file over a restart.
 */
#ifndef HOLDFAST_SERVICE_CLUSTER_TIME_H
#define HOLDFAST_SERVICE_CLUSTER_TIME_H

#include "base/buffer.h"
#include "service/shared_clock.h"

struct member;
struct whole_files;

enum { CLUSTER_TIME_BOOT_SIZE = 64 };

/* Begins as zeroes: nothing is known. */
struct cluster_time {
    struct shared_clock clock;
    int64_t read_ms;           /* steady: the reading that it has */
    int64_t ahead_ms;          /* of our wall clock; read, or as in the file */
    int64_t least_ms;          /* the database's time in an earlier life, from the file; 0: none */
    bool same_boot;            /* the file was written in this one */
    int64_t steady_ahead_ms;   /* of our steady clock; as in the file */
    struct whole_files *files; /* NULL: nothing is kept */
    char boot[CLUSTER_TIME_BOOT_SIZE]; /* empty: not known */
    int64_t written_ms;                /* steady */
    int64_t written_ahead_ms;
};

/* Begins with what an earlier life has written there. `boot` names the boot of the machine
 * (machine_boot()); empty: not known. */
void cluster_time_keep(struct cluster_time *time, struct whole_files *files, struct slice boot);
/* What the member has measured since. NULL is allowed. */
void cluster_time_read(struct cluster_time *time, const struct member *member);
/* Now and then, and when it has moved. */
void cluster_time_write(struct cluster_time *time);
/* What the file says: `wall_ms` is cluster_time_wall_ms() then. False: what is decoded is damaged,
 * or makes no sense, and is as nothing. */
void cluster_time_encode(const struct cluster_time *time, int64_t wall_ms, struct buffer *out);
bool cluster_time_decode(struct cluster_time *time, struct slice bytes);
/* Unix time; while the database has not been heard, what our own clock and the file make of it. */
int64_t cluster_time_wall_ms(const struct cluster_time *time);

#endif
