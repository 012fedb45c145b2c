use std::os::unix::fs::symlink;

use super::*;
use crate::{
    container::ContainerOptions,
    network::{NetworkMode, NetworkPlan},
    pod_id,
};

struct Home {
    store: Store,
    dirs: Dirs,
    _root: tempfile::TempDir,
}

fn home() -> Home {
    let root = tempfile::tempdir().unwrap();
    let dirs = Dirs::new(Some(root.path()));
    Home { store: Store::open(&dirs).unwrap(), dirs, _root: root }
}

impl Home {
    fn config(&self, name: &str) -> Config {
        Config {
            version: VERSION,
            id: pod_id::new(&self.dirs).unwrap(),
            name: name.into(),
            created: Timestamp::now(),
            image: ImageInfo { name: "busybox".into(), id: "sha256:1".into(), disk: "/d".into() },
            image_config: Default::default(),
            options: ContainerOptions { args: vec!["true".into()], ..Default::default() },
            network: NetworkPlan::none("box"),
            restart: RestartPolicy::OnFailure(Some(3)),
            log: Default::default(),
            auto_remove: false,
            storage_mib: 16,
            timeout_s: 30,
            kernel: None,
        }
    }

    fn create(&self, name: &str) -> Config {
        let config = self.config(name);
        self.store.create(&config).unwrap();
        config
    }

    fn set(&self, id: &str, status: Status) {
        let state = State { status, pod: id.into(), ..State::default() };
        self.store.write_state(id, &state).unwrap();
    }
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    let home = home();
    let config = home.create("one");
    let record = home.store.get(&config.id).unwrap();
    assert_eq!(record.config, config);
    assert_eq!((record.state.status, &record.state.pod), (Status::Created, &config.id));
}

#[test]
fn containers_are_found_by_name_id_and_the_ids_beginning() {
    let home = home();
    let (one, two) = (home.create("one"), home.create("two"));
    for name in ["one", &one.id, &one.id[..10]] {
        assert_eq!(home.store.find(name).unwrap(), one.id, "{name}");
    }
    for name in ["three", "", ".", "../x", "a/b", "on"] {
        assert!(matches!(home.store.find(name), Err(Error::NoContainer { .. })), "{name}");
    }
    let List { records, broken } = home.store.list().unwrap();
    let names: Vec<_> = records.iter().map(|record| record.config.name.as_str()).collect();
    assert_eq!((names, broken.len()), (vec!["two", "one"], 0));
    assert_ne!(one.id[..6], two.id[..6]);
}

#[test]
fn a_name_is_one_containers_until_it_is_removed_or_renamed() {
    let home = home();
    let one = home.create("one");
    let error = home.store.create(&home.config("one")).unwrap_err();
    assert!(matches!(&error, Error::NameInUse { id, .. } if *id == one.id), "{error}");
    assert_eq!(home.store.list().unwrap().records.len(), 1);
    home.store.rename(&one.id, "other").unwrap();
    assert_eq!(home.store.find("other").unwrap(), one.id);
    let second = home.create("one");
    assert!(home.store.rename(&second.id, "other").is_err());
    home.store.remove(&one.id).unwrap();
    home.store.rename(&second.id, "other").unwrap();
    assert_eq!(home.store.find("other").unwrap(), second.id);
    assert!(home.store.find("one").is_err());
}

#[test]
fn a_link_that_a_crash_left_means_nothing() {
    let home = home();
    let one = home.create("one");
    // Half of a rename, and the name of a container that is gone.
    symlink(&one.id, home.store.names.join("half")).unwrap();
    symlink("f".repeat(64), home.store.names.join("gone")).unwrap();
    for name in ["half", "gone"] {
        assert!(home.store.find(name).is_err(), "{name}");
        home.create(name);
    }
}

#[test]
fn that_a_container_runs_is_not_believed_without_its_pods_lock() {
    let home = home();
    let one = home.create("one");
    home.set(&one.id, Status::Running);
    let state = home.store.get(&one.id).unwrap().state;
    assert_eq!((state.status, state.exit_code), (Status::Exited, LOST));
    let dir = rundir::RunDir::of_container(&home.dirs, &one.id).unwrap().0;
    assert_eq!(home.store.get(&one.id).unwrap().state.status, Status::Running);
    drop(dir);
}

