/* SPDX-License-Identifier: Apache-2.0
 *
 * A load client for tests and benchmarks: sends numbered messages over many sessions to a server on
 * this machine (never elsewhere), and logs each 250 after the dot, so that what was acknowledged
 * can be compared with what arrived.
 *
 * The number of a message stands in its reverse-path (m42@client.example) and in X-Number. Session
 * s of S uses the recipients r<s>, r<s+S>, r<s+2S> ... of R in turn: a recipient belongs to one
 * session, so the order of its 250s is known. A message that failed is not sent again under any
 * number.
 *
 * Log, one line an event: nanoseconds (CLOCK_MONOTONIC), event, number, recipient.
 *   S  MAIL is about to be sent      A  250 was given to the dot
 *   D  the dot was sent and no reply came (in doubt)      F  refused, or lost before the dot
 * At the end one JSON line on standard output.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "sys/loop.h"
#include "sys/tls.h"

enum {
    REPLY_MAX = 4096,
    HEAD_MAX = 1024,
    EVENTS_AT_ONCE = 256,
    RECONNECT_MS = 20,
    TICK_MS = 5,
    LOG_FLUSH_MS = 50,
    LINE_LENGTH = 78,
};

enum step {
    CONNECTING,
    SHAKING,
    GREETING,
    HELLO,
    MAIL,
    RCPT,
    DATA,
    DOT,
    QUITTING,
    PAUSED,
    FINISHED
};

struct options {
    uint16_t port;
    uint32_t sessions;
    uint64_t messages;
    uint64_t first; /* the lowest number */
    size_t size;
    uint32_t recipients;
    const char *domain;
    const char *sender_domain;
    uint32_t gap_ms;   /* between the messages of a session */
    uint32_t limit_ms; /* stop after; 0: never */
    bool one_each;     /* one message a connection */
    bool pipelining;   /* MAIL, RCPT and DATA in one segment */
    bool chunking;     /* BDAT for DATA; implies pipelining */
    bool secure;       /* TLS before the greeting */
    const char *log_path;
};

struct session {
    uint32_t index;
    uint32_t turn; /* messages begun */
    int fd;
    struct tls *tls; /* NULL: in the clear */
    enum step step;
    uint64_t number;
    uint32_t recipient;
    bool has_message;
    bool wants_write;
    int64_t wake_ns;
    size_t reply_length;
    char reply[REPLY_MAX];
    size_t head_length;
    char head[HEAD_MAX];
    size_t body_length; /* of the shared body, after the head; 0: none */
    size_t sent;
};

struct load {
    struct options options;
    int epoll;
    struct tls_client *client;
    FILE *log;
    char *body;
    size_t body_length;
    uint64_t begun;
    uint64_t acknowledged, in_doubt, failed, not_connected;
    uint32_t live;
    struct session *sessions;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void log_event(struct load *load, const struct session *session, char event)
{
    if (load->log != NULL) {
        fprintf(load->log, "%" PRId64 " %c %" PRIu64 " r%" PRIu32 "\n", now_ns(), event,
                session->number, session->recipient);
    }
}

/* ---- connections --------------------------------------------------------------------------- */

static void session_watch(struct load *load, struct session *session, int operation, bool write)
{
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = session};
    session->wants_write = write;
    epoll_ctl(load->epoll, operation, session->fd, &event);
}

static void session_finish(struct load *load, struct session *session)
{
    session->step = FINISHED;
    load->live--;
}

