/* SPDX-License-Identifier: Apache-2.0
 *
 * The file of a domain's recipients. The first byte chooses: 0 is the file as it is; else the input
 * is blocks without their heads, each behind its length in two bytes, which are given the right sum
 * here, so that what is behind it is reached. What was read writes a file that says the same.
 */
#include "base/crc32c.h"
#include "relay/mailboxes.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct hash_key key = {3, 4};

static void make_blocks(struct slice input, struct buffer *file)
{
    struct reader reader = reader_make(input);
    while (reader.rest.length > 2) {
        size_t length = reader_u16(&reader);
        struct slice block = slice_take(reader.rest, length);
        buffer_put_u32(file, (uint32_t)block.length);
        buffer_put_u32(file, crc32c(0, block));
        buffer_append(file, block);
        (void)reader_take(&reader, block.length);
    }
}

static void write_again(const struct mailboxes *mailboxes)
{
    struct mailboxes *again = mailboxes_new(key);
    struct buffer file;
    struct mailbox mailbox, found;
    size_t used;
    bool end;
    buffer_init(&file, 0);
    for (uint64_t at = 0; mailboxes_write(mailboxes, &at, &file);) {
    }
    assert(!file.failed && again != NULL);
    enum error error = mailboxes_read(again, buffer_slice(&file), file.length, &used, &end);
    assert(error == ERROR_NONE && end && used == file.length);
    assert(mailboxes_list_ms(again) == mailboxes_list_ms(mailboxes));
    uint32_t other_at = 0;
    for (uint32_t at = 0; mailboxes_next(mailboxes, &at, &mailbox);) {
        bool known = mailboxes_next(again, &other_at, &found);
        assert(known && slice_equal(found.name, mailbox.name) &&
               found.standing == mailbox.standing && found.said_ms == mailbox.said_ms &&
               found.refused_ms == mailbox.refused_ms);
    }
    buffer_done(&file);
    mailboxes_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make(data, size);
    struct mailboxes *mailboxes = mailboxes_new(key);
    struct buffer file;
    size_t used;
    bool end;
    buffer_init(&file, 0);
    if (size > 0 && data[0] == 0) {
        buffer_append(&file, slice_skip(input, 1));
    } else {
        make_blocks(slice_skip(input, 1), &file);
    }
    if (mailboxes != NULL && !file.failed) {
        (void)!mailboxes_read(mailboxes, buffer_slice(&file), file.length, &used, &end);
        assert(used <= file.length);
        mailboxes_list_give_up(mailboxes);
        mailboxes_clean(mailboxes, 10, 1700000000000);
        write_again(mailboxes);
    }
    buffer_done(&file);
    mailboxes_free(mailboxes);
    return 0;
}
