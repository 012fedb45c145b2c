//! `husk stats`

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use husk_protocol::agent::StatsResponse;
use husk_sandbox::{
    paths::Dirs,
    sizing,
    store::{Config, List, Store},
};
use husk_supervisor::Pod;
use tokio::task::JoinSet;

use crate::{
    args::StatsArgs,
    human,
    list::{Format, Row, rows::StatsRow},
    output,
};

const EVERY: Duration = Duration::from_secs(1);
/// Clears a terminal, and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";
const MIB: u64 = 1 << 20;

pub(crate) async fn run(dirs: &Dirs, args: &StatsArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref(), StatsRow::TABLE)?;
    let store = Store::open(dirs)?;
    // A wrong name is an error at once; later, containers may go.
    let ids: Vec<String> = args.containers.iter().map(|name| store.find(name)).collect::<Result<_, _>>()?;
    let clear = !args.no_stream && args.format.is_none() && io::stdout().is_terminal();
    let mut before = sample_all(dirs, &store, &chosen(&store, args, &ids)?).await;
    loop {
        // Shares are of a time: the first table needs two looks.
        tokio::time::sleep(EVERY).await;
        let shown = chosen(&store, args, &ids)?;
        let now = sample_all(dirs, &store, &shown).await;
        let rows = shown
            .iter()
            .map(|config| row(config, before.get(&config.id), now.get(&config.id), args.no_trunc));
        let rows: Vec<Row> = rows.collect::<Result<_, _>>()?;
        let table = format.render(StatsRow::TITLES, &rows)?;
        output::print(&if clear { format!("{CLEAR}{table}") } else { table })?;
        if args.no_stream {
            return Ok(0);
        }
        before = now;
    }
}

/// The containers that are shown now.
fn chosen(store: &Store, args: &StatsArgs, ids: &[String]) -> anyhow::Result<Vec<Config>> {
    if !ids.is_empty() {
        // One that is gone is left out.
        return Ok(ids.iter().filter_map(|id| store.config(id).ok()).collect());
    }
    let List { records, .. } = store.list()?;
    let wanted = records.into_iter().filter(|record| args.all || record.state.status.needs_supervisor());
    Ok(wanted.map(|record| record.config).collect())
}

/// What a container uses, at some moment.
struct Sample {
    at: Instant,
    stats: StatsResponse,
}

/// Asks all containers at once: one whose guest does not answer does not hold up the others longer than it must.
async fn sample_all(dirs: &Dirs, store: &Store, containers: &[Config]) -> HashMap<String, Sample> {
    let mut asked = JoinSet::new();
    for id in containers.iter().map(|config| config.id.clone()) {
        let Ok(Some(pod)) = Pod::of(dirs, store, &id) else { continue };
        asked.spawn(async move {
            let stats = tokio::time::timeout(EVERY, pod.stats(&id)).await;
            stats.ok()?.ok().map(|stats| (id, Sample { at: Instant::now(), stats }))
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

fn row(
    config: &Config,
    before: Option<&Sample>,
    now: Option<&Sample>,
    whole: bool,
) -> serde_json::Result<Row> {
    let id = if whole { config.id.clone() } else { human::short_id(&config.id).to_owned() };
    let mut fields = StatsRow { container: id.clone(), id, name: config.name.clone(), ..StatsRow::default() };
    match now {
        Some(now) => fill(&mut fields, config, before, now),
        None => {
            // As Docker: of what does not run, nothing is known.
            for field in [&mut fields.cpu_perc, &mut fields.mem_perc, &mut fields.pids] {
                *field = "--".into();
            }
            for field in [&mut fields.mem_usage, &mut fields.net_io, &mut fields.block_io] {
                *field = "-- / --".into();
            }
        }
    }
    Row::new(&fields, BTreeMap::new())
}

fn fill(fields: &mut StatsRow, config: &Config, before: Option<&Sample>, now: &Sample) {
    let stats = &now.stats;
    fields.cpu_perc = human::percent(before.map_or(0.0, |before| cpu_percent(before, now)));
    let inactive = stats.memory_stat.get("inactive_file").copied().unwrap_or_default();
    // Docker does not count what the kernel keeps of files and can drop.
    let used = stats.memory_current_bytes.saturating_sub(inactive);
    let machine = || u64::from(sizing::mem_size_mib(config.options.memory_bytes).unwrap_or_default()) * MIB;
    let limit = if stats.memory_limit_bytes == 0 { machine() } else { stats.memory_limit_bytes };
    fields.mem_usage = format!("{} / {}", human::bytes_size(used), human::bytes_size(limit));
    fields.mem_perc = human::percent(share(used, limit) * 100.0);
    fields.net_io = "-- / --".into();
    fields.block_io =
        format!("{} / {}", human::size(stats.io_read_bytes, 3), human::size(stats.io_write_bytes, 3));
    fields.pids = stats.pids_current.to_string();
}

/// 100 is a whole CPU.
fn cpu_percent(before: &Sample, now: &Sample) -> f64 {
    let used_us = now.stats.cpu_usage_us.saturating_sub(before.stats.cpu_usage_us);
    let passed = now.at.saturating_duration_since(before.at).as_micros();
    share(used_us, u64::try_from(passed).unwrap_or(u64::MAX)) * 100.0
}

fn share(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let share = part as f64 / whole.max(1) as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, cpu_usage_us: u64) -> Sample {
        let stats = StatsResponse {
            cpu_usage_us,
            memory_current_bytes: 48 * MIB,
            memory_limit_bytes: 64 * MIB,
            memory_stat: [("inactive_file".to_owned(), 16 * MIB)].into(),
            io_read_bytes: 1_500_000,
            pids_current: 3,
            ..StatsResponse::default()
        };
        Sample { at, stats }
    }

    fn shown(before: Option<&Sample>, now: Option<&Sample>) -> String {
        let config = crate::facts::tests::record().config;
        let format =
            "{{.ID}} {{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}} {{.NetIO}} {{.BlockIO}} {{.PIDs}}";
        let row = row(&config, before, now, false).unwrap();
        Format::parse(Some(format), "").unwrap().render(StatsRow::TITLES, &[row]).unwrap()
    }

    #[test]
    fn shares_are_of_the_time_between_two_looks() {
        let begin = Instant::now();
        let (before, now) = (sample(begin, 1_000_000), sample(begin + Duration::from_secs(2), 4_000_000));
        assert_eq!(
            shown(Some(&before), Some(&now)),
            "0123456789ab web 150.00% 32MiB / 64MiB 50.00% -- / -- 1.5MB / 0B 3\n"
        );
        assert!(shown(None, Some(&now)).contains(" 0.00% "));
    }

    #[test]
    fn nothing_is_known_of_what_does_not_run() {
        assert_eq!(shown(None, None), "0123456789ab web -- -- / -- -- -- / -- -- / -- --\n");
    }
}
