/* SPDX-License-Identifier: Apache-2.0
 *
 * A counting SMTP server for tests and benchmarks, on loopback only: takes everything, keeps
 * nothing, logs the number (see cload.c) and the recipient of each message in the order of arrival.
 *
 * Log, one line a message: nanoseconds (CLOCK_MONOTONIC), number, recipient, connection.
 * The status file holds one line, written anew every 50 ms: messages, time of the first, time of
 * the last (nanoseconds), connections so far, connections open.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 1024,
    RECEIVE_BYTES = 256 << 10,
    REPLIES_BYTES = 64 << 10,
    EVENTS_AT_ONCE = 256,
    STATUS_MS = 50,
    LINGER_MS = 200, /* after the last expected message: for what should not come */
};

/* How much of CRLF . CRLF has been seen. */
enum dot { IN_LINE, AFTER_NEWLINE, AFTER_DOT, AFTER_DOT_CR };

struct connection {
    int fd;
    uint64_t index;
    bool in_content;
    enum dot dot;
    int64_t number; /* of the message under way; -1: none given */
    char recipient[64];
    size_t line_length;
    char line[LINE_MAX_BYTES];
};

struct sink {
    int epoll;
    int listener;
    FILE *log;
    bool unbuffered; /* a line is in the file before its 250 is said: for a sink that gets killed */
    int status_fd;
    uint64_t expected; /* stop after so many; 0: never */
    int64_t limit_ns;
    uint32_t delay_us; /* before the reply to a dot */
    uint64_t messages, connections, open;
    int64_t first_ns, last_ns;
    size_t replies_length;
    char replies[REPLIES_BYTES];
    char received[RECEIVE_BYTES];
};

static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void write_status(struct sink *sink)
{
    char line[128];
    if (sink->status_fd < 0) {
        return;
    }
    /* Fixed width: a reader never sees half of an older, longer line. */
    int length =
        snprintf(line, sizeof(line),
                 "%020" PRIu64 " %020" PRId64 " %020" PRId64 " %010" PRIu64 " %010" PRIu64 "\n",
                 sink->messages, sink->first_ns, sink->last_ns, sink->connections, sink->open);
    if (pwrite(sink->status_fd, line, (size_t)length, 0) != length) {
        perror("csink: status");
    }
}

static void reply(struct sink *sink, const char *text)
{
    size_t length = strlen(text);
    if (sink->replies_length + length <= REPLIES_BYTES) {
        memcpy(sink->replies + sink->replies_length, text, length);
        sink->replies_length += length;
    }
}

/* ---- one connection ------------------------------------------------------------------------ */

static void connection_close(struct sink *sink, struct connection *connection)
{
    close(connection->fd);
    free(connection);
    sink->open--;
}

static void message_done(struct sink *sink, struct connection *connection)
{
    if (sink->delay_us > 0) {
        usleep(sink->delay_us);
    }
    sink->last_ns = now_ns();
    if (sink->messages++ == 0) {
        sink->first_ns = sink->last_ns;
    }
    if (sink->log != NULL) {
        fprintf(sink->log, "%" PRId64 " %" PRId64 " %s %" PRIu64 "\n", sink->last_ns,
                connection->number, connection->recipient, connection->index);
        if (sink->unbuffered) {
            fflush(sink->log);
        }
    }
    connection->in_content = false;
    reply(sink, "250 2.0.0 Ok\r\n");
}

/* Content up to the final dot; returns how much of it was taken. */
static size_t take_content(struct sink *sink, struct connection *connection, const char *bytes,
                           size_t length)
{
    size_t at = 0;
    while (at < length && connection->in_content) {
        if (connection->dot == IN_LINE) {
            const char *newline = memchr(bytes + at, '\n', length - at);
            if (newline == NULL) {
                return length;
            }
            at = (size_t)(newline - bytes) + 1;
            connection->dot = AFTER_NEWLINE;
            continue;
        }
        char c = bytes[at++];
        if (connection->dot == AFTER_NEWLINE) {
            connection->dot = c == '.' ? AFTER_DOT : c == '\n' ? AFTER_NEWLINE : IN_LINE;
        } else if (connection->dot == AFTER_DOT) {
            connection->dot = c == '\r' ? AFTER_DOT_CR : c == '\n' ? AFTER_NEWLINE : IN_LINE;
        } else if (c == '\n') {
            message_done(sink, connection);
        } else {
            connection->dot = IN_LINE;
        }
    }
    return at;
}

