/* SPDX-License-Identifier: Apache-2.0
 *
 * A request goes through: its host's addresses, a transfer, its end. The multi interface says which
 * descriptors to watch and when to wake it.
 */
#include "app/fetch.h"

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
    X(easy_header)                                                                                 \
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

struct fetcher {
    void *library;
    struct calls curl;
    const char *trouble; /* why nothing can be fetched, or NULL */
    struct buffer certificates;
    struct loop *loop;
    struct dns *dns;
    CURLM *multi;
    struct loop_timer *timer;
    struct link requests;
};

struct request {
    struct link link;
    struct fetcher *fetcher;
    fetch_ended_fn *fn;
    void *context;
    uint64_t slot;
    CURL *easy;
    struct curl_slist *headers, *addresses;
    struct dns_query *query;
    bool is_post, has_etag, untrusted;
    char media_type[64]; /* empty: any */
    struct buffer body;  /* that is posted, or that has been fetched */
    char host[256];
    unsigned port;
    size_t read; /* of the answer to a post */
    char problem[CURL_ERROR_SIZE];
};

/* A descriptor of libcurl's. */
struct watch {
    struct fetcher *fetcher;
    int fd;
    struct loop_watch *watch;
};

/* ---- the library -------------------------------------------------------------------------- */

static const char *open_library(struct fetcher *fetcher)
{
    fetcher->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (fetcher->library == NULL) {
        return LIBRARY " is not there";
    }
#define CALL_FIND(name)                                                                            \
    *(void **)&fetcher->curl.name = dlsym(fetcher->library, "curl_" #name);                        \
    if (fetcher->curl.name == NULL) {                                                              \
        return LIBRARY " has no curl_" #name;                                                      \
    }
    CALLS(CALL_FIND)
#undef CALL_FIND
    return fetcher->curl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? NULL : LIBRARY " fails";
}

static void read_certificates(struct fetcher *fetcher)
{
    CURL *easy = fetcher->curl.easy_init();
    const char *path = NULL;
    if (easy == NULL || fetcher->curl.easy_getinfo(easy, CURLINFO_CAINFO, &path) != CURLE_OK ||
        path == NULL) {
        path = "/etc/ssl/certs/ca-certificates.crt";
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t part[16384];
    for (ssize_t length; fd >= 0 && (length = read(fd, part, sizeof(part))) > 0;) {
        buffer_append(&fetcher->certificates, slice_make(part, (size_t)length));
    }
    if (fd >= 0) {
        close(fd);
    }
    if (easy != NULL) {
        fetcher->curl.easy_cleanup(easy);
    }
}

struct fetcher *fetcher_new(void)
{
    struct fetcher *fetcher = calloc(1, sizeof(*fetcher));
    if (fetcher != NULL) {
        list_init(&fetcher->requests);
        buffer_init(&fetcher->certificates, CERTIFICATES_MAX);
        fetcher->trouble = open_library(fetcher);
        if (fetcher->trouble == NULL) {
            read_certificates(fetcher);
        }
    }
    return fetcher;
}

/* ---- an end ------------------------------------------------------------------------------- */

static void request_free(struct request *request)
{
    struct fetcher *fetcher = request->fetcher;
    list_remove(&request->link);
    if (request->query != NULL) {
        dns_cancel(request->query);
    }
    if (request->easy != NULL) {
        (void)fetcher->curl.multi_remove_handle(fetcher->multi, request->easy);
        fetcher->curl.easy_cleanup(request->easy);
    }
    if (fetcher->trouble == NULL) {
        fetcher->curl.slist_free_all(request->headers);
        fetcher->curl.slist_free_all(request->addresses);
    }
    buffer_done(&request->body);
    free(request);
}

static void finish(struct request *request, const char *problem, long status)
{
    char text[CURL_ERROR_SIZE];
    struct fetch_answer answer = {.status = status, .untrusted = request->untrusted};
    struct buffer body = request->body;
    struct curl_header *etag = NULL;
    if (problem != NULL) {
        snprintf(text, sizeof(text), "%s", problem);
        answer.problem = text;
    } else if (!request->is_post) {
        answer.body = buffer_slice(&body);
        if (request->fetcher->curl.easy_header(request->easy, "ETag", 0, CURLH_HEADER, -1, &etag) ==
            CURLHE_OK) {
            answer.etag = slice_from_text(etag->value);
        }
    }
    fetch_ended_fn *fn = request->fn;
    void *context = request->context;
    uint64_t slot = request->slot;
    /* It may be cancelled, or another begun, by who is called. */
    list_remove(&request->link);
    list_init(&request->link);
    fn(context, slot, &answer);
    request_free(request);
}

/* The media type without its parameters. */
static bool is_of_type(const struct request *request)
{
    const char *type = NULL;
    if (request->media_type[0] == '\0') {
        return true;
    }
    if (request->fetcher->curl.easy_getinfo(request->easy, CURLINFO_CONTENT_TYPE, &type) !=
            CURLE_OK ||
        type == NULL) {
        return false;
    }
    struct slice said = slice_from_text(type);
    return slice_equal_fold(slice_trim(slice_take(said, slice_find(said, ';'))),
                            slice_from_text(request->media_type));
}

static bool is_good(const struct request *request, long status)
{
    return status == 200 || (request->is_post && status > 200 && status < 300) ||
           (request->has_etag && status == 304);
}

static void transfer_ended(struct request *request, CURLcode code)
{
    const struct fetcher *fetcher = request->fetcher;
    long status = 0;
    (void)fetcher->curl.easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
    bool too_large = code == CURLE_WRITE_ERROR && request->body.failed;
    bool answered = code == CURLE_OK || (code == CURLE_WRITE_ERROR && status != 0);
    char text[80];
    request->untrusted = code == CURLE_PEER_FAILED_VERIFICATION;
    if (!answered) {
        finish(request,
               request->problem[0] != 0 ? request->problem : fetcher->curl.easy_strerror(code),
               status);
    } else if (!is_good(request, status)) {
        snprintf(text, sizeof(text), "HTTP status %ld", status);
        finish(request, text, status);
    } else if (too_large) {
        snprintf(text, sizeof(text), "it is larger than %zu bytes", request->body.limit);
        finish(request, text, status);
    } else if (status == 200 && !is_of_type(request)) {
        snprintf(text, sizeof(text), "it is no %s", request->media_type);
        finish(request, text, status);
    } else {
        finish(request, NULL, status);
    }
}

static void read_ends(struct fetcher *fetcher)
{
    int left;
    for (const CURLMsg *message;
         (message = fetcher->curl.multi_info_read(fetcher->multi, &left)) != NULL;) {
        char *private = NULL;
        CURLcode code = message->data.result;
        if (message->msg == CURLMSG_DONE &&
            fetcher->curl.easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private) ==
                CURLE_OK) {
            transfer_ended((struct request *)(void *)private, code);
        }
    }
}

/* ---- libcurl on the loop ------------------------------------------------------------------ */

static void act(struct fetcher *fetcher, curl_socket_t fd, int ready)
{
    int running;
    (void)fetcher->curl.multi_socket_action(fetcher->multi, fd, ready, &running);
    read_ends(fetcher);
}

static void timer_due(void *context)
{
    act(context, CURL_SOCKET_TIMEOUT, 0);
}

static int set_timer(CURLM *multi, long delay_ms, void *context)
{
    (void)multi;
    struct fetcher *fetcher = context;
    if (delay_ms < 0) {
        loop_timer_cancel(fetcher->timer);
    } else {
        loop_timer_set(fetcher->timer, delay_ms);
    }
    return 0;
}

static void socket_ready(void *context, unsigned ready)
{
    const struct watch *watch = context;
    act(watch->fetcher, watch->fd,
        ((ready & LOOP_READ) != 0 ? CURL_CSELECT_IN : 0) |
            ((ready & LOOP_WRITE) != 0 ? CURL_CSELECT_OUT : 0));
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *own)
{
    (void)easy;
    struct fetcher *fetcher = context;
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
        *watch = (struct watch){fetcher, fd, NULL};
        watch->watch = loop_watch_new(fetcher->loop, fd, socket_ready, watch);
        if (watch->watch == NULL) {
            free(watch);
            return -1;
        }
        (void)fetcher->curl.multi_assign(fetcher->multi, fd, watch);
    }
    loop_watch_set(watch->watch, ((what & CURL_POLL_IN) != 0 ? LOOP_READ : 0U) |
                                     ((what & CURL_POLL_OUT) != 0 ? LOOP_WRITE : 0U));
    return 0;
}

