/* SPDX-License-Identifier: Apache-2.0 */
#include "app/plan.h"

#include "app/lease.h"

#include <assert.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- making ------------------------------------------------------------------------------ */

static bool copy_text(char *to, size_t size, struct slice from)
{
    if (from.length >= size || slice_find(from, 0) != from.length) {
        return false;
    }
    if (from.length > 0) { /* an empty slice may point nowhere, which memcpy must not be given */
        memcpy(to, from.data, from.length);
    }
    to[from.length] = '\0';
    return true;
}

static bool find_user(struct slice name, struct keeper_identity *identity)
{
    char *text = strndup((const char *)name.data, name.length);
    const struct passwd *account = text != NULL ? getpwnam(text) : NULL;
    free(text);
    if (account == NULL) {
        return false;
    }
    identity->change = account->pw_uid != 0;
    identity->user = account->pw_uid;
    identity->group = account->pw_gid;
    return true;
}

static bool find_group(struct slice name, struct keeper_identity *identity)
{
    char *text = strndup((const char *)name.data, name.length);
    const struct group *group = text != NULL ? getgrnam(text) : NULL;
    free(text);
    if (group == NULL) {
        return false;
    }
    identity->has_control_group = true;
    identity->control_group = group->gr_gid;
    return true;
}

static bool find_accounts(const struct service_config *config, const char *path,
                          struct keeper_identity *ret_identity, struct buffer *errors)
{
    *ret_identity = (struct keeper_identity){.user = geteuid(), .group = getegid()};
    if (config->user.length == 0 && geteuid() == 0) {
        buffer_printf(
            errors, "%s:1: warning: no user given: started as root, all of it stays root\n", path);
    }
    if (config->user.length > 0 && geteuid() == 0 && !find_user(config->user, ret_identity)) {
        buffer_printf(errors, "%s:1: user: there is no user '%.*s' on this machine\n", path,
                      SLICE_PRINT(config->user));
        return false;
    }
    if (config->group.length > 0 && !find_group(config->group, ret_identity)) {
        buffer_printf(errors, "%s:1: group: there is no group '%.*s' on this machine\n", path,
                      SLICE_PRINT(config->group));
        return false;
    }
    return true;
}

static uint32_t loops_to_run(uint32_t configured)
{
    uint32_t loops = configured;
    if (loops == 0) {
        cpu_set_t cores;
        loops = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? (uint32_t)CPU_COUNT(&cores) : 1;
    }
    return loops > LOOPS_MAX ? LOOPS_MAX : loops;
}

static void fix_settings(const struct service_config *config, struct plan *plan)
{
    struct restart_setting settings[SETTINGS_RESTART_MAX];
    plan->fixed_count = settings_restart(config, settings);
    for (uint32_t i = 0; i < plan->fixed_count; i++) {
        (void)copy_text(plan->fixed[i].key, PLAN_NAME_MAX, slice_from_text(settings[i].key));
        plan->fixed[i].digest = settings[i].digest;
    }
}

/* Each once; the settings have seen to it that they fit. */
static void take_lists(const struct relay_config *config, struct plan *plan)
{
    for (uint32_t i = 0; i < config->route_count; i++) {
        struct slice path = config->routes[i].recipients_list;
        uint32_t at = 0;
        while (at < plan->list_count && !slice_equal(slice_from_text(plan->lists[at]), path)) {
            at++;
        }
        if (route_list_is_file(&config->routes[i]) && at == plan->list_count) {
            bool fits = at < LIST_FILES_MAX && copy_text(plan->lists[at], LIST_PATH_MAX + 1, path);
            assert(fits);
            plan->list_count++;
        }
    }
}

static bool take_standby(const struct standby_config *from, struct plan_standby *to)
{
    to->after_ms = from->after_ms;
    to->watch_count = from->watch_count;
    for (uint32_t i = 0; i < from->watch_count; i++) {
        to->watch[i] = from->watch[i];
    }
    return copy_text(to->name, sizeof(to->name), from->name) &&
           copy_text(to->of, sizeof(to->of), from->of) &&
           copy_text(to->fence, sizeof(to->fence), from->fence) &&
           copy_text(to->before, sizeof(to->before), from->before) &&
           copy_text(to->after_takeover, sizeof(to->after_takeover), from->after_takeover) &&
           copy_text(to->after_release, sizeof(to->after_release), from->after_release) &&
           copy_text(to->known, sizeof(to->known), from->known);
}

