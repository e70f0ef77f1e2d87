/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the doctor share; nobody else includes it.
 *
 *   doctor.c           the examination, in order; who we are; our own state
 *   doctor_chain.c     the servers that the domain's mail is handed over to
 *   doctor_exchanger.c MX hosts: addresses, reverse names, greeting, certificate
 *   doctor_policy.c    what the domain has published: MTA-STS, SPF
 *   doctor_ask.c       asking and waiting: DNS records, a line-by-line conversation
 */
#ifndef HOLDFAST_APP_DOCTOR_INTERNAL_H
#define HOLDFAST_APP_DOCTOR_INTERNAL_H

#include "app/doctor.h"
#include "base/arena.h"
#include "base/buffer.h"
#include "proto/smtp_reply.h"
#include "sys/loop.h"

enum { DOCTOR_EXCHANGERS_MAX = 16, DOCTOR_ADDRESSES_MAX = 64 };

struct exchanger {
    uint16_t preference;
    struct slice name;
    struct dns_answer addresses;
    bool secure; /* the MX set and its addresses were validated */
    bool ours;
    bool served; /* it is a server of the domain's chain: the primary, or one that stands in */
};

struct doctor {
    const struct doctor_settings *settings;
    struct loop *loop;
    struct dns *dns;
    struct arena arena;
    unsigned bad;
    const struct route_config *route; /* NULL: the domain is not configured */
    int64_t until_ms;                 /* steady: questions about the present subject end then */
    struct ip_address own[DOCTOR_ADDRESSES_MAX]; /* of this host: its name's, its interfaces' */
    size_t own_count;
    struct exchanger exchangers[DOCTOR_EXCHANGERS_MAX];
    size_t exchanger_count;
    bool exchangers_secure;
    struct ip_address served[DOCTOR_ADDRESSES_MAX]; /* of the chain's servers */
    size_t served_count;
};

/* doctor.c */
void tell(struct doctor *doctor, const char *check, struct slice subject, enum doctor_level level,
          const char *advice, const char *format, ...) __attribute__((format(printf, 6, 7)));
bool is_own(const struct doctor *doctor, const struct ip_address *address);

/* doctor_chain.c */
void examine_chain(struct doctor *doctor);
bool is_served(const struct doctor *doctor, const struct ip_address *address);

/* doctor_exchanger.c */
void examine_exchangers(struct doctor *doctor);
void examine_hosts(struct doctor *doctor);

/* doctor_policy.c */
void examine_mta_sts(struct doctor *doctor);
void examine_spf(struct doctor *doctor);

/* doctor_ask.c: copies into the doctor's arena, so what is given lives as long as he does. */
struct dns_records ask_records(struct doctor *doctor, struct slice name, enum dns_type type);
struct dns_answer ask_addresses(struct doctor *doctor, struct slice name);
/* "a.b" with a prefix, as "_25._tcp.a.b". data NULL: memory. */
struct slice name_under(struct doctor *doctor, const char *prefix, struct slice name);
const char *ask_trouble(const struct dns_records *records); /* "no answer" and the like */

struct conversation {
    int fd;
    int64_t deadline_ms;
    uint32_t timeout_ms;
    struct smtp_reply_parser parser;
    uint8_t bytes[2048];
    struct slice rest; /* of them, not parsed yet */
};
enum error conversation_open(struct conversation *conversation, const struct ip_endpoint *to,
                             uint32_t timeout_ms) MUST_CHECK;
/* Sends a line (may be NULL) and reads the reply; `line` is told each line of it (may be NULL). The
 * reply's text is valid until the next call. */
enum error conversation_ask(struct conversation *conversation, const char *line,
                            void (*told)(void *context, struct slice line), void *context,
                            struct smtp_reply *ret_reply) MUST_CHECK;
void conversation_close(struct conversation *conversation);
/* Connects and is greeted, or tells as `check` of `subject` why not, with `advice`. */
bool conversation_begin(struct doctor *doctor, struct conversation *conversation,
                        const struct ip_endpoint *to, const char *check, struct slice subject,
                        const char *advice);

#endif
