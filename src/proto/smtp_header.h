/* SPDX-License-Identifier: Apache-2.0
 *
 * A scanner over a message's content as it passes by, up to the end of its header: where the header
 * block ends, how many Received fields it has and whether one is our own, the Message-ID, and
 * whether it says "TLS-Required: No" (RFC 8689 section 3). It stores nothing but that Message-ID,
 * so a header of any length costs the same memory.
 *
 * Its input are lines that end in CRLF (smtp_content makes sure). The header block ends behind the
 * first empty line, or before the first line that is neither a field nor a continuation (gateways
 * and programs send such mail); an mbox "From " line in front is let pass.
 */
#ifndef HOLDFAST_PROTO_SMTP_HEADER_H
#define HOLDFAST_PROTO_SMTP_HEADER_H

#include "base/slice.h"

enum { SMTP_MESSAGE_ID_MAX = 998 };

struct smtp_header {
    uint64_t length;   /* of the header block with its empty line, as far as seen */
    uint64_t line;     /* where the current line begins */
    uint32_t received; /* Received fields */
    bool complete;     /* the end has been seen; `length` is final */
    bool has_8bit;
    struct slice own_host; /* the caller's, after smtp_header_init(); empty: nothing is ours */
    bool is_ours;          /* a Received field says "by own_host (holdfast)" */
    bool after_blank;      /* in a Received field: blanks count as one */
    size_t matched;        /* of that, so far */
    uint8_t state;
    uint8_t field;
    uint8_t name_length;
    uint8_t name[13];   /* one more than the longest that is looked for */
    uint8_t tls_fields; /* TLS-Required, at most 2 */
    uint8_t tls_step;   /* in the value of the first */
    bool date_seen;
    bool id_seen;
    uint16_t id_length;
    uint8_t id[SMTP_MESSAGE_ID_MAX];
};

void smtp_header_init(struct smtp_header *header);
/* The next bytes of the content; does nothing once complete. */
void smtp_header_feed(struct smtp_header *header, struct slice bytes);
/* It has ended with its empty line, which its length counts; else before a line that is no field.
 */
bool smtp_header_has_empty_line(const struct smtp_header *header);
/* The Message-ID field's value without blanks around it; empty when there is none, or none that
 * could stand in one line of 998 bytes. Valid as long as the header. */
struct slice smtp_header_message_id(const struct smtp_header *header);
/* It has one TLS-Required field, and that says No; two contradict the RFC, and count as none. */
bool smtp_header_needs_no_tls(const struct smtp_header *header);

#endif
