/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS over a connected descriptor, by OpenSSL (docs/decisions/0017): TLS 1.2 (RFC 5246) and 1.3
 * (RFC 8446), both sides, never blocking. No renegotiation, no compression, no early data. What
 * counts as trustworthy is the caller's to say; nothing here knows SMTP.
 *
 * A server and a client are each used by one thread only: OpenSSL 3.0 shares them badly. They may
 * be freed while connections that were begun with them live on.
 */
#ifndef HOLDFAST_SYS_TLS_H
#define HOLDFAST_SYS_TLS_H

#include "base/error.h"
#include "base/slice.h"

enum { TLS_PROBLEM_SIZE = 160, TLS_FINGERPRINT_SIZE = 65 };

/* Once in each process that uses these, before it confines itself; does digest_prepare(), too. */
enum error tls_prepare(void) MUST_CHECK;

/* ---- who we are ---------------------------------------------------------------------------- */

struct tls_certificate {
    struct slice chain; /* PEM, our own certificate first */
    struct slice key;   /* PEM, without a passphrase */
};

/* Whether a pair can be used: ERROR_INVALID with ret_problem, for people. `ret_not_after_s` (Unix
 * time at which it ends) may be NULL. */
enum error tls_certificate_check(const struct tls_certificate *certificate,
                                 int64_t *ret_not_after_s,
                                 char ret_problem[TLS_PROBLEM_SIZE]) MUST_CHECK;
/* The same for a file of authorities; at least one must be in it. */
enum error tls_authorities_check(struct slice pem, char ret_problem[TLS_PROBLEM_SIZE]) MUST_CHECK;

/* With what tickets are sealed (RFC 5077, RFC 8446 4.6.1). Servers of several threads that share
 * one resume each other's sessions. Its keys change every half day; it is never changed itself. */
struct tls_tickets {
    uint8_t secret[32];
};

struct tls_server_settings {
    const struct tls_certificate *certificates; /* a name that none of them has gets the first */
    size_t certificate_count;                   /* at least 1 */
    const struct tls_tickets *tickets; /* outlives server and connections; NULL: no tickets */
    bool ask_client;                   /* for a certificate; it may have none */
    struct slice client_authorities;   /* PEM; empty: any certificate will do */
};

struct tls_server;
/* Copies all but the tickets. NULL: memory, or ret_problem says what is wrong. */
struct tls_server *tls_server_new(const struct tls_server_settings *settings,
                                  char ret_problem[TLS_PROBLEM_SIZE]);
void tls_server_free(struct tls_server *server); /* NULL is allowed */

/* ---- whom we trust --------------------------------------------------------------------------- */

struct tls_client;
/* `authorities`: PEM; empty: none, and no proof by them succeeds. Not those of the machine: who
 * talks TLS here cannot open files. */
struct tls_client *tls_client_new(struct slice authorities, char ret_problem[TLS_PROBLEM_SIZE]);
void tls_client_free(struct tls_client *client); /* NULL is allowed */

enum tls_trust {
    TLS_TRUST_ANYBODY,
    TLS_TRUST_AUTHORITIES, /* and one of the names (RFC 6125) */
    TLS_TRUST_DANE,        /* the TLSA records (RFC 7672) */
};

/* Records (RFC 6698 2.1, their bytes) that can be used for SMTP: DANE-TA and DANE-EE with a
 * selector and a matching type that we know (RFC 7672 3.1). */
bool tls_tlsa_is_usable(struct slice record);

struct tls_peer {
    enum tls_trust trust;
    bool only_look;    /* a failed proof does not end the handshake; tls_facts() tells */
    struct slice name; /* sent as SNI (RFC 6066 3) if it is a host's; of DANE the base domain */
    const struct slice *names; /* one of which its certificate must have; none: `name` */
    size_t name_count;
    const struct slice *tlsa;
    size_t tlsa_count;
};

/* ---- a connection ---------------------------------------------------------------------------- */

struct tls;
/* The descriptor stays the caller's, who reads and writes it no more but through these. NULL:
 * memory. */
struct tls *tls_accept(struct tls_server *server, int fd);
struct tls *tls_connect(struct tls_client *client, const struct tls_peer *peer, int fd);
/* Says goodbye if that can be done without waiting. NULL is allowed. */
void tls_free(struct tls *tls);

/* ERROR_NONE: done. ERROR_AGAIN: when tls_wants() can be had. Else it has failed, and ret_problem
 * says why: ERROR_DENIED the other side did not prove itself, ERROR_CLOSED it is gone,
 * ERROR_INVALID anything else. */
enum error tls_shake_hands(struct tls *tls, char ret_problem[TLS_PROBLEM_SIZE]) MUST_CHECK;
/* LOOP_READ or LOOP_WRITE: what the handshake waits for. */
unsigned tls_wants(const struct tls *tls);
/* For what to watch a descriptor to go on with reading or writing (LOOP_READ, LOOP_WRITE:
 * `wanted`), which may wait for the other; so either readiness may serve both. NULL is allowed:
 * `wanted`. */
unsigned tls_interest(const struct tls *tls, unsigned wanted);
/* As net_receive() and net_send(). A connection cut without goodbye is ERROR_CLOSED like any other:
 * SMTP ends its contents by itself. */
enum error tls_receive(struct tls *tls, void *ret_bytes, size_t size,
                       size_t *ret_length) MUST_CHECK;
enum error tls_send(struct tls *tls, struct slice bytes, size_t *ret_sent) MUST_CHECK;
/* Bytes can be had that a descriptor watched for reading will not tell about: as a rule after the
 * handshake, and until tls_receive() has said ERROR_AGAIN. */
bool tls_has_unread(const struct tls *tls);

/* What was wrong with the other side's certificate, also after a handshake that failed. */
enum tls_fault {
    TLS_FAULT_NONE,
    TLS_FAULT_NAME,      /* of another name */
    TLS_FAULT_TIME,      /* it has ended, or not begun */
    TLS_FAULT_UNTRUSTED, /* nobody that is known has signed it */
    TLS_FAULT_RECORDS,   /* no TLSA record is of it */
    TLS_FAULT_OTHER,
};
enum tls_fault tls_fault(const struct tls *tls);

/* Texts live as long as the connection. */
struct tls_facts {
    const char *protocol; /* "TLSv1.3" */
    const char *cipher;   /* "TLS_AES_256_GCM_SHA384" */
    int bits;             /* of its key */
    bool resumed;
    struct slice server_name;               /* asked for (SNI), or empty */
    bool has_certificate;                   /* the other side */
    bool proved;                            /* by what was asked of it */
    const char *problem;                    /* if not: why, for people */
    char fingerprint[TLS_FINGERPRINT_SIZE]; /* SHA-256 of the other side's certificate, in hex */
};
/* After the handshake, both. */
enum { TLS_TEXT_SIZE = 80 };
/* Protocol and cipher: "TLSv1.3 TLS_AES_256_GCM_SHA384"; cheap. */
void tls_describe(const struct tls *tls, char ret_text[TLS_TEXT_SIZE]);
/* The cipher suite as IANA has registered it; "" if it has not. */
const char *tls_suite(const struct tls *tls);
void tls_facts(const struct tls *tls, struct tls_facts *ret_facts);
/* The common names in the other side's certificate, its own and that of who has signed it, if it
 * was proved; else, and where there is none, empty. What cannot be shown has become '?'. */
enum { TLS_NAME_SIZE = 256 };
void tls_common_names(const struct tls *tls, char ret_subject[TLS_NAME_SIZE],
                      char ret_issuer[TLS_NAME_SIZE]);

#endif
