//! A client of the control socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use husk_base::Mac;
use serde::de::DeserializeOwned;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::{
    control::{Attached, MetricsFormat, Nothing, Request, Response, State},
    rate_limit::RateLimit,
    virtio::balloon::BalloonState,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const MAX_ANSWER: u64 = 1 << 20;

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The VMM is gone, or does not answer in time.
    #[error("the VMM does not answer")]
    Io(#[from] io::Error),
    /// The answer is not one.
    #[error("the VMM's answer makes no sense")]
    Answer(#[from] serde_json::Error),
    /// The VMM refused.
    #[error("the VMM refused: {0}")]
    Refused(String),
}

/// A connection to a VMM's control socket.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let stream = husk_base::socket::connect(path.as_ref()).map_err(io::Error::other)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The VM's state.
    ///
    /// # Errors
    /// As of [`ClientError`]; so for all others.
    pub fn state(&mut self) -> Result<State, ClientError> {
        self.ask(&Request::State {})
    }

    /// The VM's counters.
    ///
    /// # Errors
    /// As of [`ClientError`].
    pub fn metrics(&mut self) -> Result<serde_json::Value, ClientError> {
        self.ask(&Request::Metrics { format: MetricsFormat::Json })
    }

    /// Stops all vCPUs; returns when they have stopped.
    ///
    /// # Errors
    /// As of [`ClientError`].
    pub fn pause(&mut self) -> Result<(), ClientError> {
        self.ask::<Nothing>(&Request::Pause {}).map(drop)
    }

    /// Lets all vCPUs go on.
    ///
    /// # Errors
    /// As of [`ClientError`].
    pub fn resume(&mut self) -> Result<(), ClientError> {
        self.ask::<Nothing>(&Request::Resume {}).map(drop)
    }

    /// What is known of the balloon. Asks the guest for new statistics, too, for the next time.
    ///
    /// # Errors
    /// As of [`ClientError`].
    pub fn balloon(&mut self) -> Result<BalloonState, ClientError> {
        self.ask(&Request::Balloon {})
    }

    /// Asks the guest to give up so much memory in all.
    ///
    /// # Errors
    /// As of [`ClientError`].
    pub fn set_balloon(&mut self, target_mib: u32) -> Result<(), ClientError> {
        self.ask::<Nothing>(&Request::SetBalloon { target_mib }).map(drop)
    }

    /// Changes a network interface's rate limits, those that are given.
    ///
    /// # Errors
    /// As of [`ClientError`].
    pub fn set_net_limit(
        &mut self,
        id: &str,
        rx: Option<RateLimit>,
        tx: Option<RateLimit>,
    ) -> Result<(), ClientError> {
        self.ask::<Nothing>(&Request::SetNetLimit { id: id.into(), rx, tx }).map(drop)
    }

    /// Attaches a network interface on a tap of `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`; returns where it is. There it
    /// stays: a slot is used once. The tap goes when the VM ends, unless others hold it.
    ///
    /// # Errors
    /// As of [`ClientError`]; among others, when there is no free slot, or the id or the address is another interface's.
    pub fn attach_net(
        &mut self,
        id: &str,
        mac: Mac,
        tap: BorrowedFd<'_>,
        mtu: Option<u16>,
        limit_rx: RateLimit,
        limit_tx: RateLimit,
    ) -> Result<Attached, ClientError> {
        self.ask_with_fd(&Request::AttachNet { id: id.to_owned(), mac, mtu, limit_rx, limit_tx }, tap)
    }

    /// Attaches the disk at `path`; returns where it is.
    ///
    /// # Errors
    /// As of [`ClientError`]; among others, when there is no free slot.
    pub fn attach_disk(
        &mut self,
        id: &str,
        path: &Path,
        read_only: bool,
        limit: RateLimit,
    ) -> Result<Attached, ClientError> {
        let (id, path) = (id.to_owned(), Some(path.to_owned()));
        self.ask(&Request::AttachDisk { id, path, read_only, limit })
    }

    /// Attaches a disk by an open descriptor, for a VMM that can open no files.
    ///
    /// # Errors
    /// As of [`ClientError`]; among others, when the descriptor is not open for writing and the disk is not read-only.
    pub fn attach_open_disk(
        &mut self,
        id: &str,
        disk: BorrowedFd<'_>,
        read_only: bool,
        limit: RateLimit,
    ) -> Result<Attached, ClientError> {
        self.ask_with_fd(&Request::AttachDisk { id: id.to_owned(), path: None, read_only, limit }, disk)
    }

    /// Detaches a disk; returns when its file is closed.
    ///
    /// # Errors
    /// As of [`ClientError`]; among others, when there is no such disk.
    pub fn detach_disk(&mut self, id: &str) -> Result<(), ClientError> {
        self.ask::<Nothing>(&Request::DetachDisk { id: id.to_owned() }).map(drop)
    }

    /// Changes how much a disk may do.
    ///
    /// # Errors
    /// As of [`ClientError`]; among others, when there is no such disk.
    pub fn set_disk_limit(&mut self, id: &str, limit: RateLimit) -> Result<(), ClientError> {
        self.ask::<Nothing>(&Request::SetDiskLimit { id: id.to_owned(), limit }).map(drop)
    }

    /// Has all disks that wait for room on the host's file system try again at once.
    ///
    /// # Errors
    /// As of [`ClientError`].
    pub fn retry_disks(&mut self) -> Result<(), ClientError> {
        self.ask::<Nothing>(&Request::RetryDisks {}).map(drop)
    }

    /// Ends the VM at once.
    ///
    /// # Errors
    /// As of [`ClientError`].
    pub fn shutdown(&mut self) -> Result<(), ClientError> {
        self.ask::<Nothing>(&Request::Shutdown {}).map(drop)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        self.stream.get_mut().write_all(&to_bytes(request)?)?;
        self.answer()
    }

    fn ask_with_fd<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        fd: BorrowedFd<'_>,
    ) -> Result<T, ClientError> {
        let line = to_bytes(request)?;
        // The descriptor goes with the first bytes that are taken, however many these are.
        let sent = self.stream.get_ref().send_with_fd(&line[..], fd.as_raw_fd()).map_err(io::Error::from)?;
        self.stream.get_mut().write_all(&line[sent..])?;
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let mut answer = Vec::new();
        (&mut self.stream).take(MAX_ANSWER).read_until(b'\n', &mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_slice(&answer)? {
            Response::Ok(value) => Ok(value),
            Response::Error(reason) => Err(ClientError::Refused(reason)),
        }
    }
}

fn to_bytes(request: &Request) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::{io::Seek, os::fd::AsFd, os::unix::net::UnixListener};

    use super::*;
    use crate::control::{StallReason, StalledDisk, Status};

    /// A VMM that answers with one fixed line, and then says no more.
    fn answering(line: &'static str) -> (tempfile::TempDir, UnixStream, Client) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control")).unwrap();
        let client = Client::connect(dir.path().join("control")).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        (dir, stream, client)
    }

    #[test]
    fn a_state_is_understood() {
        let (_dir, _vmm, mut client) = answering(concat!(
            r#"{"ok":{"status":"paused","vcpus":2,"mem_size_mib":256,"started_ns":1,"configured_ns":2,"#,
            r#""first_instruction_ns":3,"stalled_disks":[{"id":"scratch","reason":"no_space"}]}}"#,
            "\n"
        ));
        let state = client.state().unwrap();
        let scratch = StalledDisk { id: "scratch".into(), reason: StallReason::NoSpace };
        assert_eq!(state.stalled_disks, [scratch]);
        assert_eq!(state.status, Status::Paused);
        assert_eq!([state.started_ns, state.configured_ns, state.first_instruction_ns], [1, 2, 3]);
    }

    #[test]
    fn an_interface_is_attached_by_its_tap() {
        let (_dir, vmm, mut client) =
            answering("{\"ok\":{\"slot\":\"sparenet0\",\"device\":\"4K@0xd0003000:8\"}}\n");
        let mut tap = tempfile::tempfile().unwrap();
        tap.write_all(b"the tap").unwrap();
        let mac = Mac::local([0, 0, 0, 0, 1]);
        let no_limit = RateLimit::default();
        let attached = client.attach_net("eth1", mac, tap.as_fd(), Some(1400), no_limit, no_limit).unwrap();
        let expected = Attached { slot: "sparenet0".into(), device: "4K@0xd0003000:8".into() };
        assert_eq!(attached, expected);
        let mut line = [0; 1000];
        let (len, passed) = vmm.recv_with_fd(&mut line).unwrap();
        let request: Request = serde_json::from_slice(&line[..len]).unwrap();
        let (id, mtu) = ("eth1".into(), Some(1400));
        assert_eq!(request, Request::AttachNet { id, mac, mtu, limit_rx: no_limit, limit_tx: no_limit });
        let (mut passed, mut text) = (passed.unwrap(), String::new());
        passed.rewind().unwrap();
        passed.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the tap");
    }

    #[test]
    fn failures_are_told_apart() {
        let (_dir, _vmm, mut client) = answering("{\"error\":\"no\"}\n");
        assert!(matches!(client.pause(), Err(ClientError::Refused(reason)) if reason == "no"));
        let (_dir, _vmm, mut client) = answering("nonsense\n");
        assert!(matches!(client.pause(), Err(ClientError::Answer(_))));
        let (_dir, _vmm, mut client) = answering("");
        assert!(matches!(client.pause(), Err(ClientError::Io(_))));
        assert!(matches!(Client::connect("/nonexistent"), Err(ClientError::Io(_))));
    }
}
