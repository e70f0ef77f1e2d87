/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a record and as a policy: what is found lies within them and is of their grammar.
 */
#include "proto/mta_sts.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mta_sts_policy policy;
    struct slice input = slice_make(data, size), id;
    if (mta_sts_announces(input, &id)) {
        assert(id.length > 0 && id.length <= MTA_STS_ID_MAX && id.data >= data &&
               id.data + id.length <= data + size);
    }
    if (mta_sts_read(input, &policy) == ERROR_NONE) {
        assert(policy.max_age_s <= MTA_STS_AGE_MAX_S);
        assert(policy.mode == MTA_STS_NONE || policy.pattern_count > 0);
        for (size_t i = 0; i < policy.pattern_count; i++) {
            struct slice pattern = policy.patterns[i];
            assert(pattern.length > 0 && pattern.data >= data &&
                   pattern.data + pattern.length <= data + size);
            assert(pattern.data[0] == '*' || mta_sts_allows(&policy, pattern));
        }
    }
    return 0;
}
