//! Moments: what `--since` and `--until` take, and how Docker prints them.

use jiff::{
    SignedDuration, Timestamp, ZonedDateTime,
    civil::DateTime,
    tz::{Offset, TimeZone},
};

use crate::go_text;

/// The text is not a moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to parse value as time or duration: {0:?}; use a duration such as 10m, \
     a time such as 2026-12-01T02:43:05Z, or seconds since 1970"
)]
pub(crate) struct NotATime(String);

/// The moment that `--since` or `--until` names.
///
/// A duration lies before `now`. Dates may lack their end (`2026-12-01`, `2026-12-01T02:43`) and their zone, which
/// then is the one that `zone` has now. Seconds since 1970 may have a fraction.
///
/// # Errors
/// The text is none of these.
pub(crate) fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, NotATime> {
    if text != "0"
        && let Some(nanoseconds) = go_text::parse_duration(text)
    {
        let moment = now.checked_sub(SignedDuration::from_nanos(nanoseconds));
        // Docker's moments of durations are whole seconds.
        let seconds = moment.and_then(|moment| Timestamp::from_second(moment.as_second()));
        return seconds.map_err(|_| NotATime(text.into()));
    }
    let parsed = if text.contains('-') { date_time(text, zone.to_offset(now)) } else { unix(text) };
    parsed.ok_or_else(|| NotATime(text.into()))
}

/// Digits alone, as many as asked for, and the rest.
fn digits<T: std::str::FromStr>(text: &str, count: usize) -> Option<(T, &str)> {
    let (number, rest) = text.split_at_checked(count)?;
    let valid = number.bytes().all(|byte| byte.is_ascii_digit());
    valid.then_some((number.parse().ok()?, rest))
}

/// `2006-01-02`, `2006-01-02T15`, `2006-01-02T15:04` or `2006-01-02T15:04:05.999999999`, with a zone or without.
fn date_time(text: &str, local: Offset) -> Option<Timestamp> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, mut rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (mut hour, mut minute, mut second, mut nanosecond) = (0, 0, 0, 0);
    if let Some(time) = rest.strip_prefix('T') {
        (hour, rest) = digits(time, 2)?;
        if let Some(time) = rest.strip_prefix(':') {
            (minute, rest) = digits(time, 2)?;
            if let Some(time) = rest.strip_prefix(':') {
                (second, rest) = digits(time, 2)?;
                if let Some(time) = rest.strip_prefix('.') {
                    let length = time.find(|c: char| !c.is_ascii_digit()).unwrap_or(time.len());
                    nanosecond = fraction(&time[..length])?;
                    rest = &time[length..];
                }
            }
        }
    }
    let time = DateTime::new(year, month, day, hour, minute, second, nanosecond).ok()?;
    offset(rest, local)?.to_timestamp(time).ok()
}

/// Nanoseconds of the digits behind a point.
fn fraction(digits: &str) -> Option<i32> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nine: String = digits.chars().chain("000000000".chars()).take(9).collect();
    nine.parse().ok()
}

/// `Z`, `+02:00`, or nothing.
fn offset(text: &str, local: Offset) -> Option<Offset> {
    let sign = match text.chars().next() {
        None => return Some(local),
        Some('Z') if text.len() == 1 => return Some(Offset::UTC),
        Some('+') => 1,
        Some('-') => -1,
        Some(_) => return None,
    };
    let (hours, rest) = digits::<i32>(&text[1..], 2)?;
    let (minutes, rest) = digits::<i32>(rest.strip_prefix(':')?, 2)?;
    if !rest.is_empty() || hours > 24 || minutes >= 60 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

/// `1136073600` or `1136073600.000000001`
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, nanoseconds) = match text.split_once('.') {
        Some((seconds, digits)) => (seconds, fraction(digits)?),
        None => (text, 0),
    };
    Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
}

/// A moment in UTC as `inspect` prints it: `2026-12-01T02:43:05.123456789Z`, without zeros at the end.
pub(crate) fn rfc3339_nano(time: Timestamp) -> String {
    time.to_string()
}

/// A moment with all nine digits of its second's fraction: `2026-12-01T02:43:05.100000000Z`, or `...+02:00`.
pub(crate) fn rfc3339_fixed(time: Timestamp, zone: &TimeZone) -> String {
    let time = ZonedDateTime::new(time, zone.clone());
    let format =
        if time.offset() == Offset::UTC { "%Y-%m-%dT%H:%M:%S.%9fZ" } else { "%Y-%m-%dT%H:%M:%S.%9f%:z" };
    time.strftime(format).to_string()
}

