//! Mounts for real, in namespaces of the tests' own. Needs root.

use std::{fs, future::Future};

use rustix::mount::{MountFlags, mount};

use super::*;
use crate::{paths::Dirs, pod::spec::ReadOnly, privilege};

/// Runs a test in mounts of its own, which are shared among themselves as a host's are.
fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F + Send + 'static) {
    if !privilege::is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let work = move || {
        // SAFETY: changes only what this thread, and those that it starts, see of mounts.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
        let home = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(home.path().canonicalize().unwrap()));
    };
    std::thread::spawn(work).join().unwrap();
}

fn dir(home: &Path) -> RunDir {
    RunDir::create(&Dirs::new(Some(&home.join("husk"))), None).unwrap().0
}

fn volume(home: &Path, name: &str) -> PathBuf {
    let path = home.join(name);
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("file"), name).unwrap();
    path
}

fn tmpfs(path: &Path) {
    fs::create_dir_all(path).unwrap();
    mount("t", path, "tmpfs", MountFlags::empty(), None).unwrap();
}

fn bind(source: PathBuf, read_only: ReadOnly) -> Bind {
    Bind { source, destination: "/x".into(), read_only }
}

/// What the server would see of a file.
async fn seen(share: &Share, path: &str) -> Option<String> {
    let path = share.path.join(path);
    share.namespace.run(move || fs::read_to_string(path).ok()).await.unwrap()
}

async fn write(share: &Share, path: &str) -> Option<i32> {
    let path = share.path.join(path);
    share.namespace.run(move || fs::write(path, "by the guest").err()?.raw_os_error()).await.unwrap()
}

/// Mounts that the host sees below a directory.
fn mounts_in(path: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let prefix = format!("{}/", path.display());
    mounts
        .lines()
        .filter(|line| line.split(' ').nth(4).is_some_and(|point| point.starts_with(&prefix)))
        .count()
}

#[test]
fn the_server_sees_what_is_shared_and_the_host_no_mounts() {
    on_a_host(|home| async move {
        let dir = dir(&home);
        let share = Share::start(&dir).await.unwrap();
        let (root, data, later) = (volume(&home, "root"), volume(&home, "data"), volume(&home, "later"));
        tmpfs(&root.join("sub"));
        fs::write(root.join("sub/deep"), "deep").unwrap();
        tmpfs(&data.join("sub"));
        let binds = vec![
            bind(data.clone(), ReadOnly::Top),
            bind(data.join("file"), ReadOnly::No),
            bind(data.clone(), ReadOnly::All),
            bind(later.clone(), ReadOnly::No),
        ];
        let places = share.add("c", Some(Tree::Directory(root.clone())), binds).await.unwrap();
        assert_eq!(places.root.as_deref(), Some("c/rootfs"));
        assert_eq!(places.binds, [".volumes/0", "c/mounts/1", ".volumes/1", ".volumes/2"]);
        assert_eq!(seen(&share, "c/rootfs/sub/deep").await.as_deref(), Some("deep"));
        assert_eq!(seen(&share, "c/mounts/1").await.as_deref(), Some("data"));
        let refused = Some(libc::EROFS);
        for (path, error) in [
            ("c/rootfs/made", None),
            (".volumes/0/made", refused),
            (".volumes/0/sub/made", None),
            ("c/mounts/1", None),
            (".volumes/1/made", refused),
            (".volumes/1/sub/made", refused),
            // The directory itself can't be filled.
            ("made", refused),
            ("c/made", refused),
            ("c/mounts/4", refused),
        ] {
            assert_eq!(write(&share, path).await, error, "{path}");
        }
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "by the guest");
        // What the host mounts later appears.
        tmpfs(&later.join("volume"));
        fs::write(later.join("volume/new"), "new").unwrap();
        assert_eq!(seen(&share, ".volumes/2/volume/new").await.as_deref(), Some("new"));
        assert_eq!((mounts_in(&dir.join("")), mounts_in(&home)), (0, 3));

        // A second container has the same directory at the same place.
        let places = share.add("second", None, vec![bind(later.clone(), ReadOnly::No)]).await.unwrap();
        assert_eq!((places.root, places.binds), (None, vec![".volumes/2".to_owned()]));

        share.remove("c").await.unwrap();
        share.remove("c").await.unwrap();
        assert_eq!(seen(&share, ".volumes/2/volume/new").await.as_deref(), Some("new"));
        share.remove("second").await.unwrap();
        assert_eq!(seen(&share, "c/rootfs/file").await, None);
        let volumes = share.path.join(VOLUMES);
        assert_eq!(share.namespace.run(move || fs::read_dir(volumes).unwrap().count()).await.unwrap(), 0);
        let left = share.path.clone();
        assert_eq!(share.namespace.run(move || fs::read_dir(left).unwrap().count()).await.unwrap(), 1);
        // The host's own mounts stay, and what is in them.
        assert_eq!(mounts_in(&home), 3);
        assert_eq!(fs::read_to_string(root.join("sub/deep")).unwrap(), "deep");
        assert_eq!(fs::read_to_string(later.join("volume/new")).unwrap(), "new");

        share.add("again", Some(Tree::Directory(root.clone())), vec![]).await.unwrap();
        share.close().await.unwrap();
        drop(dir);
        assert_eq!(fs::read_to_string(root.join("sub/deep")).unwrap(), "deep");
        assert_eq!(fs::read_dir(home.join("husk/run")).unwrap().count(), 2);
    });
}

#[test]
fn one_that_fails_leaves_nothing_behind() {
    on_a_host(|home| async move {
        let dir = dir(&home);
        let share = Share::start(&dir).await.unwrap();
        let root = volume(&home, "root");
        let missing = vec![bind(home.join("missing"), ReadOnly::No)];
        let error = share.add("c", Some(Tree::Directory(root.clone())), missing).await.unwrap_err();
        assert!(matches!(error, Error::Mount { .. }), "{error}");
        let file = Some(Tree::Directory(root.join("file")));
        assert!(share.add("c", file, vec![]).await.is_err());
        // Half of this one is mounted when it fails.
        let overlay = FsMount {
            fs_type: "overlay".into(),
            source: "overlay".into(),
            options: vec!["lowerdir=/no/such/layer".into()],
        };
        let error = share.add("c", Some(Tree::Mounts(vec![overlay])), vec![]).await.unwrap_err();
        assert!(error.to_string().contains("the overlay file system"), "{error}");
        share.remove("c").await.unwrap();
        share.add("c", Some(Tree::Directory(root)), vec![]).await.unwrap();
        assert_eq!(seen(&share, "c/rootfs/file").await.as_deref(), Some("root"));
    });
}
