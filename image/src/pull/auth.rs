//! What a registry asks for before it answers: parsing `WWW-Authenticate` (RFC 9110, section 11).

use reqwest::header::HeaderMap;

#[cfg(test)]
mod tests;

/// A way to authenticate that husk knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Get a token from `realm` first (distribution-spec, token authentication).
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// User name and password with every request.
    Basic,
}

/// The best challenge among the headers: Bearer before Basic.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let all: Vec<Challenge> = headers
        .get_all(reqwest::header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect();
    let bearer = all.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
    bearer.or(all.first()).cloned()
}

/// Parses one header value, which may hold several challenges. What is not understood is left out.
fn parse(text: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut schemes: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            // Skip what can't begin anything: separators, or garbage.
            rest = rest.get(rest.chars().next().map_or(0, char::len_utf8)..).unwrap_or("");
            continue;
        }
        match after.trim_start().strip_prefix('=') {
            Some(value) if !schemes.is_empty() => {
                let (value, after) = parameter_value(value.trim_start());
                if let Some((_, parameters)) = schemes.last_mut() {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            _ => {
                schemes.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    for (scheme, parameters) in schemes {
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        match scheme.as_str() {
            "basic" => challenges.push(Challenge::Basic),
            "bearer" => challenges.extend(get("realm").map(|realm| Challenge::Bearer {
                realm,
                service: get("service"),
                scope: get("scope"),
            })),
            _ => {}
        }
    }
    challenges
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}
