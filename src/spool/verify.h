/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks a journal offline and says what is in it; changes nothing.
 */
#ifndef HOLDFAST_SPOOL_VERIFY_H
#define HOLDFAST_SPOOL_VERIFY_H

#include "spool/spool.h"

struct spool_verify_report {
    uint64_t segments, sealed_segments, recovered_tails;
    uint64_t records, groups, bytes;
    uint64_t messages, unfinished_messages, fates, notes;
    uint64_t content_files, orphan_content_files;
    uint64_t copies,
        copy_bytes; /* kept of mail that was handed over; large contents with the bytes */
    uint64_t damaged_records, missing_contents;
};

/* `line` gets one finding at a time for the operator ("segment 3 at 81920: checksum ..."). Reads
 * every byte, contents included. progress() may be NULL: bytes done of bytes in all. ERROR_NONE
 * also with findings; ERROR_NEWER; ERROR_MISSING: no journal here. */
enum error spool_verify(struct disk *disk, void (*line)(void *context, const char *text),
                        void (*progress)(void *context, uint64_t done, uint64_t all), void *context,
                        struct spool_verify_report *ret_report) MUST_CHECK;

#endif
