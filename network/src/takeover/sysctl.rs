//! Sysctls below net that were changed in the namespace, for the guest's kernel to have them, too.
//!
//! Looked at are those that plugins, Docker's and Kubernetes' `sysctls` set for a pod; compared with the kernel's
//! built-in values, which are what a guest begins with.

use std::{collections::HashMap, fs};

const PROC: &str = "/proc/sys/net";

/// Path and built-in value.
type Setting = (&'static str, &'static str);

const GLOBAL: &[Setting] = &[
    ("core/somaxconn", "4096"),
    ("ipv4/icmp_echo_ignore_all", "0"),
    ("ipv4/icmp_echo_ignore_broadcasts", "1"),
    ("ipv4/ip_default_ttl", "64"),
    ("ipv4/ip_forward", "0"),
    ("ipv4/ip_local_port_range", "32768\t60999"),
    ("ipv4/ip_local_reserved_ports", ""),
    ("ipv4/ip_no_pmtu_disc", "0"),
    ("ipv4/ip_nonlocal_bind", "0"),
    ("ipv4/ip_unprivileged_port_start", "1024"),
    ("ipv4/ping_group_range", "1\t0"),
    ("ipv4/tcp_ecn", "2"),
    ("ipv4/tcp_fastopen", "1"),
    ("ipv4/tcp_fin_timeout", "60"),
    ("ipv4/tcp_keepalive_intvl", "75"),
    ("ipv4/tcp_keepalive_probes", "9"),
    ("ipv4/tcp_keepalive_time", "7200"),
    ("ipv4/tcp_mtu_probing", "0"),
    ("ipv4/tcp_notsent_lowat", "4294967295"),
    ("ipv4/tcp_retries1", "3"),
    ("ipv4/tcp_retries2", "15"),
    ("ipv4/tcp_sack", "1"),
    ("ipv4/tcp_slow_start_after_idle", "1"),
    ("ipv4/tcp_syn_retries", "6"),
    ("ipv4/tcp_synack_retries", "5"),
    ("ipv4/tcp_syncookies", "1"),
    ("ipv4/tcp_timestamps", "1"),
    ("ipv4/tcp_tw_reuse", "2"),
    ("ipv4/tcp_window_scaling", "1"),
    ("ipv6/bindv6only", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv6/ip_nonlocal_bind", "0"),
];

/// Below `ipv4/conf/IF` and `ipv4/conf/all`.
const IPV4: &[Setting] = &[
    ("accept_local", "0"),
    ("arp_accept", "0"),
    ("arp_announce", "0"),
    ("arp_filter", "0"),
    ("arp_ignore", "0"),
    ("arp_notify", "0"),
    ("log_martians", "0"),
    ("promote_secondaries", "0"),
    ("proxy_arp", "0"),
    ("route_localnet", "0"),
    ("rp_filter", "0"),
    ("secure_redirects", "1"),
    ("send_redirects", "1"),
    ("src_valid_mark", "0"),
];

/// Below `ipv6/conf/IF`.
const IPV6: &[Setting] = &[
    ("accept_ra", "1"),
    ("accept_ra_defrtr", "1"),
    ("accept_ra_pinfo", "1"),
    ("accept_redirects", "1"),
    ("addr_gen_mode", "0"),
    ("autoconf", "1"),
    ("disable_ipv6", "0"),
    ("hop_limit", "64"),
    ("keep_addr_on_down", "0"),
    ("proxy_ndp", "0"),
    ("use_tempaddr", "0"),
];

/// What differs in the namespace of the calling thread, by name, for all of it and for the interfaces named. What is not there (an
/// interface that was renamed under us, a kernel without IPv6) does not differ.
pub(super) fn changed(interfaces: &[String]) -> HashMap<String, String> {
    let mut found = HashMap::new();
    compare(&mut found, "", GLOBAL);
    compare(&mut found, "ipv4/conf/all/", IPV4);
    for name in interfaces {
        compare(&mut found, &format!("ipv4/conf/{name}/"), IPV4);
        compare(&mut found, &format!("ipv6/conf/{name}/"), IPV6);
    }
    found
}

fn compare(found: &mut HashMap<String, String>, folder: &str, settings: &[Setting]) {
    for (name, built_in) in settings {
        let path = format!("{folder}{name}");
        let Ok(value) = fs::read_to_string(format!("{PROC}/{path}")) else { continue };
        let value = value.trim();
        if value != *built_in {
            found.insert(name_of(&path), value.to_owned());
        }
    }
}

/// The name of a setting, as an OCI spec has it, by its path below /proc/sys/net: dots and slashes change places.
pub(super) fn name_of(path: &str) -> String {
    let swapped = path.chars().map(|c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    });
    "net.".chars().chain(swapped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_names() {
        assert_eq!(name_of("ipv4/ip_forward"), "net.ipv4.ip_forward");
        assert_eq!(name_of("ipv4/conf/eth0.1/rp_filter"), "net.ipv4.conf.eth0/1.rp_filter");
    }
}
