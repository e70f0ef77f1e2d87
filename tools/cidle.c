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
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    if (bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0 ||
        (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) ||
        epoll_ctl(idle->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        set_answer(idle, index, CLOSED);
        close(fd);
    }
}

static void answer_one(struct idle *idle, uint32_t index)
{
    static const char HELLO[] = "EHLO idle.example\r\n";
    char line[2048];
    ssize_t got = recv(idle->descriptors[index], line, sizeof(line), 0);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0) {
        set_answer(idle, index, CLOSED);
        close(idle->descriptors[index]);
    } else if (idle->answers[index] == NOTHING && memcmp(line, "220", 3) == 0) {
        set_answer(idle, index, GREETED);
        if (send(idle->descriptors[index], HELLO, sizeof(HELLO) - 1, MSG_NOSIGNAL) < 0) {
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
    if (argc != 4) {
        fputs("usage: cidle PORT CONNECTIONS LIMIT_SECONDS   (holds until its input ends)\n",
              stderr);
        return 2;
    }
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
    if (idle.epoll < 0 || idle.descriptors == NULL || idle.answers == NULL) {
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
    free(idle.descriptors);
    free(idle.answers);
    return 0;
}
