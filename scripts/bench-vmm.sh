#!/usr/bin/env bash
# Measures husk-vmm beside QEMU's microvm, on the same kernel in the same run: start to exit of a guest that ends at
# once. In the lab's deterministic mode times are virtual.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

guest=$root/build/bench
if [ "${1:-}" != --inside ]; then
    step "Building the guest to be measured with"
    mkdir -p "$guest"
    gcc -nostdlib -static -o "$guest/reboot" benches/guest/reboot.S
    guest-image/build-initramfs.sh "$guest/reboot" "$guest/initramfs.cpio"
    step "Measuring"
    in_machine --deterministic --timeout 600 -- "$root/scripts/bench-vmm.sh" --inside
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kernel=$root/build/guest/vmlinux
# The emulated machine's file sharing is not to be measured.
cp "$(readlink -f "$kernel")" "$work/vmlinux"
cp "$guest/initramfs.cpio" "$release/husk-vmm" "$work/"
common="quiet panic=-1 8250.nr_uarts=0 random.trust_cpu=on"
qemu=(qemu-system-x86_64 -M "microvm,acpi=off,x-option-roms=off,rtc=off,isa-serial=on"
    -enable-kvm -cpu host -m 512 -nodefaults -no-user-config -no-reboot -display none -kernel "$work/vmlinux")

# milliseconds CMD...: runs it three times and prints the time of the last.
milliseconds() {
    local before after round
    for round in 1 2 3; do
        before=${EPOCHREALTIME/./}
        "$@" >/dev/null 2>&1 || true
        after=${EPOCHREALTIME/./}
    done
    echo "$round: $((after - before))" | awk '{printf "%.1f\n", $2 / 1000}'
}

echo "== Start to exit of a guest that ends at once, in ms"
bare='{"kernel": "'$work'/vmlinux", "initramfs": "'$work'/initramfs.cpio", "vcpus": 1, "mem_size_mib": 512, "rng": false,
    "cmdline": "'$common'"'
echo "$bare}" >"$work/bare.json"
echo "$bare, \"jail\": {\"uid\": 70000}}" >"$work/jailed.json"
echo "husk-vmm             $(milliseconds "$work/husk-vmm" run --config "$work/bare.json")"
echo "husk-vmm, jailed     $(milliseconds "$work/husk-vmm" run --config "$work/jailed.json")"
echo "QEMU microvm         $(milliseconds "${qemu[@]}" -smp 1 -initrd "$work/initramfs.cpio" -append "$common reboot=t")"
