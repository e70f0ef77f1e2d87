/* SPDX-License-Identifier: Apache-2.0
 *
 * Safety copies: segments that nothing needs any more, and content files whose message has ended,
 * kept under other names until their time is over or room gets short. To the journal they have
 * gone: no start reads them, nothing in them is ever loaded, and its rules (log.c) know nothing of
 * them. What is kept in memory is a line for each file.
 *
 *   copy-SEGMENT-TIME    a sealed segment
 *   large-FILE-TIME      a content file
 * TIME, Unix s, is when it was needed no more: no fate of what is in it is later. All numbers have
 * 16 hexadecimal digits.
 */
#ifndef HOLDFAST_SPOOL_LOG_COPIES_H
#define HOLDFAST_SPOOL_LOG_COPIES_H

#include "base/buffer.h"
#include "spool/log_format.h"

struct log_copy {
    enum log_pair kind;
    uint64_t number;
    int64_t time_s;
    uint64_t bytes;
};

struct log_copies {
    struct buffer all; /* struct log_copy, in the order in which they go */
    int64_t keep_s, now_s;
    bool told;           /* how long they are kept */
    bool narrow;         /* room is short: none are made, and the oldest go */
    bool going;          /* some are being removed */
    uint64_t room_taken; /* bytes written since room was looked at */
    uint64_t bytes;
    uint32_t segments; /* among them */
    unsigned searches; /* while there are any, none goes because of its age */
    uint64_t given_up;
    int64_t gone_s;
};

/* False: no such copy. */
bool log_copies_name(const struct log_copies *copies, enum log_pair kind, uint64_t number,
                     char ret_name[LOG_NAME_SIZE]);

#endif
