#!/bin/sh
# What the tests need beside Rust: Node 20 (the page's modules), Python 3 (the HTTP worker), Chromium (the page).
# Installs what is missing where this is Debian and we may; says exactly what is missing where not.
set -eu

missing=
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
command -v python3 >/dev/null 2>&1 || missing="$missing python3"
command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 ||
    command -v google-chrome >/dev/null 2>&1 || missing="$missing chromium"
[ -n "$missing" ] || exit 0

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing for the tests:$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of packages
    apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends $missing >&2 && exit 0
fi
echo "the tests need what this machine lacks:$missing" >&2
echo "on Debian or Ubuntu: sudo apt-get install$missing" >&2
exit 1
