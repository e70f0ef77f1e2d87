/* SPDX-License-Identifier: Apache-2.0
 *
 * From an answer to a list: who of them is us, who is better, which of their addresses may be used.
 */
#include "relay/mx.h"

#include <assert.h>
#include <string.h>

/* What the exchangers that are left out had to be left out for. */
struct rejected {
    uint32_t unanswered;
    enum error error; /* of the last of those */
    uint32_t refused;
    uint32_t elsewhere;
};

/* ---- addresses ---------------------------------------------------------------------------- */

/* Not reached over the Internet: RFC 1122 3.2.1.3, RFC 1918, RFC 3927, RFC 6598, RFC 4193, RFC
 * 4291 2.5; multicast and reserved ones, which nobody has. */
static const char *const closed_networks[] = {
    "0.0.0.0/8",     "10.0.0.0/8",   "100.64.0.0/10",  "127.0.0.0/8", "169.254.0.0/16",
    "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3", "::/127",
    "fc00::/7",      "fe80::/10",    "fec0::/10",      "ff00::/8",
};

static bool is_closed(const struct ip_address *address)
{
    for (size_t i = 0; i < sizeof closed_networks / sizeof closed_networks[0]; i++) {
        struct ip_network network;
        bool read = ip_network_from_text(slice_from_text(closed_networks[i]), &network);
        assert(read);
        if (read && ip_network_contains(&network, address)) {
            return true;
        }
    }
    return false;
}

/* *ret_alone: by an entry for this one address. */
static bool is_listed(const struct mx_policy *policy, const struct ip_address *address,
                      bool *ret_alone)
{
    bool listed = false;
    *ret_alone = false;
    for (uint32_t i = 0; i < policy->only_count; i++) {
        if (ip_network_contains(&policy->only[i], address)) {
            listed = true;
            *ret_alone |= policy->only[i].prefix == 128;
        }
    }
    return listed;
}

/* All of 127.0.0.0/8 is ours in a way that says nothing about who listens there. */
static bool is_ours(const struct mx_policy *policy, const struct mx_address *address)
{
    bool alone;
    for (uint32_t i = 0; i < policy->own_count; i++) {
        if (ip_equal(&policy->own[i], &address->address)) {
            return true;
        }
    }
    (void)is_listed(policy, &address->address, &alone);
    return address->ours && !alone && !ip_is_loopback(&address->address);
}

static bool is_us(const struct mx_policy *policy, const struct mx_exchanger *exchanger)
{
    if (slice_equal_fold(exchanger->host, policy->hostname)) {
        return true;
    }
    for (uint32_t i = 0; i < exchanger->address_count; i++) {
        if (is_ours(policy, &exchanger->addresses[i])) {
            return true;
        }
    }
    return false;
}

static bool take_addresses(const struct mx_policy *policy, const struct mx_exchanger *exchanger,
                           struct mx_choice *choice, struct rejected *rejected)
{
    for (uint32_t i = 0; i < exchanger->address_count; i++) {
        const struct ip_address *address = &exchanger->addresses[i].address;
        bool alone;
        bool listed = is_listed(policy, address, &alone);
        if (!listed && is_closed(address)) {
            rejected->refused++;
        } else if (!listed && policy->only_count > 0) {
            rejected->elsewhere++;
        } else if (choice->address_count < MX_ADDRESSES_MAX) {
            choice->addresses[choice->address_count++] = *address;
        }
    }
    if (exchanger->error != ERROR_NONE && exchanger->error != ERROR_MISSING) {
        rejected->unanswered++;
        rejected->error = exchanger->error;
    }
    return choice->address_count > 0;
}

/* ---- order -------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *seed)
{
    *seed += 0x9e3779b97f4a7c15ULL; /* splitmix64 */
    uint64_t mixed = (*seed ^ *seed >> 30) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebULL;
    return mixed ^ mixed >> 31;
}

static void swap(struct mx_choice *a, struct mx_choice *b)
{
    struct mx_choice kept = *a;
    *a = *b;
    *b = kept;
}

