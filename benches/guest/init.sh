#!/bin/sh
# Init of the guest that measures disk and network: prints one line a figure, then resets the machine.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /tmp
ip link set lo up
ip address add 192.168.77.2/24 dev eth0
ip link set eth0 up

# job NAME FIELD OPTIONS...: a figure of fio's terse output.
job() {
    name=$1 field=$2
    shift 2
    line=$(fio --name="$name" --filename=/dev/vdb --direct=1 --ioengine=libaio --minimal --size=16M "$@" | tail -n 1)
    echo "figure $name $(echo "$line" | cut -d ';' -f "$field")"
}

job sequential-read-KB/s 7 --rw=read --bs=128k --iodepth=8
job sequential-write-KB/s 48 --rw=write --bs=128k --iodepth=8
job random-read-4k-IOPS 8 --rw=randread --bs=4k --iodepth=16 --io_size=4M
job random-write-4k-IOPS 49 --rw=randwrite --bs=4k --iodepth=16 --io_size=4M
job read-latency-us 40 --rw=randread --bs=4k --iodepth=1 --io_size=2M
job flush-latency-us 81 --rw=randwrite --bs=4k --iodepth=1 --fsync=1 --io_size=2M

until ping -c 1 -W 1 192.168.77.1 >/dev/null 2>&1; do :; done
rate() { iperf3 -c 192.168.77.1 -f m -n 16M "$@" | grep receiver | sed 's/.* \([0-9.]*\) Mbits.*/\1/'; }
echo "figure net-send-Mbit/s $(rate)"
echo "figure net-receive-Mbit/s $(rate -R)"
echo "figure ping-us $(ping -c 100 -i 0.002 -q 192.168.77.1 | sed -n 's,.*= [0-9.]*/\([0-9.]*\)/.*,\1,p' | awk '{print $1 * 1000}')"
echo finished
exec /bench-reboot
