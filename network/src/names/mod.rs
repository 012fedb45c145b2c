//! The host's half of name resolution: which servers containers ask ([`resolvers`]), reaching those that live on the
//! host's loopback address ([`relay`]), the names of containers on networks of husk's own ([`table`]), and /etc/hosts
//! ([`hosts`]).

pub mod hosts;
pub mod resolvers;
pub mod table;

/// The longest name that DNS can carry, in text form without the dot at its end (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// Whether `name` can be a host's, as the resolvers of C libraries see it: labels of letters, digits, hyphens and
/// underscores, 63 bytes each.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= MAX_NAME && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        let label = "a".repeat(63);
        for good in ["a", "db-1.example", "_srv._tcp", "0", &label, &[label.as_str(); 3].join(".")] {
            assert!(is_host_name(good), "{good}");
        }
        let label = "a".repeat(64);
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\nb", "a#b", "ä", &label, &["abc"; 64].join(".")] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
