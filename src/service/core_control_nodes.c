/* SPDX-License-Identifier: Apache-2.0
 *
 * The node commands, and what status says of the cluster.
 */
#include "cluster/balance.h"
#include "cluster/member.h"
#include "service/core_cluster.h"
#include "service/core_control.h"
#include "sys/clock.h"

static json_t *number_or_null(int64_t number)
{
    return number < 0 ? json_null() : json_integer((json_int_t)number);
}

static json_t *roles(unsigned role)
{
    static const struct {
        unsigned role;
        const char *name;
    } names[] = {{NODE_ROLE_GATEWAY, "gateway"}, {NODE_ROLE_NODE, "node"}, {NODE_ROLE_HUB, "hub"}};
    json_t *array = json_array();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((role & names[i].role) != 0) {
            json_array_append_new(array, json_string(names[i].name));
        }
    }
    return array;
}

/* `age_ms`: the cluster was read so long ago. */
static json_t *node_row(const struct core *core, const struct member_node *node)
{
    const struct member *member = core_cluster_member(core->cluster);
    int64_t age_ms = member_age_ms(member);
    bool is_here = node->number == member_number(member);
    bool is_old = !is_here && age_ms >= LEASE_SUSPECT_MS && node->state != NODE_DOWN;
    int64_t silent_s = node->last_contact < 0 ? -1 : node->last_contact + age_ms / 1000;
    const struct node_health *health = &node->health;
    json_t *row = json_object();
    control_set(row, "name", control_string(node->name));
    control_set(row, "number", json_integer(node->number));
    control_set(row, "role", roles(node->role));
    control_set(row, "site", control_string_or_null(node->site));
    control_set(row, "state", json_string(node_state_text(is_old ? NODE_SUSPECT : node->state)));
    control_set(row, "leader", json_boolean(node->leader));
    control_set(row, "here", json_boolean(is_here));
    control_set(row, "version", control_string(node->version));
    control_set(row, "place", control_string(node->place));
    control_set(row, "last_contact",
                silent_s < 0
                    ? json_null()
                    : json_integer((json_int_t)(core_now(core).wall_ms - silent_s * 1000)));
    control_set(row, "last_contact_seconds", number_or_null(silent_s));
    control_set(row, "lanes", json_integer((json_int_t)node->lanes));
    control_set(row, "queue",
                json_pack("{so so so}", "messages", number_or_null(health->messages), "deliveries",
                          number_or_null(health->deliveries), "one_copy",
                          number_or_null(health->journalled)));
    control_set(row, "disk",
                json_pack("{so so}", "available_bytes", number_or_null(health->disk_free_bytes),
                          "total_bytes", number_or_null(health->disk_bytes)));
    control_set(row, "clock_offset_ms", json_integer((json_int_t)health->clock_offset_ms));
    control_set(row, "database_lag_ms", number_or_null(health->database_lag_ms));
    return row;
}

json_t *control_nodes(const struct core *core)
{
    json_t *array = json_array();
    const struct member *member = core->cluster != NULL ? core_cluster_member(core->cluster) : NULL;
    struct member_node node;
    for (size_t i = 0; member_node_at(member, i, &node); i++) {
        json_array_append_new(array, node_row(core, &node));
    }
    return array;
}

static void add(int64_t *sum, int64_t number)
{
    *sum += number > 0 ? number : 0;
}

/* Of all members: our own as it is now, others' as they were at their last heartbeats. Who is down
 * is left out, and named. */
static void put_totals(const struct core *core, json_t *row)
{
    const struct member *member = core_cluster_member(core->cluster);
    struct relay_totals own;
    struct member_node node;
    json_t *missing = json_array();
    relay_totals(core->relay, &own);
    struct node_health sum = {.messages = (int64_t)own.messages,
                              .deliveries = (int64_t)own.deliveries,
                              .bytes = (int64_t)own.bytes,
                              .held = (int64_t)own.held,
                              .dead_letters = (int64_t)own.dead_letters,
                              .oldest_ms = own.oldest_wall_ms};
    for (size_t i = 0; member_node_at(member, i, &node); i++) {
        const struct node_health *health = &node.health;
        if (node.number == member_number(member)) {
            continue;
        }
        if (node.state == NODE_DOWN) {
            json_array_append_new(missing, control_string(node.name));
            continue;
        }
        add(&sum.messages, health->messages);
        add(&sum.deliveries, health->deliveries);
        add(&sum.bytes, health->bytes);
        add(&sum.held, health->held);
        add(&sum.dead_letters, health->dead_letters);
        if (health->oldest_ms > 0 && (sum.oldest_ms == 0 || health->oldest_ms < sum.oldest_ms)) {
            sum.oldest_ms = health->oldest_ms;
        }
    }
    int64_t oldest_s = sum.oldest_ms == 0 ? 0 : (core_now(core).wall_ms - sum.oldest_ms) / 1000;
    json_t *queue = json_object();
    control_set(queue, "messages", json_integer((json_int_t)sum.messages));
    control_set(queue, "deliveries", json_integer((json_int_t)sum.deliveries));
    control_set(queue, "bytes", json_integer((json_int_t)sum.bytes));
    control_set(queue, "oldest_seconds", json_integer((json_int_t)(oldest_s > 0 ? oldest_s : 0)));
    control_set(queue, "held", json_integer((json_int_t)sum.held));
    control_set(row, "queue", queue);
    control_set(row, "dead_letters", json_integer((json_int_t)sum.dead_letters));
    control_set(row, "missing_nodes", missing);
}

