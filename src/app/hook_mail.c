/* SPDX-License-Identifier: Apache-2.0 */
#include "app/hook_mail.h"

#include "base/base64.h"
#include "base/id.h"
#include "relay/routing.h"
#include "service/control_frame.h"
#include "sys/random.h"

#include <stdlib.h>

struct hook_mail {
    struct hook_core *core;
    const struct service_config *config;
    hook_mailed_fn *fn;
    void *context;
    struct id_maker ids;
    bool *works; /* by server */
    /* The one under way. */
    bool busy;
    uint32_t queue;
    char *to;
    char about[HOOK_SUBJECT_SIZE];
    int64_t now_ms;
    struct buffer text;
    size_t header_length;
};

/* ---- the way ------------------------------------------------------------------------------ */

static bool is_about_route(const struct route_config *route, struct slice about)
{
    struct slice kind =
        route->kind == ROUTE_DOMAIN ? SLICE_LITERAL("domain:") : SLICE_LITERAL("relay:");
    return slice_starts_fold(about, kind) &&
           slice_equal(slice_skip(about, kind.length), route->name);
}

/* How much must hold of a chain, the best first. */
enum pass { HEAD_WORKS, ONE_WORKS, ANYHOW, PASSES };

/* The first server of the route that will do, or NO_INDEX. */
static uint32_t server_of(const struct hook_way *way, uint32_t route, struct slice about,
                          enum pass pass)
{
    const struct route_config *config = &way->config->routes[route];
    if (pass != ANYHOW && is_about_route(config, about)) {
        return NO_INDEX;
    }
    uint32_t length = pass == HEAD_WORKS && config->chain_length > 1 ? 1 : config->chain_length;
    for (uint32_t i = 0; i < length; i++) {
        uint32_t server = config->chain[i];
        bool is_it = slice_equal(way->config->servers[server].name, about);
        if (way->works[server] && (pass == ANYHOW || !is_it)) {
            return server;
        }
    }
    return NO_INDEX;
}

static uint32_t own_route(const struct relay_config *config, struct slice to)
{
    struct routing *routing = routing_new(config);
    const struct ip_address nobody = {0};
    const struct routing_query query = {.recipient = to, .client = &nobody, .own_dsn = true};
    uint32_t route = routing != NULL ? routing_find(routing, &query) : NO_INDEX;
    routing_free(routing);
    return route;
}

bool hook_mail_way(const struct hook_way *way, struct slice to, struct slice about,
                   struct slice *ret_server)
{
    uint32_t own = own_route(way->config, to);
    *ret_server = SLICE_EMPTY;
    for (enum pass pass = HEAD_WORKS; pass < PASSES; pass++) {
        if (own != NO_INDEX && server_of(way, own, about, pass) != NO_INDEX) {
            return true;
        }
        for (uint32_t i = 0; i < way->config->route_count; i++) {
            uint32_t server = way->config->routes[i].kind == ROUTE_RELAY && i != own
                                  ? server_of(way, i, about, pass)
                                  : NO_INDEX;
            if (server != NO_INDEX) {
                *ret_server = way->config->servers[server].name;
                return true;
            }
        }
    }
    return false;
}

/* ---- the message -------------------------------------------------------------------------- */

static void over(struct hook_mail *mail, const char *problem)
{
    mail->busy = false;
    mail->fn(mail->context, mail->queue, problem);
}

static void stored(void *context, const char *error)
{
    over(context, error);
}

static json_t *record(struct hook_mail *mail, struct slice server)
{
    char id[ID_TEXT_LENGTH + 1];
    id_to_text(id_make(&mail->ids, mail->now_ms), id);
    return json_pack("{siss sI sI sI s{ss sb sb} s{so ss} s[{si ss s[s] ss so}]}", "format", 1,
                     "id", id, "received", (json_int_t)mail->now_ms, "bytes",
                     (json_int_t)mail->text.length, "header_bytes", (json_int_t)mail->header_length,
                     "envelope", "sender", "", "own_dsn", 1, "eightbit", 1, "origin", "helo",
                     control_string(mail->config->hostname), "listener", "alert", "recipients", "n",
                     0, "address", mail->to, "notify", "never", "state", "waiting", "redirect_to",
                     control_string_or_null(server));
}

