//! The packets of a guest, fed with anything; and host processes that connect, write, read and go away.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::OnceLock,
};

use super::{
    engine::Engine,
    header::{HEADER_LEN, HOST_CID, Header, Op, TYPE_STREAM},
    host,
};
use crate::{
    fuzzing::guest::{Guest, NEXT, Script, Step, WRITE, buffer},
    virtio::ActiveQueue,
};

const GUEST_CID: u32 = 3;
/// The port of the host where somebody listens.
const PORT: u32 = 10;
/// Most host processes at a time.
const MAX_PEERS: usize = 8;

/// What the host has, once for the life of the process.
struct Host {
    /// Where host processes connect to.
    address: SocketAddr,
    device: UnixListener,
    /// What the paths of the host's ports begin with.
    ports: PathBuf,
    /// On port [`PORT`].
    port: UnixListener,
}

fn host() -> Option<&'static Host> {
    static HOST: OnceLock<Option<Host>> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = format!("husk-fuzz-{}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&dir).ok()?;
        let ports = dir.join("vsock");
        let address = SocketAddr::from_abstract_name(&name).ok()?;
        let device = UnixListener::bind_addr(&address).ok()?;
        let port = host::port_path(&ports, PORT);
        // Left by another process of that number.
        let _ = std::fs::remove_file(&port);
        let port = UnixListener::bind(port).ok()?;
        device.set_nonblocking(true).ok()?;
        port.set_nonblocking(true).ok()?;
        Some(Host { address, device, ports, port })
    })
    .as_ref()
}

/// Achieves as much as there are chains given back.
pub(crate) fn run(data: &[u8]) -> usize {
    let (Some(mut guest), Some(host)) = (Guest::new(data, 3), host()) else { return 0 };
    let Some(activation) = guest.activation() else { return 0 };
    let Ok([rx, tx, _events]) = ActiveQueue::all(activation.queues) else { return 0 };
    let kicks = [&rx.kick, &tx.kick].map(|kick| kick.try_clone().ok());
    let Ok(listener) = host.device.try_clone() else { return 0 };
    let sides = (listener, host.ports.clone());
    let Ok(mut engine) = Engine::new(
        activation.mem,
        rx,
        tx,
        activation.interrupt,
        GUEST_CID,
        sides,
        std::sync::Arc::default(),
    ) else {
        return 0;
    };
    let mut peers = Vec::new();
    while let Some(step) = guest.next() {
        match step {
            Step::Host(what) => act(host, &mut peers, what),
            Step::Serve => {
                kicks.iter().flatten().for_each(|kick| _ = kick.write(1));
                if engine.turn(0).is_err() {
                    break;
                }
            }
        }
    }
    // The next guest is to find nobody waiting.
    drop(peers);
    while host.port.accept().is_ok() {}
    while host.device.accept().is_ok() {}
    guest.used()
}

/// The lower bits say what, the others who.
fn act(host: &Host, peers: &mut Vec<UnixStream>, what: u8) {
    let count = peers.len().max(1);
    let who = usize::from(what >> 3) % count;
    match what & 7 {
        0 | 1 if peers.len() < MAX_PEERS => {
            let peer = if what & 1 == 0 {
                UnixStream::connect_addr(&host.address).ok()
            } else {
                host.port.accept().ok().map(|(peer, _)| peer)
            };
            let Some(peer) = peer.filter(|peer| peer.set_nonblocking(true).is_ok()) else { return };
            if what & 1 == 0 {
                let _ = (&peer).write(b"CONNECT 5\n");
            }
            peers.push(peer);
        }
        2 => _ = peers.get(who).map(|mut peer| peer.write(&[what; 3000])),
        3 => _ = peers.get(who).map(|mut peer| peer.read(&mut [0; 5000])),
        4 => _ = peers.get(who).map(|peer| peer.shutdown(Shutdown::Write)),
        5 if who < peers.len() => drop(peers.swap_remove(who)),
        6 => _ = peers.get(who).map(|mut peer| peer.write(b"CONNECT")),
        _ => {}
    }
}

fn packet(op: Op, guest_port: u32, host_port: u32, len: u32, flags: u32) -> [u8; HEADER_LEN] {
    let header = Header {
        src_cid: GUEST_CID.into(),
        dst_cid: HOST_CID,
        src_port: guest_port,
        dst_port: host_port,
        len,
        kind: TYPE_STREAM,
        op: op.to_raw(),
        flags,
        buf_alloc: 4096,
        fwd_cnt: 0,
    };
    header.to_bytes()
}

/// A driver that gives buffers and sends these packets, each followed by what the host does.
fn conversation(packets: &[([u8; HEADER_LEN], u32, &[u8])]) -> Vec<u8> {
    let mut script = Script::new(true);
    for slot in 0..8 {
        script = script.describe(0, slot, u32::from(buffer(0)) + u32::from(slot) * 0x200, 0x200, WRITE, 0);
        script = script.offer(0, slot.into());
    }
    for (header, data_len, host) in packets {
        script = script
            .store(buffer(4), header)
            .describe(1, 0, buffer(4).into(), 44, NEXT, 1)
            .describe(1, 1, buffer(5).into(), *data_len, 0, 0)
            .offer(1, 0)
            .serve();
        script = host.iter().fold(script, |script, what| script.host(*what)).serve();
    }
    script.bytes()
}

/// A refused connection; one with data in both directions that is closed by either side; one of a host process; nonsense.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    const FIRST_HOST_PORT: u32 = 1 << 30;
    let refused = conversation(&[(packet(Op::Request, 1, 99, 0, 0), 0, &[])]);
    let closed_by_guest = conversation(&[
        (packet(Op::Request, 1, PORT, 0, 0), 0, &[1, 2]),
        (packet(Op::Data, 1, PORT, 100, 0), 100, &[3, 2]),
        (packet(Op::CreditRequest, 1, PORT, 0, 0), 0, &[2]),
        (packet(Op::CreditUpdate, 1, PORT, 0, 0), 0, &[2]),
        (packet(Op::Shutdown, 1, PORT, 0, 3), 0, &[3]),
        (packet(Op::Reset, 1, PORT, 0, 0), 0, &[]),
    ]);
    let closed_by_host = conversation(&[
        (packet(Op::Request, 1, PORT, 0, 0), 0, &[1, 2, 4]),
        (packet(Op::Data, 1, PORT, 100, 0), 100, &[5]),
        (packet(Op::Data, 1, PORT, 100, 0), 100, &[]),
    ]);
    let from_host = conversation(&[
        (packet(Op::Reset, 1, 1, 0, 0), 0, &[0]),
        (packet(Op::Response, 5, FIRST_HOST_PORT, 0, 0), 0, &[2, 3]),
        (packet(Op::Shutdown, 5, FIRST_HOST_PORT, 0, 1), 0, &[2, 4, 5]),
    ]);
    let nonsense =
        conversation(&[([0xff; HEADER_LEN], 0, &[6]), (packet(Op::Data, 1, PORT, u32::MAX, 9), 0x8000, &[])]);
    vec![refused, closed_by_guest, closed_by_host, from_host, nonsense]
}
