/* SPDX-License-Identifier: Apache-2.0
 *
 * Unknown fields are passed over, known ones are taken by their first appearance (RFC 8461 3.2).
 */
#include "proto/mta_sts.h"

#include "proto/txt_record.h"

static bool is_alphanumeric(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_id(struct slice id)
{
    for (size_t i = 0; i < id.length; i++) {
        if (!is_alphanumeric(id.data[i])) {
            return false;
        }
    }
    return id.length > 0 && id.length <= MTA_STS_ID_MAX;
}

bool mta_sts_announces(struct slice record, struct slice *ret_id)
{
    return txt_record_find(record, SLICE_LITERAL("v=STSv1"), SLICE_LITERAL("id"), ret_id) &&
           is_id(*ret_id);
}

/* ---- the policy ------------------------------------------------------------------------------ */

/* The next "name: value" line. */
static bool next_field(struct slice *text, struct slice *ret_name, struct slice *ret_value)
{
    size_t end = slice_find(*text, '\n');
    struct slice line = slice_take(*text, end);
    *text = slice_skip(*text, end + 1);
    if (line.length > 0 && line.data[line.length - 1] == '\r') {
        line.length--;
    }
    size_t colon = slice_find(line, ':');
    *ret_name = slice_take(line, colon);
    *ret_value = slice_trim(slice_skip(line, colon + 1));
    return colon < line.length;
}

static bool read_mode(struct slice value, enum mta_sts_mode *ret_mode)
{
    *ret_mode = slice_equal(value, SLICE_LITERAL("enforce"))   ? MTA_STS_ENFORCE
                : slice_equal(value, SLICE_LITERAL("testing")) ? MTA_STS_TESTING
                                                               : MTA_STS_NONE;
    return *ret_mode != MTA_STS_NONE || slice_equal(value, SLICE_LITERAL("none"));
}

static bool read_age(struct slice value, uint32_t *ret_age_s)
{
    uint64_t age;
    if (value.length > 10 || !slice_to_u64(value, &age)) {
        return false;
    }
    *ret_age_s = age > MTA_STS_AGE_MAX_S ? MTA_STS_AGE_MAX_S : (uint32_t)age;
    return true;
}

/* A host name, or "*." and one. */
static bool is_pattern(struct slice pattern)
{
    if (pattern.length > 2 && pattern.data[0] == '*' && pattern.data[1] == '.') {
        pattern = slice_skip(pattern, 2);
    }
    for (size_t i = 0; i < pattern.length; i++) {
        uint8_t c = pattern.data[i];
        if (!is_alphanumeric(c) && c != '-' && c != '_' &&
            (c != '.' || i == 0 || i + 1 == pattern.length || pattern.data[i - 1] == '.')) {
            return false;
        }
    }
    return pattern.length > 0 && pattern.length <= 255;
}

struct reading {
    struct mta_sts_policy *policy;
    bool has_version, has_mode, has_age;
};

static enum error take_pattern(struct mta_sts_policy *policy, struct slice value)
{
    if (value.length > 0 && value.data[value.length - 1] == '.') {
        value.length--; /* the root, as zone files write it */
    }
    if (!is_pattern(value)) {
        return ERROR_INVALID;
    }
    if (policy->pattern_count == MTA_STS_PATTERNS_MAX) {
        return ERROR_LIMIT;
    }
    policy->patterns[policy->pattern_count++] = value;
    return ERROR_NONE;
}

static enum error take_field(struct reading *reading, struct slice name, struct slice value)
{
    struct mta_sts_policy *policy = reading->policy;
    bool good = true;
    if (slice_equal(name, SLICE_LITERAL("mx"))) {
        return take_pattern(policy, value);
    }
    if (slice_equal(name, SLICE_LITERAL("version")) && !reading->has_version) {
        good = slice_equal(value, SLICE_LITERAL("STSv1"));
        reading->has_version = true;
    } else if (slice_equal(name, SLICE_LITERAL("mode")) && !reading->has_mode) {
        good = read_mode(value, &policy->mode);
        reading->has_mode = true;
    } else if (slice_equal(name, SLICE_LITERAL("max_age")) && !reading->has_age) {
        good = read_age(value, &policy->max_age_s);
        reading->has_age = true;
    }
    return good ? ERROR_NONE : ERROR_INVALID;
}

enum error mta_sts_read(struct slice text, struct mta_sts_policy *ret_policy)
{
    struct reading reading = {.policy = ret_policy};
    struct slice name, value;
    *ret_policy = (struct mta_sts_policy){0};
    if (text.length > MTA_STS_POLICY_MAX) {
        return ERROR_LIMIT;
    }
    while (text.length > 0) {
        if (!next_field(&text, &name, &value)) {
            if (name.length > 0) {
                return ERROR_INVALID;
            }
            continue; /* an empty line */
        }
        enum error error = take_field(&reading, name, value);
        if (error != ERROR_NONE) {
            return error;
        }
    }
    bool whole = reading.has_version && reading.has_mode && reading.has_age &&
                 (ret_policy->mode == MTA_STS_NONE || ret_policy->pattern_count > 0);
    return whole ? ERROR_NONE : ERROR_INVALID;
}

static bool matches(struct slice pattern, struct slice host)
{
    if (pattern.data[0] != '*') {
        return slice_equal_fold(pattern, host);
    }
    /* The star is exactly one label, the first. */
    size_t dot = slice_find(host, '.');
    return dot > 0 && slice_equal_fold(slice_skip(pattern, 1), slice_skip(host, dot));
}

bool mta_sts_allows(const struct mta_sts_policy *policy, struct slice host)
{
    if (host.length > 0 && host.data[host.length - 1] == '.') {
        host.length--;
    }
    for (size_t i = 0; i < policy->pattern_count; i++) {
        if (matches(policy->patterns[i], host)) {
            return true;
        }
    }
    return false;
}
