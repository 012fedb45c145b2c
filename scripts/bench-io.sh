#!/usr/bin/env bash
# Measures disk and network of husk-vmm beside QEMU's microvm in the same run: the same guest does the same work, by fio
# and iperf3, on the same file and the same tap. In the lab's deterministic mode times are virtual. Needs root on a
# machine whose KVM can be used.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

guest=$root/build/bench

if [ "${1:-}" != --inside ]; then
    step "Building the guest to be measured in (once, some minutes; then cached)"
    packages=fio,iperf3,iproute2,iputils-ping,mawk
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
    image=$cache/bench/$(echo "$suite $packages" | sha256sum | cut -c 1-16).img
    mkdir -p "$cache/bench" "$guest"
    if [ ! -e "$image" ]; then
        tree=$(mktemp -d "$cache/bench/.building.XXXXXX")
        quietly mmdebstrap --variant=minbase --include="$packages" "$suite" "$tree/root.tar"
        mkdir -p "$tree/root/bench"
        tar -C "$tree/root" --exclude='./dev/*' -xf "$tree/root.tar"
        quietly mke2fs -q -t ext4 -d "$tree/root" "$tree/root.img" 800M
        mv "$tree/root.img" "$image"
        rm -rf "$tree"
    fi
    gcc -nostdlib -static -o "$guest/reboot" benches/guest/reboot.S
    cp --sparse=always "$image" "$guest/root.img"
    for file in benches/guest/io.sh benches/guest/io.fio "$guest/reboot"; do
        name=/bench/$(basename "$file")
        quietly debugfs -w -f - "$guest/root.img" <<<"write $file $name
set_inode_field $name mode 0100755"
    done
    step "Measuring"
    in_machine --deterministic --timeout 1200 -- "$root/scripts/bench-io.sh" --inside
    exit
fi

if [ "${2:-}" != --apart ]; then
    modprobe -a tun loop
    # A network, mounts and processes of its own, which end with it.
    exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside --apart
fi
if grep -q idle=poll /proc/cmdline; then
    # The lab's deterministic mode, in which idle CPUs poll. The instruction by which they do takes the emulator ten
    # times longer than others, so something that nothing else waits for takes the place of idling.
    chrt --idle 0 sh -c 'while :; do :; done' &
fi

# An ext4 in memory, so that no disk is measured, nor the emulated machine's file sharing.
work=/mnt
mount -t tmpfs -o mode=755 work $work
mkdir $work/data
truncate -s 512M $work/ext4
mke2fs -q -t ext4 $work/ext4
mount -o loop,noatime $work/ext4 $work/data
dd if=/dev/zero of=$work/data/disk bs=1M count=64 status=none
chown 70000 $work/data/disk
cp "$(readlink -f build/guest/vmlinux)" "$release/husk-vmm" $work
qemu=$(command -v qemu-system-x86_64)
ldd "$qemu" | awk '$2 == "=>" { print $3 }' | xargs cat "$qemu" >/dev/null

ip link set lo up
ip tuntap add tap0 mode tap vnet_hdr
ip address add 192.168.77.1/24 dev tap0
ip link set tap0 up
iperf3 -s >/dev/null 2>&1 &
perl -MIO::Socket::INET -e '
    my $server = IO::Socket::INET->new(Listen => 64, LocalPort => 5202, Proto => "tcp") or die;
    while ($server->accept) {}' &

line="quiet panic=-1 random.trust_cpu=on root=/dev/vda ro console=ttyS0 init=/bench/io.sh"
mac=02:00:00:00:00:01
cat >$work/husk.json <<END
{"kernel": "$work/vmlinux", "vcpus": 1, "mem_size_mib": 512, "console": "$work/husk.console", "cmdline": "$line",
 "disks": [{"id": "root", "path": "$guest/root.img", "read_only": true},
           {"id": "data", "path": "$work/data/disk", "read_only": false}],
 "nets": [{"id": "eth0", "tap": {"name": "tap0"}, "mac": "$mac"}], "jail": {"uid": 70000}}
END
run_husk() { exec $work/husk-vmm run --config $work/husk.json; }
run_qemu() {
    exec "$qemu" -M microvm,acpi=off,x-option-roms=off,rtc=off,isa-serial=on -enable-kvm -cpu host -smp 1 -m 512 \
        -nodefaults -no-user-config -no-reboot -display none -serial "file:$work/qemu.console" \
        -kernel $work/vmlinux -append "$line reboot=t" -object iothread,id=io \
        -drive "if=none,id=root,format=raw,readonly=on,file=$guest/root.img" -device virtio-blk-device,drive=root \
        -drive "if=none,id=data,format=raw,cache=writeback,aio=io_uring,file=$work/data/disk" \
        -device virtio-blk-device,drive=data,iothread=io \
        -netdev tap,id=net,ifname=tap0,script=no,downscript=no,vhost=off \
        -device "virtio-net-device,netdev=net,mac=$mac"
}
# watched CMD...: runs it, and ends it after two minutes of the wall's time, which the lab's machine has in its hardware
# clock only: the lab loses a guest now and then (docs/lab.md). No program is started meanwhile: that would be measured.
clock=/sys/class/rtc/rtc0/since_epoch
mkfifo $work/never
exec {never}<>$work/never
watched() {
    local started now
    read -r started <$clock
    "$@" &
    while [ -e /proc/$! ]; do
        read -r -t 0.3 -u "$never" || true
        read -r now <$clock
        if [ $((now - started)) -gt 120 ]; then
            kill -9 $! || true
        fi
    done
}

# measure ONE: what a guest of it says, in at most three tries.
measure() {
    local try
    for try in 1 2 3; do
        sync
        rm -f $work/"$1".console
        watched "run_$1" >$work/"$1".log 2>&1
        if grep -q finished $work/"$1".console; then
            sed -n "s/\r$//; s/^figure /$1 /p" $work/"$1".console >>$work/figures
            return
        fi
        echo "$1 did not finish (try $try of 3)" >&2
    done
    tail -n 20 $work/"$1".console $work/"$1".log >&2
    return 1
}

for round in 1 2; do
    for one in husk qemu; do
        step "Round $round of 2: $one"
        measure $one
    done
done

# The better figure of the rounds; of those in us that is the smaller one.
awk '
    { key = $2 " " $3; if (!(key in known)) { known[key] = 1; keys[++count] = key } }
    { value = $3 == "us" ? 1 / $4 : $4; if (value > best[$1, key]) best[$1, key] = value }
    END {
        printf "%-32s %-7s %10s %10s %8s\n", "", "", "husk-vmm", "QEMU", "better"
        for (i = 1; i <= count; i++) {
            split(keys[i], part, " ")
            husk = best["husk", keys[i]]; qemu = best["qemu", keys[i]]; ratio = husk / qemu
            if (part[2] == "us") { husk = 1 / husk; qemu = 1 / qemu }
            printf "%-32s %-7s %10.0f %10.0f %7.2fx\n", part[1], part[2], husk, qemu, ratio
        }
    }' $work/figures
