/* SPDX-License-Identifier: Apache-2.0 */
#include "spool/log_internal.h"

void compaction_step(struct journal *journal)
{
    (void)journal;
}

void compaction_free(struct journal *journal)
{
    (void)journal;
}
