/* SPDX-License-Identifier: Apache-2.0
 *
 * Opens many SMTP connections to a server on this machine, greets, and holds them: what does an
 * idle connection cost? Prints one JSON line when all have been answered or the time is up, then
 * holds until its standard input ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "sys/loop.h"
#include "sys/tls.h"

enum {
    OPENING_AT_ONCE = 100, /* unanswered connections, below every backlog */
    EVENTS_AT_ONCE = 256,
    SOURCES = 4, /* 127.0.0.1 to 127.0.0.4: one address has not ports enough */
};

enum answer { NOTHING, GREETED, WELCOMED, REFUSED, CLOSED };

struct idle {
    uint16_t port;
    uint32_t wanted;
    int epoll;
    int *descriptors;
    enum answer *answers;
    struct tls_client *client; /* NULL: in the clear */
    struct tls **tls;
    bool *shaken;
    uint32_t opened;
    uint32_t count[CLOSED + 1];
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void set_answer(struct idle *idle, uint32_t index, enum answer answer)
{
    idle->count[idle->answers[index]]--;
    idle->answers[index] = answer;
    idle->count[answer]++;
}

static void open_one(struct idle *idle)
{
    uint32_t index = idle->opened++;
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(idle->port)};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + index % SOURCES);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    idle->descriptors[index] = fd;
    idle->count[NOTHING]++;
    if (fd < 0) {
        set_answer(idle, index, CLOSED);
        return;
    }
    /* The port is chosen at connect, so that each source has its own range. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    struct epoll_event event = {.events = idle->client != NULL ? EPOLLOUT : EPOLLIN,
                                .data.u32 = index};
    if (bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0 ||
        (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) ||
        epoll_ctl(idle->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        set_answer(idle, index, CLOSED);
        close(fd);
    }
}

/* False: it is not done yet, or has failed. */
static bool shake_hands(struct idle *idle, uint32_t index)
{
    const struct tls_peer peer = {.trust = TLS_TRUST_ANYBODY, .name = SLICE_LITERAL("localhost")};
    char problem[TLS_PROBLEM_SIZE];
    if (idle->tls[index] == NULL) {
        idle->tls[index] = tls_connect(idle->client, &peer, idle->descriptors[index]);
    }
    enum error error =
        idle->tls[index] == NULL ? ERROR_MEMORY : tls_shake_hands(idle->tls[index], problem);
    bool writes = error == ERROR_AGAIN && tls_wants(idle->tls[index]) == LOOP_WRITE;
    struct epoll_event event = {.events = writes ? EPOLLOUT : EPOLLIN, .data.u32 = index};
    epoll_ctl(idle->epoll, EPOLL_CTL_MOD, idle->descriptors[index], &event);
    if (error != ERROR_NONE && error != ERROR_AGAIN) {
        set_answer(idle, index, CLOSED);
        close(idle->descriptors[index]);
    }
    idle->shaken[index] = error == ERROR_NONE;
    return error == ERROR_NONE;
}

/* As recv(). */
static ssize_t receive(struct idle *idle, uint32_t index, char *bytes, size_t size)
{
    size_t length = 0;
    if (idle->client == NULL) {
        return recv(idle->descriptors[index], bytes, size, 0);
    }
    enum error error = tls_receive(idle->tls[index], bytes, size, &length);
    errno = error == ERROR_AGAIN ? EAGAIN : EPIPE;
    return error == ERROR_NONE ? (ssize_t)length : error == ERROR_CLOSED ? 0 : -1;
}

static bool say(struct idle *idle, uint32_t index, const char *text, size_t length)
{
    size_t sent = 0;
    return idle->client == NULL
               ? send(idle->descriptors[index], text, length, MSG_NOSIGNAL) >= 0
               : tls_send(idle->tls[index], slice_make(text, length), &sent) == ERROR_NONE;
}

