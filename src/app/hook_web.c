/* SPDX-License-Identifier: Apache-2.0
 *
 * A post goes through: its host's addresses, a transfer, its end. The multi interface says which
 * descriptors to watch and when to wake it.
 */
#include "app/hook_web.h"

#include "base/digest.h"
#include "base/list.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LIBRARY "libcurl.so.4"

enum {
    CERTIFICATES_MAX = 8 << 20,
    ANSWER_MAX = 64 << 10, /* bytes that are read of an answer, and thrown away */
};

/* What is used of libcurl. */
#define CALLS(X)                                                                                   \
    X(global_init)                                                                                 \
    X(easy_init)                                                                                   \
    X(easy_setopt)                                                                                 \
    X(easy_getinfo)                                                                                \
    X(easy_strerror)                                                                               \
    X(easy_cleanup)                                                                                \
    X(slist_append)                                                                                \
    X(slist_free_all)                                                                              \
    X(multi_init)                                                                                  \
    X(multi_setopt)                                                                                \
    X(multi_add_handle)                                                                            \
    X(multi_remove_handle)                                                                         \
    X(multi_socket_action)                                                                         \
    X(multi_assign)                                                                                \
    X(multi_info_read)                                                                             \
    X(multi_cleanup)                                                                               \
    X(url)                                                                                         \
    X(url_set)                                                                                     \
    X(url_get)                                                                                     \
    X(url_cleanup)                                                                                 \
    X(free)

struct calls {
#define CALL_MEMBER(name) __typeof__(&curl_##name) name;
    CALLS(CALL_MEMBER)
#undef CALL_MEMBER
};

struct hook_web {
    void *library;
    struct calls curl;
    const char *trouble; /* why nothing can be posted, or NULL */
    struct buffer certificates;
    struct loop *loop;
    struct dns *dns;
    hook_posted_fn *fn;
    void *context;
    CURLM *multi;
    struct loop_timer *timer;
    struct link posts;
};

struct post {
    struct link link;
    struct hook_web *web;
    uint64_t slot;
    CURL *easy;
    struct curl_slist *headers, *addresses;
    struct dns_query *query;
    struct buffer body;
    char host[256];
    unsigned port;
    size_t read;
    char problem[CURL_ERROR_SIZE];
};

/* A descriptor of libcurl's. */
struct watch {
    struct hook_web *web;
    int fd;
    struct loop_watch *watch;
};

/* ---- the library -------------------------------------------------------------------------- */

