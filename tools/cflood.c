/* SPDX-License-Identifier: Apache-2.0
 *
 * A flood of clients that are to be refused, and beside it clients that are not, both at fixed
 * rates whatever the server does (an open loop), against a server on this machine and never
 * elsewhere.
 *
 *   cflood [-f N] [-g N] [-t SECONDS] [-p CLIENTS] [-r ADDRESS] [-l BYTES] PORT
 *     -f  connections a second that ask for the unknown recipient ADDRESS (nobody@example.com)
 *     -g  connections a second with a message of BYTES (4096) for user@example.com each
 *     -p  a PROXY header comes first: those of the flood are of so many clients, 203.0.112.1 and so
 *         on, the others of 198.51.100.7
 *
 * A message's time is counted from when it was due to begin, so a client or a server that falls
 * behind shows. At the end one JSON line on standard output; times in milliseconds, of a message
 * up to the 250 after its dot.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    OPEN_MAX_AT_ONCE = 20000,
    EVENTS_AT_ONCE = 512,
    SOURCES = 250, /* addresses of the loopback network, so that no ports run out */
    PATIENCE_S = 20,
    TEXT_MAX = 512,
};
#define SECOND INT64_C(1000000000)

struct flow {
    int64_t gap_ns, due_ns;
    uint64_t begun, done, refused, lost, left_out;
};

struct client {
    struct client *next_free;
    int64_t due_ns;
    bool in_use;
    bool is_good;
    int fd;
    int step;    /* lines of its script that have been sent */
    int replies; /* that are still to come for them */
    int code;    /* of the last one */
    int worst;
    size_t line_length;
    char line[4];
};

static struct {
    uint16_t port;
    uint32_t proxied;
    const char *unknown;
    char *content;
    size_t content_length;
    int epoll;
    struct client *clients, *free;
    struct flow flows[2]; /* of the flood, and of the good */
    double *times_ms;
    size_t time_count, time_room;
    uint32_t turn;
} all;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void keep_time(const struct client *client, int64_t now)
{
    if (all.time_count == all.time_room) {
        all.time_room = all.time_room == 0 ? 4096 : all.time_room * 2;
        all.times_ms = realloc(all.times_ms, all.time_room * sizeof(*all.times_ms));
        if (all.times_ms == NULL) {
            fail("realloc");
        }
    }
    all.times_ms[all.time_count++] = (double)(now - client->due_ns) / 1e6;
}

/* Without a TIME_WAIT: nothing is under way any more. */
static void end(struct client *client)
{
    const struct linger at_once = {1, 0};
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(client->fd);
    client->in_use = false;
    client->next_free = all.free;
    all.free = client;
}

static void lose(struct client *client)
{
    all.flows[client->is_good].lost++;
    if (client->is_good) {
        keep_time(client, now_ns());
    }
    end(client);
}

static void begin(bool is_good, int64_t due_ns)
{
    struct client *client = all.free;
    struct flow *flow = &all.flows[is_good];
    flow->begun++;
    if (client == NULL) {
        flow->left_out++;
        return;
    }
    all.free = client->next_free;
    *client = (struct client){.due_ns = due_ns, .in_use = true, .is_good = is_good, .replies = 1};
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0) {
        fail("socket");
    }
    const int yes = 1;
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof(yes));
    struct sockaddr_in from = {.sin_family = AF_INET}, to = from;
    from.sin_addr.s_addr = htonl(0x7f010001u + all.turn++ % SOURCES);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(all.port);
    struct epoll_event wish = {.events = EPOLLIN | EPOLLOUT, .data.ptr = client};
    if (bind(client->fd, (struct sockaddr *)&from, sizeof(from)) != 0 ||
        (connect(client->fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) ||
        epoll_ctl(all.epoll, EPOLL_CTL_ADD, client->fd, &wish) != 0) {
        lose(client);
    }
}

static bool say(struct client *client, const char *text, size_t length)
{
    return send(client->fd, text, length, MSG_NOSIGNAL) == (ssize_t)length;
}

/* What comes next, once all that was said has been answered. Returns the replies that it gets; 0:
 * it is over; -1: it could not be said. */
