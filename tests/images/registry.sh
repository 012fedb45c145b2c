#!/usr/bin/env bash
# Real docker-registries on loopback, for demo and tests.
#
# usage: registry.sh start STORAGE STATE   starts two, plain HTTP and TLS with a password, both serving STORAGE;
#                                          writes STATE/env (to be sourced) and returns when both answer
#        registry.sh stop STATE            stops them
#        registry.sh fill STORAGE LAYOUT   makes STORAGE and pushes every image of the OCI layout into it
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
USER_NAME=tester
PASSWORD=correct-horse

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# serve NAME STATE CONFIG-LINES...: starts a registry, its config on standard input.
serve() {
    local name=$1 state=$2
    cat >"$state/$name.yml"
    setsid docker-registry serve "$state/$name.yml" >"$state/$name.log" 2>&1 </dev/null 9>&- &
    echo $! >"$state/$name.pid"
}

# Waits until a registry answers; its log tells why when it does not.
await() {
    local name=$1 state=$2 url=$3
    for _ in $(seq 300); do
        if curl_code "$url" | grep -qE '^(200|401)$'; then return; fi
        kill -0 "$(cat "$state/$name.pid")" 2>/dev/null || break
        sleep 0.1
    done
    echo "registry $name does not answer at $url:" >&2
    tail -n 5 "$state/$name.log" >&2
    return 1
}

curl_code() {
    python3 - "$1" <<'PY'
import ssl, sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], context=ssl._create_unverified_context(), timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)
PY
}

config() { # config PORT STORAGE READ_ONLY
    cat <<YML
version: 0.1
log: {level: error}
storage:
  filesystem: {rootdirectory: $2}
  maintenance: {readonly: {enabled: $3}}
http:
  addr: 127.0.0.1:$1
YML
}

start() {
    local storage=$1 state=$2 http tls
    mkdir -p "$state"
    http=$(free_port)
    tls=$(free_port)
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=husk test CA" \
        -addext "subjectAltName=IP:127.0.0.1,DNS:localhost" \
        -keyout "$state/key.pem" -out "$state/ca.crt" 2>/dev/null
    htpasswd -Bbn "$USER_NAME" "$PASSWORD" >"$state/htpasswd"
    config "$http" "$storage" true | serve http "$state"
    { config "$tls" "$storage" true; cat <<YML; } | serve tls "$state"
  tls: {certificate: $state/ca.crt, key: $state/key.pem}
auth:
  htpasswd: {realm: husk-tests, path: $state/htpasswd}
YML
    await http "$state" "http://127.0.0.1:$http/v2/"
    await tls "$state" "https://127.0.0.1:$tls/v2/"
    cat >"$state/env" <<ENV
export HUSK_TEST_REGISTRY=127.0.0.1:$http
export HUSK_TEST_TLS_REGISTRY=127.0.0.1:$tls
export HUSK_TEST_TLS_CA=$state/ca.crt
export HUSK_TEST_TLS_USER=$USER_NAME
export HUSK_TEST_TLS_PASSWORD=$PASSWORD
ENV
}

stop() {
    local state=$1 pid
    for pid in "$state"/*.pid; do
        kill "$(cat "$pid")" 2>/dev/null || true
    done
}

fill() {
    local storage=$1 layout=$2 state port
    state=$(mktemp -d)
    trap 'stop "$state"; rm -rf "$state"' RETURN
    mkdir -p "$storage"
    port=$(free_port)
    config "$port" "$storage" false | serve http "$state"
    await http "$state" "http://127.0.0.1:$port/v2/"
    python3 "$here/push.py" "$layout" "http://127.0.0.1:$port"
}

case "${1:-}" in
    start) start "$2" "$3" ;;
    stop) stop "$2" ;;
    fill) fill "$2" "$3" ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
