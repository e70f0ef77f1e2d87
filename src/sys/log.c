/* SPDX-License-Identifier: Apache-2.0
 *
 * One write or datagram per line, from the caller's stack: threads need no lock. syslog(3) and
 * sd_journal_send(3) are not used because they open their sockets by path at the first line, when a
 * sandboxed process has no paths any more; the two wire forms are a few lines each.
 */
#include "sys/log.h"

#include "sys/clock.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 4096,
    VALUE_MAX_BYTES = 1024, /* of one value, before quoting */
    SYSLOG_MAIL = 2 << 3,
};

/* The process's one log; set once by log_open(). */
static struct {
    bool open;
    enum log_target target;
    enum log_level least;
    const char *process;
    int fd;
} the_log;

/* Appends within a bound; what does not fit is left out, the end is always there. */
struct line {
    char text[LINE_MAX_BYTES];
    size_t length;
    size_t limit;
};

static void line_put(struct line *line, const char *bytes, size_t length)
{
    size_t room = line->limit - line->length;
    if (length > room) {
        length = room;
    }
    memcpy(line->text + line->length, bytes, length);
    line->length += length;
}

static void line_put_text(struct line *line, const char *text)
{
    line_put(line, text, strlen(text));
}

static bool is_plain(struct slice value)
{
    for (size_t i = 0; i < value.length; i++) {
        uint8_t c = value.data[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=') {
            return false;
        }
    }
    return value.length > 0;
}

static void line_put_value(struct line *line, struct slice value)
{
    static const char hex[] = "0123456789abcdef";
    bool cut = value.length > VALUE_MAX_BYTES;
    value = slice_take(value, VALUE_MAX_BYTES);
    if (is_plain(value)) {
        line_put(line, (const char *)value.data, value.length);
        line_put_text(line, cut ? "..." : "");
        return;
    }
    line_put_text(line, "\"");
    for (size_t i = 0; i < value.length; i++) {
        uint8_t c = value.data[i];
        if (c < ' ' || c >= 0x7f) {
            line_put(line, (const char[]){'\\', 'x', hex[c >> 4], hex[c & 15]}, 4);
        } else if (c == '"' || c == '\\') {
            line_put(line, (const char[]){'\\', (char)c}, 2);
        } else {
            line_put(line, (const char *)&c, 1);
        }
    }
    line_put_text(line, cut ? "...\"" : "\"");
}

static void line_put_fields(struct line *line, const char *event, const struct log_field *fields,
                            size_t count)
{
    line_put_text(line, event);
    for (size_t i = 0; i < count; i++) {
        line_put_text(line, " ");
        line_put_text(line, fields[i].key);
        line_put_text(line, "=");
        line_put_value(line, fields[i].value);
    }
}

static const char *level_name(enum log_level level)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    return names[level];
}

static int level_priority(enum log_level level)
{
    static const int priorities[] = {3, 4, 6, 7}; /* RFC 5424 */
    return priorities[level];
}

/* ---- targets ----------------------------------------------------------------------------- */

static void line_put_time(struct line *line, int64_t now_ms, const char *format)
{
    char text[40];
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    size_t length = strftime(text, sizeof(text), format, &parts);
    line_put(line, text, length);
}

static void write_stderr(enum log_level level, const char *event, const struct log_field *fields,
                         size_t count)
{
    struct line line = {.limit = LINE_MAX_BYTES - 1};
    int64_t now_ms = clock_wall_ms();
    char ms[8];
    line_put_time(&line, now_ms, "%Y-%m-%dT%H:%M:%S");
    snprintf(ms, sizeof(ms), ".%03dZ ", (int)(now_ms % 1000));
    line_put_text(&line, ms);
    line_put_text(&line, level_name(level));
    line_put_text(&line, " ");
    line_put_text(&line, the_log.process);
    line_put_text(&line, " ");
    line_put_fields(&line, event, fields, count);
    line.text[line.length++] = '\n';
    size_t done = 0;
    while (done < line.length) {
        ssize_t put = write(the_log.fd, line.text + done, line.length - done);
        if (put < 0 && errno != EINTR) {
            return; /* there is nobody to tell */
        }
        done += put > 0 ? (size_t)put : 0;
    }
}

/* RFC 3164, as /dev/log takes it. */
static void write_syslog(enum log_level level, const char *event, const struct log_field *fields,
                         size_t count)
{
    struct line line = {.limit = LINE_MAX_BYTES};
    char head[64];
    snprintf(head, sizeof(head), "<%d>", SYSLOG_MAIL | level_priority(level));
    line_put_text(&line, head);
    line_put_time(&line, clock_wall_ms(), "%b %e %H:%M:%S ");
    line_put_text(&line, the_log.process);
    snprintf(head, sizeof(head), "[%d]: ", (int)getpid());
    line_put_text(&line, head);
    line_put_fields(&line, event, fields, count);
    (void)send(the_log.fd, line.text, line.length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* The journal's native protocol: one FIELD=value a line; our values hold no newline. */
static void write_journal(enum log_level level, const char *event, const struct log_field *fields,
                          size_t count)
{
    struct line line = {.limit = LINE_MAX_BYTES - 1};
    char head[96];
    snprintf(head, sizeof(head),
             "PRIORITY=%d\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=", level_priority(level));
    line_put_text(&line, head);
    line_put_text(&line, the_log.process);
    line_put_text(&line, "\nHOLDFAST_EVENT=");
    line_put_text(&line, event);
    line_put_text(&line, "\nMESSAGE=");
    line_put_fields(&line, event, fields, count);
    line.text[line.length++] = '\n';
    (void)send(the_log.fd, line.text, line.length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int connect_datagram(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int number = errno;
        close(fd);
        errno = number;
        fd = -1;
    }
    return fd;
}

enum error log_open(enum log_target target, enum log_level least, const char *process)
{
    int fd = STDERR_FILENO;
    if (target == LOG_TO_SYSLOG) {
        fd = connect_datagram("/dev/log");
    } else if (target == LOG_TO_JOURNAL) {
        fd = connect_datagram("/run/systemd/journal/socket");
    }
    if (fd < 0) {
        return error_from_errno(errno);
    }
    if (the_log.open && the_log.fd != STDERR_FILENO) {
        close(the_log.fd);
    }
    the_log.target = target;
    the_log.least = least;
    the_log.process = process;
    the_log.fd = fd;
    the_log.open = true;
    return ERROR_NONE;
}

void log_write(enum log_level level, const char *event, const struct log_field *fields,
               size_t count)
{
    if (!the_log.open || level > the_log.least) {
        return;
    }
    switch (the_log.target) {
    case LOG_TO_STDERR:
        write_stderr(level, event, fields, count);
        break;
    case LOG_TO_SYSLOG:
        write_syslog(level, event, fields, count);
        break;
    case LOG_TO_JOURNAL:
        write_journal(level, event, fields, count);
        break;
    }
}

struct slice log_number(char buffer[24], int64_t number)
{
    int length = snprintf(buffer, 24, "%lld", (long long)number);
    return slice_make(buffer, (size_t)length);
}

struct slice log_time(char buffer[24], int64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm parts;
    size_t length =
        gmtime_r(&seconds, &parts) != NULL ? strftime(buffer, 24, "%Y-%m-%dT%H:%M:%SZ", &parts) : 0;
    return length > 0 ? slice_make(buffer, length) : log_number(buffer, unix_ms);
}