static int go_on(struct client *client)
{
    char text[TEXT_MAX];
    int replies = 0;
    const char *said = text;
    size_t length = 0;
    client->step++;
    if (client->step == 1) {
        said = "EHLO client.example\r\n", length = 21, replies = 1;
    } else if (client->step == 2 && client->is_good) {
        length = (size_t)snprintf(text, sizeof(text),
                                  "MAIL FROM:<bob@client.example>\r\n"
                                  "RCPT TO:<user@example.com>\r\nDATA\r\n");
        replies = 3;
    } else if (client->step == 2) {
        length = (size_t)snprintf(
            text, sizeof(text), "MAIL FROM:<spam@client.example>\r\nRCPT TO:<%s>\r\n", all.unknown);
        replies = 2;
    } else if (client->step == 3 && client->is_good) {
        said = all.content, length = all.content_length, replies = 1;
    } else {
        said = "QUIT\r\n", length = 6;
    }
    return say(client, said, length) ? replies : -1;
}

/* All replies are there. False: it is over. */
static bool answered(struct client *client)
{
    struct flow *flow = &all.flows[client->is_good];
    if (client->worst >= 400) {
        flow->refused++;
        if (client->is_good) {
            keep_time(client, now_ns());
        }
        say(client, "QUIT\r\n", 6);
        return false;
    }
    if (client->is_good && client->step == 3) {
        keep_time(client, now_ns());
        flow->done++;
    }
    client->replies = go_on(client);
    if (client->replies < 0) {
        lose(client);
        return true;
    }
    flow->done += client->replies == 0 && !client->is_good;
    return client->replies > 0;
}

/* Each byte: only the code of each line counts. False: it is over. */
static bool read_byte(struct client *client, char byte)
{
    if (byte != '\n') {
        if (client->line_length < sizeof(client->line)) {
            client->line[client->line_length] = byte;
        }
        client->line_length++;
        return true;
    }
    bool is_last = client->line_length < 4 || client->line[3] != '-';
    client->line_length = 0;
    if (!is_last) {
        return true;
    }
    client->code = (client->line[0] - '0') * 100;
    client->worst = client->code > client->worst ? client->code : client->worst;
    return --client->replies > 0 || answered(client);
}

static void receive(struct client *client)
{
    char bytes[4096];
    ssize_t length = recv(client->fd, bytes, sizeof(bytes), 0);
    if (length <= 0) {
        if (length == 0 || errno != EAGAIN) {
            lose(client);
        }
        return;
    }
    for (ssize_t i = 0; i < length && client->in_use; i++) {
        if (!read_byte(client, bytes[i])) {
            end(client);
        }
    }
}

static void connected(struct client *client)
{
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = client};
    epoll_ctl(all.epoll, EPOLL_CTL_MOD, client->fd, &wish);
    if (all.proxied > 0) {
        char text[TEXT_MAX];
        uint32_t which = all.turn % all.proxied;
        char address[32] = "198.51.100.7";
        if (!client->is_good) {
            snprintf(address, sizeof(address), "203.0.%u.%u", 112 + which / 250, which % 250 + 1);
        }
        int length = snprintf(text, sizeof(text), "PROXY TCP4 %s 192.0.2.1 4711 25\r\n", address);
        if (!say(client, text, (size_t)length)) {
            lose(client);
        }
    }
}

static bool is_over(const struct flow *flow)
{
    return flow->begun == flow->done + flow->refused + flow->lost + flow->left_out;
}