/* Shuffled, then sorted by preference without changing the order of equals. */
static void put_in_order(struct mx_decision *decision, uint64_t seed)
{
    for (uint32_t i = decision->count; i > 1; i--) {
        swap(&decision->choices[i - 1], &decision->choices[draw(&seed) % i]);
    }
    for (uint32_t i = 1; i < decision->count; i++) {
        for (uint32_t j = i;
             j > 0 && decision->choices[j].preference < decision->choices[j - 1].preference; j--) {
            swap(&decision->choices[j], &decision->choices[j - 1]);
        }
    }
}

/* ---- the decision ------------------------------------------------------------------------- */

static bool is_root(const struct mx_exchanger *exchanger)
{
    return slice_equal(exchanger->host, SLICE_LITERAL("."));
}

static uint32_t count_roots(const struct mx_answer *answer)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < answer->count; i++) {
        count += is_root(&answer->exchangers[i]);
    }
    return count;
}

/* The preference from which on an exchanger is no better than we are. */
static uint32_t our_preference(const struct mx_answer *answer, const struct mx_policy *policy)
{
    uint32_t ours = UINT32_MAX;
    for (uint32_t i = 0; i < answer->count; i++) {
        const struct mx_exchanger *exchanger = &answer->exchangers[i];
        if (exchanger->preference < ours && is_us(policy, exchanger)) {
            ours = exchanger->preference;
        }
    }
    return ours;
}

static enum mx_verdict choose(const struct mx_answer *answer, const struct mx_policy *policy,
                              struct mx_decision *decision, struct rejected *rejected)
{
    uint32_t ours = our_preference(answer, policy), better = 0;
    for (uint32_t i = 0; i < answer->count && i < MX_EXCHANGERS_MAX; i++) {
        const struct mx_exchanger *exchanger = &answer->exchangers[i];
        if (exchanger->preference >= ours || is_root(exchanger)) {
            continue;
        }
        better++;
        struct mx_choice *choice = &decision->choices[decision->count];
        *choice = (struct mx_choice){.host = exchanger->host, .preference = exchanger->preference};
        decision->count += take_addresses(policy, exchanger, choice, rejected);
    }
    if (decision->count > 0) {
        return MX_FOUND;
    }
    if (better == 0 && ours != UINT32_MAX) {
        return MX_OURSELVES;
    }
    return rejected->unanswered > 0  ? MX_NO_ANSWER
           : rejected->elsewhere > 0 ? MX_ELSEWHERE
           : rejected->refused > 0   ? MX_REFUSED
                                     : MX_NO_ADDRESS;
}

static uint32_t bounded(uint32_t ttl_s, uint32_t most_s)
{
    return ttl_s < MX_TTL_MIN_S ? MX_TTL_MIN_S : ttl_s > most_s ? most_s : ttl_s;
}

void mx_decide(const struct mx_answer *answer, const struct mx_policy *policy, uint64_t seed,
               struct mx_decision *ret_decision)
{
    struct rejected rejected = {0};
    ret_decision->count = 0;
    ret_decision->secure = answer->secure;
    if (answer->error != ERROR_NONE) {
        ret_decision->verdict = answer->error == ERROR_MISSING ? MX_NO_NAME : MX_NO_ANSWER;
    } else if (answer->count > 0 && count_roots(answer) == answer->count) {
        ret_decision->verdict = MX_NULL;
    } else {
        ret_decision->verdict = choose(answer, policy, ret_decision, &rejected);
    }
    if (answer->implicit && ret_decision->verdict == MX_NO_ADDRESS) {
        ret_decision->verdict = MX_NO_NAME; /* it is there for something else than mail */
    }
    ret_decision->error = answer->error != ERROR_NONE ? answer->error : rejected.error;
    put_in_order(ret_decision, seed);
    /* One that DNS was silent about may be better than those that are known. */
    bool lasting = ret_decision->verdict == MX_FOUND && rejected.unanswered == 0;
    ret_decision->ttl_s = bounded(answer->ttl_s, lasting ? MX_TTL_MAX_S : MX_NEGATIVE_TTL_MAX_S);
}

