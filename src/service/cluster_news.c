/* SPDX-License-Identifier: Apache-2.0
 *
 * Words for what is heard of members.
 */
#include "service/cluster_news.h"

#include "service/core_internal.h"
#include "sys/log.h"

#include <stdio.h>

static void alert_of(struct core *core, struct slice name, int64_t silent_ms)
{
    char text[ALERT_TEXT_SIZE];
    snprintf(text, sizeof(text), "node %.*s is down: it gave no heartbeat for %.1f s",
             SLICE_PRINT(name), (double)silent_ms / 1000);
    report_alert_of(core, ALERT_NODE, name, text);
}

void cluster_news_of_those_down(struct core *core, const struct member *member)
{
    struct member_node node;
    for (size_t i = 0; member_node_at(member, i, &node); i++) {
        if (node.state == NODE_DOWN && node.last_contact >= 0) {
            alert_of(core, node.name, node.last_contact * 1000);
        }
    }
}

/* About another node: each member sees it, the leader alerts. */
static void tell_of_node(struct core *core, const struct member_news *news, bool alerts)
{
    static const char *const words[] = {[MEMBER_NODE_DOWN] = "node-down",
                                        [MEMBER_NODE_LEFT] = "node-left",
                                        [MEMBER_NODE_BACK] = "node-back",
                                        [MEMBER_TAKEN_OVER] = "taken-over",
                                        [MEMBER_TAKEOVER_LATE] = "takeover-late"};
    char text[ALERT_TEXT_SIZE];
    struct slice name = slice_take(news->node, NODE_NAME_MAX);
    log_event(news->kind == MEMBER_NODE_BACK || news->kind == MEMBER_NODE_LEFT ? LOG_LEVEL_INFO
                                                                               : LOG_LEVEL_WARNING,
              words[news->kind], LOG_SLICE("node", name), LOG_NUMBER("shares", news->shares),
              LOG_NUMBER("after_ms", news->after_ms));
    switch (news->kind) {
    case MEMBER_NODE_DOWN:
        if (alerts) {
            alert_of(core, name, news->after_ms);
        }
        break;
    case MEMBER_TAKEOVER_LATE:
        snprintf(text, sizeof(text), "%zu shares of node %.*s have no owner yet", news->shares,
                 SLICE_PRINT(name));
        if (alerts) {
            report_alert_of(core, ALERT_TAKEOVER_LATE, name, text);
        }
        break;
    case MEMBER_TAKEN_OVER:
        report_alert_over_of(core, ALERT_TAKEOVER_LATE, name);
        snprintf(text, sizeof(text), "%zu shares of node %.*s were taken over after %lld ms",
                 news->shares, SLICE_PRINT(name), (long long)news->after_ms);
        if (alerts) {
            report_takeover(core, name, text);
        }
        break;
    default:
        report_alert_over_of(core, ALERT_NODE, name);
        report_alert_over_of(core, ALERT_TAKEOVER_LATE, name);
        break;
    }
}

void cluster_news(struct core *core, const struct member_news *news, bool leads)
{
    char text[ALERT_TEXT_SIZE];
    switch (news->kind) {
    case MEMBER_REFUSED:
        snprintf(text, sizeof(text), "this node may not join: %s", news->text);
        report_alert(core, ALERT_CLUSTER, text);
        break;
    case MEMBER_SPLIT:
        report_alert(
            core, ALERT_LAPSED,
            "the lease has lapsed: nothing is handed over here until the database answers");
        break;
    case MEMBER_HEALED:
        report_alert_over(core, ALERT_LAPSED);
        break;
    default:
        tell_of_node(core, news, leads);
        break;
    }
}
