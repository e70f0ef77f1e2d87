#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Starts the daemon in the foreground for someone who sees it for the first time:
# run_quickstart.sh BUILD
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
conf=etc/quickstart.conf

"$build/holdfastd" -c "$conf" -n

cat <<TEXT

holdfast is the backup MX of example.com here. Its primary server is not there yet.

    SMTP    127.0.0.1:2525
    HTTP    http://127.0.0.1:8025/ (status), /metrics, /health
    state   run/

In a second terminal, in this directory, try:

    swaks --server 127.0.0.1:2525 --from you@example.net --to ann@example.com
    $build/holdfast -c $conf status
    $build/holdfast -c $conf queue list

Then bring the primary back (a Postfix on 127.0.0.1:2526) and watch the message arrive by itself:

    make primary

Control-C stops holdfast; what it has taken stays in run/ until the next start.

TEXT
exec "$build/holdfastd" -c "$conf"
