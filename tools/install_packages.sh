#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing of tools/packages, by section: install_packages.sh [build] [try] [test]
# [fuzz] [unpack]. Asks nothing, starts no service, touches no configuration. Does nothing, and needs
# no root, when everything is there.
set -eu

list=$(dirname "$0")/packages
sections=${*:-build try test unpack}
unpacked=$(cd "$(dirname "$0")/.." && pwd)/unpacked

names() { # of the sections given
    awk -v sections=" $* " '
        /^\[.*\]$/ { section = substr($0, 2, length($0) - 2); next }
        /^[a-z0-9]/ && index(sections, " " section " ") { print $1 }' "$list" | sort -u
}

# shellcheck disable=SC2046,SC2086 # lists of words
wanted=$(names $(echo " $sections " | sed 's/ unpack / /'))
to_unpack=
case " $sections " in
*" unpack "*)
    for package in $(names unpack); do
        [ -d "$unpacked/$package" ] || to_unpack="$to_unpack $package"
    done
    ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "This is no Debian; please see to these yourself:" $wanted >&2
    exit 0
fi

not_installed() {
    for package in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Abbrev} ' "$package" 2>/dev/null) in
        *ii\ *) ;;
        *) printf ' %s' "$package" ;;
        esac
    done
}

# shellcheck disable=SC2086 # a list of words
missing=$(not_installed $wanted)
[ -n "$missing$to_unpack" ] || exit 0

is_root=$([ "$(id -u)" -ne 0 ] || echo yes)
want_root() {
    [ -z "$missing" ] || [ -n "$is_root" ] && return
    echo "These packages are missing:$missing" >&2
    echo "Install them as root, then run make again:" >&2
    echo "    sudo tools/install_packages.sh $sections" >&2
    exit 1
}
want_root

echo "Installing:$missing$to_unpack"
export DEBIAN_FRONTEND=noninteractive

# For the time being: packages such as postfix and dovecot-core would start daemons on the standard
# ports, PostgreSQL's would make a cluster "main".
ours=
for_now() { # a file, its mode and text; what is there already stays
    if [ -n "$is_root" ] && [ ! -e "$1" ]; then
        ours="$ours $1"
        mkdir -p "$(dirname "$1")"
        printf '%b\n' "$3" >"$1"
        chmod "$2" "$1"
    fi
}
no_main=/etc/postgresql-common/createcluster.d/holdfast.conf
# shellcheck disable=SC2086 # a list of words
trap 'rm -f $ours; rmdir "$(dirname "$no_main")" 2>/dev/null || :' EXIT
trap 'exit 1' HUP INT TERM
for_now /usr/sbin/policy-rc.d 755 '#!/bin/sh\nexit 101'
case " $missing " in
*" postgresql "*) for_now "$no_main" 644 "create_main_cluster = false" ;;
esac

[ -z "$is_root" ] || apt-get update -q || echo "The package lists could not be brought up to date; trying as they are." >&2
# Not configured, and nobody may become somebody else by what is in it. In its place at the end only,
# when all that it wants is there.
for package in $to_unpack; do
    new=$unpacked/.new/$package
    rm -rf "$new"
    (
        umask 022
        mkdir -p "$new"
        cd "$new"
        apt-get -o APT::Sandbox::User=root download -q "$package"
        dpkg-deb -f ./*.deb Depends >libraries
        dpkg-deb -x ./*.deb root
        chmod -R ug-s root
    )
    # shellcheck disable=SC2046 # a list of words
    missing="$missing$(not_installed $(tr ',' '\n' <"$new/libraries" |
        sed -n 's/^ *\(lib[^ ()|]*\).*/\1/p'))"
done

want_root
case " $missing " in
*" postfix "*)
    if command -v debconf-set-selections >/dev/null 2>&1; then
        echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
    fi
    ;;
esac
# shellcheck disable=SC2086 # a list of words
[ -z "$missing" ] || apt-get install -y -q --no-install-recommends $missing </dev/null

for package in $to_unpack; do
    mv "$unpacked/.new/$package/root" "$unpacked/$package"
done
if [ -n "$to_unpack" ]; then
    rm -rf "$unpacked/.new"
    [ -z "$is_root" ] || chown -R --reference="$list" "$unpacked"
fi
