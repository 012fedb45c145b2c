#!/usr/bin/env bash
# Builds the guest's kernel (once, into the cache), the agent, the initramfs and the host's binaries.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

step "Building the guest kernel (once, some minutes; then cached)"
guest-image/build-kernel.sh >/dev/null

step "Building the guest agent"
target=x86_64-unknown-linux-gnu
RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" LIBSECCOMP_LINK_TYPE=static \
    LIBSECCOMP_LIB_PATH=/usr/lib/x86_64-linux-gnu \
    cargo build --locked --profile agent --package husk-agent --target "$target" --target-dir build/agent-target

step "Building the initramfs"
guest-image/build-initramfs.sh "build/agent-target/$target/agent/husk-agent" build/guest/initramfs.cpio

step "Building husk"
cargo build --locked --release --package husk --package husk-supervisor --package husk-shim --package husk-vmm --package husk-filesystem --package husk-lab \
    --package husk-bench
