//! Logging by `tracing`, without a subscriber's usual weight: each event becomes a text, and the program says where that goes.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};
pub use tracing::{Level, Metadata};

/// What parts of husk log as their target begins with this.
const OURS: &str = "husk";

/// From now on, `write` receives the program's events as texts of one or more lines, those above `most` in detail left out. Another
/// call has no effect.
pub fn init(most: Level, write: impl Fn(&Metadata<'_>, &str) + Send + Sync + 'static) {
    let _ = tracing::subscriber::set_global_default(Texts { most, write });
}

/// Whether an event is from one of husk's crates, and not from a library.
pub fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(OURS)
}

/// Makes texts of events; spans mean nothing to it.
struct Texts<W> {
    most: Level,
    write: W,
}

impl<W: Fn(&Metadata<'_>, &str) + Send + Sync + 'static> Subscriber for Texts<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most.into())
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        (self.write)(event.metadata(), &text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The message, and then the other fields with their names.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        let _ =
            if name == "message" { write!(self.0, "{value:?}") } else { write!(self.0, " {name}={value:?}") };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn events_become_texts_and_details_are_left_out() {
        let texts = Arc::new(Mutex::new(Vec::new()));
        let seen = texts.clone();
        let write = move |metadata: &Metadata<'_>, text: &str| {
            seen.lock().unwrap().push(format!("{} {} {text}", metadata.level(), is_ours(metadata)));
        };
        tracing::subscriber::with_default(Texts { most: Level::WARN, write }, || {
            tracing::error!("a \"quote\" of {}", 1);
            tracing::warn!(count = 2, "text");
            tracing::warn!(target: "library", "text");
            tracing::info!("detail");
        });
        let expected = ["ERROR true a \"quote\" of 1", "WARN true text count=2", "WARN false text"];
        assert_eq!(*texts.lock().unwrap(), expected);
    }
}
