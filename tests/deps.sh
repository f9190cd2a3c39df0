#!/bin/sh
# What the tests need beside Rust: Node 20 (the page's modules), Python 3 (the HTTP worker, and a WebSocket client that is
# not ours), Chromium (the page), axe-core from npm (whether everyone can use it), PyJWT and jose (tokens), nginx and HAProxy (the hub behind proxies),
# openssl (certificates) and curl (HTTP/2).
# Installs what is missing where this is Debian and we may; says exactly what is missing where not.
set -eu
cd "$(dirname "$0")/.."

# Clients, receivers and a JSON Schema validator that are not ours, in a folder of their own.
venv() {
    [ -x target/venv/bin/python ] && target/venv/bin/python -c 'import cryptography, jsonschema, jwt, standardwebhooks, websockets' 2>/dev/null && return
    mkdir -p target
    python3 -m venv target/venv &&
        target/venv/bin/pip install --quiet --disable-pip-version-check 'websockets>=13' 'jsonschema>=4' 'standardwebhooks>=1.1' \
            'PyJWT[crypto]>=2.10' && return
    echo "the tests need Python's websockets, jsonschema, standardwebhooks and PyJWT in target/venv, and they could not be installed" >&2
    exit 1
}

# What finds out where a page shuts somebody out, and what makes tokens. Only the tests need it, so it is no part of the sources.
packages() {
    [ -f target/npm/node_modules/axe-core/axe.min.js ] && [ -d target/npm/node_modules/jose ] && return
    npm install --silent --no-audit --no-fund --prefix target/npm 'axe-core@^4.10' 'jose@^6' && return
    echo "the tests need axe-core and jose from npm in target/npm, and they could not be installed" >&2
    exit 1
}

missing=
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
command -v python3 >/dev/null 2>&1 || missing="$missing python3"
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 ||
    command -v google-chrome >/dev/null 2>&1 || missing="$missing chromium"
# They stand where only the administrator's programs are looked for.
PATH=$PATH:/usr/sbin:/usr/local/sbin
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
command -v nginx >/dev/null 2>&1 || missing="$missing nginx-light"
command -v haproxy >/dev/null 2>&1 || missing="$missing haproxy"
[ -n "$missing" ] || { venv; packages; exit 0; }

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing for the tests:$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of packages
    apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends $missing >&2 && { venv; packages; exit 0; }
fi
echo "the tests need what this machine lacks:$missing" >&2
echo "on Debian or Ubuntu: sudo apt-get install$missing" >&2
exit 1
