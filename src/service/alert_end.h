/* SPDX-License-Identifier: Apache-2.0
 *
 * What is said of an alert's end: a sentence that is true then, which that of its beginning is not.
 */
#ifndef HOLDFAST_SERVICE_ALERT_END_H
#define HOLDFAST_SERVICE_ALERT_END_H

#include "service/alerts.h"

/* Why it stands no more. */
enum alert_ending {
    ALERT_OVER,     /* its cause is gone */
    ALERT_DISABLED, /* the operator has taken the server out */
    ALERT_REMOVED,  /* neither the configuration nor DNS names its lane or server any more */
    ALERT_ENDING_COUNT
};

/* "over" */
const char *alert_ending_text(enum alert_ending ending);
/* "server m1 answers again after 5 s"; at most `size` bytes with the NUL. */
void alert_end_text(enum alert_kind kind, struct slice subject, enum alert_ending ending,
                    int64_t lasted_ms, char *ret_text, size_t size);

#endif
