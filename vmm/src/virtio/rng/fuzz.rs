//! The queue of random numbers, fed with anything.

use super::{super::serve::Server, fill};
use crate::fuzzing::guest::{Guest, INDIRECT, NEXT, Script, WRITE, buffer};

/// Achieves as much as there are chains given back.
pub(crate) fn run(data: &[u8]) -> usize {
    let Some(mut guest) = Guest::new(data, 1) else { return 0 };
    let Some(Ok(mut server)) = guest.activation().map(Server::new) else { return 0 };
    while guest.next().is_some() {
        if server.serve_batch(&mut fill).is_err() {
            break;
        }
    }
    guest.used()
}

/// A plain request, one in pieces across regions, one by an indirect table, and more of them than there are descriptors.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let plain =
        |event_idx| Script::new(event_idx).describe(0, 0, buffer(0).into(), 64, WRITE, 0).offer(0, 0).serve();
    let pieces = Script::new(true)
        .describe(0, 3, 0x7ff0, 100, WRITE | NEXT, 5)
        .describe(0, 5, buffer(1).into(), 200, WRITE, 0)
        .offer(0, 3)
        .serve();
    let indirect = Script::new(true)
        .describe(0, 0, 0x400, 32, INDIRECT, 0)
        .describe(1, 0, buffer(0).into(), 8, WRITE | NEXT, 1)
        .describe(1, 1, buffer(1).into(), 8, WRITE, 0)
        .offer(0, 0)
        .serve();
    vec![
        plain(false).bytes(),
        plain(true).bytes(),
        pieces.bytes(),
        indirect.bytes(),
        plain(true).jump(0, 100).serve().bytes(),
    ]
}
