/* SPDX-License-Identifier: Apache-2.0
 *
 * A filter for benchmarks, on loopback only: wants to hear every step, and says "continue" to each.
 * What it costs a mail server to ask one is what it costs to ask any.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HEAD_BYTES = 5, /* length and command */
    RECEIVE_BYTES = 256 << 10,
    EVENTS_AT_ONCE = 256,
};

struct connection {
    int fd;
    uint8_t head[HEAD_BYTES];
    size_t head_length;
    size_t rest; /* of the packet, which nobody looks at */
};

/* Version 6, changes nothing, leaves out nothing. */
static const uint8_t agreement[] = {0, 0, 0, 13, 'O', 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0};
static const uint8_t go_on[] = {0, 0, 0, 1, 'c'};

/* The answer to a packet whose head is here; false: the client has gone. */
static bool answer(const struct connection *connection)
{
    uint8_t command = connection->head[4];
    if (command == 'D' || command == 'A' || command == 'K') {
        return true; /* macros; a message, a session that is over */
    }
    bool is_offer = command == 'O';
    const uint8_t *bytes = is_offer ? agreement : go_on;
    size_t length = is_offer ? sizeof(agreement) : sizeof(go_on);
    return command != 'Q' && send(connection->fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length;
}

static bool take(struct connection *connection, const uint8_t *bytes, size_t length)
{
    for (;;) {
        if (connection->head_length < HEAD_BYTES) {
            size_t part = HEAD_BYTES - connection->head_length;
            uint32_t whole;
            part = part < length ? part : length;
            memcpy(connection->head + connection->head_length, bytes, part);
            connection->head_length += part;
            bytes += part;
            length -= part;
            if (connection->head_length < HEAD_BYTES) {
                return true;
            }
            memcpy(&whole, connection->head, sizeof(whole));
            connection->rest = ntohl(whole) - 1;
        }
        size_t skipped = connection->rest < length ? connection->rest : length;
        connection->rest -= skipped;
        bytes += skipped;
        length -= skipped;
        if (connection->rest > 0) {
            return true;
        }
        if (!answer(connection)) {
            return false;
        }
        connection->head_length = 0;
    }
}

static void serve(struct connection *connection)
{
    static uint8_t bytes[RECEIVE_BYTES];
    ssize_t got = recv(connection->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0 || !take(connection, bytes, (size_t)got)) {
        close(connection->fd);
        free(connection);
    }
}

static void welcome(int epoll, int listener)
{
    int on = 1, fd = accept(listener, NULL, NULL);
    struct connection *connection = fd >= 0 ? calloc(1, sizeof(*connection)) : NULL;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (connection == NULL) {
        return;
    }
    connection->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv)
{
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct sockaddr_in at = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN};
    if (argc != 2) {
        fprintf(stderr, "usage: cmilter PORT\n");
        return 2;
    }
    at.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listener, 1024) != 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) {
        perror("cmilter");
        return 1;
    }
    for (;;) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int count = epoll_wait(epoll, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL) {
                welcome(epoll, listener);
            } else {
                serve(events[i].data.ptr);
            }
        }
    }
}
