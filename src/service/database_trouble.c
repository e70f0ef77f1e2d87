/* SPDX-License-Identifier: Apache-2.0 */
#include "service/database_trouble.h"

#include <stdio.h>

void database_trouble_member(struct database_trouble *trouble, const char *text)
{
    snprintf(trouble->member, sizeof(trouble->member), "%s", text);
}

bool database_trouble_spool(struct database_trouble *trouble, bool up, const char *reason,
                            int64_t now_ms)
{
    if (up) {
        trouble->failing_ms = 0;
        trouble->well_ms = trouble->well_ms != 0 ? trouble->well_ms : now_ms;
        if (!trouble->is_spools || now_ms - trouble->well_ms >= DATABASE_TROUBLE_OVER_MS) {
            trouble->is_spools = false;
            trouble->spool[0] = '\0';
        }
        return false;
    }
    bool is_members = trouble->member[0] != '\0';
    trouble->well_ms = 0;
    trouble->failing_ms = trouble->failing_ms != 0 && !is_members ? trouble->failing_ms : now_ms;
    bool lasts = now_ms - trouble->failing_ms >= DATABASE_TROUBLE_LASTS_MS;
    bool begins = lasts && !trouble->is_spools;
    trouble->is_spools |= lasts;
    if (is_members || lasts) {
        snprintf(trouble->spool, sizeof(trouble->spool), "the database takes no mail: %s", reason);
    }
    return begins;
}

const char *database_trouble_text(const struct database_trouble *trouble)
{
    return trouble->member[0] != '\0'  ? trouble->member
           : trouble->spool[0] != '\0' ? trouble->spool
                                       : NULL;
}
