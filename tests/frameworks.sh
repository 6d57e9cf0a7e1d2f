#!/usr/bin/env bash
# Installs the frameworks that tests/frameworks uses, in the versions listed there, into $FRAMEWORKS_DIR, whose path is
# printed. Does nothing if they are there already.
#
# Needs python3 with venv, npm, and the registries of both.
set -euo pipefail

lists=$(cd "$(dirname "$0")/frameworks" && pwd)
home=${FRAMEWORKS_DIR:-$HOME/.cache/ferrite-frameworks}
versions=$(cat "$lists/python/requirements.txt" "$lists/node/package.json" | sha256sum)
if [ "$(cat "$home/.complete" 2>/dev/null)" = "$versions" ]; then
    echo "$home"
    exit 0
fi

rm -rf "$home"
mkdir -p "$home/node"
python3 -m venv "$home/python" >&2
"$home/python/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$lists/python/requirements.txt" >&2 &
pip=$!
cp "$lists/node/package.json" "$home/node/"
(cd "$home/node" && npm install --silent --no-audit --no-fund --ignore-scripts) >&2
wait "$pip"
echo "$versions" > "$home/.complete"
echo "$home"
