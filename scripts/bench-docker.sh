#!/usr/bin/env bash
# Measures commands of husk's and of Docker's (Debian 13's docker.io, with runc) one after the other, in one deterministic machine:
# virtual milliseconds from the client's start to its end.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/lab-tests.sh
source scripts/lab-tests.sh

step "Building husk"
build_lab_tests docker
step "Making a root file system with Docker"
made=$(scripts/debian-root.sh trixie "$docker_packages")
quietly env DESTDIR="$made" scripts/install.sh
install -D -m 644 "$lab_image" "$made/opt/husk-test/busybox.tar"
install -D -m 755 benches/docker.sh "$made/opt/husk-test/bench-docker"
step "Measuring"
"$release/husk-lab" run --deterministic --root "$made" --disk-size 2048 --timeout 1800 \
    --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin -- /opt/husk-test/bench-docker
