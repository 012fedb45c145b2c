//! Finds firewalls of others that drop what is forwarded, as far as nftables tells: a packet has to pass all of them,
//! whatever husk's own rules say. Rules of the old iptables ("legacy") are not visible here.

use std::{collections::HashSet, fmt};

use husk_base::netlink::{Socket, attributes, find, read_text};

use crate::{Error, Result, rules::SUBSYSTEM};

const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
const NF_INET_FORWARD: u32 = 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
/// What husk's own tables and bridges begin with.
const OWN: &[u8] = b"hk-";

/// A chain of somebody else's that seems to drop what containers send.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Obstacle {
    /// "ip", "ip6" or "inet".
    pub family: &'static str,
    /// The chain's table.
    pub table: String,
    /// The chain.
    pub chain: String,
}

impl Obstacle {
    /// Commands that let containers' packets pass.
    pub fn remedy(&self) -> Vec<String> {
        let Self { family, table, chain } = self;
        let direction = |key| format!("nft insert rule {family} {table} {chain} {key} 'hk-*' accept");
        vec![direction("iifname"), direction("oifname")]
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain } = self;
        write!(f, "the firewall's chain {chain} of table {family} {table} drops what is forwarded")
    }
}

/// Finds chains that drop forwarded packets, by their policy or by their last rule, and whose table has no rule that
/// accepts what comes from or goes to husk's bridges. One request to the kernel when there is no chain of others.
///
/// # Errors
/// When the kernel doesn't tell.
pub fn obstacles() -> Result<Vec<Obstacle>> {
    let socket = Socket::netfilter().map_err(Error::io("open", "a netlink socket"))?;
    let failed = || Error::kernel("the host");
    let mut chains = Vec::new();
    socket
        .dump("list chains", SUBSYSTEM | NFT_MSG_GETCHAIN, &[0; 4], |bytes| chains.extend(read_chain(bytes)))
        .map_err(failed())?;
    if chains.is_empty() {
        return Ok(vec![]);
    }
    let mut last_drops = HashSet::new();
    let mut allowed = HashSet::new();
    socket
        .dump("list rules", SUBSYSTEM | NFT_MSG_GETRULE, &[0; 4], |bytes| {
            let Some(rule) = read_rule(bytes) else { return };
            if rule.accepts_own {
                allowed.insert((rule.place.family, rule.place.table.clone()));
            }
            if rule.drops_all {
                last_drops.insert(rule.place);
            } else {
                last_drops.remove(&rule.place);
            }
        })
        .map_err(failed())?;
    let drops = |(chain, policy): &(Obstacle, bool)| *policy || last_drops.contains(chain);
    let is_allowed = |chain: &Obstacle| allowed.contains(&(chain.family, chain.table.clone()));
    Ok(chains.into_iter().filter(drops).map(|(chain, _)| chain).filter(|chain| !is_allowed(chain)).collect())
}

fn family(number: u8) -> Option<&'static str> {
    match number {
        1 => Some("inet"),
        2 => Some("ip"),
        10 => Some("ip6"),
        _ => None,
    }
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
}

/// A chain of others on the forward hook, and whether its policy is to drop.
fn read_chain(bytes: &[u8]) -> Option<(Obstacle, bool)> {
    let family = family(*bytes.first()?)?;
    let attrs = bytes.get(4..)?;
    let table = find(attrs, 1).filter(|table| !table.starts_with(OWN))?;
    let hook = find(attrs, 4).and_then(|hook| find(hook, 1)).and_then(be32)?;
    let place = Obstacle { family, table: read_text(table), chain: read_text(find(attrs, 3)?) };
    let policy = find(attrs, 5).and_then(be32) == Some(NF_DROP);
    (hook == NF_INET_FORWARD && find(attrs, 7) == Some(b"filter\0")).then_some((place, policy))
}

#[derive(Debug)]
struct Rule {
    place: Obstacle,
    /// It drops or rejects whatever comes to it.
    drops_all: bool,
    /// It accepts what has to do with husk's bridges.
    accepts_own: bool,
}

fn read_rule(bytes: &[u8]) -> Option<Rule> {
    let family = family(*bytes.first()?)?;
    let attrs = bytes.get(4..)?;
    let place = Obstacle { family, table: read_text(find(attrs, 1)?), chain: read_text(find(attrs, 2)?) };
    let (mut conditional, mut drops, mut accepts, mut own) = (false, false, false, false);
    for (_, expression) in attributes(find(attrs, 4).unwrap_or_default()) {
        let data = find(expression, 2).unwrap_or_default();
        match find(expression, 1)? {
            b"counter\0" | b"log\0" => {}
            b"reject\0" => drops = true,
            b"immediate\0" => {
                let verdict =
                    find(data, 2).and_then(|data| find(data, 2)).and_then(|verdict| find(verdict, 1));
                drops = verdict.and_then(be32) == Some(NF_DROP);
                accepts = verdict.and_then(be32) == Some(NF_ACCEPT);
            }
            name => {
                conditional = true;
                let value = find(data, 3).and_then(|data| find(data, 1)).unwrap_or_default();
                own |= name == b"cmp\0" && value.starts_with(OWN);
            }
        }
    }
    Some(Rule { place, drops_all: drops && !conditional, accepts_own: accepts && own })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_answer_can_be_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(family) = bytes.first_mut() {
                *family = 2;
            }
            let _ = (read_chain(&bytes), read_rule(&bytes));
        }
    }
}