/* Who has not joined does not ask for mail: then what keeps it from joining counts. */
static json_t *why_away(struct core *core, const struct spool_postgres_state *state)
{
    const struct alert *alert = NULL;
    const struct member *member = core_cluster_member(core->cluster);
    if (member == NULL || member_number(member) == 0) {
        alert = alerts_find(&core->alerts, ALERT_DATABASE, SLICE_EMPTY);
        alert = alert != NULL ? alert : alerts_find(&core->alerts, ALERT_CLUSTER, SLICE_EMPTY);
    }
    const char *text = alert != NULL ? alert->text : state->reason;
    return text[0] != '\0' ? control_string(slice_from_text(text)) : json_null();
}

json_t *control_cluster(struct core *core)
{
    if (core->cluster == NULL) {
        return json_null();
    }
    const struct member *member = core_cluster_member(core->cluster);
    struct spool_postgres_state state;
    core_cluster_database(core->cluster, &state);
    json_t *database = json_object();
    control_set(database, "up", json_boolean(state.up));
    control_set(database, "since",
                control_time(core_now(core).wall_ms - (core_now(core).steady_ms - state.since_ms)));
    control_set(database, "commit_ms", json_real((double)state.commit_us / 1000));
    control_set(database, "lag_ms", json_integer((json_int_t)state.lag_ms));
    control_set(database, "reason", why_away(core, &state));
    json_t *row = json_object();
    control_set(row, "name", control_string(core->config->cluster.name));
    control_set(row, "number", json_integer(member != NULL ? member_number(member) : 0));
    control_set(row, "leader", json_boolean(member != NULL && member_leads(member)));
    control_set(row, "lease_ms",
                json_integer((json_int_t)(member != NULL ? member_lease_left_ms(member) : 0)));
    control_set(row, "read_ms_ago",
                json_integer((json_int_t)(member != NULL ? member_age_ms(member) : 0)));
    control_set(row, "database", database);
    control_set(row, "one_copy", json_integer((json_int_t)state.one_copy));
    control_set(row, "waiting_writes", json_integer((json_int_t)state.waiting));
    put_totals(core, row);
    return row;
}

static enum control_step no_cluster(struct control_request *request)
{
    return control_fail(request, CONTROL_NOTHING_MATCHED,
                        "this machine is in no cluster: its configuration has no cluster block");
}

enum control_step node_list_step(struct control_request *request)
{
    const struct core *core = request->core;
    if (core->cluster == NULL) {
        return control_flag(request, "alone") ? STEP_END : no_cluster(request);
    }
    const struct member *member = core_cluster_member(core->cluster);
    struct member_node node;
    size_t count = 0;
    while (member_node_at(member, count, &node)) {
        control_row(request, node_row(core, &node));
        count++;
    }
    if (count > 0) {
        return STEP_END;
    }
    const char *refusal = member != NULL ? member_refusal(member) : "";
    return control_fail(request, CONTROL_NOTHING_MATCHED,
                        refusal[0] != '\0' ? refusal : "nothing has been read of the cluster yet");
}

/* ---- changing ---------------------------------------------------------------------------------
 */

static void answered(void *context, enum member_answer answer, int64_t number)
{
    static const char *const texts[] = {
        [MEMBER_DONE] = NULL,
        [MEMBER_MISSING] = "there is no such node",
        [MEMBER_ALIVE] = "the node is up: drain it and stop it first",
        [MEMBER_UNREACHABLE] =
            "the database does not answer; it may be done all the same: see node list"};
    struct control_request *request = context;
    if (answer != MEMBER_DONE) {
        request->code = CONTROL_NOTHING_MATCHED;
        request->error = texts[answer];
    } else if (request->control != NULL) {
        json_t *row = json_object();
        control_set(row, "name", control_string(control_argument(request, "name")));
        control_set(row, "number", json_integer((json_int_t)number));
        control_set(row, "done", json_true());
        control_row(request, row);
    }
    core_control_written(request, ERROR_NONE);
}

typedef bool change_fn(struct member *member, struct slice node, member_answer_fn *done,
                       void *context);

static enum control_step change(struct control_request *request, change_fn *fn)
{
    struct core *core = request->core;
    struct member *member = core->cluster != NULL ? core_cluster_member(core->cluster) : NULL;
    if (member == NULL) {
        return no_cluster(request);
    }
    if (control_argument(request, "name").length == 0) {
        return control_fail(request, CONTROL_USAGE, "which node?");
    }
    (void)control_after(request);
    if (!fn(member, control_argument(request, "name"), answered, request)) {
        core_control_written(request, ERROR_NONE);
        return control_fail(request, CONTROL_NOTHING_MATCHED, "too many commands at once");
    }
    return STEP_WAIT;
}

enum control_step node_drain_begin(struct control_request *request)
{
    return change(request, member_drain);
}

enum control_step node_undrain_begin(struct control_request *request)
{
    return change(request, member_undrain);
}

enum control_step node_remove_begin(struct control_request *request)
{
    return change(request, member_remove);
}

enum control_step node_changed_step(struct control_request *request)
{
    (void)request;
    return STEP_END;
}
