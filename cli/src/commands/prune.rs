//! `husk container prune`

use std::io::{self, IsTerminal};

use anyhow::ensure;
use husk_sandbox::{
    paths::Dirs,
    store::{Config, List, Status, Store},
};
use jiff::Timestamp;

use super::container::remove_one;
use crate::{args::PruneContainersArgs, facts, filters::Filters, human, output, times};

pub(crate) async fn containers(dirs: &Dirs, args: &PruneContainersArgs) -> anyhow::Result<u8> {
    let filters = Filters::parse(&args.filter, &["label", "label!", "until"])?;
    let until = until(&filters)?;
    if !args.force && !confirmed("This will remove all stopped containers.")? {
        return Ok(0);
    }
    let store = Store::open(dirs)?;
    let List { records, .. } = store.list()?;
    let (mut deleted, mut reclaimed, mut failed) = (String::new(), 0, false);
    for record in records {
        let stopped = matches!(record.state.status, Status::Created | Status::Exited | Status::Dead);
        if !stopped || !matches(&record.config, &filters, until) {
            continue;
        }
        let id = &record.config.id;
        let size = facts::directory_size(&store.dir(id));
        match remove_one(dirs, &store, id, false).await {
            Ok(()) => {
                reclaimed += size;
                deleted += &format!("{id}\n");
            }
            Err(error) => {
                output::print_error(&error);
                failed = true;
            }
        }
    }
    if !deleted.is_empty() {
        output::print_line(&format!("Deleted Containers:\n{deleted}"))?;
    }
    output::print_line(&format!("Total reclaimed space: {}", human::size(reclaimed, 4)))?;
    Ok(u8::from(failed))
}

/// Asks the user, with Docker's words.
fn confirmed(warning: &str) -> anyhow::Result<bool> {
    ensure!(
        io::stdin().is_terminal(),
        "standard input is not a terminal: use --force to do it without a question"
    );
    output::print(&format!("WARNING! {warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

fn until(filters: &Filters) -> anyhow::Result<Option<Timestamp>> {
    let (now, zone) = (Timestamp::now(), times::zone());
    Ok(filters.values("until").map(|text| times::parse(text, now, &zone)).last().transpose()?)
}

fn matches(config: &Config, filters: &Filters, until: Option<Timestamp>) -> bool {
    let labels = config.labels();
    until.is_none_or(|until| config.created.moment().unwrap_or_default() < until)
        && filters.matches_labels(&labels)
        && !(filters.has("label!") && filters.has_labels("label!", &labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_by_labels_and_age() {
        // Created in November 2023, with the label tier=front.
        let config = crate::facts::tests::record().config;
        for (texts, chosen) in [
            (&[][..], true),
            (&["label=tier"], true),
            (&["label=tier=back"], false),
            (&["label!=tier"], false),
            (&["label!=tier=back"], true),
            (&["until=2023-01-01"], false),
            (&["until=24h"], true),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let filters = Filters::parse(&texts, &["label", "label!", "until"]).unwrap();
            assert_eq!(matches(&config, &filters, until(&filters).unwrap()), chosen, "{texts:?}");
        }
    }
}
