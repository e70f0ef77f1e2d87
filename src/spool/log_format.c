/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal on disk, byte by byte. Little-endian throughout. (man/holdfast-journal.5 says the
 * same to operators; log.c argues why it is enough.)
 *
 * A segment file, `segment-` and its number in 16 hexadecimal digits:
 *
 *      0   header          one block
 *   4096   header again    the same block; either copy will do
 *   8192   seal            one block, written when nothing more will be appended
 *  12288   groups          each starts at a multiple of 512
 *          index           where the seal says
 *
 * Header                                Seal
 *    0  8  "HOLDFAST"                      0  8  "HOLDSEAL"
 *    8  4  format version (1)              8  4  format version (1)
 *   12  4  CRC32C of the rest             12  4  CRC32C of the rest
 *          of the block                          of the block
 *   16  8  segment number                 16  8  segment number
 *   24  8  nonce                          24  8  nonce
 *   32  8  next sequence                  32  8  next sequence
 *   40  4  number of open ends            40  4  end of the last group
 *   48 24* open ends: number (8),         44  4  offset of the index
 *          nonce (8), end (4), zero (4)   48  4  length of the index
 *                                         52  4  CRC32C of the index
 * An open end tells how far an older segment without a seal is valid; end 0: not at all.
 *
 * Record
 *    0  4  CRC32C of bytes 4..31
 *    4  4  CRC32C of the payload
 *    8  8  nonce of the segment
 *   16  4  own offset in the segment
 *   20  4  length of the payload
 *   24  4  offset of the first record of the group
 *   28  1  type
 *   29  1  flags
 *   30  2  zero
 *   32     payload, then zeros up to a multiple of 8
 * A record header is valid if and only if its CRC is right, its nonce is the segment's, its own
 * offset is where it stands, and its payload ends inside the segment. A record is valid if its
 * header is and the CRC of its payload is right. The nonce is drawn at random after the segment's
 * older content was written and is told to nobody, so content cannot contain a valid record.
 *
 * Payloads
 *   extent (1)         bytes of content
 *   message (2)        fields, below; flag 1: a survivor moved here by compaction
 *   fate (3)           id (16), home segment (8), delivery (4), fate (1), zeros (3); of what was
 *                      handed over also when (8, Unix ms) and the server's name
 *   note (4)           id (16), delivery (4), kind (2), zeros (2), payload
 *   global (5)         length of key (2), key, payload; an empty payload forgets the key
 *   globals reset (6)  nothing; forgets every key
 *   notes reset (7)    id (16); the notes about it before this record are void
 *   commit (15)        group (4), records before it in the group (4),
 *                      CRC32C of their header CRCs in order (4), synced end (4)
 * A record of any other type is skipped. A group is complete if and only if its commit record is
 * valid and all records that it counts are valid and give its CRC.
 *
 * Field: one word, tag in the upper 8 bits and length in the lower 24, then `length` bytes.
 * Unknown tags are skipped, and what is longer than expected is cut.
 *    1 base       id (16: high, low), sequence (8), received (8), odometer (4), elapsed (4),
 *                 flags (4), priority (1), zeros (3), deliver-by (8), header (8), body (8),
 *                 number of recipients (4)
 *    2 sender     3 ENVID     4 Message-ID   5 client: address (16), port (2)
 *    6 HELO       7 listener  8 protocol     9 TLS    10 user    11 verdicts
 *   12 recipient  notify (1), zero (1), length of address (2), address, ORCPT
 *   13 piece      kind (4), stored (4), CRC32C (4), skip (4), take (4), zero (4), where (8),
 *                 offset (8)
 *   14 file       (index only) content file (8)
 *   15 foreign    (index only) numbers of other segments that hold content (8 each)
 *   16 copy of    id (16: high, low) of the message that this one sends again
 *   17 forwarded
 *
 * Index entry: length of payload (4), offset of the record (4), type (1), flags (1), zeros (2),
 * payload. Messages hold the fields that loading needs; fate, note, global, globals reset and notes
 * reset hold the record's payload.
 *
 * Content file, `content-` and its number: bytes of content only; the pieces say which.
 */
#include "spool/log_format.h"

#include "base/crc32c.h"
#include "spool/log_bytes.h"

#include <assert.h>
#include <stdio.h>

enum { ENTRY_BYTES = 12 };

/* ---- blocks ------------------------------------------------------------------------------ */

static void block_close(uint8_t block[LOG_BLOCK], const char *magic)
{
    memcpy(block, magic, 8);
    store(block + 8, LOG_VERSION, 4);
    store(block + 12, crc32c(0, slice_make(block + 16, LOG_BLOCK - 16)), 4);
}

