#!/usr/bin/env bash
# Unpacks the real Valkey, Redis and memcached that tests and benchmarks compare with, without root and without
# touching the system: from Debian's "forky" suite into $PEERS_DIR, with a wrapper per program in its bin directory,
# whose path is printed. Does nothing if they are there already.
#
# Needs apt-get, dpkg-deb and a Debian mirror: the machine's own, or $PEERS_MIRROR.
set -euo pipefail

home=${PEERS_DIR:-$HOME/.cache/ferrite-peers}
if [ -e "$home/.complete" ]; then
    echo "$home/bin"
    exit 0
fi

suite=${PEERS_SUITE:-forky}
mirror=${PEERS_MIRROR:-}
if [ -z "$mirror" ]; then
    sources=$(find /etc/apt -name '*.list' -o -name '*.sources' | xargs cat 2>/dev/null | grep -v '^#' || true)
    mirror=$(grep -oE 'https?://[^ ]+/debian(/|$| )' <<< "$sources" | head -n 1 | tr -d ' ')
fi

mkdir -p "$home/apt/lists/partial" "$home/apt/archives/partial" "$home/packages" "$home/root" "$home/bin"
echo "deb [trusted=yes] $mirror $suite main" > "$home/apt/sources.list"
apt=(-o "Dir::Etc::SourceList=$home/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
     -o "Dir::State::Lists=$home/apt/lists" -o "Dir::Cache=$home/apt" -o Dir::State::Status=/dev/null
     -o APT::Sandbox::User= -o Acquire::Languages=none)
apt-get "${apt[@]}" -qq update >&2

wanted=(valkey-server valkey-tools redis-server redis-tools memcached)
# The programs bring the libraries, C library included, that they were built with.
mapfile -t packages < <(
    apt-cache "${apt[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "${wanted[@]}" | grep -E '^(valkey|redis|memcached|lib)[a-z0-9.+-]*$' |
        grep -vE '^lib(pam|perl|dpkg)' | sort -u)
(cd "$home/packages" && apt-get "${apt[@]}" -qq download "${packages[@]}" >&2)
for package in "$home"/packages/*.deb; do
    dpkg-deb -x "$package" "$home/root"
done

loader=$(find "$home/root" -name 'ld-linux-*.so.*' | head -n 1)
libraries=$(dirname "$(find "$home/root" -name libc.so.6 | head -n 1)")
for path in "$home/root"/usr/bin/{valkey-*,redis-*,memcached}; do
    name=$(basename "$path")
    target=$(readlink -f "$path")
    printf '#!/bin/sh\nexec "%s" --library-path "%s" --argv0 "%s" "%s" "$@"\n' \
        "$loader" "$libraries" "$name" "$target" > "$home/bin/$name"
    chmod +x "$home/bin/$name"
done
rm -rf "$home/apt" "$home/packages"
"$home/bin/valkey-server" --version >&2
"$home/bin/memcached" --version >&2
touch "$home/.complete"
echo "$home/bin"