#[test]
fn what_was_to_be_removed_is_removed_when_its_supervisor_was_killed() {
    let home = home();
    let (mut kept, mut removed) = (home.config("kept"), home.config("removed"));
    (kept.auto_remove, removed.auto_remove) = (false, true);
    for config in [&kept, &removed] {
        home.store.create(config).unwrap();
        home.set(&config.id, Status::Running);
        rundir::RunDir::of_container(&home.dirs, &config.id).unwrap().0.hand_over();
    }
    remove_orphans(&home.dirs, &rundir::clean_up(&home.dirs).unwrap());
    assert!(home.store.get(&kept.id).is_ok());
    assert!(home.store.find("removed").is_err() && !home.store.dir(&removed.id).exists());
}

#[test]
fn records_that_can_not_be_read_are_told_and_hide_no_others() {
    let home = home();
    let (good, short, newer) = (home.create("good"), home.create("short"), home.create("newer"));
    let path = |config: &Config| home.store.dir(&config.id).join(CONFIG);
    let text = fs::read(path(&short)).unwrap();
    fs::write(path(&short), &text[..text.len() / 2]).unwrap();
    let text = fs::read_to_string(path(&newer)).unwrap();
    fs::write(path(&newer), text.replacen("\"version\":1", "\"version\":99", 1)).unwrap();
    let List { records, broken } = home.store.list().unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].config.id, good.id);
    let text: String = broken.iter().map(|(_, error)| husk_base::chain::text(error)).collect();
    assert!(text.contains("is damaged") && text.contains("version 99"), "{text}");
    // Both can be removed.
    for config in [short, newer] {
        home.store.remove(&config.id).unwrap();
        assert!(!home.store.dir(&config.id).exists());
    }
    assert_eq!(
        fs::read_dir(&home.store.names).unwrap().flatten().filter(|e| e.path().is_symlink()).count(),
        1
    );
}

#[test]
fn half_made_and_half_removed_containers_go_with_the_next_ones_creation() {
    let home = home();
    for prefix in [NEW, REMOVED] {
        let one = home.create("one");
        let half = home.store.containers.join(format!("{prefix}{}", one.id));
        fs::rename(home.store.dir(&one.id), &half).unwrap();
        assert!(home.store.find("one").is_err() && home.store.list().unwrap().records.is_empty());
        let next = home.create("one");
        assert!(!half.exists());
        home.store.remove(&next.id).unwrap();
    }
}

#[test]
fn names_of_networks_container_are_known() {
    let home = home();
    let mut config = home.config("joined");
    assert_eq!(config.joins(), None);
    config.network.options.mode = NetworkMode::Container("owner".into());
    assert_eq!(config.joins(), Some("owner"));
}

#[test]
fn a_random_name_is_made_of_the_id() {
    let home = home();
    let id = pod_id::new(&home.dirs).unwrap();
    let name = home.store.random_name(&id);
    assert!(name.contains('_') && name == home.store.random_name(&id), "{name}");
    home.create(&name);
    assert_ne!(home.store.random_name(&id), name);
}

#[test]
fn a_lock_is_held_by_one_client() {
    let home = home();
    let one = home.create("one");
    let locked = home.store.lock(&one.id).unwrap();
    let path = home.store.dir(&one.id).join(LOCK);
    assert!(husk_base::lock::try_lock_file(&path).unwrap().is_none());
    drop(locked);
    assert!(husk_base::lock::try_lock_file(&path).unwrap().is_some());
    assert!(home.store.lock(&"0".repeat(64)).is_err());
}

#[tokio::test]
async fn the_removal_of_a_container_can_be_waited_for() {
    let home = home();
    let one = home.create("one");
    let removed = home.store.removed(&one.id);
    let remove = async { home.store.remove(&one.id) };
    let (waited, removal) = tokio::join!(removed, remove);
    waited.and(removal).unwrap();
    home.store.removed(&one.id).await.unwrap();
}

#[test]
fn of_containers_that_do_not_run_only_that_is_read() {
    let home = home();
    let [one, two] = ["one", "two"].map(|name| home.create(name));
    home.set(&one.id, Status::Running);
    fs::write(home.store.dir(&two.id).join(CONFIG), "{").unwrap();
    let List { records, broken } = home.store.running().unwrap();
    let ids: Vec<_> = records.iter().map(|record| &record.config.id).collect();
    // It is said to run, but its pod is not there.
    assert_eq!((ids, broken.len()), (vec![&one.id], 0));
    assert_eq!(records[0].state.status, Status::Exited);
    assert_eq!(home.store.list().unwrap().broken.len(), 1);
}