void fetcher_start(struct fetcher *fetcher, struct loop *loop, struct dns *dns)
{
    fetcher->loop = loop;
    fetcher->dns = dns;
    fetcher->timer = loop_timer_new(loop, timer_due, fetcher);
    fetcher->multi = fetcher->trouble == NULL ? fetcher->curl.multi_init() : NULL;
    if (fetcher->multi == NULL || fetcher->timer == NULL) {
        fetcher->trouble = fetcher->trouble != NULL ? fetcher->trouble : "out of memory";
        return;
    }
    (void)fetcher->curl.multi_setopt(fetcher->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    (void)fetcher->curl.multi_setopt(fetcher->multi, CURLMOPT_SOCKETDATA, fetcher);
    (void)fetcher->curl.multi_setopt(fetcher->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    (void)fetcher->curl.multi_setopt(fetcher->multi, CURLMOPT_TIMERDATA, fetcher);
}

void fetch_cancel(struct fetcher *fetcher, const void *context)
{
    LIST_EACH(&fetcher->requests, at, after)
    {
        struct request *request = LIST_ENTRY(at, struct request, link);
        if (request->context == context) {
            request_free(request);
        }
    }
}

void fetcher_free(struct fetcher *fetcher)
{
    if (fetcher != NULL) {
        LIST_EACH(&fetcher->requests, at, after)
        {
            request_free(LIST_ENTRY(at, struct request, link));
        }
        if (fetcher->multi != NULL) {
            (void)fetcher->curl.multi_cleanup(fetcher->multi);
        }
        loop_timer_free(fetcher->timer);
        buffer_done(&fetcher->certificates);
        free(fetcher);
    }
}

/* ---- a request ---------------------------------------------------------------------------- */

static size_t take_answer(char *bytes, size_t size, size_t count, void *context)
{
    struct request *request = context;
    if (request->is_post) {
        request->read += size * count;
        return request->read <= ANSWER_MAX ? size * count : 0;
    }
    buffer_append(&request->body, slice_make(bytes, size * count));
    return request->body.failed ? 0 : size * count;
}

static bool add_header(struct request *request, const char *name, const char *value)
{
    struct buffer line;
    buffer_init(&line, 0);
    buffer_printf(&line, "%s%s%c", name, value, 0);
    struct curl_slist *longer =
        line.failed
            ? NULL
            : request->fetcher->curl.slist_append(request->headers, (const char *)line.data);
    buffer_done(&line);
    request->headers = longer != NULL ? longer : request->headers;
    return longer != NULL;
}

static bool add_headers(struct request *request, const struct fetch *what)
{
    return add_header(request, "Expect:", "") &&
           (what->post_type == NULL || add_header(request, "Content-Type: ", what->post_type)) &&
           (what->etag == NULL || add_header(request, "If-None-Match: ", what->etag)) &&
           (what->header == NULL || add_header(request, what->header, ""));
}

static const char *prepare(struct request *request, const struct fetch *what)
{
    const struct fetcher *fetcher = request->fetcher;
    const struct calls *curl = &fetcher->curl;
    request->easy = curl->easy_init();
    buffer_init(&request->body, request->is_post ? 0 : what->most_bytes);
    if (request->is_post) {
        buffer_append(&request->body, what->post);
    }
    if (request->easy == NULL || request->body.failed || !add_headers(request, what)) {
        return "out of memory";
    }
    CURL *easy = request->easy;
    bool own = what->authorities.length > 0;
    struct curl_blob certificates = {own ? (void *)what->authorities.data
                                         : fetcher->certificates.data,
                                     own ? what->authorities.length : fetcher->certificates.length,
                                     own ? CURL_BLOB_COPY : CURL_BLOB_NOCOPY};
    (void)curl->easy_setopt(easy, CURLOPT_URL, what->url);
    (void)curl->easy_setopt(easy, CURLOPT_PROTOCOLS_STR,
                            what->may_be_plain ? "http,https" : "https");
    (void)curl->easy_setopt(easy, CURLOPT_PROXY, "");
    (void)curl->easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl->easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)what->timeout_ms);
    (void)curl->easy_setopt(easy, CURLOPT_USERAGENT, "holdfast");
    (void)curl->easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
    if (request->is_post) {
        (void)curl->easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)request->body.length);
        (void)curl->easy_setopt(easy, CURLOPT_POSTFIELDS, request->body.data);
    }
    (void)curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_answer);
    (void)curl->easy_setopt(easy, CURLOPT_WRITEDATA, request);
    (void)curl->easy_setopt(easy, CURLOPT_ERRORBUFFER, request->problem);
    (void)curl->easy_setopt(easy, CURLOPT_PRIVATE, request);
    (void)curl->easy_setopt(easy, CURLOPT_CAINFO_BLOB, &certificates);
    return NULL;
}