static enum error block_check(const uint8_t block[LOG_BLOCK], const char *magic)
{
    if (memcmp(block, magic, 8) != 0) {
        return ERROR_CORRUPT;
    }
    /* The version first: a newer one may place its checksum elsewhere. */
    if (fetch(block + 8, 4) > LOG_VERSION) {
        return ERROR_NEWER;
    }
    bool sound = fetch(block + 12, 4) == crc32c(0, slice_make(block + 16, LOG_BLOCK - 16));
    return sound ? ERROR_NONE : ERROR_CORRUPT;
}

enum { OPEN_END_OTHERS = 1 };

void log_header_encode(const struct log_header *header, uint8_t ret_block[LOG_BLOCK])
{
    memset(ret_block, 0, LOG_BLOCK);
    store(ret_block + 16, header->number, 8);
    store(ret_block + 24, header->nonce, 8);
    store(ret_block + 32, header->next_sequence, 8);
    store(ret_block + 40, header->open_end_count, 4);
    assert(header->open_end_count <= LOG_OPEN_ENDS_MAX);
    for (uint32_t i = 0; i < header->open_end_count; i++) {
        uint8_t *at = ret_block + 48 + (size_t)i * 24;
        store(at, header->open_ends[i].number, 8);
        store(at + 8, header->open_ends[i].nonce, 8);
        store(at + 16, header->open_ends[i].end, 4);
        store(at + 20, header->open_ends[i].others ? OPEN_END_OTHERS : 0, 4);
    }
    block_close(ret_block, "HOLDFAST");
}

enum error log_header_decode(const uint8_t block[LOG_BLOCK], struct log_header *ret_header)
{
    enum error error = block_check(block, "HOLDFAST");
    if (error != ERROR_NONE) {
        return error;
    }
    ret_header->number = fetch(block + 16, 8);
    ret_header->nonce = fetch(block + 24, 8);
    ret_header->next_sequence = fetch(block + 32, 8);
    ret_header->open_end_count = (uint32_t)fetch(block + 40, 4);
    if (ret_header->open_end_count > LOG_OPEN_ENDS_MAX) {
        return ERROR_CORRUPT;
    }
    for (uint32_t i = 0; i < ret_header->open_end_count; i++) {
        const uint8_t *at = block + 48 + (size_t)i * 24;
        ret_header->open_ends[i].number = fetch(at, 8);
        ret_header->open_ends[i].nonce = fetch(at + 8, 8);
        ret_header->open_ends[i].end = (uint32_t)fetch(at + 16, 4);
        ret_header->open_ends[i].others = (fetch(at + 20, 4) & OPEN_END_OTHERS) != 0;
    }
    return ERROR_NONE;
}

void log_seal_encode(const struct log_seal *seal, uint8_t ret_block[LOG_BLOCK])
{
    memset(ret_block, 0, LOG_BLOCK);
    store(ret_block + 16, seal->number, 8);
    store(ret_block + 24, seal->nonce, 8);
    store(ret_block + 32, seal->next_sequence, 8);
    store(ret_block + 40, seal->end, 4);
    store(ret_block + 44, seal->index_at, 4);
    store(ret_block + 48, seal->index_length, 4);
    store(ret_block + 52, seal->index_crc, 4);
    block_close(ret_block, "HOLDSEAL");
}

enum error log_seal_decode(const uint8_t block[LOG_BLOCK], struct log_seal *ret_seal)
{
    enum error error = block_check(block, "HOLDSEAL");
    if (error != ERROR_NONE) {
        return error;
    }
    ret_seal->number = fetch(block + 16, 8);
    ret_seal->nonce = fetch(block + 24, 8);
    ret_seal->next_sequence = fetch(block + 32, 8);
    ret_seal->end = (uint32_t)fetch(block + 40, 4);
    ret_seal->index_at = (uint32_t)fetch(block + 44, 4);
    ret_seal->index_length = (uint32_t)fetch(block + 48, 4);
    ret_seal->index_crc = (uint32_t)fetch(block + 52, 4);
    return ERROR_NONE;
}

/* ---- records ----------------------------------------------------------------------------- */

size_t log_record_begin(struct buffer *group)
{
    size_t at = group->length;
    uint8_t *header = grow(group, LOG_RECORD_HEADER);
    if (header != NULL) {
        memset(header, 0, LOG_RECORD_HEADER);
    }
    return at;
}

void log_record_end(struct buffer *group, size_t at, enum log_type type, uint8_t flags)
{
    if (group->failed) {
        return;
    }
    size_t length = group->length - at - LOG_RECORD_HEADER;
    size_t padding = log_record_space(length) - LOG_RECORD_HEADER - length;
    uint8_t *zeros = grow(group, padding);
    if (zeros == NULL) {
        return;
    }
    memset(zeros, 0, padding);
    uint8_t *header = group->data + at;
    struct slice payload = slice_make(header + LOG_RECORD_HEADER, length);
    store(header + 4, crc32c(0, payload), 4);
    store(header + 20, length, 4);
    header[28] = (uint8_t)type;
    header[29] = flags;
}

