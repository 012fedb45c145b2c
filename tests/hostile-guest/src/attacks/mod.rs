//! The attacks, by name.

use crate::{boot::Memory, device::Devices, random::Random};

mod balloon;
pub(crate) mod block;
mod chains;
mod endings;
mod net;
mod notify;
mod ports;
mod processor;
mod queues;
mod registers;
mod resets;
mod space;
pub(crate) mod vsock;

/// What there is to be attacked.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) devices: Devices,
    pub(crate) memory: Memory,
    pub(crate) random: Random,
}

/// An attack.
type Attack = fn(&Machine);

/// All attacks.
pub(crate) const ATTACKS: [(&str, Attack); 22] = [
    ("registers", registers::sweep),
    ("status", registers::status),
    ("features", registers::features),
    ("config", registers::config),
    ("queues", queues::attack),
    ("chains", chains::recipes),
    ("random-rings", chains::random),
    ("resets", resets::storm),
    ("block", block::attack),
    ("vsock", vsock::attack),
    ("net", net::attack),
    ("balloon", balloon::attack),
    ("notify", notify::storm),
    ("notify-forever", notify::forever),
    ("ports", ports::sweep),
    ("console", ports::console),
    ("cpuid", processor::cpuid),
    ("msrs", processor::msrs),
    ("space", space::sweep),
    ("triple-fault", endings::triple_fault),
    ("execute-device", endings::execute_device),
    ("init-self", endings::init_self),
];