static void answer_one(struct idle *idle, uint32_t index)
{
    static const char HELLO[] = "EHLO idle.example\r\n";
    char line[2048];
    if (idle->client != NULL && !idle->shaken[index] && !shake_hands(idle, index)) {
        return;
    }
    ssize_t got = receive(idle, index, line, sizeof(line));
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0) {
        set_answer(idle, index, CLOSED);
        close(idle->descriptors[index]);
    } else if (idle->answers[index] == NOTHING && memcmp(line, "220", 3) == 0) {
        set_answer(idle, index, GREETED);
        if (!say(idle, index, HELLO, sizeof(HELLO) - 1)) {
            set_answer(idle, index, CLOSED);
        }
    } else if (idle->answers[index] == GREETED && memcmp(line, "250", 3) == 0) {
        set_answer(idle, index, WELCOMED);
    } else if (idle->answers[index] == NOTHING) {
        set_answer(idle, index, REFUSED);
    }
}

static void open_all(struct idle *idle, int64_t limit_ms)
{
    int64_t deadline = now_ms() + limit_ms;
    struct epoll_event events[EVENTS_AT_ONCE];
    while (now_ms() < deadline &&
           (idle->opened < idle->wanted || idle->count[NOTHING] + idle->count[GREETED] > 0)) {
        while (idle->opened < idle->wanted && idle->count[NOTHING] < OPENING_AT_ONCE) {
            open_one(idle);
        }
        int count = epoll_wait(idle->epoll, events, EVENTS_AT_ONCE, 50);
        for (int i = 0; i < count; i++) {
            answer_one(idle, events[i].data.u32);
        }
    }
}

int main(int argc, char **argv)
{
    struct idle idle = {0};
    struct rlimit files;
    bool secure = argc == 5 && strcmp(argv[4], "tls") == 0;
    char problem[TLS_PROBLEM_SIZE] = "";
    if (argc != 4 && !secure) {
        fputs("usage: cidle PORT CONNECTIONS LIMIT_SECONDS [tls]   (holds until its input ends)\n",
              stderr);
        return 2;
    }
    idle.client = secure ? tls_client_new(SLICE_EMPTY, problem) : NULL;
    idle.port = (uint16_t)strtoul(argv[1], NULL, 10);
    idle.wanted = (uint32_t)strtoul(argv[2], NULL, 10);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_max < idle.wanted + 64) { /* as root */
        files.rlim_cur = files.rlim_max = idle.wanted + 64;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    idle.epoll = epoll_create1(EPOLL_CLOEXEC);
    idle.descriptors = calloc(idle.wanted, sizeof(*idle.descriptors));
    idle.answers = calloc(idle.wanted, sizeof(*idle.answers));
    idle.tls = calloc(idle.wanted, sizeof(struct tls *));
    idle.shaken = calloc(idle.wanted, sizeof(*idle.shaken));
    if (idle.epoll < 0 || idle.descriptors == NULL || idle.answers == NULL || idle.tls == NULL ||
        idle.shaken == NULL || (secure && idle.client == NULL)) {
        perror("cidle");
        return 1;
    }
    int64_t started = now_ms();
    open_all(&idle, strtoll(argv[3], NULL, 10) * 1000);
    printf("{\"welcomed\": %" PRIu32 ", \"greeted\": %" PRIu32 ", \"refused\": %" PRIu32
           ", \"closed\": %" PRIu32 ", \"unanswered\": %" PRIu32 ", \"seconds\": %.2f}\n",
           idle.count[WELCOMED], idle.count[GREETED], idle.count[REFUSED], idle.count[CLOSED],
           idle.count[NOTHING], (double)(now_ms() - started) / 1e3);
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    for (uint32_t i = 0; i < idle.wanted; i++) {
        tls_free(idle.tls[i]);
    }
    tls_client_free(idle.client);
    free(idle.tls);
    free(idle.shaken);
    free(idle.descriptors);
    free(idle.answers);
    return 0;
}
