#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing of tools/packages, by section: install_packages.sh [build] [try] [test] [fuzz].
# Asks nothing, starts no service, touches no configuration. Does nothing, and needs no root, when
# everything is there.
set -eu

list=$(dirname "$0")/packages
sections=${*:-build try test}

wanted=$(awk -v sections=" $sections " '
    /^\[.*\]$/ { section = substr($0, 2, length($0) - 2); next }
    /^[a-z0-9]/ && index(sections, " " section " ") { print $1 }' "$list" | sort -u)

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "This is no Debian; please see to these yourself:" $wanted >&2
    exit 0
fi

missing=
for package in $wanted; do
    case $(dpkg-query -W -f '${db:Status-Abbrev} ' "$package" 2>/dev/null) in
    *ii\ *) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "These packages are missing:$missing" >&2
    echo "Install them as root, then run make again:" >&2
    echo "    sudo tools/install_packages.sh $sections" >&2
    exit 1
fi

echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive

# Packages such as postfix and dovecot-core would start daemons on the standard ports.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

apt-get update -q || echo "The package lists could not be brought up to date; trying as they are." >&2
case " $missing " in
*" postfix "*)
    if command -v debconf-set-selections >/dev/null 2>&1; then
        echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
    fi
    ;;
esac
# shellcheck disable=SC2086 # a list of words
apt-get install -y -q --no-install-recommends $missing </dev/null
