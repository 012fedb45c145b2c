//! Network interfaces.

use std::{collections::HashSet, os::fd::RawFd};

use husk_base::Mac;
use serde::{Deserialize, Serialize};

use crate::rate_limit::{RateLimit, RateLimitError};

/// Most bytes of an interface's id.
const MAX_ID_LEN: usize = 20;
/// Most pairs of queues of an interface.
const MAX_QUEUE_PAIRS: u8 = 8;
/// Least MTU that IPv4 allows.
const MIN_MTU: u16 = 68;
/// Most bytes of the name of a host's interface.
const MAX_TAP_NAME_LEN: usize = 15;
/// Descriptors up to here are the standard streams.
const LAST_STANDARD_FD: RawFd = 2;

/// A network interface can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetConfigError {
    /// Its id does not fit.
    #[error("interface id {0:?} must have 1 to {MAX_ID_LEN} bytes, all printable ASCII without spaces")]
    Id(String),
    /// Two with the same id.
    #[error("two interfaces have the id {0:?}")]
    DuplicateId(String),
    /// Two with the same address.
    #[error("two interfaces have the MAC address {0}")]
    DuplicateMac(Mac),
    /// Its largest packet is too small.
    #[error("mtu of interface {1:?} is {0}, must be {MIN_MTU} to 65535")]
    Mtu(u16, String),
    /// Number of queue pairs out of range.
    #[error("queue_pairs of interface {1:?} is {0}, must be 1 to {MAX_QUEUE_PAIRS}")]
    QueuePairs(u8, String),
    /// No such interface can exist on the host.
    #[error(
        "tap.name of interface {1:?} is {0:?}, must have 1 to {MAX_TAP_NAME_LEN} bytes, and no space or slash"
    )]
    TapName(String, String),
    /// Not a descriptor for each queue pair.
    #[error("tap.fds of interface {0:?} must name {1} descriptors from 3 on, one for each queue pair")]
    Fds(String, u8),
    /// A descriptor that is named twice.
    #[error("the descriptor {0} is named twice")]
    DuplicateFd(RawFd),
    /// A limit makes no sense.
    #[error("interface {id:?}")]
    Limit {
        /// The interface.
        id: String,
        /// Why.
        #[source]
        source: RateLimitError,
    },
}

/// A network interface on a tap of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// What the interface is called in metrics and requests: 1 to 20 bytes of printable ASCII.
    pub id: String,
    /// The host's side.
    pub tap: TapConfig,
    /// The guest's address.
    pub mac: Mac,
    /// Most bytes of a packet without its Ethernet header, told to the guest: 68 to 65535. The guest's choice if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Pairs of a receive and a transmit queue, each with a thread: 1 to 8.
    #[serde(default = "one")]
    pub queue_pairs: u8,
    /// Limits of what the guest receives, of all queues together.
    #[serde(default)]
    pub limit_rx: RateLimit,
    /// Limits of what the guest sends, of all queues together.
    #[serde(default)]
    pub limit_tx: RateLimit,
}

/// The host's side of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapConfig {
    /// `{"name":"tap0"}`: the tap of this name. Several queue pairs need one that was made with `multi_queue`.
    Name(String),
    /// `{"fds":[5]}`: inherited descriptors of one tap, one for each queue pair, set up with `IFF_TAP`, `IFF_NO_PI`,
    /// `IFF_VNET_HDR` and, for several, `IFF_MULTI_QUEUE`.
    Fds(Vec<RawFd>),
}

fn one() -> u8 {
    1
}

impl NetConfig {
    /// Checks what the types can't say of one interface.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn validate(&self) -> Result<(), NetConfigError> {
        let id = &self.id;
        if id.is_empty() || id.len() > MAX_ID_LEN || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NetConfigError::Id(id.clone()));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return Err(NetConfigError::Mtu(mtu, id.clone()));
        }
        if !(1..=MAX_QUEUE_PAIRS).contains(&self.queue_pairs) {
            return Err(NetConfigError::QueuePairs(self.queue_pairs, id.clone()));
        }
        match &self.tap {
            TapConfig::Name(name) => {
                let good = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b'%';
                if name.is_empty() || name.len() > MAX_TAP_NAME_LEN || !name.bytes().all(good) {
                    return Err(NetConfigError::TapName(name.clone(), id.clone()));
                }
            }
            TapConfig::Fds(numbers) => {
                let standard = numbers.iter().any(|fd| *fd <= LAST_STANDARD_FD);
                if standard || numbers.len() != usize::from(self.queue_pairs) {
                    return Err(NetConfigError::Fds(id.clone(), self.queue_pairs));
                }
            }
        }
        for limit in [self.limit_rx, self.limit_tx] {
            limit.validate().map_err(|source| NetConfigError::Limit { id: id.clone(), source })?;
        }
        Ok(())
    }
}

