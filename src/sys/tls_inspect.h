/* SPDX-License-Identifier: Apache-2.0
 *
 * Looks at a server's certificate: one handshake that goes through whatever the certificate is, and
 * what is to be said of it. For a tool that has the time to wait; nothing is sent over it.
 */
#ifndef HOLDFAST_SYS_TLS_INSPECT_H
#define HOLDFAST_SYS_TLS_INSPECT_H

#include "base/error.h"
#include "base/slice.h"

struct tls_inspection {
    char protocol[16];    /* "TLSv1.3" */
    char problem[160];    /* why the certificate does not prove the name; empty: it does */
    int64_t not_after_s;  /* Unix time at which it ends; 0: not known */
    unsigned tlsa_usable; /* of the TLSA records given (RFC 7672 3.1) */
    bool tlsa_matches;    /* one of them matches (then `problem` is about the chain alone) */
};

/* `fd` is connected and the server expects a handshake. `tlsa` are records' bytes (RFC 6698 2.1),
 * maybe none. ERROR_IO, CLOSED, TIMEOUT, INVALID (with `problem` saying what the library said): no
 * handshake. The descriptor stays the caller's. */
enum error tls_inspect(int fd, const char *name, const struct slice *tlsa, size_t tlsa_count,
                       int timeout_ms, struct tls_inspection *ret_inspection) MUST_CHECK;

#endif