static const char *open_library(struct hook_web *web)
{
    web->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (web->library == NULL) {
        return LIBRARY " is not there";
    }
#define CALL_FIND(name)                                                                            \
    *(void **)&web->curl.name = dlsym(web->library, "curl_" #name);                                \
    if (web->curl.name == NULL) {                                                                  \
        return LIBRARY " has no curl_" #name;                                                      \
    }
    CALLS(CALL_FIND)
#undef CALL_FIND
    return web->curl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? NULL : LIBRARY " fails";
}

static void read_certificates(struct hook_web *web)
{
    CURL *easy = web->curl.easy_init();
    const char *path = NULL;
    if (easy == NULL || web->curl.easy_getinfo(easy, CURLINFO_CAINFO, &path) != CURLE_OK ||
        path == NULL) {
        path = "/etc/ssl/certs/ca-certificates.crt";
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t part[16384];
    for (ssize_t length; fd >= 0 && (length = read(fd, part, sizeof(part))) > 0;) {
        buffer_append(&web->certificates, slice_make(part, (size_t)length));
    }
    if (fd >= 0) {
        close(fd);
    }
    if (easy != NULL) {
        web->curl.easy_cleanup(easy);
    }
}

struct hook_web *hook_web_new(void)
{
    struct hook_web *web = calloc(1, sizeof(*web));
    if (web != NULL) {
        list_init(&web->posts);
        buffer_init(&web->certificates, CERTIFICATES_MAX);
        web->trouble = open_library(web);
        if (web->trouble == NULL) {
            read_certificates(web);
        }
    }
    return web;
}

/* ---- an end ------------------------------------------------------------------------------- */

static void post_free(struct post *post)
{
    struct hook_web *web = post->web;
    list_remove(&post->link);
    if (post->query != NULL) {
        dns_cancel(post->query);
    }
    if (post->easy != NULL) {
        (void)web->curl.multi_remove_handle(web->multi, post->easy);
        web->curl.easy_cleanup(post->easy);
    }
    if (web->trouble == NULL) {
        web->curl.slist_free_all(post->headers);
        web->curl.slist_free_all(post->addresses);
    }
    buffer_done(&post->body);
    free(post);
}

static void finish(struct post *post, const char *problem)
{
    struct hook_web *web = post->web;
    uint64_t slot = post->slot;
    char text[CURL_ERROR_SIZE];
    if (problem != NULL) {
        snprintf(text, sizeof(text), "%s", problem);
    }
    post_free(post);
    web->fn(web->context, slot, problem != NULL ? text : NULL);
}

static void transfer_ended(struct post *post, CURLcode code)
{
    struct hook_web *web = post->web;
    long status = 0;
    (void)web->curl.easy_getinfo(post->easy, CURLINFO_RESPONSE_CODE, &status);
    bool answered = code == CURLE_OK || (code == CURLE_WRITE_ERROR && status != 0);
    if (answered && status >= 200 && status < 300) {
        finish(post, NULL);
    } else if (answered) {
        char text[40];
        snprintf(text, sizeof(text), "HTTP status %ld", status);
        finish(post, text);
    } else {
        finish(post, post->problem[0] != 0 ? post->problem : web->curl.easy_strerror(code));
    }
}

static void read_ends(struct hook_web *web)
{
    int left;
    for (const CURLMsg *message;
         (message = web->curl.multi_info_read(web->multi, &left)) != NULL;) {
        char *private = NULL;
        CURLcode code = message->data.result;
        if (message->msg == CURLMSG_DONE &&
            web->curl.easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private) == CURLE_OK) {
            transfer_ended((struct post *)(void *)private, code);
        }
    }
}

/* ---- libcurl on the loop ------------------------------------------------------------------ */

static void act(struct hook_web *web, curl_socket_t fd, int ready)
{
    int running;
    (void)web->curl.multi_socket_action(web->multi, fd, ready, &running);
    read_ends(web);
}

static void timer_due(void *context)
{
    act(context, CURL_SOCKET_TIMEOUT, 0);
}

static int set_timer(CURLM *multi, long delay_ms, void *context)
{
    (void)multi;
    struct hook_web *web = context;
    if (delay_ms < 0) {
        loop_timer_cancel(web->timer);
    } else {
        loop_timer_set(web->timer, delay_ms);
    }
    return 0;
}

static void socket_ready(void *context, unsigned ready)
{
    const struct watch *watch = context;
    act(watch->web, watch->fd,
        ((ready & LOOP_READ) != 0 ? CURL_CSELECT_IN : 0) |
            ((ready & LOOP_WRITE) != 0 ? CURL_CSELECT_OUT : 0));
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *own)
{
    (void)easy;
    struct hook_web *web = context;
    struct watch *watch = own;
    if (what == CURL_POLL_REMOVE) {
        if (watch != NULL) {
            loop_watch_free(watch->watch);
            free(watch);
        }
        return 0;
    }
    if (watch == NULL) {
        watch = malloc(sizeof(*watch));
        if (watch == NULL) {
            return -1;
        }
        *watch = (struct watch){web, fd, NULL};
        watch->watch = loop_watch_new(web->loop, fd, socket_ready, watch);
        if (watch->watch == NULL) {
            free(watch);
            return -1;
        }
        (void)web->curl.multi_assign(web->multi, fd, watch);
    }
    loop_watch_set(watch->watch, ((what & CURL_POLL_IN) != 0 ? LOOP_READ : 0U) |
                                     ((what & CURL_POLL_OUT) != 0 ? LOOP_WRITE : 0U));
    return 0;
}

void hook_web_start(struct hook_web *web, struct loop *loop, struct dns *dns, hook_posted_fn *fn,
                    void *context)
{
    web->loop = loop;
    web->dns = dns;
    web->fn = fn;
    web->context = context;
    web->timer = loop_timer_new(loop, timer_due, web);
    web->multi = web->trouble == NULL ? web->curl.multi_init() : NULL;
    if (web->multi == NULL || web->timer == NULL) {
        web->trouble = web->trouble != NULL ? web->trouble : "out of memory";
        return;
    }
    (void)web->curl.multi_setopt(web->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    (void)web->curl.multi_setopt(web->multi, CURLMOPT_SOCKETDATA, web);
    (void)web->curl.multi_setopt(web->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    (void)web->curl.multi_setopt(web->multi, CURLMOPT_TIMERDATA, web);
}

void hook_web_cancel(struct hook_web *web)
{
    LIST_EACH(&web->posts, at, after)
    {
        post_free(LIST_ENTRY(at, struct post, link));
    }
}

void hook_web_free(struct hook_web *web)
{
    if (web != NULL) {
        hook_web_cancel(web);
        if (web->multi != NULL) {
            (void)web->curl.multi_cleanup(web->multi);
        }
        loop_timer_free(web->timer);
        buffer_done(&web->certificates);
        free(web);
    }
}

/* ---- a post ------------------------------------------------------------------------------- */

static size_t throw_away(char *bytes, size_t size, size_t count, void *context)
{
    (void)bytes;
    struct post *post = context;
    post->read += size * count;
    return post->read <= ANSWER_MAX ? size * count : 0;
}

static bool add_header(struct post *post, const char *line)
{
    struct curl_slist *longer = post->web->curl.slist_append(post->headers, line);
    post->headers = longer != NULL ? longer : post->headers;
    return longer != NULL;
}

static bool sign(struct post *post, struct slice secret)
{
    uint8_t digest[DIGEST_MAX_BYTES];
    char line[40 + 2 * DIGEST_SHA256_BYTES];
    if (digest_hmac(DIGEST_SHA256, secret, buffer_slice(&post->body), digest) != ERROR_NONE) {
        return false;
    }
    int length = snprintf(line, sizeof(line), "X-Holdfast-Signature: sha256=");
    for (int i = 0; i < DIGEST_SHA256_BYTES; i++) {
        length += snprintf(line + length, sizeof(line) - (size_t)length, "%02x", digest[i]);
    }
    return add_header(post, line);
}

static const char *prepare(struct post *post, const struct hook_post *what)
{
    const struct hook_web *web = post->web;
    const struct calls *curl = &web->curl;
    post->easy = curl->easy_init();
    buffer_append(&post->body, what->body);
    if (post->easy == NULL || post->body.failed ||
        !add_header(post, "Content-Type: application/json") || !add_header(post, "Expect:") ||
        (what->secret.length > 0 && !sign(post, what->secret))) {
        return "out of memory";
    }
    CURL *easy = post->easy;
    struct curl_blob certificates = {web->certificates.data, web->certificates.length,
                                     CURL_BLOB_NOCOPY};
    (void)curl->easy_setopt(easy, CURLOPT_URL, what->url);
    (void)curl->easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl->easy_setopt(easy, CURLOPT_PROXY, "");
    (void)curl->easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl->easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)what->timeout_ms);
    (void)curl->easy_setopt(easy, CURLOPT_USERAGENT, "holdfast");
    (void)curl->easy_setopt(easy, CURLOPT_HTTPHEADER, post->headers);
    (void)curl->easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)post->body.length);
    (void)curl->easy_setopt(easy, CURLOPT_POSTFIELDS, post->body.data);
    (void)curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, throw_away);
    (void)curl->easy_setopt(easy, CURLOPT_WRITEDATA, post);
    (void)curl->easy_setopt(easy, CURLOPT_ERRORBUFFER, post->problem);
    (void)curl->easy_setopt(easy, CURLOPT_PRIVATE, post);
    (void)curl->easy_setopt(easy, CURLOPT_CAINFO_BLOB, &certificates);
    return NULL;
}