static const char *store(struct hook_mail *mail)
{
    const struct hook_way way = {.config = &mail->config->relay, .works = mail->works};
    struct slice server;
    if (!hook_mail_way(&way, slice_from_text(mail->to), slice_from_text(mail->about), &server)) {
        return "no server works that could take it";
    }
    struct buffer content;
    buffer_init(&content, 0);
    base64_encode(&content, buffer_slice(&mail->text));
    json_t *arguments = json_pack("{so so sb}", "record", record(mail, server), "content",
                                  control_string(buffer_slice(&content)), "last", 1);
    buffer_done(&content);
    const struct hook_asker asker = {.context = mail, .end = stored};
    return arguments != NULL && hook_core_ask(mail->core, "queue import", arguments, &asker)
               ? NULL
               : "core cannot be asked";
}

static void read_servers(void *context, const json_t *row)
{
    struct hook_mail *mail = context;
    const json_t *servers = json_object_get(row, "servers");
    size_t i;
    const json_t *server;
    json_array_foreach(servers, i, server)
    {
        const char *name = json_string_value(json_object_get(server, "name"));
        const char *state = json_string_value(json_object_get(server, "state"));
        uint32_t index = name != NULL
                             ? relay_config_server(&mail->config->relay, slice_from_text(name))
                             : NO_INDEX;
        if (index != NO_INDEX && state != NULL) {
            mail->works[index] = strcmp(state, "up") == 0 || strcmp(state, "recovering") == 0;
        }
    }
}

static void looked(void *context, const char *error)
{
    struct hook_mail *mail = context;
    const char *problem = error != NULL ? error : store(mail);
    if (problem != NULL) {
        over(mail, problem);
    }
}

/* ---- calls -------------------------------------------------------------------------------- */

struct hook_mail *hook_mail_new(struct hook_core *core, const struct service_config *config,
                                hook_mailed_fn *fn, void *context)
{
    struct hook_mail *mail = calloc(1, sizeof(*mail));
    if (mail == NULL) {
        return NULL;
    }
    *mail = (struct hook_mail){.core = core,
                               .config = config,
                               .fn = fn,
                               .context = context,
                               .ids = {.node = config->node, .start = (uint32_t)random_u64()}};
    mail->works = calloc(config->relay.server_count + 1, sizeof(*mail->works));
    buffer_init(&mail->text, 0);
    if (mail->works == NULL) {
        free(mail);
        return NULL;
    }
    return mail;
}

void hook_mail_free(struct hook_mail *mail)
{
    if (mail != NULL) {
        buffer_done(&mail->text);
        free(mail->works);
        free(mail->to);
        free(mail);
    }
}

bool hook_mail_send(struct hook_mail *mail, uint32_t queue, struct slice to,
                    const struct hook_letter *letter)
{
    const struct hook_asker asker = {
        .context = mail, .row = read_servers, .more = read_servers, .end = looked};
    if (mail->busy) {
        return false;
    }
    free(mail->to);
    mail->to = strndup((const char *)to.data, to.length);
    memcpy(mail->about, letter->message->subject, sizeof(mail->about));
    mail->now_ms = letter->now_ms;
    buffer_clear(&mail->text);
    hook_mail_text(letter, to, &mail->text, &mail->header_length);
    memset(mail->works, 0, mail->config->relay.server_count * sizeof(*mail->works));
    mail->queue = queue;
    mail->busy = mail->to != NULL && !mail->text.failed &&
                 hook_core_ask(mail->core, "status", json_object(), &asker);
    return mail->busy;
}
