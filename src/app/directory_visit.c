/* SPDX-License-Identifier: Apache-2.0 */
#include "app/directory_internal.h"

#include "sys/clock.h"

#include <stdio.h>
#include <string.h>

void visit_text(struct slice text, char ret_text[LDAP_TEXT_MAX])
{
    text = slice_take(text, LDAP_TEXT_MAX - 1); /* no configuration has a longer one */
    memcpy(ret_text, text.data != NULL ? text.data : (const uint8_t *)"", text.length);
    ret_text[text.length] = '\0';
}

bool visit_fails(struct visit *visit, const char *what)
{
    if (visit->problem[0] == '\0') {
        snprintf(visit->problem, sizeof(visit->problem), "%s", what);
    }
    return false;
}

/* ---- its servers, on a thread ------------------------------------------------------------- */

bool visit_bind(struct visit *visit, struct ldap_session *session)
{
    const struct ldap_config *config = visit->directory->config;
    char dn[LDAP_TEXT_MAX];
    if (config->bind_dn.length == 0) {
        return true;
    }
    visit_text(config->bind_dn, dn);
    return ldap_session_bind(session, dn, config->bind_password, visit->problem) == ERROR_NONE ||
           visit_fails(visit, "bind-dn");
}

static bool prepare_trust(struct visit *visit)
{
    struct directory *directory = visit->directory;
    char problem[TLS_PROBLEM_SIZE] = "";
    if (directory->config->has_tls && directory->trust[visit->thread] == NULL) {
        directory->trust[visit->thread] = tls_client_new(directory->config->tls_ca, problem);
        if (directory->trust[visit->thread] == NULL) {
            snprintf(visit->problem, sizeof(visit->problem), "tls-ca: %s", problem);
            return false;
        }
    }
    return true;
}

static bool ask_endpoint(struct visit *visit, size_t index)
{
    struct directory *directory = visit->directory;
    const struct ldap_config *config = directory->config;
    const struct ldap_url *url = &config->urls[visit->endpoints[index].url];
    const struct ldap_peer peer = {
        .at = visit->endpoints[index].at,
        .security = url->has_tls      ? LDAP_SECURITY_TLS
                    : config->has_tls ? LDAP_SECURITY_STARTTLS
                                      : LDAP_SECURITY_NONE,
        .name = config->tls_name.length > 0 ? config->tls_name : url->host,
        .tls = directory->trust[visit->thread],
        .has_interrupt = visit->kind->is_interrupted,
        .interrupt = directory->generation->over,
    };
    int64_t deadline_ms = clock_steady_ms() + config->timeout_ms;
    struct ldap_session *session = NULL;
    if (deadline_ms > visit->deadline_ms) {
        deadline_ms = visit->deadline_ms;
    }
    visit->problem[0] = '\0';
    if (ldap_session_open(directory->generation->desk->library, &peer, deadline_ms, &session,
                          visit->problem) != ERROR_NONE) {
        return false;
    }
    bool is_answered = visit->kind->ask(visit, session);
    ldap_session_close(session);
    return is_answered;
}

static void ask(void *context)
{
    struct visit *visit = context;
    struct directory *directory = visit->directory;
    uint32_t preferred = atomic_load(&directory->preferred);
    if (visit->endpoint_count == 0) {
        (void)visit_fails(visit, "no address of it is known");
    }
    /* First those of the URL that answered last, then the others. */
    for (int round = 0; round < 2 && prepare_trust(visit); round++) {
        for (size_t i = 0; i < visit->endpoint_count; i++) {
            uint32_t url = visit->endpoints[i].url;
            if ((url == preferred) != (round == 0) || clock_steady_ms() >= visit->deadline_ms) {
                continue;
            }
            if (ask_endpoint(visit, i)) {
                visit->is_answered = true;
                atomic_store(&directory->preferred, url);
                return;
            }
        }
    }
}

static void asked(void *context)
{
    struct visit *visit = context;
    visit->kind->end(visit);
}

/* ---- their addresses ---------------------------------------------------------------------- */

static void look_up_next(struct visit *visit);

static void add_endpoint(struct visit *visit, const struct ip_address *address)
{
    if (visit->endpoint_count < DIRECTORY_ENDPOINTS_MAX) {
        const struct ldap_url *url = &visit->directory->config->urls[visit->resolving];
        visit->endpoints[visit->endpoint_count].at = (struct ip_endpoint){*address, url->port};
        visit->endpoints[visit->endpoint_count++].url = visit->resolving;
    }
}

static void on_addresses(void *context, const struct dns_answer *answer)
{
    struct visit *visit = context;
    visit->query = NULL;
    for (size_t i = 0; answer->error == ERROR_NONE && i < answer->count; i++) {
        add_endpoint(visit, &answer->addresses[i]);
    }
    visit->resolving++;
    look_up_next(visit);
}

static void look_up_next(struct visit *visit)
{
    struct directory *directory = visit->directory;
    for (; visit->resolving < directory->config->url_count; visit->resolving++) {
        struct slice host = directory->config->urls[visit->resolving].host;
        struct ip_address literal;
        if (ip_from_text(host, &literal)) {
            add_endpoint(visit, &literal);
            continue;
        }
        visit->query = dns_resolve(directory->generation->desk->dns, host, on_addresses, visit);
        if (visit->query != NULL) {
            return;
        }
    }
    if (worker_submit(directory->workers[visit->thread], ask, asked, visit) != ERROR_NONE) {
        visit->kind->end(visit);
    }
}

void visit_begin(struct visit *visit, const struct visit_kind *kind, struct directory *directory,
                 uint32_t thread, int64_t patience_ms)
{
    struct generation *generation = directory->generation;
    *visit = (struct visit){.kind = kind,
                            .directory = directory,
                            .thread = thread,
                            .deadline_ms = clock_steady_ms() + patience_ms};
    generation->references++;
    list_append(&generation->desk->visits, &visit->link);
    look_up_next(visit);
}

void visit_done(struct visit *visit)
{
    if (visit->query != NULL) {
        dns_cancel(visit->query);
    }
    list_remove(&visit->link);
    directory_unref(visit->directory->generation);
}
