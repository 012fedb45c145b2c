//! tc redirection between two interfaces: what comes in at one goes out at the other, before the namespace's own stack
//! sees it, so that stack neither answers ARP nor TCP for addresses that are now the guest's.
//!
//! The filter is `u32` with a mask of nothing, rather than `matchall`: it does the same, and more kernels have it.

use rtnetlink::{Error, Handle, packet_route::tc::TcHandle};

use super::netlink::errno;

/// `ETH_P_ALL`, in network byte order.
const EVERY_PROTOCOL: u16 = 3u16.to_be();
/// The parent of an ingress qdisc's filters: `ffff:`.
pub(super) const INGRESS: u32 = 0xffff_0000;

/// Redirects both ways.
///
/// # Errors
/// What the kernel said; `ENODEV` when one of the two is gone.
pub(super) async fn connect(handle: &Handle, one: u32, other: u32) -> Result<(), Error> {
    tokio::try_join!(redirect(handle, one, other), redirect(handle, other, one))?;
    Ok(())
}

/// Ends the redirection from an interface, which may be gone, or never have had one.
///
/// # Errors
/// What the kernel said.
pub(super) async fn disconnect(handle: &Handle, index: u32) -> Result<(), Error> {
    match remove_ingress(handle, index).await {
        Err(error) if matches!(errno(&error), libc::ENODEV | libc::ENOENT | libc::EINVAL) => Ok(()),
        result => result,
    }
}

async fn redirect(handle: &Handle, from: u32, to: u32) -> Result<(), Error> {
    let index = from.cast_signed();
    match handle.qdisc().add(index).ingress().execute().await {
        // Of a husk that was killed: its filter points to a tap that is gone.
        Err(error) if errno(&error) == libc::EEXIST => {
            remove_ingress(handle, from).await?;
            handle.qdisc().add(index).ingress().execute().await?;
        }
        result => result?,
    }
    let filter = handle.traffic_filter(index).add().parent(INGRESS).protocol(EVERY_PROTOCOL);
    filter.redirect(to)?.execute().await
}

async fn remove_ingress(handle: &Handle, index: u32) -> Result<(), Error> {
    let mut request = handle.qdisc().del(index.cast_signed());
    request.message_mut().header.parent = TcHandle::INGRESS;
    request.execute().await
}
