#!/usr/bin/env bash
# The part of scripts/bench-docker.sh that runs in the machine: starts a dockerd, then measures.
set -euo pipefail

for module in bridge br_netfilter veth overlay iptable_nat iptable_filter nft_compat xt_conntrack xt_MASQUERADE xt_addrtype; do
    modprobe "$module" 2>/dev/null || true
done
mkdir -p /etc/docker /etc/containerd /lab/disk/husk
echo '{"data-root": "/lab/disk/docker", "exec-opts": ["native.cgroupdriver=cgroupfs"]}' >/etc/docker/daemon.json
printf "version = 2\nroot = '/lab/disk/containerd'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n" \
    >/etc/containerd/config.toml
containerd >/lab/containerd.log 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.2; done
dockerd --containerd /run/containerd/containerd.sock >/lab/dockerd.log 2>&1 &
until docker version >/dev/null 2>&1; do sleep 0.2; done

export HUSK_ROOT=/lab/disk/husk
for program in docker husk; do
    "$program" load -i /opt/husk-test/busybox.tar >/dev/null
    "$program" run -d --network none --name one busybox sleep 100000 >/dev/null
done

# measure COMMAND...: the median of five, with each program.
measure() {
    local program begun times line=$*
    for program in docker husk; do
        times=()
        for _ in 1 2 3 4 5; do
            begun=$(date +%s%N)
            "$program" "$@" >/dev/null
            times+=($((($(date +%s%N) - begun) / 10000)))
        done
        printf '%s\n' "${times[@]}" | sort -n | sed -n 3p |
            awk -v what="$program $line" '{ printf "%-55s %8.1f ms\n", what, $1 / 100 }'
    done
}
measure exec one true
measure ps -a
measure inspect one
measure run --rm --network none busybox true
