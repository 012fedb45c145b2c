#!/bin/sh
# Init of the guest that measures disk and network: prints lines `figure NAME UNIT VALUE`, then resets the machine.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ip link set lo up
ip address add 192.168.77.2/24 dev eth0
ip link set eth0 up
host=192.168.77.1

# Fields of a line of fio's terse output (version 3): the job's name is 3; KB/s, operations/s and mean latency in us are
# 7, 8 and 40 of reading, 48, 49 and 81 of writing. What a job does not do is 0.
for job in $(sed -n 's/^\[\(.*\)\]$/\1/p' /bench/io.fio); do
    [ "$job" != global ] || continue
    fio --minimal --section="$job" /bench/io.fio | awk -F ';' '
        /^3;/ && $3 ~ /^sequential/ { print "figure", $3, "MB/s", ($7 + $48) / 1000 }
        /^3;/ && $3 !~ /^sequential/ { print "figure", $3, "IOPS", $8 + $49 }
        /^3;/ && $3 ~ /depth-1$/ { print "figure", $3 "-latency", "us", $40 + $81 }'
done

until ping -c 1 -W 1 $host >/dev/null 2>&1; do :; done
throughput() {
    iperf3 -c $host -J -t 1 "$@" | awk '
        /"sum_received"/ { found = 1 }
        found && /"bits_per_second"/ { print $2 / 1e6; exit }'
}
echo "figure tcp-guest-to-host Mbit/s $(throughput)"
echo "figure tcp-host-to-guest Mbit/s $(throughput -R)"
echo "figure ping us $(ping -c 100 -i 0.002 -q $host | awk -F / '/^rtt/ { print $5 * 1000 }')"
# shellcheck disable=SC2016 # it is perl
echo "figure tcp-connections 1/s $(perl -MIO::Socket::INET -MTime::HiRes=time -e '
    my $start = time;
    for (1 .. 300) { IO::Socket::INET->new(PeerAddr => "192.168.77.1", PeerPort => 5202, Proto => "tcp") or die }
    print 300 / (time - $start)')"
echo finished
exec /bench/reboot
