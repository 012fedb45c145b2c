//! `husk events`

use std::{collections::BTreeMap, time::Duration};

use husk_sandbox::{
    events::{Event, Events},
    paths::Dirs,
};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::{
    args::EventsArgs,
    filters::Filters,
    output,
    template::{Subject, Template},
    times,
};

const KEYS: [&str; 6] = ["container", "event", "image", "label", "scope", "type"];

pub(crate) async fn run(dirs: &Dirs, args: &EventsArgs) -> anyhow::Result<u8> {
    let filters = Filters::parse(&args.filter, &KEYS)?;
    let print = Printer::parse(args.format.as_deref())?;
    let (now, zone) = (Timestamp::now(), times::zone());
    let moment =
        |text: &Option<String>| text.as_deref().map(|text| times::parse(text, now, &zone)).transpose();
    let (since, until) = (moment(&args.since)?, moment(&args.until)?);
    // Without a beginning, a past is shown only if an end is asked for, as Docker has it.
    let since = since.unwrap_or(if until.is_some() { Timestamp::UNIX_EPOCH } else { now });
    let mut log = Events::open(dirs)?;
    loop {
        // First the clock: what happens until it is in the log then.
        let over = until.is_some_and(|until| Timestamp::now() >= until);
        let mut events = log.read()?;
        events.sort_by_key(|event| event.time_ns);
        for event in events {
            let at = time(&event);
            if at >= since && until.is_none_or(|until| at <= until) && matches(&event, &filters) {
                output::print_line(&print.text(&event, &zone)?)?;
            }
        }
        if over {
            return Ok(0);
        }
        tokio::select! {
            changed = log.changed() => changed?,
            () = reached(until) => {}
        }
    }
}

async fn reached(until: Option<Timestamp>) {
    let Some(until) = until else { return std::future::pending().await };
    tokio::time::sleep(Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default()).await;
}

fn time(event: &Event) -> Timestamp {
    Timestamp::from_nanosecond(event.time_ns.into()).unwrap_or_default()
}

/// As Docker's filters of events.
fn matches(event: &Event, filters: &Filters) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map_or("", String::as_str);
    // `exec_start: sh` is found by `exec_start`.
    let action = event.action.split(':').next().unwrap_or_default();
    let image = attribute("image");
    let repository =
        image.rsplit_once(':').map_or(image, |(name, tag)| if tag.contains('/') { image } else { name });
    filters.any("container", |wanted| event.id.starts_with(wanted) || attribute("name").starts_with(wanted))
        && filters.any("event", |wanted| wanted == action || wanted == event.action)
        && filters.any("image", |wanted| wanted == image || wanted == repository)
        && filters.any("scope", |wanted| wanted == "local")
        && filters.any("type", |wanted| wanted == event.kind)
        && filters.matches_labels(&event.attributes)
}

/// Fields that templates know by other names than JSON.
const GO_NAMES: [(&str, &str); 6] = [
    ("status", "Status"),
    ("id", "ID"),
    ("from", "From"),
    ("scope", "Scope"),
    ("time", "Time"),
    ("timeNano", "TimeNano"),
];

/// An event as Docker's API has it.
#[derive(Serialize)]
struct Message<'a> {
    status: &'a str,
    id: &'a str,
    from: &'a str,
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(rename = "Action")]
    action: &'a str,
    #[serde(rename = "Actor")]
    actor: Actor<'a>,
    scope: &'a str,
    time: u64,
    #[serde(rename = "timeNano")]
    time_ns: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    attributes: &'a BTreeMap<String, String>,
}

impl<'a> Message<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            status: &event.action,
            id: &event.id,
            from: event.attributes.get("image").map_or("", String::as_str),
            kind: &event.kind,
            action: &event.action,
            actor: Actor { id: &event.id, attributes: &event.attributes },
            scope: "local",
            time: event.time_ns / 1_000_000_000,
            time_ns: event.time_ns,
        }
    }
}

/// The form of a line.
enum Printer {
    Text,
    Json,
    Template(Template),
}

impl Printer {
    fn parse(format: Option<&str>) -> anyhow::Result<Self> {
        Ok(match format {
            None => Self::Text,
            Some("json" | "{{json .}}") => Self::Json,
            Some(template) => Self::Template(Template::parse(&template.replace("\\t", "\t"))?),
        })
    }

    fn text(&self, event: &Event, zone: &TimeZone) -> anyhow::Result<String> {
        Ok(match self {
            Self::Json => serde_json::to_string(&Message::of(event))?,
            Self::Template(template) => {
                let mut message = serde_json::to_value(Message::of(event))?;
                for (json, go) in GO_NAMES {
                    message[go] = message[json].take();
                }
                template.render(Subject::Document(&message))?
            }
            Self::Text => {
                let Event { kind, action, id, attributes, .. } = event;
                let attributes = attributes.iter().map(|(key, value)| format!("{key}={value}"));
                let attributes = attributes.collect::<Vec<_>>().join(", ");
                format!("{} {kind} {action} {id} ({attributes})", times::rfc3339_fixed(time(event), zone))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let attributes = [("image", "reg:5000/web:1"), ("name", "web-1"), ("tier", "front"), ("execID", "e")];
        Event {
            time_ns: 1_796_092_985_123_456_789,
            kind: "container".into(),
            action: "exec_start: sh".into(),
            id: "abcd".into(),
            attributes: attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }

    #[test]
    fn lines_are_dockers() {
        let text = |format, zone: &TimeZone| Printer::parse(format).unwrap().text(&event(), zone).unwrap();
        let attributes = "(execID=e, image=reg:5000/web:1, name=web-1, tier=front)";
        assert_eq!(
            text(None, &TimeZone::UTC),
            format!("2026-12-01T02:43:05.123456789Z container exec_start: sh abcd {attributes}")
        );
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert!(text(None, &east).starts_with("2026-12-01T04:43:05.123456789+02:00 "));
        let template = "{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}} {{.ID}} {{.From}}";
        assert_eq!(
            text(Some(template), &TimeZone::UTC),
            "container exec_start: sh abcd web-1 abcd reg:5000/web:1"
        );
        let json = text(Some("json"), &TimeZone::UTC);
        assert!(
            json.starts_with(r#"{"status":"exec_start: sh","id":"abcd","from":"reg:5000/web:1","Type":"#)
        );
        assert!(json.ends_with(r#""scope":"local","time":1796092985,"timeNano":1796092985123456789}"#));
    }

    #[test]
    fn filters_are_dockers() {
        for (filter, found) in [
            ("container=web-1", true),
            ("container=ab", true),
            ("container=b", false),
            ("event=exec_start", true),
            ("event=start", false),
            ("image=reg:5000/web", true),
            ("image=reg:5000/web:1", true),
            ("image=reg", false),
            ("label=tier=front", true),
            ("label=tier=back", false),
            ("type=container", true),
            ("type=network", false),
        ] {
            let filters = Filters::parse(&[filter.to_owned()], &KEYS).unwrap();
            assert_eq!(matches(&event(), &filters), found, "{filter}");
        }
    }
}
