/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a domain wants reports on TLS to go (RFC 8460 3): the grammar of its TXT record at
 * _smtp._tls.DOMAIN.
 */
#ifndef HOLDFAST_PROTO_TLS_RPT_H
#define HOLDFAST_PROTO_TLS_RPT_H

#include "base/slice.h"

enum {
    TLS_RPT_TARGETS_MAX = 4, /* further ones are left out */
    TLS_RPT_URI_MAX = 512,   /* bytes; longer ones are left out */
};

struct tls_rpt_record {
    struct slice targets[TLS_RPT_TARGETS_MAX]; /* "mailto:" or "https:"; lie in the record */
    uint32_t count;
};

/* False: it is another kind of record, or breaks the grammar. Targets of other kinds are left out:
 * there may be none. */
bool tls_rpt_read(struct slice record, struct tls_rpt_record *ret_record);
/* The address of a "mailto:", percent-decoded, without what follows '?'. False: it is none that
 * could be written, or longer than `size` has room for with a NUL. Whether it is an address is the
 * caller's to find out. */
bool tls_rpt_mailbox(struct slice target, char *ret_address, size_t size);

#endif
