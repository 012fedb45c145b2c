//! Names of signals.

/// A signal's number from its name, with or without SIG, or from the number itself, as images give it.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    if let Some(offset) = name.strip_prefix("SIGRTMIN+") {
        return offset
            .parse::<i32>()
            .ok()
            .filter(|offset| (0..=30).contains(offset))
            .map(|offset| 34 + offset);
    }
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in
            [("SIGTERM", 15), ("quit", 3), ("SigInt", 2), ("9", 9), ("SIGRTMIN+3", 37), ("WINCH", 28)]
        {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "SIGNOPE", "SIGRTMIN+99"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
