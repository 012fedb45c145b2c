//! `husk ps`

use std::collections::BTreeMap;

use husk_sandbox::{
    paths::Dirs,
    store::{List, Record, Store},
};
use jiff::{Timestamp, tz::TimeZone};

use crate::{
    args::PsArgs,
    facts,
    filters::containers::{Container, ContainerFilters},
    human,
    list::{Format, Row, rows::ContainerRow},
    output,
    ports::{self, Port},
    status::{self, Health, Status},
    times,
};

pub(crate) fn run(dirs: &Dirs, args: &PsArgs) -> anyhow::Result<u8> {
    let default = if args.size { ContainerRow::TABLE_WITH_SIZE } else { ContainerRow::TABLE };
    let format = match (&args.format, args.quiet) {
        (None, true) => Format::quiet("ID")?,
        (format, _) => Format::parse(format.as_deref(), default)?,
    };
    let filters = ContainerFilters::parse(&args.filter)?;
    let store = Store::open(dirs)?;
    let limit = if args.latest { Some(1) } else { usize::try_from(args.last).ok().filter(|last| *last > 0) };
    let all = args.all || limit.is_some() || filters.include_stopped();
    // Filters may compare with containers that are not shown.
    let List { records, broken } =
        if all || !args.filter.is_empty() { store.list()? } else { store.running()? };
    for (id, error) in &broken {
        let error = husk_base::chain::text(error);
        output::print_note(&format!(
            "husk: warning: container {} is left out: {error}\n",
            human::short_id(id)
        ));
    }
    let facts: Vec<Facts> = records.iter().map(Facts::of).collect();
    let views: Vec<Container<'_>> =
        records.iter().zip(&facts).map(|(record, facts)| facts.view(record)).collect();
    let selected = filters.select(&views)?;
    let shown = selected.into_iter().filter(|index| all || views[*index].state.needs_supervisor());
    let with_size = args.size || format.uses("Size");
    let (now, zone) = (Timestamp::now(), times::zone());
    let rows = shown.take(limit.unwrap_or(usize::MAX)).map(|index| {
        let size = with_size.then(|| facts::size(&store, &records[index].config));
        row(&records[index], &facts[index], size, args.no_trunc, now, &zone)
    });
    let rows: Vec<Row> = rows.collect::<Result<_, _>>()?;
    output::print(&format.render(ContainerRow::TITLES, &rows)?)?;
    Ok(0)
}

/// What a record says in other words.
struct Facts {
    labels: BTreeMap<String, String>,
    images: [String; 1],
    networks: Vec<(String, String)>,
    ports: Vec<Port>,
    mounts: Vec<String>,
}

impl Facts {
    fn of(record: &Record) -> Self {
        Self {
            labels: record.config.labels(),
            images: [record.config.image.name.clone()],
            networks: facts::networks(record),
            ports: facts::ports(record),
            mounts: Vec::new(),
        }
    }

    fn view<'a>(&'a self, Record { config, state }: &'a Record) -> Container<'a> {
        Container {
            id: &config.id,
            name: &config.name,
            labels: &self.labels,
            created: config.created.moment().unwrap_or_default(),
            state: state.status,
            health: Health::None,
            exit_code: exit_code(state.exit_code),
            images: &self.images,
            image_id: &config.image.id,
            mounts: &self.mounts,
            networks: &self.networks,
            ports: &self.ports,
        }
    }
}

fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn row(
    Record { config, state }: &Record,
    facts: &Facts,
    size: Option<facts::Size>,
    whole: bool,
    now: Timestamp,
    zone: &TimeZone,
) -> serde_json::Result<Row> {
    let created = config.created.moment().unwrap_or_default();
    let status = Status {
        state: state.status,
        started: state.started.moment(),
        finished: state.finished.moment(),
        exit_code: exit_code(state.exit_code),
        health: Health::None,
        stalled: state.stalled.is_some(),
    };
    let networks: Vec<&str> = facts.networks.iter().map(|(name, _)| name.as_str()).collect();
    let command = human::command_line(&facts::command_line(config));
    let fields = ContainerRow {
        id: if whole { config.id.clone() } else { human::short_id(&config.id).to_owned() },
        names: config.name.clone(),
        image: config.image.name.clone(),
        command: human::command(&command, whole),
        created_at: times::created_at(created, zone),
        running_for: human::ago(status::elapsed(created, now)),
        ports: ports::ports(&facts.ports),
        state: state.status.name().to_owned(),
        status: status.text(now),
        size: size.map_or_else(|| "0B".to_owned(), size_text),
        labels: human::labels(&facts.labels),
        mounts: facts.mounts.join(","),
        local_volumes: "0".into(),
        networks: networks.join(","),
    };
    Row::new(&fields, facts.labels.clone())
}

/// As Docker: what the container has written, and that with its image.
fn size_text(size: facts::Size) -> String {
    format!("{} (virtual {})", human::size(size.written, 3), human::size(size.written + size.image, 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_dockers_words() {
        let record = facts::tests::record();
        let facts = Facts::of(&record);
        let now = Timestamp::from_second(1_700_000_121).unwrap();
        let size = facts::Size { written: 1_500, image: 4_000_000 };
        let row = row(&record, &facts, Some(size), false, now, &TimeZone::UTC).unwrap();
        let format = r"{{.ID}}|{{.Image}}|{{.Command}}|{{.CreatedAt}}|{{.RunningFor}}|{{.Status}}|{{.Networks}}|{{.Size}}|{{.Labels}}";
        let text = Format::parse(Some(format), "").unwrap().render(ContainerRow::TITLES, &[row]).unwrap();
        assert_eq!(
            text,
            "0123456789ab|nginx|\"/entry serve -v\"|2023-11-14 22:13:20.123456789 +0000 UTC|2 minutes ago|\
             Up 2 minutes|back|1.5kB (virtual 4MB)|tier=front\n"
        );
    }
}
