/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose mail it is, told from one mail server to the next: XCLIENT and XFORWARD as Postfix speaks
 * them (postfix.org, XCLIENT_README, XFORWARD_README). Values are xtext (RFC 3461 4). With XCLIENT
 * the next server decides as if the client had come to it directly; with XFORWARD it only writes
 * down who that was.
 */
#ifndef HOLDFAST_PROTO_XCLIENT_H
#define HOLDFAST_PROTO_XCLIENT_H

#include "base/buffer.h"
#include "base/network.h"

enum xclient_attribute {
    XCLIENT_NAME = 1,
    XCLIENT_ADDR = 2,
    XCLIENT_PORT = 4,
    XCLIENT_PROTO = 8,
    XCLIENT_HELO = 16,
    XCLIENT_LOGIN = 32,
    XCLIENT_DESTADDR = 64,
    XCLIENT_DESTPORT = 128,
    XCLIENT_IDENT = 256,  /* XFORWARD: our id of the message */
    XCLIENT_SOURCE = 512, /* XFORWARD: LOCAL or REMOTE */
    XCLIENT_REVERSE_NAME = 1024,
};

enum {
    XCLIENT_OF_XCLIENT = 1279, /* what may stand in either command */
    XCLIENT_OF_XFORWARD = 799, /* without LOGIN, DESTADDR, DESTPORT, REVERSE_NAME */
    XCLIENT_VALUE_MAX = 255,   /* as it stands in the line */
    XCLIENT_LINE_MAX = 512,    /* octets of a command with its CRLF */
    XCLIENT_COMMAND_MAX = 16,
};

struct xclient {
    unsigned given;            /* attributes; one given without a value is "unavailable" */
    struct slice name;         /* of the client by DNS, and that name leads back to its address */
    bool name_later;           /* it may be known later (a DNS failure) */
    struct slice reverse_name; /* of the client by DNS, whether it leads back or not */
    bool reverse_name_later;
    struct ip_endpoint client;
    bool has_address, has_port;
    bool has_protocol, is_extended; /* PROTO; ESMTP, not SMTP */
    struct slice helo;
    struct slice login;
    struct ip_endpoint destination;
    bool has_destination_address, has_destination_port;
    struct slice ident;
    bool is_local; /* SOURCE */
};

/* The attributes named in an EHLO line behind XCLIENT or XFORWARD; unknown ones do not count. */
unsigned xclient_offered(struct slice words);

/* Appends " ADDR=... NAME=..." of those attributes of `facts` that are given and wanted, each of
 * them always. A text that is too long for the line, which has `used` octets already, is said to be
 * unavailable; the more important ones come first. `used` at most XCLIENT_COMMAND_MAX. */
void xclient_put(struct buffer *to, const struct xclient *facts, unsigned wanted, size_t used);

struct xclient_storage {
    uint8_t bytes[5 * XCLIENT_VALUE_MAX];
};
/* Reads the parameters of a command, of which only `allowed` may be there. Values are decoded into
 * the storage, which must live as long as they. ERROR_INVALID: unknown or repeated attribute, or a
 * value that cannot be. */
enum error xclient_read(struct slice words, unsigned allowed, struct xclient_storage *storage,
                        struct xclient *ret_facts) MUST_CHECK;

#endif
