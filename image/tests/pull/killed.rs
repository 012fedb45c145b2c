//! `kill -9` in the middle of a pull: the next one goes on, and nothing stays behind.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc;

use husk_image::{PullOptions, Store, pull};

use crate::fixture::{Puller, TestImage};
use crate::server::{Delivery, Server, registry_reply};

const STORE: &str = "HUSK_TEST_STORE";
const NAME: &str = "HUSK_TEST_NAME";

#[tokio::test]
async fn the_next_pull_goes_on() {
    let made = TestImage::new(&[200_000, 100_000]);
    for stage in [
        "/manifests/",
        &format!("{}", husk_image::Digest::of(&made.config)),
        &made.layer_digest(0).to_string(),
    ] {
        let puller = Puller::new();
        let (stalled, when_stalled) = mpsc::channel();
        let stalled = Mutex::new(stalled);
        let (image, part) = (made.clone(), stage.to_owned());
        let server = Server::start(move |request| {
            let reply = registry_reply(&image, request);
            if request.path.contains(&part) {
                let _ = stalled.lock().unwrap().send(());
                return reply.delivery(Delivery::StallAfter(100));
            }
            reply
        });
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "killed::inside", "--ignored"])
            .env(STORE, puller.store.root())
            .env(NAME, format!("{}/x", server.host))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        when_stalled.recv().unwrap();
        // SIGKILL.
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(puller.store.list().unwrap(), []);

        let image = made.clone();
        let good = Server::start(move |request| registry_reply(&image, request));
        let pulled = puller.pull(&format!("{}/x", good.host)).await.unwrap();
        puller.check(&pulled, &made);
        let blobs = fs::read_dir(puller.store.root().join("blobs/sha256")).unwrap().count();
        assert_eq!(blobs, 4);
    }
}

#[tokio::test]
#[ignore = "started by the test above, to be killed"]
async fn inside() {
    let store = Store::open(Path::new(&env::var(STORE).expect("started by the test above"))).unwrap();
    let reference = env::var(NAME).unwrap().parse().unwrap();
    let options = PullOptions { docker_config: None, ..PullOptions::default() };
    pull(&store, &reference, &options, &|_| {}).await.unwrap();
}
