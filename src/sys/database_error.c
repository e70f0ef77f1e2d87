/* SPDX-License-Identifier: Apache-2.0
 *
 * What the server's SQLSTATEs mean to who writes mail: a table, the longest match wins
 * (PostgreSQL's documentation, appendix A).
 */
#include "sys/database_internal.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *prefix;
    enum database_outcome outcome;
} MEANINGS[] = {
    {"08", DATABASE_LOST},        /* connection exception */
    {"25006", DATABASE_READONLY}, /* read_only_sql_transaction */
    {"25P03", DATABASE_LOST},     /* idle_in_transaction_session_timeout: it has closed */
    {"25P04", DATABASE_LOST},     /* transaction_timeout: it has closed */
    {"40", DATABASE_AGAIN},       /* rollback: serialisation, deadlock */
    {"40002", DATABASE_REFUSED},  /* by a constraint */
    {"40003", DATABASE_LOST},     /* statement_completion_unknown */
    {"53", DATABASE_FULL},        /* insufficient resources */
    {"55006", DATABASE_AGAIN},    /* object_in_use */
    {"55P03", DATABASE_AGAIN},    /* lock_not_available: lock_timeout, NOWAIT */
    {"57", DATABASE_LOST},        /* the operator: shutdown, crash, cannot_connect_now */
    {"57000", DATABASE_AGAIN},
    {"57014", DATABASE_AGAIN}, /* query_canceled: pg_cancel_backend(), statement_timeout */
    {"58", DATABASE_FULL},     /* system error: its disk fails */
};

enum database_outcome database_outcome_of(const char *state)
{
    enum database_outcome outcome = DATABASE_REFUSED;
    size_t longest = 0;
    for (size_t i = 0; i < sizeof(MEANINGS) / sizeof(MEANINGS[0]); i++) {
        size_t length = strlen(MEANINGS[i].prefix);
        if (length > longest && strncmp(state, MEANINGS[i].prefix, length) == 0) {
            outcome = MEANINGS[i].outcome;
            longest = length;
        }
    }
    return outcome;
}

void database_keep_error(struct database *database, const char *state, const char *text)
{
    size_t at = 0;
    for (; text[at] != '\0' && text[at] != '\n' && at + 1 < sizeof(database->error); at++) {
        uint8_t c = (uint8_t)text[at];
        database->error[at] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
    }
    database->error[at] = '\0';
    snprintf(database->state, sizeof(database->state), "%s", state);
}

static bool is_state_character(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z');
}

/* "FATAL:  53300: sorry, too many clients already", the first word in any language. */
void database_state_in(const char *text, char ret_state[6])
{
    ret_state[0] = '\0';
    for (const char *at = strstr(text, ":  "); at != NULL; at = strstr(at + 3, ":  ")) {
        size_t length = 0;
        while (length < 5 && is_state_character(at[3 + length])) {
            length++;
        }
        if (length == 5 && at[8] == ':') {
            memcpy(ret_state, at + 3, 5);
            ret_state[5] = '\0';
            return;
        }
    }
}
