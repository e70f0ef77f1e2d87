/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk in memory that forgets like a real one. It behaves as sys/disk.h says; what was not synced
 * may, after a crash, be there, be gone, or be torn by sectors, each write for itself; the same for
 * each change of the directory without sync_directory. It can record everything done to it, so that
 * a test looks at the crash after every single operation; and it can fail the N-th operation.
 *
 * Safe to use from several threads.
 */
#ifndef HOLDFAST_TESTS_SIM_DISK_SIM_H
#define HOLDFAST_TESTS_SIM_DISK_SIM_H

#include "sys/disk.h"

struct disk_sim;

struct disk_sim *disk_sim_new(void); /* empty; aborts when memory is out */
void disk_sim_free(struct disk_sim *sim);
/* A view of it; freed by disk_free(). Open views must be gone before disk_sim_free(). */
struct disk *disk_sim_open(struct disk_sim *sim);

/* ---- space and faults -------------------------------------------------------------------- */

void disk_sim_set_capacity(struct disk_sim *sim, uint64_t bytes); /* default: 1 TB */
/* How many operations that change something (create, write, sync, allocate, truncate, rename,
 * unlink, sync_directory) there have been. */
uint64_t disk_sim_changes(struct disk_sim *sim);
enum disk_sim_fault {
    DISK_SIM_ONCE,  /* the N-th change from now fails, nothing of it is done */
    DISK_SIM_SHORT, /* the same, but half of a write is done */
    DISK_SIM_STUCK, /* it and every later one */
};
/* A failed sync drops what it should have made durable, as Linux does. nth 0: no more faults. */
void disk_sim_fail(struct disk_sim *sim, uint64_t nth, enum disk_sim_fault fault, enum error error);
/* From now on no sync of the directory succeeds, or each does again; files are as they were. */
void disk_sim_fail_directory(struct disk_sim *sim, bool fails);
/* Reads of these bytes of a file fail from now on, as of a bad sector. NULL: all can be read. */
void disk_sim_fail_reads(struct disk_sim *sim, const char *name, uint64_t from, uint64_t to);
/* Renaming or removing a file whose name begins so waits until another prefix, or NULL, is given.
 * The text is not copied. */
void disk_sim_hold(struct disk_sim *sim, const char *prefix);
/* Flips one bit of a file. False: it is shorter. */
bool disk_sim_flip(struct disk_sim *sim, const char *name, uint64_t byte, unsigned bit);
void disk_sim_cut(struct disk_sim *sim, const char *name, uint64_t length);
/* Bytes of all files. */
uint64_t disk_sim_used(struct disk_sim *sim);
size_t disk_sim_open_files(struct disk_sim *sim);

/* ---- crashes ----------------------------------------------------------------------------- */

void disk_sim_record(struct disk_sim *sim);
/* Puts a mark between the operations: "the test was told X". */
void disk_sim_mark(struct disk_sim *sim, uint64_t mark);

/* Walks over what was recorded. */
struct disk_replay;
struct disk_replay *disk_replay_new(struct disk_sim *sim, bool ignore_directory_syncs);
void disk_replay_free(struct disk_replay *replay);
/* One operation or mark on; false at the end. *ret_mark is 0 unless it was a mark. */
bool disk_replay_step(struct disk_replay *replay, uint64_t *ret_mark);
/* The disk as it may be after a crash now. Seed 0: all that was not synced is gone; 1: all of it is
 * there; else drawn. */
struct disk_sim *disk_replay_crash(const struct disk_replay *replay, uint64_t seed);

#endif