void log_record_put(struct buffer *group, enum log_type type, uint8_t flags, struct slice payload)
{
    size_t at = log_record_begin(group);
    buffer_append(group, payload);
    log_record_end(group, at, type, flags);
}

void log_group_close(struct buffer *group)
{
    size_t space = log_align(group->length + LOG_COMMIT_BYTES, LOG_GROUP_ALIGN) - group->length;
    uint8_t *at = grow(group, space);
    if (at != NULL) {
        memset(at, 0, space);
        /* So that a walk over the records finds where they end. */
        at[28] = LOG_COMMIT;
        store(at + 20, LOG_COMMIT_BYTES - LOG_RECORD_HEADER, 4);
    }
}

static uint32_t place_record(uint8_t *header, uint64_t nonce, uint32_t offset, uint32_t group)
{
    store(header + 8, nonce, 8);
    store(header + 16, offset, 4);
    store(header + 24, group, 4);
    uint32_t crc = crc32c(0, slice_make(header + 4, LOG_RECORD_HEADER - 4));
    store(header, crc, 4);
    return crc;
}

void log_group_place(struct buffer *group, uint64_t nonce, uint32_t offset, uint32_t synced_end)
{
    size_t at = 0;
    uint32_t count = 0, crc = 0;
    while (group->data[at + 28] != LOG_COMMIT) {
        place_record(group->data + at, nonce, offset + (uint32_t)at, offset);
        crc = crc32c(crc, slice_make(group->data + at, 4));
        count++;
        at += log_record_space(fetch(group->data + at + 20, 4));
        assert(at + LOG_COMMIT_BYTES <= group->length);
    }
    uint8_t *commit = group->data + at;
    uint8_t *payload = commit + LOG_RECORD_HEADER;
    store(payload, offset, 4);
    store(payload + 4, count, 4);
    store(payload + 8, crc, 4);
    store(payload + 12, synced_end, 4);
    store(commit + 4, crc32c(0, slice_make(payload, 16)), 4);
    place_record(commit, nonce, offset + (uint32_t)at, offset);
}

bool log_record_decode(const uint8_t *header, uint64_t nonce, uint32_t offset,
                       struct log_record *ret_record)
{
    /* The cheap comparison first: recovery tries many places. */
    if (fetch(header + 8, 8) != nonce || fetch(header + 16, 4) != offset) {
        return false;
    }
    ret_record->header_crc = (uint32_t)fetch(header, 4);
    if (ret_record->header_crc != crc32c(0, slice_make(header + 4, LOG_RECORD_HEADER - 4))) {
        return false;
    }
    ret_record->nonce = nonce;
    ret_record->offset = offset;
    ret_record->payload_crc = (uint32_t)fetch(header + 4, 4);
    ret_record->length = (uint32_t)fetch(header + 20, 4);
    ret_record->group = (uint32_t)fetch(header + 24, 4);
    ret_record->type = header[28];
    ret_record->flags = header[29];
    return true;
}

bool log_commit_decode(struct slice payload, struct log_commit *ret_commit)
{
    if (payload.length < 16) {
        return false;
    }
    ret_commit->group = (uint32_t)fetch(payload.data, 4);
    ret_commit->count = (uint32_t)fetch(payload.data + 4, 4);
    ret_commit->crc = (uint32_t)fetch(payload.data + 8, 4);
    ret_commit->synced_end = (uint32_t)fetch(payload.data + 12, 4);
    return true;
}

/* ---- tickets ----------------------------------------------------------------------------- */

void log_ticket_encode(const struct log_ticket *ticket, uint8_t ret_bytes[LOG_TICKET_BYTES])
{
    store(ret_bytes, ticket->segment, 8);
    store(ret_bytes + 8, ticket->nonce, 8);
    store(ret_bytes + 16, ticket->offset, 8);
    store(ret_bytes + 24, ticket->id.high, 8);
    store(ret_bytes + 32, ticket->id.low, 8);
}

bool log_ticket_decode(struct slice bytes, struct log_ticket *ret_ticket)
{
    if (bytes.length != LOG_TICKET_BYTES || fetch(bytes.data + 16, 8) > UINT32_MAX) {
        return false;
    }
    *ret_ticket = (struct log_ticket){
        .segment = fetch(bytes.data, 8),
        .nonce = fetch(bytes.data + 8, 8),
        .offset = (uint32_t)fetch(bytes.data + 16, 8),
        .id = {fetch(bytes.data + 24, 8), fetch(bytes.data + 32, 8)},
    };
    return true;
}

/* ---- the index --------------------------------------------------------------------------- */

