/* SPDX-License-Identifier: Apache-2.0
 *
 * MTA-STS (RFC 8461): a domain says over HTTPS that its exchangers take TLS with valid
 * certificates, and which they are. The grammar of its record and its policy; fetching and keeping
 * them is the caller's.
 */
#ifndef HOLDFAST_PROTO_MTA_STS_H
#define HOLDFAST_PROTO_MTA_STS_H

#include "base/error.h"
#include "base/slice.h"

enum {
    MTA_STS_POLICY_MAX = 64 << 10, /* bytes; section 3.3 */
    MTA_STS_PATTERNS_MAX = 64,     /* mx lines; further ones make it unusable */
    MTA_STS_AGE_MAX_S = 31557600,  /* section 3.2 */
    MTA_STS_ID_MAX = 32,
};

enum mta_sts_mode { MTA_STS_NONE, MTA_STS_TESTING, MTA_STS_ENFORCE };

struct mta_sts_policy {
    enum mta_sts_mode mode;
    uint32_t max_age_s;
    struct slice patterns[MTA_STS_PATTERNS_MAX]; /* lie in the text */
    size_t pattern_count;
};

/* Whether a TXT record at _mta-sts.DOMAIN announces a policy (section 3.1); another kind of record
 * is none. Of several that do, the caller believes none. `ret_id` lies in the record. */
bool mta_sts_announces(struct slice record, struct slice *ret_id);
/* A policy (section 3.2). ERROR_INVALID: it is unusable, ERROR_LIMIT: too many patterns. */
enum error mta_sts_read(struct slice text, struct mta_sts_policy *ret_policy) MUST_CHECK;
/* Whether an exchanger is one of the policy's (section 4.1). */
bool mta_sts_allows(const struct mta_sts_policy *policy, struct slice host);

#endif