/* What stands between < and > as a reverse-path m<number>@... */
static int64_t number_of(const char *line)
{
    const char *at = strchr(line, '<');
    if (at == NULL || at[1] != 'm' || !isdigit((unsigned char)at[2])) {
        return -1;
    }
    return strtoll(at + 2, NULL, 10);
}

static void copy_recipient(struct connection *connection, const char *line)
{
    const char *from = strchr(line, '<');
    size_t length = from == NULL ? 0 : strcspn(++from, "@> ");
    if (length >= sizeof(connection->recipient)) {
        length = sizeof(connection->recipient) - 1;
    }
    if (length > 0) {
        memcpy(connection->recipient, from, length);
    }
    connection->recipient[length] = '\0';
}

/* False: close after what was said. */
static bool take_command(struct sink *sink, struct connection *connection, const char *line)
{
    if (strncasecmp(line, "EHLO", 4) == 0) {
        reply(sink, "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
                    "250-ENHANCEDSTATUSCODES\r\n250 SIZE 104857600\r\n");
    } else if (strncasecmp(line, "MAIL", 4) == 0) {
        connection->number = number_of(line);
        reply(sink, "250 2.1.0 Ok\r\n");
    } else if (strncasecmp(line, "RCPT", 4) == 0) {
        copy_recipient(connection, line);
        reply(sink, "250 2.1.5 Ok\r\n");
    } else if (strncasecmp(line, "DATA", 4) == 0) {
        connection->in_content = true;
        connection->dot = AFTER_NEWLINE;
        reply(sink, "354 Go\r\n");
    } else if (strncasecmp(line, "QUIT", 4) == 0) {
        reply(sink, "221 2.0.0 Bye\r\n");
        return false;
    } else if (strncasecmp(line, "HELO", 4) == 0 || strncasecmp(line, "RSET", 4) == 0 ||
               strncasecmp(line, "NOOP", 4) == 0) {
        reply(sink, "250 2.0.0 Ok\r\n");
    } else {
        reply(sink, "502 5.5.1 Not here\r\n");
    }
    return true;
}

static bool take_bytes(struct sink *sink, struct connection *connection, const char *bytes,
                       size_t length)
{
    size_t at = 0;
    while (at < length) {
        if (connection->in_content) {
            at += take_content(sink, connection, bytes + at, length - at);
            continue;
        }
        const char *newline = memchr(bytes + at, '\n', length - at);
        size_t part = newline != NULL ? (size_t)(newline - bytes) + 1 - at : length - at;
        if (connection->line_length + part >= LINE_MAX_BYTES) {
            return false;
        }
        memcpy(connection->line + connection->line_length, bytes + at, part);
        connection->line_length += part;
        at += part;
        if (newline != NULL) {
            connection->line[connection->line_length] = '\0';
            connection->line_length = 0;
            if (!take_command(sink, connection, connection->line)) {
                return false;
            }
        }
    }
    return true;
}

static void connection_ready(struct sink *sink, struct connection *connection)
{
    ssize_t got = recv(connection->fd, sink->received, RECEIVE_BYTES, 0);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0) {
        connection_close(sink, connection);
        return;
    }
    sink->replies_length = 0;
    bool alive = take_bytes(sink, connection, sink->received, (size_t)got);
    /* Kept before it is acknowledged, for a sink may be killed like any other server. */
    if (sink->log != NULL) {
        fflush(sink->log);
    }
    if (sink->replies_length > 0 &&
        send(connection->fd, sink->replies, sink->replies_length, MSG_NOSIGNAL) < 0) {
        alive = false;
    }
    if (!alive) {
        connection_close(sink, connection);
    }
}

