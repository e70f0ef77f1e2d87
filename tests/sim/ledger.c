/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "sim/actors.h"

enum { PRINTED = 10 };

uint32_t ledger_judge(struct ledger *ledger)
{
    uint32_t broken = ledger->faults;
    uint32_t lost = 0, doubled = 0, both = 0, doubts = 0, delivered = 0, refused = 0;
    for (uint32_t i = 0; i < ledger->issued; i++) {
        const struct ledger_message *message = &ledger->messages[i];
        for (uint32_t j = 0; j < message->count; j++) {
            const struct ledger_entry *entry = &message->entries[j];
            delivered += entry->delivered > 0;
            refused += entry->refused > 0;
            doubts += entry->doubts;
            if (message->acknowledged && entry->delivered == 0 && entry->refused == 0) {
                if (lost++ < PRINTED) {
                    printf("lost: message %u for r%u\n", i, entry->recipient);
                }
            }
            if (entry->delivered > 1 + entry->doubts) {
                doubled += entry->delivered - 1 - entry->doubts;
            }
            if (entry->delivered > 0 && entry->refused > 0 && entry->doubts == 0) {
                both++;
            }
        }
    }
    printf("issued %u, acknowledged %u, deliveries %u, refused %u, doubts %u, doubled %u "
           "(%u excused), lost %u, faults %u\n",
           ledger->issued, ledger->acknowledged, delivered, refused, doubts, doubled,
           ledger->allowance, lost, ledger->faults);
    if (doubled > ledger->allowance) {
        printf("doubled beyond excuse: %u of %u\n", doubled, ledger->allowance);
        broken += doubled - ledger->allowance;
    }
    /* Refused first, then released by nobody, and yet delivered: two fates. */
    return broken + lost + both;
}