bool plan_make(const struct service_config *config, const char *path, struct plan *ret_plan,
               struct buffer *errors)
{
    memset(ret_plan, 0, sizeof(*ret_plan));
    ret_plan->loops = loops_to_run(config->loops);
    ret_plan->log_target = config->log_target;
    ret_plan->log_level = config->log_level;
    fix_settings(config, ret_plan);
    bool fits = copy_text(ret_plan->state, sizeof(ret_plan->state), config->state);
    assert(fits && config->listener_count <= LISTENERS_MAX);
    ret_plan->listener_count = config->listener_count;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct listener_config *from = &config->listeners[i];
        struct plan_listener *to = &ret_plan->listeners[i];
        /* Only for the log. */
        (void)copy_text(to->name, sizeof(to->name), slice_take(from->name, sizeof(to->name) - 1));
        to->at = from->at;
        to->protocol = from->protocol;
    }
    ret_plan->milter_count = config->milter_count;
    for (uint32_t i = 0; i < config->milter_count; i++) {
        const struct milter_config *from = &config->milters[i];
        struct plan_milter *to = &ret_plan->milters[i];
        fits = copy_text(to->name, sizeof(to->name), from->name) &&
               copy_text(to->path, sizeof(to->path), from->path);
        assert(fits);
        to->at = from->at;
    }
    take_lists(&config->relay, ret_plan);
    if (!take_standby(&config->standby, &ret_plan->standby)) {
        buffer_printf(errors, "%s:1: standby: a path is longer than %d\n", path, PLAN_PROGRAM_MAX);
        return false;
    }
    return find_accounts(config, path, &ret_plan->identity, errors);
}

void plan_set_conflict(struct plan *plan, struct slice conflict)
{
    struct slice first = slice_take(conflict, slice_find(conflict, '\n'));
    snprintf(plan->conflict, sizeof(plan->conflict), "%.*s",
             SLICE_PRINT(slice_take(first, PLAN_CONFLICT_MAX)));
}

/* ---- on the wire ------------------------------------------------------------------------- */

static void put_endpoint(struct buffer *buffer, const struct ip_endpoint *at)
{
    buffer_append(buffer, slice_make(at->address.bytes, sizeof(at->address.bytes)));
    buffer_put_u16(buffer, at->port);
}

static void get_endpoint(struct reader *reader, struct ip_endpoint *ret_at)
{
    struct slice address = reader_take(reader, sizeof(ret_at->address.bytes));
    if (address.length > 0) {
        memcpy(ret_at->address.bytes, address.data, address.length);
    }
    ret_at->port = reader_u16(reader);
}

static void put_standby(struct buffer *buffer, const struct plan_standby *standby)
{
    buffer_put_bytes(buffer, slice_from_text(standby->name));
    buffer_put_bytes(buffer, slice_from_text(standby->of));
    buffer_put_u32(buffer, standby->after_ms);
    buffer_put_bytes(buffer, slice_from_text(standby->fence));
    buffer_put_bytes(buffer, slice_from_text(standby->before));
    buffer_put_bytes(buffer, slice_from_text(standby->after_takeover));
    buffer_put_bytes(buffer, slice_from_text(standby->after_release));
    buffer_put_bytes(buffer, slice_from_text(standby->known));
    buffer_put_u32(buffer, standby->watch_count);
    for (uint32_t i = 0; i < standby->watch_count; i++) {
        put_endpoint(buffer, &standby->watch[i]);
    }
}

static bool get_standby(struct reader *reader, struct plan_standby *ret_standby)
{
    bool fits = copy_text(ret_standby->name, sizeof(ret_standby->name), reader_bytes(reader)) &&
                copy_text(ret_standby->of, sizeof(ret_standby->of), reader_bytes(reader));
    ret_standby->after_ms = reader_u32(reader);
    char *const paths[] = {ret_standby->fence, ret_standby->before, ret_standby->after_takeover,
                           ret_standby->after_release, ret_standby->known};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        fits &= copy_text(paths[i], PLAN_PROGRAM_MAX + 1, reader_bytes(reader));
    }
    ret_standby->watch_count = reader_u32(reader);
    if (!fits || reader->failed || ret_standby->watch_count > STANDBY_WATCH_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < ret_standby->watch_count; i++) {
        get_endpoint(reader, &ret_standby->watch[i]);
    }
    /* The names become files' names. */
    return ret_standby->of[0] == '\0' || (lease_name_is_good(slice_from_text(ret_standby->name)) &&
                                          lease_name_is_good(slice_from_text(ret_standby->of)) &&
                                          ret_standby->after_ms >= LEASE_AFTER_LEAST_MS &&
                                          ret_standby->after_ms <= LEASE_AFTER_MOST_MS);
}