static void transfer(struct post *post)
{
    struct hook_web *web = post->web;
    if (web->curl.multi_add_handle(web->multi, post->easy) != CURLM_OK) {
        finish(post, "out of memory");
    }
}

static void resolved(void *context, const struct dns_answer *answer)
{
    struct post *post = context;
    post->query = NULL;
    if (answer->error != ERROR_NONE || answer->count == 0) {
        finish(post, answer->error == ERROR_MISSING ? "its host has no address"
                                                    : "its host's address cannot be found out");
        return;
    }
    struct buffer line;
    buffer_init(&line, 0);
    buffer_printf(&line, "%s:%u:", post->host, post->port);
    for (size_t i = 0; i < answer->count; i++) {
        char address[IP_TEXT_SIZE];
        ip_to_text(&answer->addresses[i], address);
        buffer_printf(&line, "%s%s", i > 0 ? "," : "", address);
    }
    buffer_append(&line, slice_make("", 1));
    if (!line.failed) {
        post->addresses = post->web->curl.slist_append(NULL, (const char *)line.data);
    }
    buffer_done(&line);
    if (post->addresses == NULL) {
        finish(post, "out of memory");
        return;
    }
    (void)post->web->curl.easy_setopt(post->easy, CURLOPT_RESOLVE, post->addresses);
    transfer(post);
}

/* Host and port of the URL. False: it has none. */
static bool take_apart(struct post *post, const char *text)
{
    const struct calls *curl = &post->web->curl;
    CURLU *url = curl->url();
    char *host = NULL, *port = NULL;
    uint64_t number = 0;
    bool done = url != NULL && curl->url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK &&
                curl->url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                curl->url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                strlen(host) < sizeof(post->host) && slice_to_u64(slice_from_text(port), &number);
    if (done) {
        snprintf(post->host, sizeof(post->host), "%s", host);
        post->port = (unsigned)number;
    }
    curl->free(host);
    curl->free(port);
    curl->url_cleanup(url);
    return done;
}

void hook_web_post(struct hook_web *web, const struct hook_post *what)
{
    struct post *post = web->trouble == NULL ? calloc(1, sizeof(*post)) : NULL;
    if (post == NULL) {
        web->fn(web->context, what->slot, web->trouble != NULL ? web->trouble : "out of memory");
        return;
    }
    post->web = web;
    post->slot = what->slot;
    list_append(&web->posts, &post->link);
    buffer_init(&post->body, 0);
    const char *problem = prepare(post, what);
    if (problem == NULL && !take_apart(post, what->url)) {
        problem = "the url cannot be understood";
    }
    struct ip_address literal;
    struct slice host = slice_from_text(post->host);
    if (problem != NULL) {
        finish(post, problem);
    } else if (post->host[0] == '[' || ip_from_text(host, &literal)) {
        transfer(post);
    } else {
        post->query = dns_resolve(web->dns, host, resolved, post);
        if (post->query == NULL) {
            finish(post, "out of memory");
        }
    }
}