static void transfer(struct request *request)
{
    struct fetcher *fetcher = request->fetcher;
    if (fetcher->curl.multi_add_handle(fetcher->multi, request->easy) != CURLM_OK) {
        finish(request, "out of memory", 0);
    }
}

static void resolved(void *context, const struct dns_answer *answer)
{
    struct request *request = context;
    request->query = NULL;
    if (answer->error != ERROR_NONE || answer->count == 0) {
        finish(request,
               answer->error == ERROR_MISSING ? "its host has no address"
                                              : "its host's address cannot be found out",
               0);
        return;
    }
    struct buffer line;
    buffer_init(&line, 0);
    buffer_printf(&line, "+%s:%u:", request->host, request->port); /* + lets libcurl forget it */
    for (size_t i = 0; i < answer->count; i++) {
        char address[IP_TEXT_SIZE];
        ip_to_text(&answer->addresses[i], address);
        buffer_printf(&line, "%s%s", i > 0 ? "," : "", address);
    }
    buffer_append(&line, slice_make("", 1));
    if (!line.failed) {
        request->addresses = request->fetcher->curl.slist_append(NULL, (const char *)line.data);
    }
    buffer_done(&line);
    if (request->addresses == NULL) {
        finish(request, "out of memory", 0);
        return;
    }
    (void)request->fetcher->curl.easy_setopt(request->easy, CURLOPT_RESOLVE, request->addresses);
    transfer(request);
}

