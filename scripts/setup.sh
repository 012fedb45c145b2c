#!/usr/bin/env bash
# Installs the Debian packages and Rust tools that husk needs and this machine lacks. Says so first.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

packages=(
    # building husk
    gcc make pkg-config libseccomp-dev libcap-ng-dev
    # building the guest's kernel
    bc bison flex libelf-dev libssl-dev xz-utils cpio rsync
    # running husk
    e2fsprogs
    # the lab: an emulated machine for those without usable KVM
    qemu-system-x86 busybox-static kmod
    # images and registries for demo and tests
    mmdebstrap uidmap skopeo docker-registry apache2-utils openssl python3 zstd
    # checks and tests
    g++ procps shellcheck iproute2 nftables containernetworking-plugins passt
    # building the client of the CRI that tests use
    protobuf-compiler
    # benchmarks
    iperf3 runc crun
)

step "Looking for Rust"
if ! command -v cargo >/dev/null; then
    echo "cargo is missing. Install Rust with rustup (https://rustup.rs), then run this again." >&2
    exit 1
fi

step "Looking for Debian packages"
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
# The kernel's source: 6.12 where the suite has it, else the suite's own.
if ! compgen -G '/usr/src/linux-source-*.tar.xz' >/dev/null; then
    missing+=(linux-source)
fi
if [ ${#missing[@]} -gt 0 ]; then
    sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    step "Updating the list of packages"
    quietly "${sudo[@]}" apt-get update
    if [[ " ${missing[*]} " == *" linux-source "* ]] && apt-cache show linux-source-6.12 >/dev/null 2>&1; then
        missing=("${missing[@]/#linux-source/linux-source-6.12}")
    fi
    step "Installing Debian packages: ${missing[*]}"
    quietly "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
    # The registry's package starts a service on port 5000, which nobody here asked for.
    if [[ " ${missing[*]} " == *" docker-registry "* ]] && [ -d /run/systemd/system ]; then
        quietly "${sudo[@]}" systemctl disable --now docker-registry.service
    fi
fi

if ! command -v cargo-nextest >/dev/null; then
    step "Installing cargo-nextest, the test runner (takes some minutes, once)"
    cargo install cargo-nextest --locked
fi
if ! command -v cargo-fuzz >/dev/null; then
    step "Installing cargo-fuzz, which runs the fuzz targets (takes some minutes, once)"
    cargo install cargo-fuzz --locked
fi
