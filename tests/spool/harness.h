/* SPDX-License-Identifier: Apache-2.0
 *
 * What the spool's tests share: a spool of any kind that can be closed and opened again, batches
 * that are waited for, messages made from a number, and what a load has handed over.
 */
#ifndef HOLDFAST_TESTS_SPOOL_HARNESS_H
#define HOLDFAST_TESTS_SPOOL_HARNESS_H

#include "base/buffer.h"
#include "spool/spool.h"

enum harness_kind { HARNESS_MEMORY, HARNESS_LOG, HARNESS_POSTGRES };

struct harness {
    enum harness_kind kind;
    struct loop *loop;
    struct spool *spool;
    struct spool_settings settings;
    struct spool_owner owner;
    struct spool_memory_store *store;
    char path[64];
    struct disk *(*make_disk)(struct harness *harness); /* else the real one at `path` */
    void *context;
    /* Of the last batch waited for. */
    bool done;
    enum error error;
    struct spool_handle handles[64];
    size_t handle_count;
    /* What the last load has handed over, one line each, in order. */
    struct buffer loaded;
    size_t messages, fates, notes, globals, damages;
};

void harness_open(struct harness *harness, enum harness_kind kind); /* fresh, loaded */
void harness_done(struct harness *harness);
/* The log on a simulated disk of its own, `context`. */
struct disk *harness_simulated_disk(struct harness *harness);
void harness_open_simulated(struct harness *harness, uint32_t segment_bytes);
void harness_done_simulated(struct harness *harness);
enum error harness_try_open(struct harness *harness);
void harness_load(struct harness *harness);
void harness_reopen(struct harness *harness);
/* Until the batch submitted with harness_told() is complete. */
void harness_told(void *context, enum error error, const struct spool_handle *handles,
                  size_t count);
enum error harness_submit(struct harness *harness, enum spool_durability durability);
/* Lets everything that is under way come to rest. */
void harness_settle(struct harness *harness);
/* Lets the loop run for so long. */
void harness_pass(struct harness *harness, int64_t ms);

/* Message number n, with one recipient more than n % 3, sender and all fields set from n. */
struct message_id harness_id(uint64_t n);
void harness_message(uint64_t n, struct arena *arena, struct spool_message *ret_message);
/* `length` bytes that depend on n. */
void harness_content(uint64_t n, size_t length, struct buffer *ret_content);
/* Accepts it with `length` bytes of content and gives its handle. */
struct spool_handle harness_accept(struct harness *harness, uint64_t n, size_t length);
void harness_finish(struct harness *harness, struct spool_handle handle, uint32_t delivery);
/* Asserts that it can be read back. */
void harness_check(struct harness *harness, uint64_t n, size_t length);
bool harness_loaded(const struct harness *harness, const char *line);

#endif
