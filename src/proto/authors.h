/* SPDX-License-Identifier: Apache-2.0
 *
 * Whom a message says it is from: the addresses in a From or Sender field (RFC 5322 3.4, 3.6.2;
 * with groups, RFC 6854). Strict: what programs that show mail might read as another address is
 * none that can be read here.
 */
#ifndef HOLDFAST_PROTO_AUTHORS_H
#define HOLDFAST_PROTO_AUTHORS_H

#include "base/slice.h"

enum { AUTHOR_MAX = 512 };

enum authors_result {
    AUTHORS_READ,
    AUTHORS_REFUSED, /* by the caller */
    AUTHORS_BROKEN,
};

/* False: enough, AUTHORS_REFUSED. The address is without comments and blanks, valid during the
 * call. */
typedef bool author_fn(void *context, struct slice address);

/* The value of a field, folded or not. Of `Name <address>` an address in the name counts, too. */
enum authors_result authors_read(struct slice value, author_fn *fn, void *context,
                                 uint32_t *ret_count);

#endif
