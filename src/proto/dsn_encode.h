/* SPDX-License-Identifier: Apache-2.0
 *
 * Strings of strangers in the fields and parts of a delivery status notification: whatever they
 * hold, what comes out is printable ASCII of one line, or lines of a well-formed MIME part.
 */
#ifndef HOLDFAST_PROTO_DSN_ENCODE_H
#define HOLDFAST_PROTO_DSN_ENCODE_H

#include "base/buffer.h"

/* Printable ASCII as it is, all else as '?'; at most `limit` bytes. */
void dsn_put_clean(struct buffer *to, struct slice text, size_t limit);
/* Well-formed UTF-8 as it is; control characters and broken sequences as '?'. */
void dsn_put_text(struct buffer *to, struct slice text, size_t limit);
/* "rfc822; ann@example.org", or "utf-8; " in the 7-bit form of RFC 6533 3 (utf-8-addr-xtext). */
void dsn_put_address(struct buffer *to, struct slice address);
/* RFC 3461 4: "+40" is "@". Then as dsn_put_clean(). */
void dsn_put_xtext(struct buffer *to, struct slice text);
/* The value of ORCPT as an Original-Recipient (RFC 3464 2.3.1). */
void dsn_put_orcpt(struct buffer *to, struct slice orcpt);

/* All lines end in CRLF, are ASCII without NUL, and are at most 998 bytes. */
bool dsn_is_7bit(struct slice text);
/* RFC 2045 6.7; CRLF stays a line end, any other CR or LF is encoded. */
void dsn_put_quoted_printable(struct buffer *to, struct slice text);

#endif