/* ---- from memory -------------------------------------------------------------------------- */

static void put_addresses(struct mx_completed *completed, uint32_t which,
                          const struct mx_choice *choice)
{
    struct mx_exchanger *exchanger = &completed->exchangers[which];
    for (uint32_t i = 0; i < choice->address_count; i++) {
        completed->addresses[which][i] = (struct mx_address){.address = choice->addresses[i]};
    }
    exchanger->addresses = completed->addresses[which];
    exchanger->address_count = choice->address_count;
}

static const struct mx_choice *find_choice(const struct mx_decision *known, struct slice host)
{
    for (uint32_t i = 0; known != NULL && i < known->count; i++) {
        if (slice_equal(known->choices[i].host, host)) {
            return &known->choices[i];
        }
    }
    return NULL;
}

void mx_complete(const struct mx_answer *answer, const struct mx_decision *known,
                 struct mx_completed *ret_completed)
{
    ret_completed->answer = *answer;
    ret_completed->answer.exchangers = ret_completed->exchangers;
    for (uint32_t i = 0; i < answer->count; i++) {
        struct mx_exchanger *exchanger = &ret_completed->exchangers[i];
        *exchanger = answer->exchangers[i];
        const struct mx_choice *choice = find_choice(known, exchanger->host);
        if (exchanger->address_count == 0 && choice != NULL) {
            put_addresses(ret_completed, i, choice);
            exchanger->error = ERROR_TIMEOUT; /* to be asked again soon */
        }
    }
}

void mx_of_known(const struct mx_decision *known, struct mx_completed *ret_completed)
{
    ret_completed->answer = (struct mx_answer){
        .exchangers = ret_completed->exchangers, .count = known->count, .secure = known->secure};
    for (uint32_t i = 0; i < known->count; i++) {
        ret_completed->exchangers[i] = (struct mx_exchanger){
            .preference = known->choices[i].preference, .host = known->choices[i].host};
        put_addresses(ret_completed, i, &known->choices[i]);
    }
}

bool mx_is_final(enum mx_verdict verdict)
{
    return verdict != MX_FOUND && verdict != MX_NO_ANSWER && verdict != MX_ELSEWHERE;
}

struct slice mx_reason(enum mx_verdict verdict, uint8_t ret_enhanced[2])
{
    static const struct {
        uint8_t subject, detail;
        const char *text;
    } reasons[] = {
        [MX_FOUND] = {0, 0, ""},
        [MX_NO_ANSWER] = {4, 3, "DNS does not say who takes the domain's mail"},
        [MX_NO_NAME] = {1, 2, "there is no such domain"},
        [MX_NULL] = {1, 10, "the domain takes no mail"},
        [MX_OURSELVES] = {4, 6, "DNS names us as the best exchanger of the domain"},
        [MX_NO_ADDRESS] = {4, 4, "no exchanger of the domain has an address"},
        [MX_REFUSED] = {4, 4, "no exchanger of the domain has an address that mail may go to"},
        [MX_ELSEWHERE] = {4, 4, "no exchanger of the domain is within deliver-only-to"},
    };
    ret_enhanced[0] = reasons[verdict].subject;
    ret_enhanced[1] = reasons[verdict].detail;
    return slice_from_text(reasons[verdict].text);
}

struct slice mx_trouble(enum mx_verdict verdict, enum error error)
{
    uint8_t enhanced[2];
    if (verdict == MX_NO_ANSWER && error == ERROR_CORRUPT) {
        return SLICE_LITERAL("DNSSEC finds the answer about the domain bogus");
    }
    if (verdict == MX_NO_ANSWER && error == ERROR_TIMEOUT) {
        return SLICE_LITERAL("DNS does not answer about the domain");
    }
    return mx_reason(verdict, enhanced);
}
