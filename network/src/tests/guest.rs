//! A guest without a VM: a namespace whose only interface is connected to a sandbox's tap, frame by frame.

use std::{
    fs::File,
    io::{Read, Write},
    thread,
};

use husk_base::Mac;

use super::namespace::{Namespace, ip};
use crate::{Nic, link};

/// More than a frame with its virtio header.
const BUFFER: usize = 70_000;

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) namespace: Namespace,
}

impl Guest {
    /// Does what VMM and agent do with a NIC.
    pub(super) fn new(nic: Nic) -> Self {
        let namespace = Namespace::new().unwrap();
        let interface = nic.interface;
        let end = namespace.run(|| {
            let name = &interface.name;
            let tap = link::make_tap(name).unwrap();
            ip(&format!("link set {name} address {} mtu {} up", interface.mac, interface.mtu));
            for address in &interface.addresses {
                let nodad = if address.ip.addr().is_ipv6() { "nodad" } else { "" };
                ip(&format!("address add {} dev {name} {nodad}", address.ip));
            }
            for route in &interface.routes {
                ip(&format!("route add default via {}", route.gateway.unwrap()));
            }
            for neighbour in &interface.neighbours {
                ip(&format!(
                    "neighbour add {} lladdr {} dev {name}",
                    neighbour.ip,
                    Mac::new(neighbour.mac).unwrap()
                ));
            }
            File::from(tap)
        });
        let tap = File::from(nic.tap);
        pump(tap.try_clone().unwrap(), end.try_clone().unwrap());
        pump(end, tap);
        Self { namespace }
    }
}

/// Copies frames until one of the two is gone; the thread is left to itself.
fn pump(mut from: File, mut to: File) {
    thread::spawn(move || {
        let mut frame = vec![0; BUFFER];
        while let Ok(len) = from.read(&mut frame) {
            // An interface that is down takes nothing; one that is gone ends the reading.
            let _ = to.write(&frame[..len]);
        }
    });
}