/* Host and port of the URL. False: it has none. */
static bool take_apart(struct request *request, const char *text)
{
    const struct calls *curl = &request->fetcher->curl;
    CURLU *url = curl->url();
    char *host = NULL, *port = NULL;
    uint64_t number = 0;
    bool done = url != NULL && curl->url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK &&
                curl->url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                curl->url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                strlen(host) < sizeof(request->host) &&
                slice_to_u64(slice_from_text(port), &number);
    if (done) {
        snprintf(request->host, sizeof(request->host), "%s", host);
        request->port = (unsigned)number;
    }
    curl->free(host);
    curl->free(port);
    curl->url_cleanup(url);
    return done;
}

static struct request *request_new(struct fetcher *fetcher, const struct fetch *what)
{
    struct request *request = calloc(1, sizeof(*request));
    if (request != NULL) {
        request->fetcher = fetcher;
        request->fn = what->fn;
        request->context = what->context;
        request->slot = what->slot;
        request->is_post = what->post_type != NULL;
        request->has_etag = what->etag != NULL;
        snprintf(request->media_type, sizeof(request->media_type), "%s",
                 what->media_type != NULL ? what->media_type : "");
        list_append(&fetcher->requests, &request->link);
    }
    return request;
}

void fetch_begin(struct fetcher *fetcher, const struct fetch *what)
{
    struct request *request = fetcher->trouble == NULL ? request_new(fetcher, what) : NULL;
    if (request == NULL) {
        const struct fetch_answer answer = {.problem = fetcher->trouble != NULL ? fetcher->trouble
                                                                                : "out of memory"};
        what->fn(what->context, what->slot, &answer);
        return;
    }
    const char *problem = prepare(request, what);
    if (problem == NULL && !take_apart(request, what->url)) {
        problem = "the url cannot be understood";
    }
    struct ip_address literal;
    struct slice host = slice_from_text(request->host);
    if (problem != NULL) {
        finish(request, problem, 0);
    } else if (request->host[0] == '[' || ip_from_text(host, &literal)) {
        transfer(request);
    } else {
        request->query = dns_resolve(fetcher->dns, host, resolved, request);
        if (request->query == NULL) {
            finish(request, "out of memory", 0);
        }
    }
}
