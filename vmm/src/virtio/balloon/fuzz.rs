//! The balloon's queues, fed with anything; and a host that wants statistics.

use std::sync::Arc;

use super::{
    Balloon,
    engine::{Engine, Role},
    release::Releaser,
};
use crate::{
    config::BalloonConfig,
    fuzzing::guest::{Guest, NEXT, Script, Step, WRITE, buffer},
};

const ROLES: [Role; 4] = [Role::Inflate, Role::Deflate, Role::Stats, Role::Reporting];

/// Achieves as much as there are chains given back.
pub(crate) fn run(data: &[u8]) -> usize {
    let config = BalloonConfig { target_mib: 1, stats: true, free_page_reporting: true, late: false };
    let (Some(mut guest), Ok(balloon)) = (Guest::new(data, 4), Balloon::new(&config, false)) else {
        return 0;
    };
    let Some(activation) = guest.activation() else { return 0 };
    let Ok(mut engine) = Engine::new(activation, &ROLES, Releaser::new(false), Arc::clone(&balloon.shared))
    else {
        return 0;
    };
    while let Some(step) = guest.next() {
        let served = match step {
            Step::Serve => engine.serve().map(drop),
            Step::Host(_) => engine.ask_for_stats(),
        };
        if served.is_err() {
            break;
        }
    }
    guest.used()
}

/// Pages for the balloon and back, statistics asked for twice, and a report.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let numbers: Vec<u8> =
        [4_u32, 5, 6, 15, 16, 0xf_ffff, u32::MAX].iter().flat_map(|page| page.to_le_bytes()).collect();
    let pages = |queue| {
        Script::new(true)
            .store(buffer(0), &numbers)
            .describe(queue, 0, buffer(0).into(), 28, 0, 0)
            .offer(queue, 0)
            .serve()
            .bytes()
    };
    let entry = [4, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let statistics = Script::new(false)
        .store(buffer(0), &entry)
        .describe(2, 0, buffer(0).into(), 10, 0, 0)
        .offer(2, 0)
        .serve()
        .host(0)
        .offer(2, 0)
        .serve()
        .bytes();
    let report = Script::new(true)
        .describe(3, 0, buffer(2).into(), 0x2000, WRITE | NEXT, 1)
        .describe(3, 1, 0x7000, 0x2000, WRITE, 0)
        .offer(3, 0)
        .serve()
        .bytes();
    vec![pages(0), pages(1), statistics, report]
}
