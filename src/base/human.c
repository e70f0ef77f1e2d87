/* SPDX-License-Identifier: Apache-2.0 */
#include "base/human.h"

#include <stdio.h>

const char *human_age(int64_t seconds, char buffer[HUMAN_TEXT])
{
    long long s = seconds < 0 ? 0 : seconds;
    if (s < 60) {
        snprintf(buffer, HUMAN_TEXT, "%llds", s);
    } else if (s < 3600) {
        snprintf(buffer, HUMAN_TEXT, "%lldm", s / 60);
    } else if (s < 86400) {
        snprintf(buffer, HUMAN_TEXT, "%lldh%02lldm", s / 3600, s / 60 % 60);
    } else if (s < 10 * 86400) {
        snprintf(buffer, HUMAN_TEXT, "%lldd%lldh", s / 86400, s / 3600 % 24);
    } else {
        snprintf(buffer, HUMAN_TEXT, "%lldd", s / 86400);
    }
    return buffer;
}

const char *human_bytes(int64_t bytes, char buffer[HUMAN_TEXT])
{
    static const char units[] = "KMGTPE";
    if (bytes < 1024) {
        snprintf(buffer, HUMAN_TEXT, "%lldB", (long long)bytes);
        return buffer;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 999.5 && unit + 2 < sizeof(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, HUMAN_TEXT, value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return buffer;
}
