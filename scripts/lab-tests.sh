# What the scripts that test in root file systems of their own (debian-root.sh) share. Sourced after lib.sh.
# shellcheck shell=bash disable=SC2154

# build_lab_tests NAME: builds husk and the tests NAME; their program is in $lab_tests then, and the image in $lab_image.
build_lab_tests() {
    cargo build --locked --release --package husk --package husk-supervisor --package husk-shim --package husk-vmm --package husk-filesystem --package husk-lab
    mkdir -p build/e2e
    lab_tests=$(cargo test --locked --release --no-run --package husk-tests --test "$1" --message-format json |
        sed -n "s/.*\"executable\":\"\\([^\"]*$1-[^\"]*\\)\".*/\\1/p" | tail -n 1)
    lab_image=build/e2e/busybox.tar
    rm -f "$lab_image"
    skopeo copy --quiet oci:build/images/layout:busybox:latest "docker-archive:$lab_image:docker.io/library/busybox:latest"
}

# What Docker takes in a root file system.
# shellcheck disable=SC2034 # used by those who source this
docker_packages=docker.io,docker-cli,docker-compose,e2fsprogs,iptables,iproute2,procps,kmod,ca-certificates
# What the tests find in their environment, as options of husk-lab.
lab_env=()

# run_lab_tests ROOT NAME OUT TIMEOUT [ARGS...]: installs husk and the tests there and runs them in the lab.
run_lab_tests() {
    local made=$1 name=$2 out=$3 timeout=$4 try code
    shift 4
    quietly env DESTDIR="$made" scripts/install.sh
    install -D -m 644 "$lab_image" "$made/opt/husk-test/busybox.tar"
    install -D -m 755 "$lab_tests" "$made/opt/husk-test/$name"
    # Again only when the emulated machine hung (124) or crashed (125), as in e2e.sh.
    for try in 1 2; do
        code=0
        "$release/husk-lab" run --root "$made" --disk-size 2048 --timeout "$timeout" --out "build/e2e/$out" \
            --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${lab_env[@]}" \
            -- "/opt/husk-test/$name" --test-threads 1 --nocapture "$@" || code=$?
        [ "$code" = 124 ] || [ "$code" = 125 ] || break
        step "The emulated machine hung or crashed (try $try)"
    done
    return "$code"
}

# run_in_suites NAME PACKAGES TIMEOUT SUITES [ARGS...]: builds the tests NAME and runs them in a root file system of each suite of
# Debian. One that can't be made is skipped, and said.
run_in_suites() {
    local name=$1 packages=$2 timeout=$3 suite made failed=0 suites
    read -ra suites <<<"$4"
    shift 4
    step "Building the tests $name"
    build_lab_tests "$name"
    for suite in "${suites[@]}"; do
        step "Making a root file system of Debian $suite with $packages"
        if ! made=$(scripts/debian-root.sh "$suite" "$packages"); then
            step "SKIPPED: the tests $name in Debian $suite, of which no root file system can be made"
            continue
        fi
        step "Running the tests $name in Debian $suite"
        run_lab_tests "$made" "$name" "$name-$suite" "$timeout" "$@" || failed=1
    done
    [ "$failed" = 0 ] || { echo "FAILED: the tests $name; logs are in build/e2e/$name-*" >&2; exit 1; }
}
