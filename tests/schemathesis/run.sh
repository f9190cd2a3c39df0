#!/bin/sh
# Holds running hubs against the document they serve: an open one, and one that asks for tokens, with each of ROLES (all).
# CASES (60) cases for each call by each caller, more than 20,000 in all, in at most SECONDS_MAX (600) a caller. No answer
# may be an error of the hub's, or one that the document does not know; what the document forbids must be refused. The
# sockets and the event stream are left to the other tests.
#
# What the document allows is not always taken: that two fields exclude each other stands there in words.
set -eu
cd "$(dirname "$0")/../.."
if ! [ -x target/schemathesis/bin/schemathesis ]; then
    mkdir -p target
    python3 -m venv target/schemathesis
    target/schemathesis/bin/pip install --quiet --disable-pip-version-check 'schemathesis>=4'
fi
[ -n "${TARGET:-}" ] || "${CARGO:-cargo}" build --quiet --bin taskhub
taskhub=${TARGET:-target/debug}/taskhub
folder=$(mktemp -d)
hub=
failed=
trap 'kill "$hub" 2>/dev/null; rm -rf "$folder"' EXIT INT TERM

# serve NAME: starts a hub in that folder; it is found at $url.
serve() {
    data=$folder/$1
    : >"$folder/$1.said"
    "$taskhub" serve --listen 127.0.0.1:0 --data "$data" >"$data.said" 2>"$data.log" &
    hub=$!
    url=
    for _ in $(seq 100); do
        url=$(sed -n 's/^taskhub listening on //p' "$data.said")
        [ -n "$url" ] && return
        sleep 0.1
    done
    cat "$data.log" >&2
    exit 1
}

# fuzz CALLER [OPTION…]: calls whatever the document tells of.
fuzz() {
    echo "== $1"
    caller=$1
    shift
    SCHEMATHESIS_HOOKS=tests/schemathesis/hooks.py target/schemathesis/bin/schemathesis run "$url/api/openapi.json" \
        --phases examples,coverage,fuzzing --max-examples "${CASES:-60}" --max-time "${SECONDS_MAX:-600}" \
        --workers "${WORKERS:-2}" --checks all --exclude-checks positive_data_acceptance --continue-on-failure \
        --request-timeout 90 --max-response-time 80 --suppress-health-check all --no-color \
        --exclude-path /api/v1/ws --exclude-path /api/v1/worker/ws --exclude-path /api/v1/events "$@" \
        || failed="$failed $caller"
    kill -0 "$hub" || { echo "the hub is gone" >&2; cat "$data.log" >&2; exit 1; }
    if grep -i panick "$data.log"; then exit 1; fi
}

serve open
fuzz "nobody, where the hub is open"
kill "$hub"

role_token() { "$taskhub" token create --data "$folder/closed" --role "$1" --name "the-$1" $2 2>/dev/null; }
for role in admin operator viewer; do role_token $role "" >"$folder/$role"; done
role_token user "--user ann" >"$folder/user"
role_token worker "--type resize --queue default" >"$folder/worker"
serve closed
for role in ${ROLES:-admin operator user worker viewer scoped}; do
    if [ "$role" = scoped ]; then
        curl --silent --fail-with-body "$url/api/v1/tokens" --header "authorization: Bearer $(cat "$folder/operator")" --json \
            '{"allow":["read","submit","cancel","retry"],"filter":{"task_type":["resize"]},"hide":["payload"],"ttl_ms":36000000}' \
            | sed 's/.*"token":"\([^"]*\)".*/\1/' >"$folder/scoped"
    fi
    fuzz "$role" --header "authorization: Bearer $(cat "$folder/$role")"
    # What it called did not end what it called with.
    curl --silent --show-error --fail-with-body --header "authorization: Bearer $(cat "$folder/$role")" "$url/api/v1/me"; echo
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
