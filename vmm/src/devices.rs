//! The devices that a configuration asks for, and what steers them while the VM runs.

use std::path::Path;

use crate::{
    boot::cmdline,
    bus::DeviceSlot,
    config::VmConfig,
    counters::Counters,
    error::VmError,
    jail::VISIBLE_DIR,
    socket_files::SocketFiles,
    virtio::{
        VirtioDevice,
        balloon::{Balloon, BalloonHandle},
        block::{Block, Disks},
        fs::Fs,
        net::{Net, Nets, SpareNet},
        rng::Rng,
        vsock::Vsock,
    },
};

/// All devices of a VM.
pub(crate) struct Devices {
    /// In the order of their slots.
    pub(crate) all: Vec<Box<dyn VirtioDevice>>,
    /// So many of them, the first, the guest is told of at its start.
    pub(crate) named: usize,
    pub(crate) handles: Handles,
}

/// What steers the devices of a running VM.
#[derive(Debug, Default)]
pub struct Handles {
    disks: Disks,
    balloon: Option<BalloonHandle>,
    nets: Nets,
}

impl Devices {
    /// Opens all devices. What is to be removed later is added to `sockets`.
    ///
    /// # Errors
    /// Says what could not be had.
    pub(crate) fn open(
        config: &VmConfig,
        counters: &mut Counters,
        sockets: &mut SocketFiles,
    ) -> Result<Self, VmError> {
        let mut all: Vec<Box<dyn VirtioDevice>> = Vec::new();
        let mut handles = Handles::default();
        for disk in &config.disks {
            let block = Block::new(disk)?;
            handles.disks.add_fixed(&block);
            all.push(Box::new(block));
        }
        for config in &config.nets {
            let net = Net::new(config)?;
            counters.nets.insert(config.id.clone(), net.counters());
            handles.nets.add(&net);
            all.push(Box::new(net));
        }
        for config in &config.filesystems {
            let fs = Fs::open(config)?;
            counters.filesystems.insert(config.tag.clone(), fs.counters());
            all.push(Box::new(fs));
        }
        if let Some(vsock) = &config.vsock {
            let ports = match (&config.jail, vsock.socket.file_name()) {
                (Some(_), Some(name)) => Path::new(VISIBLE_DIR).join(name),
                _ => vsock.socket.clone(),
            };
            let device = Vsock::new(vsock.guest_cid, &vsock.socket, ports)?;
            counters.vsock = Some(device.counters());
            all.push(Box::new(device));
            sockets.add(vsock.socket.clone());
        }
        if config.rng {
            let rng = Rng::new();
            counters.rng = Some(rng.counters());
            all.push(Box::new(rng));
        }
        let late = config.balloon.as_ref().is_some_and(|balloon| balloon.late);
        let named = all.len() + usize::from(config.balloon.is_some() && !late);
        let mut slots = (0..).map(DeviceSlot::new).skip(named);
        if let Some(balloon) = &config.balloon {
            let balloon = Balloon::new(balloon, config.memory.shared)
                .map_err(|source| VmError::Os { what: "create an eventfd", source })?;
            let place = if late { slots.next() } else { None };
            let handle = balloon.handle(place.map(cmdline::device));
            counters.balloon = Some(handle.counters());
            handles.balloon = Some(handle);
            all.push(Box::new(balloon));
        }
        for (name, slot) in config.spare_disk_names().zip(slots.by_ref()) {
            let block = Block::spare(&name)?;
            handles.disks.add_spare(&block, cmdline::device(slot));
            all.push(Box::new(block));
        }
        for (name, slot) in config.spare_net_names().zip(slots) {
            let spare = SpareNet::default();
            handles.nets.add_spare(&spare, name, cmdline::device(slot));
            all.push(Box::new(spare));
        }
        counters.disks.extend(handles.disks.counters());
        Ok(Self { all, named, handles })
    }
}

impl Handles {
    /// The disks, to be attached, detached and limited.
    pub fn disks(&mut self) -> &mut Disks {
        &mut self.disks
    }

    /// The balloon, if there is one.
    pub fn balloon(&self) -> Option<&BalloonHandle> {
        self.balloon.as_ref()
    }

    /// The network interfaces, to be limited; [`Vm::attach_net`](crate::vm::Vm::attach_net) attaches one.
    pub fn nets(&mut self) -> &mut Nets {
        &mut self.nets
    }
}