/// Checks each interface, and that nothing is used twice.
pub(super) fn validate(nets: &[NetConfig]) -> Result<(), NetConfigError> {
    let (mut ids, mut macs, mut fds) = (HashSet::new(), HashSet::new(), HashSet::new());
    for net in nets {
        net.validate()?;
        if !ids.insert(&net.id) {
            return Err(NetConfigError::DuplicateId(net.id.clone()));
        }
        if !macs.insert(net.mac) {
            return Err(NetConfigError::DuplicateMac(net.mac));
        }
        if let TapConfig::Fds(numbers) = &net.tap
            && let Some(fd) = numbers.iter().find(|fd| !fds.insert(**fd))
        {
            return Err(NetConfigError::DuplicateFd(*fd));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(id: &str, last: u8) -> NetConfig {
        NetConfig {
            id: id.into(),
            tap: TapConfig::Name("tap0".into()),
            mac: Mac::local([0, 0, 0, 0, last]),
            mtu: None,
            queue_pairs: 1,
            limit_rx: RateLimit::default(),
            limit_tx: RateLimit::default(),
        }
    }

    fn check(change: impl Fn(&mut NetConfig)) -> Result<(), NetConfigError> {
        let mut changed = net("eth0", 1);
        change(&mut changed);
        validate(&[changed])
    }

    #[test]
    fn the_least_and_the_most() {
        let least: NetConfig =
            serde_json::from_str(r#"{"id":"eth0","tap":{"name":"tap0"},"mac":"02:00:00:00:00:01"}"#).unwrap();
        assert_eq!(least, net("eth0", 1));
        let most: NetConfig = serde_json::from_str(
            r#"{"id":"e","tap":{"fds":[5,6]},"mac":"02:00:00:00:aB:01","mtu":65535,"queue_pairs":2,
                "limit_rx":{"ops":{"size":1,"refill_ms":1}},"limit_tx":{}}"#,
        )
        .unwrap();
        assert_eq!((most.tap.clone(), most.mac.octets()[4]), (TapConfig::Fds(vec![5, 6]), 0xab));
        assert_eq!(validate(&[least, most]), Ok(()));
        for bad in [
            r#"{"id":"e","tap":{"name":"t","fds":[5]},"mac":"02:00:00:00:00:01"}"#,
            r#"{"id":"e","tap":{},"mac":"02:00:00:00:00:01"}"#,
            r#"{"id":"e","tap":{"path":"t"},"mac":"02:00:00:00:00:01"}"#,
            r#"{"id":"e","tap":{"name":"t"},"mac":"02:00:00:00:00:01","speed":1}"#,
            r#"{"id":"e","tap":{"name":"t"},"mac":"02:00:00:00:00"}"#,
            r#"{"id":"e","tap":{"name":"t"},"mac":"00:00:00:00:00:00"}"#,
            r#"{"id":"e","tap":{"name":"t"},"mac":"01:00:00:00:00:01"}"#,
        ] {
            assert!(serde_json::from_str::<NetConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        use NetConfigError::*;
        for bad in ["", "a b", "twenty-one-bytes-of-i"] {
            assert_eq!(check(|net| net.id = bad.into()), Err(Id(bad.into())));
        }
        assert_eq!(check(|net| net.mtu = Some(67)), Err(Mtu(67, "eth0".into())));
        assert_eq!(check(|net| net.mtu = Some(68)), Ok(()));
        for pairs in [0, 9] {
            assert_eq!(check(|net| net.queue_pairs = pairs), Err(QueuePairs(pairs, "eth0".into())));
        }
        for bad in ["", "a/b", "tap%d", "sixteen-bytes-ab"] {
            let error = TapName(bad.into(), "eth0".into());
            assert_eq!(check(|net| net.tap = TapConfig::Name(bad.into())), Err(error));
        }
        for bad in [vec![], vec![2], vec![3, 4]] {
            assert_eq!(check(|net| net.tap = TapConfig::Fds(bad.clone())), Err(Fds("eth0".into(), 1)));
        }
        let zero = RateLimit {
            ops: Some(crate::rate_limit::BucketConfig { size: 0, burst: 0, refill_ms: 1 }),
            bytes: None,
        };
        assert!(matches!(check(|net| net.limit_tx = zero), Err(Limit { .. })));
    }

    #[test]
    fn nothing_is_used_twice() {
        assert_eq!(validate(&[net("a", 1), net("a", 2)]), Err(NetConfigError::DuplicateId("a".into())));
        let mac = Mac::local([0, 0, 0, 0, 1]);
        assert_eq!(validate(&[net("a", 1), net("b", 1)]), Err(NetConfigError::DuplicateMac(mac)));
        let with_fd = |id, last| NetConfig { tap: TapConfig::Fds(vec![5]), ..net(id, last) };
        assert_eq!(validate(&[with_fd("a", 1), with_fd("b", 2)]), Err(NetConfigError::DuplicateFd(5)));
    }
}
