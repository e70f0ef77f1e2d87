/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a record: targets lie within it, are of a kind that is known, and have no byte that
 * could end a line, a header or a path.
 */
#include "proto/tls_rpt.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls_rpt_record record;
    char address[64];
    if (tls_rpt_read(slice_make(data, size), &record)) {
        assert(record.count <= TLS_RPT_TARGETS_MAX);
        for (uint32_t i = 0; i < record.count; i++) {
            struct slice target = record.targets[i];
            assert(target.length > 0 && target.length <= TLS_RPT_URI_MAX);
            assert(target.data >= data && target.data + target.length <= data + size);
            for (size_t j = 0; j < target.length; j++) {
                assert(target.data[j] > ' ' && target.data[j] < 0x7f);
            }
            if (tls_rpt_mailbox(target, address, sizeof(address))) {
                assert(address[0] != '\0' && strlen(address) < sizeof(address));
            }
        }
    }
    (void)tls_rpt_mailbox(slice_make(data, size), address, sizeof(address));
    return 0;
}
