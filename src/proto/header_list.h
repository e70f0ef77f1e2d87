/* SPDX-License-Identifier: Apache-2.0
 *
 * A message's header block taken apart into fields, changed as a filter asks, and put together
 * again. Fields that are not changed keep their bytes. What a filter sees of a field: its name, and
 * all behind the colon without the last CRLF.
 */
#ifndef HOLDFAST_PROTO_HEADER_LIST_H
#define HOLDFAST_PROTO_HEADER_LIST_H

#include "base/arena.h"
#include "base/buffer.h"

struct header_field {
    struct slice whole; /* with its last CRLF */
    struct slice name;  /* empty: not a field (an mbox "From " line), and nobody's to change */
    bool is_added;      /* since header_list_take() */
    bool is_own;        /* header_list_put_own() */
};

struct header_list {
    struct arena *arena;
    struct header_field *fields;
    uint32_t count, room;
    uint64_t bytes;    /* of all fields, without the empty line */
    uint64_t most;     /* of these */
    struct slice tail; /* the empty line, or nothing if the block ends without */
    bool changed;
};

/* `block` as proto/smtp_header.h measures it. It and `arena` must outlive the list. False: memory.
 */
bool header_list_take(struct header_list *list, struct slice block, uint64_t most,
                      struct arena *arena);
/* Puts a field of the server's own in front, which filters do not see and cannot change, but go
 * before with index 0. Copied. False: memory. */
bool header_list_put_own(struct header_list *list, struct slice whole);
void header_list_done(struct header_list *list);

/* Values as proto/milter.h gives them: folded by LF or CRLF. `needs_blank`: one is put behind the
 * colon. False: memory, or more than `most`. */
bool header_list_add(struct header_list *list, struct slice name, struct slice value,
                     bool needs_blank);
/* In front of the field that `index` counts, 0 being the first; at the end if there are not as
 * many. */
bool header_list_insert(struct header_list *list, uint32_t index, struct slice name,
                        struct slice value, bool needs_blank);
/* The index-th (from 1; 0 counts as 1) of that name; an empty value removes it. One that is not
 * there is added, if there is a value. */
bool header_list_change(struct header_list *list, uint32_t index, struct slice name,
                        struct slice value, bool needs_blank);

/* What is behind the colon of a field, without the last CRLF. */
struct slice header_field_value(const struct header_field *field);
/* The first field of the name, or NULL. */
const struct header_field *header_list_find(const struct header_list *list, struct slice name);

#endif
