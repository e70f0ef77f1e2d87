/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include "sim/actors.h"
#include "sim/sim.h"

enum { PRINTED = 10 };

void ledger_tell(const struct ledger *ledger, const char *format, ...)
{
    if (ledger->tell) {
        va_list arguments;
        va_start(arguments, format);
        printf("%12.6f ", (double)sim_now_ns() / 1e9);
        vprintf(format, arguments);
        printf("\n");
        va_end(arguments);
    }
}

void ledger_disturb(struct ledger *ledger, uint32_t recipient)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < ledger->issued && found < 2; i++) {
        struct ledger_message *message = &ledger->messages[i];
        for (uint32_t j = 0; j < message->count; j++) {
            struct ledger_entry *entry = &message->entries[j];
            if (entry->recipient == recipient && entry->delivered == 0 && !entry->disturbed) {
                entry->disturbed = true;
                found += message->acknowledged; /* the others may never have been accepted */
            }
        }
    }
}

void ledger_disturb_all(struct ledger *ledger)
{
    for (uint32_t i = 0; i < LEDGER_RECIPIENTS; i++) {
        ledger_disturb(ledger, i);
    }
}

uint32_t ledger_judge(struct ledger *ledger)
{
    uint32_t broken = ledger->faults;
    uint32_t lost = 0, doubled = 0, doubts = 0, delivered = 0, refused = 0;
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
                doubled++; /* two fates; a kill between reply and result excuses it as well */
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
    return broken + lost;
}
