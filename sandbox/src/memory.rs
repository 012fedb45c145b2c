//! Memory that a guest does not use any more goes back to the host.
//!
//! The guest's balloon reports what has been free for some seconds, and the VMM gives that away. The guest is told of its balloon when
//! it has run for a while: no start waits for it, and those that end soon do without.

use std::{path::PathBuf, sync::Weak, time::Duration};

use husk_vmm::client::Client;
use tokio::{task::spawn_blocking, time::sleep};

use crate::guest::Guest;

/// How long a guest runs before.
const AFTER: Duration = Duration::from_secs(1);

/// Tells the guest of its balloon, by the VMM's control socket, after a while. It may be gone by then.
pub(crate) async fn give_back(control: PathBuf, guest: Weak<Guest>) {
    sleep(AFTER).await;
    let asked = spawn_blocking(move || Client::connect(control)?.balloon()).await;
    let Some(place) = asked.ok().and_then(Result::ok).and_then(|balloon| balloon.device) else { return };
    if let Some(guest) = guest.upgrade() {
        // Without it the guest keeps what it has.
        let _ = guest.plug_in(vec![place]).await;
    }
}
