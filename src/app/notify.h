/* SPDX-License-Identifier: Apache-2.0
 *
 * Tells the service manager how far we are (sd_notify(3)); nothing happens without one.
 */
#ifndef HOLDFAST_APP_NOTIFY_H
#define HOLDFAST_APP_NOTIFY_H

/* Such as "READY=1". */
void notify_manager(const char *state);

#endif
