/* SPDX-License-Identifier: Apache-2.0
 *
 * In place of spool/reader.h: messages that the test puts there.
 */
#include <stdlib.h>

#include "out_world.h"

static struct stored_message store[256];
static int open_count;

struct spool_stored {
    const struct stored_message *message;
};

void store_put(uint8_t ticket, const struct stored_message *message)
{
    store[ticket] = *message;
}

void store_clear(void)
{
    memset(store, 0, sizeof(store));
    open_count = 0;
}

int store_open_count(void)
{
    return open_count;
}

enum error spool_stored_open(struct spool_reader *reader, struct slice ticket, struct arena *arena,
                             struct spool_message *ret_message, struct spool_stored **ret_stored)
{
    (void)reader;
    const struct stored_message *message = &store[ticket.data[0]];
    if (message->missing) {
        return message->error != ERROR_NONE ? message->error : ERROR_CORRUPT;
    }
    uint32_t count = 0;
    while (count < 8 && message->recipients[count] != NULL) {
        count++;
    }
    struct spool_recipient *recipients = arena_allocate(arena, count * sizeof(*recipients));
    for (uint32_t i = 0; i < count; i++) {
        recipients[i].address = slice_from_text(message->recipients[i]);
    }
    *ret_message = (struct spool_message){.id = {1, ticket.data[0]},
                                          .sender = slice_from_text(message->sender),
                                          .flags = message->flags,
                                          .body_length = message->content.length,
                                          .recipients = recipients,
                                          .recipient_count = count};
    *ret_stored = malloc(sizeof(**ret_stored));
    (*ret_stored)->message = message;
    open_count++;
    return ERROR_NONE;
}

/* In short pieces, as a reader may. */
enum error spool_stored_read(struct spool_stored *stored, uint64_t offset, void *ret_bytes,
                             size_t size, size_t *ret_length)
{
    const struct stored_message *message = stored->message;
    struct slice piece =
        slice_take(slice_skip(message->content, offset), size < 5000 ? size : 5000);
    if (message->damaged_at > 0 && offset + piece.length > message->damaged_at) {
        return message->error != ERROR_NONE ? message->error : ERROR_CORRUPT;
    }
    if (piece.length > 0) {
        memcpy(ret_bytes, piece.data, piece.length);
    }
    *ret_length = piece.length;
    return ERROR_NONE;
}

void spool_stored_close(struct spool_stored *stored)
{
    if (stored != NULL) {
        open_count--;
        free(stored);
    }
}
