/* SPDX-License-Identifier: Apache-2.0
 *
 * One structured line per event. service/ and app/ call it; rooms below never do.
 * A line: time, level, process, event name, then key=value fields, values quoted where they hold
 * anything but printable ASCII without blanks; control bytes as \xNN, so a line is a line (RFC 5424
 * care). To stderr, syslog(3) datagrams or the systemd journal, opened before the sandbox closes.
 */
#ifndef HOLDFAST_SYS_LOG_H
#define HOLDFAST_SYS_LOG_H

#include "base/error.h"
#include "base/slice.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_target { LOG_TO_STDERR, LOG_TO_SYSLOG, LOG_TO_JOURNAL };

struct log_field {
    const char *key;
    struct slice value;
};

#define LOG_TEXT(key, text) ((struct log_field){key, slice_from_text(text)})
#define LOG_SLICE(key, slice) ((struct log_field){key, slice})
/* A number as a field; the text lives until the end of the enclosing block. */
#define LOG_NUMBER(key, number) LOG_SLICE(key, log_number((char[24]){0}, (int64_t)(number)))

/* A moment, as a line begins with one but for the milliseconds: "2026-11-22T09:38:04Z". */
#define LOG_TIME(key, unix_ms) LOG_SLICE(key, log_time((char[24]){0}, (int64_t)(unix_ms)))

struct slice log_number(char buffer[24], int64_t number);
struct slice log_time(char buffer[24], int64_t unix_ms);

/* Process-wide; called once by app/ before anything else logs. `process` is kept, not copied. */
enum error log_open(enum log_target target, enum log_level least, const char *process) MUST_CHECK;
/* Thread safe. event is a short word such as "accepted". */
void log_write(enum log_level level, const char *event, const struct log_field *fields,
               size_t count);
#define log_event(level, event, ...)                                                               \
    log_write(level, event, (const struct log_field[]){__VA_ARGS__},                               \
              sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field))

#endif