void plan_put(struct buffer *buffer, const struct plan *plan)
{
    buffer_put_bytes(buffer, slice_from_text(plan->state));
    buffer_put_u8(buffer, plan->identity.change);
    buffer_put_u32(buffer, plan->identity.user);
    buffer_put_u32(buffer, plan->identity.group);
    buffer_put_u8(buffer, plan->identity.has_control_group);
    buffer_put_u32(buffer, plan->identity.control_group);
    buffer_put_u32(buffer, plan->loops);
    buffer_put_u8(buffer, (uint8_t)plan->log_target);
    buffer_put_u8(buffer, (uint8_t)plan->log_level);
    buffer_put_u32(buffer, plan->fixed_count);
    for (uint32_t i = 0; i < plan->fixed_count; i++) {
        buffer_put_bytes(buffer, slice_from_text(plan->fixed[i].key));
        buffer_put_u64(buffer, plan->fixed[i].digest);
    }
    buffer_put_u32(buffer, plan->listener_count);
    for (uint32_t i = 0; i < plan->listener_count; i++) {
        const struct plan_listener *listener = &plan->listeners[i];
        buffer_put_bytes(buffer, slice_from_text(listener->name));
        put_endpoint(buffer, &listener->at);
        buffer_put_u8(buffer, (uint8_t)listener->protocol);
    }
    buffer_put_u32(buffer, plan->milter_count);
    for (uint32_t i = 0; i < plan->milter_count; i++) {
        const struct plan_milter *milter = &plan->milters[i];
        buffer_put_bytes(buffer, slice_from_text(milter->name));
        buffer_put_bytes(buffer, slice_from_text(milter->path));
        put_endpoint(buffer, &milter->at);
    }
    buffer_put_u32(buffer, plan->list_count);
    for (uint32_t i = 0; i < plan->list_count; i++) {
        buffer_put_bytes(buffer, slice_from_text(plan->lists[i]));
    }
    put_standby(buffer, &plan->standby);
    buffer_put_bytes(buffer, slice_from_text(plan->conflict));
}

/* False: more than there can be, or a key that does not fit. */
static bool get_fixed(struct reader *reader, struct plan *ret_plan)
{
    ret_plan->fixed_count = reader_u32(reader);
    if (ret_plan->fixed_count > SETTINGS_RESTART_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < ret_plan->fixed_count; i++) {
        struct plan_fixed *fixed = &ret_plan->fixed[i];
        if (!copy_text(fixed->key, sizeof(fixed->key), reader_bytes(reader))) {
            return false;
        }
        fixed->digest = reader_u64(reader);
    }
    return !reader->failed;
}

static bool get_listener(struct reader *reader, struct plan_listener *ret_listener)
{
    bool fits = copy_text(ret_listener->name, sizeof(ret_listener->name), reader_bytes(reader));
    get_endpoint(reader, &ret_listener->at);
    uint8_t protocol = reader_u8(reader);
    ret_listener->protocol = (enum listener_protocol)protocol;
    return fits && !reader->failed && protocol <= LISTENER_SUBMISSION;
}

bool plan_get(struct slice bytes, struct plan *ret_plan)
{
    memset(ret_plan, 0, sizeof(*ret_plan));
    struct reader reader = reader_make(bytes);
    if (!copy_text(ret_plan->state, sizeof(ret_plan->state), reader_bytes(&reader))) {
        return false;
    }
    ret_plan->identity.change = reader_u8(&reader) != 0;
    ret_plan->identity.user = reader_u32(&reader);
    ret_plan->identity.group = reader_u32(&reader);
    ret_plan->identity.has_control_group = reader_u8(&reader) != 0;
    ret_plan->identity.control_group = reader_u32(&reader);
    ret_plan->loops = reader_u32(&reader);
    uint8_t target = reader_u8(&reader);
    uint8_t level = reader_u8(&reader);
    ret_plan->log_target = (enum log_target)target;
    ret_plan->log_level = (enum log_level)level;
    if (!get_fixed(&reader, ret_plan)) {
        return false;
    }
    ret_plan->listener_count = reader_u32(&reader);
    if (reader.failed || ret_plan->state[0] != '/' || ret_plan->loops < 1 ||
        ret_plan->loops > LOOPS_MAX || target > LOG_TO_JOURNAL || level > LOG_LEVEL_DEBUG ||
        ret_plan->listener_count > LISTENERS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < ret_plan->listener_count; i++) {
        if (!get_listener(&reader, &ret_plan->listeners[i])) {
            return false;
        }
    }
    ret_plan->milter_count = reader_u32(&reader);
    if (ret_plan->milter_count > MILTERS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < ret_plan->milter_count; i++) {
        struct plan_milter *milter = &ret_plan->milters[i];
        if (!copy_text(milter->name, sizeof(milter->name), reader_bytes(&reader)) ||
            !copy_text(milter->path, sizeof(milter->path), reader_bytes(&reader))) {
            return false;
        }
        get_endpoint(&reader, &milter->at);
    }
    ret_plan->list_count = reader_u32(&reader);
    if (ret_plan->list_count > LIST_FILES_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < ret_plan->list_count; i++) {
        if (!copy_text(ret_plan->lists[i], sizeof(ret_plan->lists[i]), reader_bytes(&reader)) ||
            ret_plan->lists[i][0] != '/') {
            return false;
        }
    }
    return get_standby(&reader, &ret_plan->standby) &&
           copy_text(ret_plan->conflict, sizeof(ret_plan->conflict), reader_bytes(&reader)) &&
           !reader.failed && reader.rest.length == 0;
}
