#!/bin/sh
# Holds a running hub against the document it serves: CASES (300) cases for each call, more than 10,000 in all, in at most
# SECONDS_MAX (1800). No answer may be an error of the hub's, or one that the document does not know; what the document
# forbids must be refused. Its sockets and its event stream are left to the other tests.
#
# What the document allows is not always taken: that two fields exclude each other stands there in words.
set -eu
cd "$(dirname "$0")/../.."
if ! [ -x target/schemathesis/bin/schemathesis ]; then
    mkdir -p target
    python3 -m venv target/schemathesis
    target/schemathesis/bin/pip install --quiet --disable-pip-version-check 'schemathesis>=4'
fi
"${CARGO:-cargo}" build --quiet --bin taskhub
folder=$(mktemp -d)
"${TARGET:-target/debug}/taskhub" serve --listen 127.0.0.1:0 --data "$folder/data" >"$folder/said" 2>"$folder/log" &
hub=$!
trap 'kill "$hub" 2>/dev/null; rm -rf "$folder"' EXIT INT TERM
url=
for _ in $(seq 100); do
    url=$(sed -n 's/^taskhub listening on //p' "$folder/said")
    [ -n "$url" ] && break
    sleep 0.1
done
[ -n "$url" ] || { cat "$folder/log" >&2; exit 1; }
SCHEMATHESIS_HOOKS=tests/schemathesis/hooks.py target/schemathesis/bin/schemathesis run "$url/api/openapi.json" \
    --phases examples,coverage,fuzzing --max-examples "${CASES:-300}" --max-time "${SECONDS_MAX:-1800}" \
    --workers "${WORKERS:-2}" --checks all --exclude-checks positive_data_acceptance --continue-on-failure \
    --request-timeout 90 --max-response-time 80 --suppress-health-check all --no-color \
    --exclude-path /api/v1/ws --exclude-path /api/v1/worker/ws --exclude-path /api/v1/events "$@"
kill -0 "$hub" || { echo "the hub is gone" >&2; cat "$folder/log" >&2; exit 1; }
if grep -i panick "$folder/log"; then exit 1; fi