static void accept_all(struct sink *sink)
{
    static const char GREETING[] = "220 sink.example ESMTP\r\n";
    int fd;
    int on = 1;
    while ((fd = accept4(sink->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = calloc(1, sizeof(*connection));
        if (connection == NULL) {
            close(fd);
            return;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        connection->fd = fd;
        connection->index = ++sink->connections;
        connection->number = -1;
        sink->open++;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        if (epoll_ctl(sink->epoll, EPOLL_CTL_ADD, fd, &event) != 0 ||
            send(fd, GREETING, sizeof(GREETING) - 1, MSG_NOSIGNAL) < 0) {
            connection_close(sink, connection);
        }
    }
}

/* ---- start --------------------------------------------------------------------------------- */

static void sink_run(struct sink *sink)
{
    int64_t started = now_ns();
    int64_t written = 0;
    int64_t complete = 0;
    struct epoll_event events[EVENTS_AT_ONCE];

    while (!stopping) {
        int count = epoll_wait(sink->epoll, events, EVENTS_AT_ONCE, STATUS_MS);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL) {
                accept_all(sink);
            } else {
                connection_ready(sink, events[i].data.ptr);
            }
        }
        int64_t now = now_ns();
        if (now - written >= STATUS_MS * 1000000) {
            write_status(sink);
            written = now;
        }
        if (sink->expected > 0 && sink->messages >= sink->expected && complete == 0) {
            complete = now;
        }
        if ((complete > 0 && now - complete > LINGER_MS * 1000000) ||
            (sink->limit_ns > 0 && now - started > sink->limit_ns)) {
            break;
        }
    }
    write_status(sink);
}

static int open_listener(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 4096) != 0) {
        perror("csink: listen");
        exit(1);
    }
    return fd;
}

static void usage(void)
{
    fputs("usage: csink [-n MESSAGES] [-t SECONDS] [-d DELAY_US] [-o LOG] [-u] [-s STATUS] PORT\n",
          stderr);
    exit(2);
}

static uint64_t number_argument(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0') {
        usage();
    }
    return value;
}

static void read_options(struct sink *sink, int argc, char **argv)
{
    int letter;
    while ((letter = getopt(argc, argv, "n:t:d:o:s:u")) != -1) {
        switch (letter) {
        case 'n':
            sink->expected = number_argument(optarg);
            break;
        case 't':
            sink->limit_ns = (int64_t)number_argument(optarg) * 1000000000;
            break;
        case 'd':
            sink->delay_us = (uint32_t)number_argument(optarg);
            break;
        case 'u':
            sink->unbuffered = true;
            break;
        case 'o':
            sink->log = fopen(optarg, "we");
            if (sink->log == NULL) {
                perror(optarg);
                exit(1);
            }
            setvbuf(sink->log, NULL, _IOFBF, 1 << 20);
            break;
        case 's':
            sink->status_fd = open(optarg, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
            if (sink->status_fd < 0) {
                perror(optarg);
                exit(1);
            }
            break;
        default:
            usage();
        }
    }
    if (optind + 1 != argc) {
        usage();
    }
}

int main(int argc, char **argv)
{
    struct sink *sink = calloc(1, sizeof(*sink));
    if (sink == NULL) {
        perror("csink");
        return 1;
    }
    sink->status_fd = -1;
    read_options(sink, argc, argv);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    sink->listener = open_listener((uint16_t)number_argument(argv[optind]));
    sink->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (sink->epoll < 0 || epoll_ctl(sink->epoll, EPOLL_CTL_ADD, sink->listener, &event) != 0) {
        perror("csink: epoll");
        return 1;
    }
    sink_run(sink);
    printf("{\"messages\": %" PRIu64 ", \"connections\": %" PRIu64 ", \"seconds\": %.4f}\n",
           sink->messages, sink->connections, (double)(sink->last_ns - sink->first_ns) / 1e9);
    if (sink->log != NULL) {
        fclose(sink->log);
    }
    free(sink);
    return 0;
}