static void session_connect(struct load *load, struct session *session)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(load->options.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;

    if (load->begun >= load->options.messages) {
        session_finish(load, session);
        return;
    }
    session->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (session->fd < 0) {
        perror("cload: socket");
        exit(1);
    }
    setsockopt(session->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    session->step = CONNECTING;
    session->reply_length = 0;
    session->head_length = session->body_length = session->sent = 0;
    (void)connect(session->fd, (struct sockaddr *)&to, sizeof(to));
    session_watch(load, session, EPOLL_CTL_ADD, true);
}

/* The message under way gets no reply any more: it has failed or is in doubt. */
static void session_give_up(struct load *load, struct session *session)
{
    if (session->has_message) {
        bool doubt = load->options.chunking || (session->step == DOT && session->sent > 0);
        log_event(load, session, doubt ? 'D' : 'F');
        load->in_doubt += doubt;
        load->failed += !doubt;
        session->has_message = false;
    }
}

/* The connection is over. */
static void session_drop(struct load *load, struct session *session, bool wait)
{
    if (session->has_message) {
        session_give_up(load, session);
    } else if (session->step <= HELLO) {
        load->not_connected++;
    }
    tls_free(session->tls);
    session->tls = NULL;
    close(session->fd);
    session->fd = -1;
    if (wait) {
        session->step = PAUSED;
        session->wake_ns = now_ns() + RECONNECT_MS * 1000000;
    } else {
        session_connect(load, session);
    }
}

/* As sendmsg(). */
static ssize_t session_send(const struct session *session, struct msghdr *message)
{
    size_t sent = 0;
    if (session->tls == NULL) {
        return sendmsg(session->fd, message, MSG_NOSIGNAL);
    }
    enum error error = tls_send(
        session->tls, slice_make(message->msg_iov[0].iov_base, message->msg_iov[0].iov_len), &sent);
    errno = error == ERROR_AGAIN ? EAGAIN : EPIPE;
    return error == ERROR_NONE ? (ssize_t)sent : -1;
}

/* As recv(). */
static ssize_t session_recv(const struct session *session, char *bytes, size_t size)
{
    size_t length = 0;
    if (session->tls == NULL) {
        return recv(session->fd, bytes, size, 0);
    }
    enum error error = tls_receive(session->tls, bytes, size, &length);
    errno = error == ERROR_AGAIN ? EAGAIN : EPIPE;
    return error == ERROR_NONE ? (ssize_t)length : error == ERROR_CLOSED ? 0 : -1;
}

/* Sends what is left of head and body. False: the connection is lost. */
static bool session_flush(struct load *load, struct session *session)
{
    size_t total = session->head_length + session->body_length;
    while (session->sent < total) {
        struct iovec parts[2];
        int count = 0;
        size_t body_at = 0;
        if (session->sent < session->head_length) {
            parts[count++] =
                (struct iovec){session->head + session->sent, session->head_length - session->sent};
        } else {
            body_at = session->sent - session->head_length;
        }
        if (session->body_length > 0) {
            parts[count++] = (struct iovec){load->body + body_at, session->body_length - body_at};
        }
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
        ssize_t sent = session_send(session, &message);
        if (sent < 0) {
            if (errno != EAGAIN) {
                return false;
            }
            if (!session->wants_write) {
                session_watch(load, session, EPOLL_CTL_MOD, true);
            }
            return true;
        }
        session->sent += (size_t)sent;
    }
    if (session->wants_write) {
        session_watch(load, session, EPOLL_CTL_MOD, false);
    }
    return true;
}

static bool session_say(struct load *load, struct session *session, int length, size_t body_length)
{
    assert(length > 0 && length < HEAD_MAX);
    session->head_length = (size_t)length;
    session->body_length = body_length;
    session->sent = 0;
    return session_flush(load, session);
}

/* ---- the dialogue -------------------------------------------------------------------------- */

static int put_header(const struct load *load, const struct session *session, char *out,
                      size_t size)
{
    return snprintf(out, size,
                    "From: <m%" PRIu64 "@%s>\r\n"
                    "To: <r%" PRIu32 "@%s>\r\n"
                    "Subject: load\r\n"
                    "X-Number: %" PRIu64 "\r\n"
                    "Message-ID: <m%" PRIu64 "@client.example>\r\n"
                    "Date: Sat, 21 Nov 2026 00:00:00 +0000\r\n"
                    "\r\n",
                    session->number, load->options.sender_domain, session->recipient,
                    load->options.domain, session->number, session->number);
}

static bool say_quit(struct load *load, struct session *session)
{
    session->step = QUITTING;
    return session_say(load, session, snprintf(session->head, HEAD_MAX, "QUIT\r\n"), 0);
}

static bool say_mail(struct load *load, struct session *session)
{
    const struct options *options = &load->options;
    if (load->begun >= options->messages) {
        return say_quit(load, session);
    }
    uint32_t share = options->recipients / options->sessions;
    session->number = options->first + load->begun++;
    session->recipient = session->index + (session->turn++ % share) * options->sessions;
    session->has_message = true;
    session->step = MAIL;
    log_event(load, session, 'S');

    int length = snprintf(session->head, HEAD_MAX, "MAIL FROM:<m%" PRIu64 "@%s>\r\n",
                          session->number, options->sender_domain);
    size_t body_length = 0;
    if (options->pipelining) {
        length += snprintf(session->head + length, HEAD_MAX - (size_t)length,
                           "RCPT TO:<r%" PRIu32 "@%s>\r\n", session->recipient, options->domain);
        if (options->chunking) {
            char header[HEAD_MAX];
            int header_length = put_header(load, session, header, sizeof(header));
            body_length = load->body_length - 3; /* without the final dot */
            length += snprintf(session->head + length, HEAD_MAX - (size_t)length,
                               "BDAT %zu LAST\r\n%s", (size_t)header_length + body_length, header);
        } else {
            length += snprintf(session->head + length, HEAD_MAX - (size_t)length, "DATA\r\n");
        }
    }
    return session_say(load, session, length, body_length);
}

static bool say_recipient(struct load *load, struct session *session)
{
    session->step = RCPT;
    if (load->options.pipelining) {
        return true;
    }
    return session_say(load, session,
                       snprintf(session->head, HEAD_MAX, "RCPT TO:<r%" PRIu32 "@%s>\r\n",
                                session->recipient, load->options.domain),
                       0);
}

static bool say_data(struct load *load, struct session *session)
{
    session->step = load->options.chunking ? DOT : DATA;
    if (load->options.pipelining) {
        return true;
    }
    return session_say(load, session, snprintf(session->head, HEAD_MAX, "DATA\r\n"), 0);
}

static bool say_content(struct load *load, struct session *session)
{
    session->step = DOT;
    return session_say(load, session, put_header(load, session, session->head, HEAD_MAX),
                       load->body_length);
}

static bool message_done(struct load *load, struct session *session, bool accepted)
{
    log_event(load, session, accepted ? 'A' : 'F');
    load->acknowledged += accepted;
    load->failed += !accepted;
    session->has_message = false;
    if (load->options.one_each) {
        return say_quit(load, session);
    }
    if (load->options.gap_ms > 0) {
        session->step = PAUSED;
        session->wake_ns = now_ns() + (int64_t)load->options.gap_ms * 1000000;
        return true;
    }
    return say_mail(load, session);
}

/* One whole reply has come. False: end this connection. */
static bool session_answer(struct load *load, struct session *session, int code)
{
    bool positive = code >= 200 && code < 400;
    if (!positive && session->step != DOT) {
        return false;
    }
    switch (session->step) {
    case GREETING:
        session->step = HELLO;
        return session_say(load, session,
                           snprintf(session->head, HEAD_MAX, "EHLO client.example\r\n"), 0);
    case HELLO:
        return say_mail(load, session);
    case MAIL:
        return say_recipient(load, session);
    case RCPT:
        return say_data(load, session);
    case DATA:
        return say_content(load, session);
    case DOT:
        return message_done(load, session, positive);
    default:
        return false;
    }
}

/* Takes whole replies out of what has come; the last line of one has no '-' after its code. */
static bool session_take_replies(struct load *load, struct session *session)
{
    char *at = session->reply;
    char *end = session->reply + session->reply_length;
    char *newline;
    bool alive = true;
    while (alive && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if (newline - at >= 4 && at[3] != '-') {
            alive = session_answer(load, session, (int)strtol(at, NULL, 10));
        }
        at = newline + 1;
    }
    session->reply_length = (size_t)(end - at);
    memmove(session->reply, at, session->reply_length);
    return alive && session->reply_length < REPLY_MAX;
}

/* True: there may be more. */
static bool session_receive_some(struct load *load, struct session *session)
{
    ssize_t got = session_recv(session, session->reply + session->reply_length,
                               REPLY_MAX - session->reply_length);
    if (got < 0 && errno == EAGAIN) {
        return false;
    }
    bool quitting = session->step == QUITTING;
    if (got <= 0) {
        session_drop(load, session, !quitting);
        return false;
    }
    session->reply_length += (size_t)got;
    if (!session_take_replies(load, session)) {
        session_drop(load, session, session->step != QUITTING);
        return false;
    }
    return session->tls != NULL; /* whose descriptor does not tell all */
}

static void session_receive(struct load *load, struct session *session)
{
    while (session_receive_some(load, session)) {
    }
}

/* False: not yet, or the connection is lost. */
static bool session_shake_hands(struct load *load, struct session *session)
{
    const struct tls_peer peer = {.trust = TLS_TRUST_ANYBODY, .name = SLICE_LITERAL("localhost")};
    char problem[TLS_PROBLEM_SIZE];
    if (session->tls == NULL) {
        session->tls = tls_connect(load->client, &peer, session->fd);
    }
    enum error error = session->tls == NULL ? ERROR_MEMORY : tls_shake_hands(session->tls, problem);
    if (error == ERROR_AGAIN) {
        session_watch(load, session, EPOLL_CTL_MOD, tls_wants(session->tls) == LOOP_WRITE);
    } else if (error != ERROR_NONE) {
        session_drop(load, session, true);
    }
    return error == ERROR_NONE;
}

static void session_ready(struct load *load, struct session *session, uint32_t events)
{
    if (session->fd < 0) {
        return;
    }
    if (session->step == CONNECTING) {
        int problem = 0;
        socklen_t length = sizeof(problem);
        getsockopt(session->fd, SOL_SOCKET, SO_ERROR, &problem, &length);
        if (problem != 0) {
            session_drop(load, session, true);
            return;
        }
        session->step = load->options.secure ? SHAKING : GREETING;
    }
    if (session->step == SHAKING) {
        if (!session_shake_hands(load, session)) {
            return;
        }
        session->step = GREETING;
        session_watch(load, session, EPOLL_CTL_MOD, false);
        events = EPOLLIN;
    }
    if ((events & EPOLLOUT) && !session_flush(load, session)) {
        session_drop(load, session, true);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        session_receive(load, session);
    }
}

static void wake_paused(struct load *load)
{
    int64_t now = now_ns();
    for (uint32_t i = 0; i < load->options.sessions; i++) {
        struct session *session = &load->sessions[i];
        if (session->step != PAUSED || now < session->wake_ns) {
            continue;
        }
        if (session->fd < 0) {
            session_connect(load, session);
        } else if (!say_mail(load, session)) {
            session_drop(load, session, true);
        }
    }
}

static void load_run(struct load *load)
{
    int64_t started = now_ns();
    int64_t deadline = load->options.limit_ms > 0
                           ? started + (int64_t)load->options.limit_ms * 1000000
                           : INT64_MAX;
    int64_t flushed = started;
    struct epoll_event events[EVENTS_AT_ONCE];

    for (uint32_t i = 0; i < load->options.sessions; i++) {
        load->sessions[i].index = i;
        session_connect(load, &load->sessions[i]);
    }
    while (load->live > 0 && now_ns() < deadline) {
        int count = epoll_wait(load->epoll, events, EVENTS_AT_ONCE, TICK_MS);
        for (int i = 0; i < count; i++) {
            session_ready(load, events[i].data.ptr, events[i].events);
        }
        wake_paused(load);
        if (load->log != NULL && now_ns() - flushed > LOG_FLUSH_MS * 1000000) {
            fflush(load->log);
            flushed = now_ns();
        }
    }
    double seconds = (double)(now_ns() - started) / 1e9;
    for (uint32_t i = 0; i < load->options.sessions; i++) {
        session_give_up(load, &load->sessions[i]);
    }
    printf("{\"acknowledged\": %" PRIu64 ", \"in_doubt\": %" PRIu64 ", \"failed\": %" PRIu64
           ", \"not_connected\": %" PRIu64 ", \"seconds\": %.4f}\n",
           load->acknowledged, load->in_doubt, load->failed, load->not_connected, seconds);
}

/* ---- start --------------------------------------------------------------------------------- */

/* Lines of X up to `size` bytes, then the final dot. */
static char *make_body(size_t size, size_t *ret_length)
{
    char *body = malloc(size + 8);
    size_t at = 0;
    if (body == NULL) {
        perror("cload");
        exit(1);
    }
    while (at < size) {
        size_t line = size - at > LINE_LENGTH + 2 ? LINE_LENGTH : size - at - 2;
        if (size - at < 3) {
            line = 0;
        }
        memset(body + at, 'X', line);
        memcpy(body + at + line, "\r\n", 2);
        at += line + 2;
    }
    memcpy(body + at, ".\r\n", 3);
    *ret_length = at + 3;
    return body;
}

static void usage(void)
{
    fputs("usage: cload [-s SESSIONS] [-m MESSAGES] [-l SIZE] [-r RECIPIENTS] [-d DOMAIN]\n"
          "             [-f SENDER_DOMAIN] [-b FIRST_NUMBER] [-g GAP_MS] [-t LIMIT_MS] [-o LOG] "
          "[-1] [-p] [-c] [-T] PORT\n"
          "  -1 one message a connection   -p pipelining   -c BDAT (with pipelining)\n"
          "  -T TLS before the greeting, never resumed\n",
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

static struct options read_options(int argc, char **argv)
{
    struct options options = {.sessions = 20,
                              .messages = UINT64_MAX,
                              .size = 4096,
                              .recipients = 0,
                              .domain = "example.com",
                              .sender_domain = "client.example"};
    int letter;
    while ((letter = getopt(argc, argv, "s:m:l:r:d:f:b:g:t:o:1pcT")) != -1) {
        switch (letter) {
        case 's':
            options.sessions = (uint32_t)number_argument(optarg);
            break;
        case 'm':
            options.messages = number_argument(optarg);
            break;
        case 'l':
            options.size = number_argument(optarg);
            break;
        case 'r':
            options.recipients = (uint32_t)number_argument(optarg);
            break;
        case 'd':
            options.domain = optarg;
            break;
        case 'f':
            options.sender_domain = optarg;
            break;
        case 'b':
            options.first = number_argument(optarg);
            break;
        case 'g':
            options.gap_ms = (uint32_t)number_argument(optarg);
            break;
        case 't':
            options.limit_ms = (uint32_t)number_argument(optarg);
            break;
        case 'o':
            options.log_path = optarg;
            break;
        case '1':
            options.one_each = true;
            break;
        case 'p':
            options.pipelining = true;
            break;
        case 'c':
            options.pipelining = options.chunking = true;
            break;
        case 'T':
            options.secure = true;
            break;
        default:
            usage();
        }
    }
    if (optind + 1 != argc || options.sessions == 0) {
        usage();
    }
    options.port = (uint16_t)number_argument(argv[optind]);
    if (options.recipients < options.sessions) {
        options.recipients = options.sessions;
    }
    return options;
}

int main(int argc, char **argv)
{
    struct load load = {.options = read_options(argc, argv)};
    signal(SIGPIPE, SIG_IGN);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.sessions = calloc(load.options.sessions, sizeof(*load.sessions));
    load.live = load.options.sessions;
    load.body = make_body(load.options.size, &load.body_length);
    if (load.epoll < 0 || load.sessions == NULL) {
        perror("cload");
        return 1;
    }
    char problem[TLS_PROBLEM_SIZE] = "";
    load.client = load.options.secure ? tls_client_new(SLICE_EMPTY, problem) : NULL;
    if (load.options.secure && load.client == NULL) {
        fprintf(stderr, "cload: %s\n", problem);
        return 1;
    }
    if (load.options.log_path != NULL) {
        load.log = fopen(load.options.log_path, "we");
        if (load.log == NULL) {
            perror(load.options.log_path);
            return 1;
        }
        setvbuf(load.log, NULL, _IOFBF, 1 << 20);
    }
    load_run(&load);
    if (load.log != NULL) {
        fclose(load.log);
    }
    tls_client_free(load.client);
    free(load.body);
    free(load.sessions);
    return 0;
}
