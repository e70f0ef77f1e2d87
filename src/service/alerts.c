/* SPDX-License-Identifier: Apache-2.0
 *
 * Alerts with a subject are found by a keyed hash of kind and subject, and freed when they end.
 */
#include "service/alerts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *alert_kind_text(enum alert_kind kind)
{
    static const char *const texts[ALERT_KIND_COUNT] = {
#define ALERT_KIND_WORD(name, word, what) [ALERT_##name] = word,
        ALERT_KIND_TABLE(ALERT_KIND_WORD)
#undef ALERT_KIND_WORD
    };
    return texts[kind];
}

void alerts_init(struct alerts *alerts, struct hash_key key)
{
    *alerts = (struct alerts){.key = key};
    list_init(&alerts->standing);
    map_init(&alerts->about);
    for (int i = 0; i < ALERT_KIND_COUNT; i++) {
        alerts->alone[i].kind = (enum alert_kind)i;
        list_init(&alerts->alone[i].link);
    }
}

void alerts_done(struct alerts *alerts)
{
    size_t cursor = 0;
    for (struct alert *alert; (alert = map_next(&alerts->about, &cursor)) != NULL;) {
        free(alert);
    }
    map_done(&alerts->about);
}

static uint64_t key_of(const struct alerts *alerts, enum alert_kind kind, struct slice subject)
{
    struct hash_key key = {alerts->key.k0 + kind, alerts->key.k1};
    return hash_bytes(key, subject);
}

/* Standing or not; NULL: there is no place for it yet. */
static struct alert *place_of(struct alerts *alerts, enum alert_kind kind, struct slice subject)
{
    return subject.length == 0 ? &alerts->alone[kind]
                               : map_get(&alerts->about, key_of(alerts, kind, subject));
}

bool alerts_full(const struct alerts *alerts)
{
    return alerts->about.count >= ALERTS_MAX;
}

static struct alert *make_place(struct alerts *alerts, enum alert_kind kind, struct slice subject)
{
    struct alert *alert = alerts_full(alerts) ? NULL : calloc(1, sizeof(*alert) + subject.length);
    if (alert == NULL) {
        return NULL;
    }
    if (map_put(&alerts->about, key_of(alerts, kind, subject), alert) != ERROR_NONE) {
        free(alert);
        return NULL;
    }
    memcpy(alert + 1, subject.data, subject.length);
    alert->kind = kind;
    alert->subject = slice_make(alert + 1, subject.length);
    list_init(&alert->link);
    return alert;
}

bool alerts_raise(struct alerts *alerts, enum alert_kind kind, struct slice subject,
                  const char *text, int64_t now_wall_ms)
{
    struct alert *alert = place_of(alerts, kind, subject);
    if (alert == NULL && (alert = make_place(alerts, kind, subject)) == NULL) {
        return true;
    }
    snprintf(alert->text, sizeof(alert->text), "%s", text);
    if (!list_is_empty(&alert->link)) {
        return false;
    }
    alert->since_wall_ms = now_wall_ms;
    list_append(&alerts->standing, &alert->link);
    alerts->count++;
    return true;
}

struct alert *alerts_find(struct alerts *alerts, enum alert_kind kind, struct slice subject)
{
    struct alert *alert = place_of(alerts, kind, subject);
    return alert == NULL || list_is_empty(&alert->link) ? NULL : alert;
}

void alerts_end(struct alerts *alerts, struct alert *alert)
{
    list_remove(&alert->link);
    alert->marked = false;
    alert->number = 0;
    alerts->count--;
    if (alert->subject.length > 0) {
        map_remove(&alerts->about, key_of(alerts, alert->kind, alert->subject));
        free(alert);
    }
}
