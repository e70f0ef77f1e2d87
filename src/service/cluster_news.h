/* SPDX-License-Identifier: Apache-2.0
 *
 * What the operator is told of the cluster: log and alerts, from what the member has heard of
 * itself and of the others (cluster/member.h). Who owns what is not known here.
 */
#ifndef HOLDFAST_SERVICE_CLUSTER_NEWS_H
#define HOLDFAST_SERVICE_CLUSTER_NEWS_H

#include "cluster/member.h"

struct core;

/* All but of the database. Each member logs what it sees of others; the one that leads alerts. */
void cluster_news(struct core *core, const struct member_news *news, bool leads);
/* For who leads from now on: the leader of before may be among them, and has told nobody. */
void cluster_news_of_those_down(struct core *core, const struct member *member);

#endif
