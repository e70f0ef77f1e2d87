#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Puts the example configuration in place unless one is there: install_configuration.sh FILE FOLDER
set -eu
folder=${DESTDIR:-}$2
mkdir -p "$folder"
[ -e "$folder/holdfast.conf" ] || install -m 644 "$1" "$folder/holdfast.conf"