static void run_until(int64_t until_ns, bool drains)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    for (;;) {
        int64_t now = now_ns(), next = until_ns;
        for (int i = 0; i < 2 && !drains; i++) {
            struct flow *flow = &all.flows[i];
            for (; flow->gap_ns > 0 && flow->due_ns <= now && flow->due_ns < until_ns;
                 flow->due_ns += flow->gap_ns) {
                begin(i == 1, flow->due_ns);
            }
            next = flow->gap_ns > 0 && flow->due_ns < next ? flow->due_ns : next;
        }
        if (now >= until_ns || (drains && is_over(&all.flows[0]) && is_over(&all.flows[1]))) {
            return;
        }
        int64_t wait_ns = next > now ? next - now : 0;
        struct timespec wait = {wait_ns / SECOND, wait_ns % SECOND};
        int count = epoll_pwait2(all.epoll, events, EVENTS_AT_ONCE, &wait, NULL);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (client->in_use && events[i].events & EPOLLOUT) {
                connected(client);
            }
            if (client->in_use && events[i].events & ~(uint32_t)EPOLLOUT) {
                receive(client);
            }
        }
    }
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double part(double share)
{
    size_t at = (size_t)((double)all.time_count * share);
    return all.time_count == 0 ? 0 : all.times_ms[at < all.time_count ? at : all.time_count - 1];
}

static void make_content(size_t bytes)
{
    static const char head[] = "Subject: good\r\n\r\n";
    all.content = malloc(sizeof(head) + bytes + 100);
    if (all.content == NULL) {
        fail("malloc");
    }
    memcpy(all.content, head, sizeof(head) - 1);
    size_t at = sizeof(head) - 1;
    while (at < bytes) {
        memset(all.content + at, 'x', 76);
        memcpy(all.content + at + 76, "\r\n", 2);
        at += 78;
    }
    memcpy(all.content + at, ".\r\n", 3);
    all.content_length = at + 3;
}

static void print_flow(const char *name, const struct flow *flow)
{
    printf("\"%s\": {\"begun\": %" PRIu64 ", \"done\": %" PRIu64 ", \"refused\": %" PRIu64
           ", \"lost\": %" PRIu64 ", \"left_out\": %" PRIu64 "}, ",
           name, flow->begun, flow->done, flow->refused, flow->lost, flow->left_out);
}

int main(int count, char **arguments)
{
    long rates[2] = {0, 0}, seconds = 10, size = 4096;
    all.unknown = "nobody@example.com";
    for (int option; (option = getopt(count, arguments, "f:g:t:p:r:l:")) != -1;) {
        long number = optarg != NULL ? strtol(optarg, NULL, 10) : 0;
        switch (option) {
        case 'f':
            rates[0] = number;
            break;
        case 'g':
            rates[1] = number;
            break;
        case 't':
            seconds = number;
            break;
        case 'p':
            all.proxied = (uint32_t)number;
            break;
        case 'r':
            all.unknown = optarg;
            break;
        case 'l':
            size = number;
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != count || all.proxied > 10000 || size < 1 || seconds < 1) {
        fprintf(stderr, "usage: cflood [-f N] [-g N] [-t SECONDS] [-p CLIENTS] [-r ADDRESS] "
                        "[-l BYTES] PORT\n");
        return 2;
    }
    all.port = (uint16_t)strtol(arguments[optind], NULL, 10);
    all.epoll = epoll_create1(EPOLL_CLOEXEC);
    all.clients = calloc(OPEN_MAX_AT_ONCE, sizeof(*all.clients));
    if (all.epoll < 0 || all.clients == NULL) {
        fail("start");
    }
    for (size_t i = 0; i < OPEN_MAX_AT_ONCE; i++) {
        all.clients[i].next_free = all.free;
        all.free = &all.clients[i];
    }
    make_content((size_t)size);
    int64_t start = now_ns();
    for (int i = 0; i < 2; i++) {
        all.flows[i].gap_ns = rates[i] > 0 ? SECOND / rates[i] : 0;
        all.flows[i].due_ns = start;
    }
    run_until(start + seconds * SECOND, false);
    run_until(now_ns() + PATIENCE_S * SECOND, true);
    for (size_t i = 0; i < OPEN_MAX_AT_ONCE; i++) {
        if (all.clients[i].in_use) {
            lose(&all.clients[i]);
        }
    }
    qsort(all.times_ms, all.time_count, sizeof(*all.times_ms), compare);
    printf("{");
    print_flow("flood", &all.flows[0]);
    print_flow("good", &all.flows[1]);
    printf("\"p50\": %.3f, \"p99\": %.3f, \"most\": %.3f}\n", part(0.5), part(0.99), part(1));
    return 0;
}
