/* SPDX-License-Identifier: Apache-2.0
 *
 * A message's content while filters look at it, and what they have made of it (smtp_in_milter.h).
 * The header is in memory, the body in memory up to CHANNEL_CHUNK and beyond that in the loop's
 * scratch file. What a filter wants changed is kept beside it, and done all together or not at all.
 *
 *   smtp_in_milter_draft.c    content
 *   smtp_in_milter_change.c   changes
 */
#ifndef HOLDFAST_SERVICE_SMTP_IN_MILTER_DRAFT_H
#define HOLDFAST_SERVICE_SMTP_IN_MILTER_DRAFT_H

#include "service/smtp_in_milter.h"

enum {
    DRAFT_CHANGES_MAX = 1 << 20, /* bytes of what a filter wants changed, without the body */
};

/* A string of bytes: the front in the scratch file, the rest in memory. */
struct draft_text {
    struct scratch_text kept;
    struct buffer rest;
};

struct draft_change {
    enum milter_event_kind kind;
    uint32_t index;
    bool needs_blank;
    struct slice name, value;
};

enum draft_phase { DRAFT_HEADER, DRAFT_EOH, DRAFT_BODY, DRAFT_END, DRAFT_SENDING };

struct draft {
    enum draft_phase phase;
    uint64_t at; /* field of the header, or octet of the body */
    struct buffer header;
    struct header_list list;
    struct draft_text body;
    uint64_t body_begins; /* octets of `body` before it: the header as it came */
    struct draft_change *changes;
    uint32_t change_count, change_room;
    size_t change_bytes;
    struct draft_text new_body; /* of the filter at work */
    bool has_new_body;
    bool is_held;    /* quarantined */
    bool is_nobodys; /* its one recipient has been taken away, and stands there for the trace */
    bool has_8bit;
    size_t accounted;
};

uint64_t draft_text_length(const struct draft_text *text);
void draft_text_done(struct smtp_in *in, struct draft_text *text);
/* ERROR_SPACE, ERROR_IO, ERROR_MEMORY: it cannot be kept. */
enum error draft_text_append(struct smtp_in *in, struct draft_text *text,
                             struct slice bytes) MUST_CHECK;
/* From `offset` on, as much as lies together and fits; *ret_length is 0 at the end. */
enum error draft_text_read(struct smtp_in *in, const struct draft_text *text, uint64_t offset,
                           uint8_t *ret_bytes, size_t size, size_t *ret_length) MUST_CHECK;

/* milters->draft is made of the transaction's content, which it takes; also on failure. */
enum error draft_take(struct session_milters *milters, uint64_t header_length) MUST_CHECK;
/* What it takes now counts among the content in memory. */
void draft_account(struct smtp_in *in, struct draft *draft);

/* A change is noted. False: too much, or memory. */
bool draft_note_change(struct session_milters *milters, const struct milter_event *event);
/* What the filter wanted is done. NULL, or why it cannot be; static. */
const char *draft_apply(struct session_milters *milters);

#endif
