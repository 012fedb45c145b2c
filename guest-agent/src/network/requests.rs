//! Requests to the kernel about the network, each with what it is about.

use std::{fmt, io};

use husk_base::netlink::{Failed, Request, Socket};
use husk_protocol::agent::Reason;

use super::plan::{Address, Interface, Neighbour, Route};
use crate::failure::Failure;

/// Requests that are sent together.
#[derive(Debug, Default)]
pub(super) struct Requests<'a> {
    request: Request,
    whats: Vec<What<'a>>,
}

impl<'a> Requests<'a> {
    /// Where to put the message for the next request.
    pub(super) fn next(&mut self, what: What<'a>) -> &mut Request {
        self.whats.push(what);
        &mut self.request
    }

    /// Sends all of them, in order. One that is refused does not keep the kernel from those after it; the
    /// first refusal is the error.
    pub(super) fn send(mut self, socket: &Socket) -> Result<(), Failure> {
        if self.whats.is_empty() {
            return Ok(());
        }
        self.request.answer();
        for failed in socket.send_all(&self.request).map_err(|failed| broken(&failed))? {
            let Some(what) = self.whats.get(failed.at) else { return Err(broken(&failed)) };
            if !what.is_done(failed.errno()) {
                return Err(refusal(what, &failed));
            }
        }
        Ok(())
    }
}

/// What a request is about. Completes the sentence "cannot ...".
#[derive(Debug)]
pub(super) enum What<'a> {
    Name(&'a Interface),
    State(&'a Interface),
    Address(&'a str, &'a Address),
    Route(&'a str, &'a Route),
    Neighbour(&'a str, &'a Neighbour),
    Removal,
}

impl What<'_> {
    /// Whether a refusal says that there is nothing to do: the kernel adds no route twice, and what goes with
    /// another thing (a route with its source address) can't be removed after it.
    fn is_done(&self, errno: i32) -> bool {
        match self {
            Self::Route(..) => errno == libc::EEXIST,
            Self::Removal => {
                matches!(errno, libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENOENT | libc::ENXIO)
            }
            _ => false,
        }
    }
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(interface) => write!(f, "call the device {} {}", interface.mac, interface.name),
            Self::State(Interface { name, mtu: Some(mtu), .. }) => {
                write!(f, "bring {name} up with an MTU of {mtu}")
            }
            Self::State(Interface { name, .. }) => write!(f, "bring {name} up"),
            Self::Address(name, address) => write!(f, "add {}/{} to {name}", address.ip, address.length),
            Self::Route(name, route) => {
                write!(f, "add a route to {}/{}", route.destination, route.length)?;
                if let Some(gateway) = route.gateway {
                    write!(f, " by {gateway}")?;
                }
                write!(f, " on {name}")
            }
            Self::Neighbour(name, neighbour) => write!(f, "set the neighbour {} on {name}", neighbour.ip),
            Self::Removal => f.write_str("remove what is not described"),
        }
    }
}

/// The socket itself failed.
pub(super) fn broken(failed: &Failed) -> Failure {
    unusable(&failed.source)
}

/// There is no way to ask the kernel.
pub(super) fn unusable(error: &io::Error) -> Failure {
    Failure::io("cannot speak to the kernel about the network", error)
}

fn refusal(what: &What<'_>, failed: &Failed) -> Failure {
    // What follows from a wrong description. The rest is the machine's fault.
    let reason = match failed.errno() {
        libc::EINVAL | libc::ERANGE | libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL => {
            Reason::INVALID_REQUEST
        }
        libc::EEXIST => Reason::ALREADY_EXISTS,
        _ => Reason::UNSPECIFIED,
    };
    let error = &failed.source;
    let text = match failed.words.as_str() {
        "" => format!("cannot {what}: {error}"),
        words => format!("cannot {what}: {error} ({words})"),
    };
    Failure::new(reason, text)
}