size_t log_entry_begin(struct buffer *index)
{
    size_t at = index->length;
    (void)grow(index, ENTRY_BYTES);
    return at;
}

void log_entry_end(struct buffer *index, size_t at, enum log_type type, uint8_t flags,
                   uint32_t offset)
{
    if (index->failed) {
        return;
    }
    uint8_t *entry = index->data + at;
    store(entry, index->length - at - ENTRY_BYTES, 4);
    store(entry + 4, offset, 4);
    store(entry + 8, 0, 4);
    entry[8] = (uint8_t)type;
    entry[9] = flags;
}

void log_entry_put(struct buffer *index, enum log_type type, uint8_t flags, uint32_t offset,
                   struct slice payload)
{
    size_t at = log_entry_begin(index);
    buffer_append(index, payload);
    log_entry_end(index, at, type, flags, offset);
}

void log_index_rebase(struct buffer *index, size_t from, uint32_t base)
{
    while (from < index->length) {
        uint8_t *entry = index->data + from;
        store(entry + 4, fetch(entry + 4, 4) + base, 4);
        from += ENTRY_BYTES + (size_t)fetch(entry, 4);
    }
}

bool log_entry_next(struct slice index, size_t *at, struct log_entry *ret_entry, bool *ret_sound)
{
    *ret_sound = true;
    if (*at >= index.length) {
        return false;
    }
    const uint8_t *entry = index.data + *at;
    *ret_sound = index.length - *at >= ENTRY_BYTES;
    if (!*ret_sound) {
        return false;
    }
    size_t length = (size_t)fetch(entry, 4);
    *ret_sound = length <= index.length - *at - ENTRY_BYTES;
    if (!*ret_sound) {
        return false;
    }
    *ret_entry = (struct log_entry){.type = entry[8],
                                    .flags = entry[9],
                                    .offset = (uint32_t)fetch(entry + 4, 4),
                                    .payload = slice_make(entry + ENTRY_BYTES, length),
                                    .at = *at};
    *at += ENTRY_BYTES + length;
    return true;
}

/* ---- names ------------------------------------------------------------------------------- */

static const char *const name_prefixes[] = {
    [LOG_NAME_SEGMENT] = "segment-", [LOG_NAME_SPARE] = "spare-",          [LOG_NAME_NEW] = "new-",
    [LOG_NAME_CONTENT] = "content-", [LOG_NAME_SET_ASIDE] = "quarantine-",
};

void log_name_make(enum log_name kind, uint64_t number, char ret_name[LOG_NAME_SIZE])
{
    snprintf(ret_name, LOG_NAME_SIZE, "%s%016llx", name_prefixes[kind], (unsigned long long)number);
}

/* Sixteen hexadecimal digits, and then `rest`. */
static bool parse_digits(const char *text, const char *rest, uint64_t *ret_number)
{
    enum { DIGITS = 16 };
    if (strspn(text, "0123456789abcdef") < DIGITS) {
        return false;
    }
    uint64_t number = 0;
    for (int i = 0; i < DIGITS; i++) {
        number = number << 4 | (uint64_t)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
    }
    *ret_number = number;
    return strncmp(text + DIGITS, rest, strlen(rest)) == 0 &&
           (rest[0] != '\0' || text[DIGITS] == '\0');
}

bool log_name_parse(const char *name, enum log_name *ret_kind, uint64_t *ret_number)
{
    for (int kind = LOG_NAME_SEGMENT; kind <= LOG_NAME_SET_ASIDE; kind++) {
        size_t length = strlen(name_prefixes[kind]);
        if (strncmp(name, name_prefixes[kind], length) == 0 &&
            parse_digits(name + length, "", ret_number)) {
            *ret_kind = (enum log_name)kind;
            return true;
        }
    }
    return false;
}

static const char *const pair_prefixes[] = {
    [LOG_PAIR_COPY] = "copy-",
    [LOG_PAIR_LARGE] = "large-",
};

void log_pair_make(enum log_pair kind, uint64_t number, uint64_t time_s,
                   char ret_name[LOG_NAME_SIZE])
{
    snprintf(ret_name, LOG_NAME_SIZE, "%s%016llx-%016llx", pair_prefixes[kind],
             (unsigned long long)number, (unsigned long long)time_s);
}

bool log_pair_parse(const char *name, enum log_pair *ret_kind, uint64_t *ret_number,
                    uint64_t *ret_time_s)
{
    for (int kind = LOG_PAIR_COPY; kind <= LOG_PAIR_LARGE; kind++) {
        size_t length = strlen(pair_prefixes[kind]);
        if (strncmp(name, pair_prefixes[kind], length) == 0 &&
            parse_digits(name + length, "-", ret_number) &&
            parse_digits(name + length + 17, "", ret_time_s)) {
            *ret_kind = (enum log_pair)kind;
            return true;
        }
    }
    return false;
}
