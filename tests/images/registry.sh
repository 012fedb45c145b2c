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
    local port
    while port=$((20000 + RANDOM % 20000)) && listening "$port"; do :; done
    echo "$port"
}

listening() {
    (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# serve NAME STATE CONFIG-LINES...: starts a registry, its config on standard input.
serve() {
    local name=$1 state=$2
    cat >"$state/$name.yml"
    setsid docker-registry serve "$state/$name.yml" >"$state/$name.log" 2>&1 </dev/null 9>&- &
    echo $! >"$state/$name.pid"
}

# Waits until a registry listens; its log tells why when it does not.
await() {
    local name=$1 state=$2 port=$3
    for _ in $(seq 600); do
        if listening "$port"; then return; fi
        kill -0 "$(cat "$state/$name.pid")" 2>/dev/null || break
        sleep 0.1
    done
    echo "registry $name does not listen on port $port:" >&2
    tail -n 5 "$state/$name.log" >&2
    return 1
}

# certificates STATE: a CA, and the certificate that it signs for this machine.
certificates() {
    local state=$1 new=(-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650)
    openssl req "${new[@]}" -subj "/CN=husk test CA" -keyout "$state/ca.key" -out "$state/ca.crt" 2>/dev/null
    openssl req "${new[@]}" -CA "$state/ca.crt" -CAkey "$state/ca.key" -subj "/CN=husk test registry" \
        -addext "basicConstraints=critical,CA:FALSE" -addext "subjectAltName=IP:127.0.0.1,DNS:localhost" \
        -keyout "$state/key.pem" -out "$state/server.crt" 2>/dev/null
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
    certificates "$state"
    htpasswd -Bbn "$USER_NAME" "$PASSWORD" >"$state/htpasswd"
    config "$http" "$storage" true | serve http "$state"
    { config "$tls" "$storage" true; cat <<YML; } | serve tls "$state"
  tls: {certificate: $state/server.crt, key: $state/key.pem}
auth:
  htpasswd: {realm: husk-tests, path: $state/htpasswd}
YML
    await http "$state" "$http"
    await tls "$state" "$tls"
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
    await http "$state" "$port"
    python3 "$here/push.py" "$layout" "http://127.0.0.1:$port"
}

case "${1:-}" in
    start) start "$2" "$3" ;;
    stop) stop "$2" ;;
    fill) fill "$2" "$3" ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
