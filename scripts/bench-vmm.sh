#!/usr/bin/env bash
# Measures husk-vmm beside QEMU's microvm, on the same kernel in the same run: start to exit of a guest that ends at
# once, and disk and network of a guest with fio and iperf3. In the lab's deterministic mode times are virtual.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

guest=$root/build/bench
if [ "${1:-}" != --inside ]; then
    step "Building the guests to be measured in (once)"
    mkdir -p "$guest"
    gcc -nostdlib -static -o "$guest/reboot" benches/guest/reboot.S
    guest-image/build-initramfs.sh "$guest/reboot" "$guest/initramfs.cpio"
    if [ ! -e "$guest/root.img" ]; then
        tree=$(mktemp -d)
        quietly mmdebstrap --mode=root --variant=minbase --include=fio,iperf3,iproute2,iputils-ping bookworm "$tree/root"
        quietly mke2fs -q -t ext4 -d "$tree/root" "$guest/root.img.tmp" 600M
        mv "$guest/root.img.tmp" "$guest/root.img"
        rm -rf "$tree"
    fi
    step "Measuring"
    in_machine --deterministic --timeout 1500 -- "$root/scripts/bench-vmm.sh" --inside
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kernel=$root/build/guest/vmlinux
# The emulated machine's file sharing is not to be measured.
cp "$(readlink -f "$kernel")" "$work/vmlinux"
cp "$guest/initramfs.cpio" "$guest/root.img" "$release/husk-vmm" "$work/"
cp benches/guest/init.sh "$work/init"
truncate -s 64M "$work/data.img"
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

modprobe tun
ip tuntap add tap0 mode tap vnet_hdr
ip address add 192.168.77.1/24 dev tap0
ip link set tap0 up
ip link set lo up
# The guest's script goes into the root file system, from which the host takes iperf3, too.
debugfs -w -R "write $work/init bench-init" "$work/root.img" 2>/dev/null
debugfs -w -R "write $guest/reboot bench-reboot" "$work/root.img" 2>/dev/null
for file in bench-init bench-reboot; do
    debugfs -w -R "set_inode_field $file mode 0100755" "$work/root.img" 2>/dev/null
done

modprobe loop
mkdir "$work/mnt"
mount -o loop,ro "$work/root.img" "$work/mnt"
mount -t tmpfs tmp "$work/mnt/tmp"
chroot "$work/mnt" iperf3 -s >/dev/null &
server=$!
trap 'kill "$server"; wait; umount "$work/mnt/tmp" "$work/mnt"; ip link delete tap0; rm -rf "$work"' EXIT
line="$common root=/dev/vda ro console=ttyS0 init=/bench-init"
line=${line/8250.nr_uarts=0 /}
cat >"$work/io.json" <<END
{"kernel": "$work/vmlinux", "vcpus": 1, "mem_size_mib": 512, "console": "$work/husk.out", "cmdline": "$line",
 "disks": [{"id": "root", "path": "$work/root.img", "read_only": true},
           {"id": "data", "path": "$work/data.img", "read_only": false}],
 "nets": [{"id": "eth0", "tap": {"name": "tap0"}, "mac": "02:00:00:00:00:01"}], "jail": {"uid": 70000}}
END
"$work/husk-vmm" run --config "$work/io.json" >/dev/null 2>"$work/husk.err" || true
timeout 600 "${qemu[@]}" -smp 1 -append "$line reboot=t" -serial "file:$work/qemu.out" \
    -object iothread,id=io \
    -drive "if=none,id=root,format=raw,readonly=on,file=$work/root.img" -device virtio-blk-device,drive=root \
    -drive "if=none,id=data,format=raw,aio=io_uring,cache=writeback,file=$work/data.img" \
    -device virtio-blk-device,drive=data,iothread=io \
    -netdev tap,id=net,ifname=tap0,script=no,downscript=no,vhost=off,vnet_hdr=on \
    -device virtio-net-device,netdev=net,mac=02:00:00:00:00:02 >/dev/null 2>"$work/qemu.err" || true

figures() { sed -n 's/\r$//; s/^figure //p' "$work/$1.out" | sort; }
for one in husk qemu; do
    grep -q finished "$work/$one.out" || { echo "$one did not finish:"; tail -n 20 "$work/$one."*; }
done
echo "== Disk and network: husk-vmm (jailed), QEMU microvm, ratio"
join <(figures husk) <(figures qemu) | awk '{printf "%-24s %10s %10s %6.2f\n", $1, $2, $3, $3 ? $2 / $3 : 0}'