/// A moment as lists print it: `2026-12-01 02:43:05 +0000 UTC`, with the fraction of a second if there is one.
pub(crate) fn created_at(time: Timestamp, zone: &TimeZone) -> String {
    ZonedDateTime::new(time, zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string()
}

/// The time zone of the user, or else of the machine.
///
/// What jiff does without `TZ` is to look for the zone's name in the whole of the machine's database, which takes longer than all
/// else of a list; only its rules are needed here.
pub(crate) fn zone() -> TimeZone {
    const LOCAL: &str = "/etc/localtime";
    if std::env::var_os("TZ").is_some() {
        return TimeZone::system();
    }
    let rules = std::fs::read(LOCAL).ok();
    rules.and_then(|rules| TimeZone::tzif("Local", &rules).ok()).unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn now() -> Timestamp {
        Timestamp::new(NOW, 900_000_000).unwrap()
    }

    /// Two hours east of Greenwich.
    fn east() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(2))
    }

    #[test]
    fn moments() {
        for (text, expected) in [
            ("10m", "2023-11-14T22:03:20Z"),
            ("1h30m", "2023-11-14T20:43:20Z"),
            ("1.5h", "2023-11-14T20:43:20Z"),
            ("-1m", "2023-11-14T22:14:20Z"),
            ("0s", "2023-11-14T22:13:20Z"),
            ("2006-01-02T15:04:05Z", "2006-01-02T15:04:05Z"),
            ("2006-01-02T15:04:05.999999999Z", "2006-01-02T15:04:05.999999999Z"),
            ("2006-01-02T15:04:05.5+01:00", "2006-01-02T14:04:05.5Z"),
            ("2006-01-02T15:04:05-07:00", "2006-01-02T22:04:05Z"),
            ("2006-01-02T15:04:05", "2006-01-02T13:04:05Z"),
            ("2006-01-02T15:04:05.25", "2006-01-02T13:04:05.25Z"),
            ("2006-01-02T15:04", "2006-01-02T13:04:00Z"),
            ("2006-01-02T15:04Z", "2006-01-02T15:04:00Z"),
            ("2006-01-02T15:04+05:30", "2006-01-02T09:34:00Z"),
            ("2006-01-02T15", "2006-01-02T13:00:00Z"),
            ("2006-01-02T15Z", "2006-01-02T15:00:00Z"),
            ("2006-01-02", "2006-01-01T22:00:00Z"),
            ("2006-01-02Z", "2006-01-02T00:00:00Z"),
            ("2006-01-02-07:00", "2006-01-02T07:00:00Z"),
            ("1136073600", "2006-01-01T00:00:00Z"),
            ("1136073600.000000001", "2006-01-01T00:00:00.000000001Z"),
            ("1136073600.5", "2006-01-01T00:00:00.5Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("10", "1970-01-01T00:00:10Z"),
            ("2006", "1970-01-01T00:33:26Z"),
        ] {
            assert_eq!(parse(text, now(), &east()).map(rfc3339_nano), Ok(expected.into()), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_moment() {
        for text in [
            "",
            "yesterday",
            "1.",
            "1.x",
            "10x",
            "2006-1-2",
            "2006-13-01",
            "2006-02-30",
            "2006-01-02T",
            "2006-01-02T25:00",
            "2006-01-02 15:04",
            "2006-01-02T15:04:05.",
            "2006-01-02T15:04:05z",
            "2006-01-02T15:04:05+0100",
            "2006-01-02T15:04:05+01:60",
            "2006-01-02T15:04:05ZZ",
            "2006-01-02T15:04:05é",
            "99999999999999999999",
            "9223372036854775807",
        ] {
            assert_eq!(parse(text, now(), &east()), Err(NotATime(text.into())));
        }
    }

    #[test]
    fn printed() {
        let time = Timestamp::new(NOW, 0).unwrap();
        assert_eq!(rfc3339_nano(time), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339_nano(Timestamp::new(NOW, 120_000_000).unwrap()), "2023-11-14T22:13:20.12Z");
        assert_eq!(created_at(time, &TimeZone::UTC), "2023-11-14 22:13:20 +0000 UTC");
        let fraction = Timestamp::new(NOW, 123_456_789).unwrap();
        assert_eq!(created_at(fraction, &TimeZone::UTC), "2023-11-14 22:13:20.123456789 +0000 UTC");
        let new_york = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap();
        assert_eq!(created_at(time, &new_york), "2023-11-14 17:13:20 -0500 EST");
    }

    #[test]
    fn the_zone_has_the_machines_rules() {
        let now = Timestamp::now();
        assert_eq!(zone().to_offset(now), TimeZone::system().to_offset(now));
    }
}
