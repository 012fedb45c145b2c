//! What plugins print: results and errors.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// What a network says about name resolution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of servers.
    pub nameservers: Vec<std::net::IpAddr>,
    /// The local domain.
    pub domain: String,
    /// Domains to search.
    pub search: Vec<String>,
    /// Options for the resolver.
    pub options: Vec<String>,
}

/// An error as plugins report it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PluginError {
    /// 1 to 99 are the specification's, 100 and more the plugin's.
    pub code: u32,
    /// What happened.
    pub msg: String,
    /// More about it, or empty.
    #[serde(default)]
    pub details: String,
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ": {}", self.details) }
    }
}

/// The parts of a result that we can tell to be wrong. What the network is really like is read from the namespace.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    cni_version: String,
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
    #[serde(default)]
    dns: Dns,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only read to see that it is there")]
struct Interface {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Ip {
    #[expect(dead_code, reason = "only read to see that it is one")]
    address: ipnet::IpNet,
    interface: Option<i64>,
}

/// Reads a result: as it is, for the next plugin, and what it says about names.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(output: &[u8]) -> Result<(Value, Dns), String> {
    if output.trim_ascii().is_empty() {
        return Err("it is empty".into());
    }
    let value: Value = serde_json::from_slice(output).map_err(|error| error.to_string())?;
    let parts = Parts::deserialize(&value).map_err(|error| error.to_string())?;
    if parts.cni_version.is_empty() {
        return Err("its cniVersion is empty".into());
    }
    let count = i64::try_from(parts.interfaces.len()).unwrap_or(i64::MAX);
    // -1 is some plugins' way to say none.
    if let Some(bad) = parts.ips.iter().filter_map(|ip| ip.interface).find(|at| !(-1..count).contains(at)) {
        return Err(format!("an address belongs to interface {bad} of {count}"));
    }
    Ok((value, parts.dns))
}

/// Reads an error. `None`: it is none.
pub(super) fn read_error(output: &[u8]) -> Option<PluginError> {
    serde_json::from_slice(output).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn results_of_all_versions_are_read() {
        let old = br#"{"cniVersion": "0.3.1", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
            "ips": [{"version": "4", "address": "10.1.2.3/24", "interface": 0}],
            "dns": {"nameservers": ["10.1.0.1", "fd00::1"], "domain": "local", "search": ["a.b"]}}"#;
        let (value, dns) = read(old).unwrap();
        assert_eq!(value["ips"][0]["version"], "4", "it is kept as it is");
        assert_eq!(dns.nameservers.len(), 2);
        assert_eq!(
            (dns.domain.as_str(), dns.search, dns.options.len()),
            ("local", vec!["a.b".to_owned()], 0)
        );
        assert_eq!(read(br#"{"cniVersion": "1.1.0"}"#).unwrap().1, Dns::default());
    }

    #[test]
    fn what_is_no_result_is_refused() {
        for (text, expected) in [
            ("", "empty"),
            (" \n", "empty"),
            ("done.", "expected"),
            ("[1]", "invalid"),
            ("{}", "cniVersion"),
            (r#"{"cniVersion": ""}"#, "cniVersion is empty"),
            (r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3"}]}"#, "invalid IP address syntax"),
            (
                r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24", "interface": 1}], "interfaces": [{"name": "a"}]}"#,
                "interface 1 of 1",
            ),
            (r#"{"cniVersion": "1.0.0", "dns": {"nameservers": ["; rm -rf /"]}}"#, "invalid IP address"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn errors_are_told_whole() {
        let error =
            read_error(br#"{"cniVersion": "1.0.0", "code": 11, "msg": "Try again", "details": "locked"}"#)
                .unwrap();
        assert_eq!(error.to_string(), "Try again (code 11): locked");
        assert_eq!(read_error(b"{}"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_result_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read_error(&bytes);
        }
    }
}
