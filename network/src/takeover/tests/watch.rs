//! Changes after the beginning.

use super::*;

/// The next update for which `wanted` gives something; others on the way are only steps towards it.
async fn until<T>(takeover: &mut Takeover, wanted: impl Fn(Update) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(takeover.next().await.unwrap()) {
            return found;
        }
    }
}

#[test]
fn interfaces_addresses_and_routes_that_come_later_are_noticed() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("addr add 10.9.0.2/24 dev eth0");
    block_on(async {
        let (mut takeover, nics) = Takeover::begin(pod.open()).unwrap();
        let first = nics[0].interface.mac;

        pod.ip("link add eth1 type veth peer name other");
        pod.ip("link set eth1 address 02:00:00:00:0e:02 up");
        let added = until(&mut takeover, |update| match update {
            Update::Added(nic) if nic.interface.name == "eth1" => Some(nic),
            _ => None,
        });
        let nic = added.await;
        assert_eq!(nic.interface.mac.to_string(), "02:00:00:00:0e:02");

        pod.ip("addr add 10.8.0.2/24 dev eth1");
        pod.ip("route add 10.7.0.0/16 via 10.8.0.1");
        pod.ip("link set eth1 mtu 1280");
        until(&mut takeover, |update| match update {
            Update::Changed(one) => (one.mac == nic.interface.mac
                && one.mtu == 1280
                && prefixes(&one) == ["10.8.0.2/24"]
                && one.routes.iter().any(|route| route.destination.to_string() == "10.7.0.0/16"))
            .then_some(()),
            _ => None,
        })
        .await;
        assert!(pod.ip("-o link show hkt1").contains("mtu 1280"), "the tap follows");

        pod.ip("route del 10.7.0.0/16 via 10.8.0.1");
        until(&mut takeover, |update| match update {
            Update::Changed(one) if one.mac == nic.interface.mac => one.routes.is_empty().then_some(()),
            _ => None,
        })
        .await;

        // Renamed under us: the redirection goes by number, and stays.
        pod.ip("link set eth1 down");
        pod.ip("link set eth1 name net1");
        pod.ip("link set net1 up");
        until(&mut takeover, |update| match update {
            Update::Added(Nic { interface, .. }) | Update::Changed(interface) => {
                (interface.name == "net1").then_some(())
            }
            Update::Removed(_) => None,
        })
        .await;

        pod.ip("link del eth0");
        until(&mut takeover, |update| matches!(update, Update::Removed(mac) if mac == first).then_some(()))
            .await;
        takeover.release().await.unwrap();
    });
}

#[test]
fn the_wait_can_be_cancelled() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    block_on(async {
        let (mut takeover, _nics) = Takeover::begin(pod.open()).unwrap();
        pod.ip("addr add 10.9.0.2/24 dev eth0");
        // Given up ever later: what was begun is not lost.
        let mut turns = 0;
        let found = loop {
            turns += 1;
            let give_up = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            };
            let polled = tokio::select! {
                biased;
                update = takeover.next() => Some(update.unwrap()),
                () = give_up => None,
            };
            if let Some(Update::Changed(one)) = polled
                && !prefixes(&one).is_empty()
            {
                break one;
            }
        };
        assert_eq!(prefixes(&found), ["10.9.0.2/24"]);
    });
}
