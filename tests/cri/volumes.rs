//! Volumes: as a kubelet prepares them on the node, and as containers see them.

use std::{
    fs::{self, File, Permissions},
    os::unix::{
        fs::{FileExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Command,
};

use husk_tests::{
    containerd::assert_nothing_left,
    process::Running,
    wait::{PATIENCE, wait_until},
};
use k8s_cri::v1::{Device, Mount, MountPropagation};
use nix::mount::{MntFlags, MsFlags, mount as mount_here, umount2};

use crate::fixture::{Pod, mount};

const HERE: &str = "/lab/disk/kubelet";

fn directory(name: &str) -> PathBuf {
    let path = Path::new(HERE).join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

fn volume(host_path: &Path, container_path: &str) -> Mount {
    mount(host_path.to_str().unwrap(), container_path)
}

fn read_only(host_path: &Path, container_path: &str) -> Mount {
    Mount { readonly: true, ..volume(host_path, container_path) }
}

fn tmpfs(on: &Path, options: &str) {
    mount_here(Some("tmpfs"), on, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
}

/// Writes a version of a configMap or secret in the way of a kubelet, which no reader sees half of.
fn write_version(dir: &Path, version: &str, entries: &[(&str, &str)]) {
    let data = dir.join(format!("..{version}"));
    fs::create_dir(&data).unwrap();
    for (name, text) in entries {
        fs::write(data.join(name), text).unwrap();
        fs::set_permissions(data.join(name), Permissions::from_mode(0o644)).unwrap();
        let _ = symlink(format!("..data/{name}"), dir.join(name));
    }
    let old = fs::read_link(dir.join("..data")).ok();
    symlink(format!("..{version}"), dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if !name.starts_with("..") && !entries.iter().any(|(there, _)| *there == name) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old)).unwrap();
    }
}

#[test]
fn volumes_are_what_they_are_on_the_node() {
    let config = directory("config");
    write_version(&config, "1", &[("key", "one\n"), ("gone", "soon\n")]);
    let secret = directory("secret");
    tmpfs(&secret, "size=1m");
    write_version(&secret, "1", &[("token", "s3cret\n")]);
    let (disk, memory, shared) = (directory("disk"), directory("memory"), directory("shared"));
    tmpfs(&memory, "size=1m");
    mount_here(Some(&shared), &shared, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    mount_here(None::<&str>, &shared, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    let (hosts, log) = (Path::new(HERE).join("hosts"), Path::new(HERE).join("termination-log"));
    fs::write(&hosts, "127.0.0.1 localhost\n10.1.2.3 other\n").unwrap();
    fs::write(&log, "").unwrap();
    let listener = UnixListener::bind(disk.join("of-the-node")).unwrap();

    let pod = Pod::run("volumes", |_| {});
    let mounts = vec![
        read_only(&config, "/config"),
        read_only(&secret, "/secret"),
        read_only(&config.join("..data/key"), "/etc/app/key"),
        volume(&disk, "/disk"),
        volume(&memory, "/memory"),
        Mount {
            propagation: MountPropagation::PropagationHostToContainer.into(),
            ..volume(&shared, "/shared")
        },
        volume(&hosts, "/etc/hosts"),
        volume(&log, "/dev/termination-log"),
    ];
    let container = pod.idle("reader", |config| config.mounts = mounts.clone());
    assert_eq!(container.says("cat /config/key /secret/token /etc/app/key"), "one\ns3cret\none");
    for dir in ["/config", "/secret"] {
        assert!(container.exec(&format!("touch {dir}/x")).2.contains("Read-only file system"), "{dir}");
    }
    assert!(container.exec("echo x > /etc/app/key").2.contains("Read-only file system"));
    assert_eq!(container.says("grep other /etc/hosts; stat -c %a /config/key"), "10.1.2.3 other\n777");
    container.says("echo it ended so > /dev/termination-log");
    assert_eq!(fs::read_to_string(&log).unwrap(), "it ended so\n");

    // Updates arrive whole, deletions, too; what is bound as a file stays the file that it was.
    write_version(&config, "2", &[("key", "two\n"), ("new", "there\n")]);
    wait_until("the update", PATIENCE, || container.exec("cat /config/key /config/new").1 == "two\nthere\n");
    assert_eq!(container.says("ls /config"), "key\nnew");
    assert_eq!(container.says("cat /etc/app/key"), "one");
    fs::write(&hosts, "127.0.0.1 localhost\n10.1.2.4 moved\n").unwrap();
    wait_until("the other hosts", PATIENCE, || container.exec("grep -c moved /etc/hosts").1 == "1\n");

    // On disk and in memory, seen from both sides, and limited where the node limits it.
    container.says("echo from-pod > /disk/a; mkdir /disk/dir; ln -s a /disk/link; chown 1234:5678 /disk/a");
    assert_eq!(fs::read_to_string(disk.join("link")).unwrap(), "from-pod\n");
    fs::write(disk.join("b"), "from-node").unwrap();
    assert_eq!(container.says("cat /disk/b; stat -c %u:%g /disk/a"), "from-node1234:5678");
    let full = container.exec("dd if=/dev/zero of=/memory/file bs=64k count=64");
    assert!(full.0 != 0 && full.2.contains("No space left on device"), "{full:?}");
    assert_eq!(container.says("df -k /memory | awk 'END {print $2}'"), "1024");

    // What the node mounts there later.
    fs::create_dir(shared.join("late")).unwrap();
    tmpfs(&shared.join("late"), "size=1m");
    fs::write(shared.join("late/file"), "mounted later").unwrap();
    wait_until("the later mount", PATIENCE, || container.exec("cat /shared/late/file").1 == "mounted later");
    umount2(&shared.join("late"), MntFlags::MNT_DETACH).unwrap();
    wait_until("it to be gone", PATIENCE, || container.exec("cat /shared/late/file").0 != 0);

    // What a container mounts stays in it, whatever it asks for.
    let bidirectional = pod.idle("bidirectional", |config| {
        let both = MountPropagation::PropagationBidirectional.into();
        config.mounts = vec![Mount { propagation: both, ..volume(&shared, "/shared") }];
    });
    assert_eq!(bidirectional.says("ls -d /shared"), "/shared");

    // Two containers with the same volumes: files, FIFOs and sockets.
    let second = pod.idle("second", |config| config.mounts = mounts.clone());
    assert_eq!(second.says("cat /disk/a"), "from-pod");
    container.says("echo changed > /disk/a");
    assert_eq!(second.says("cat /disk/a"), "changed");
    container.says("mkfifo /disk/fifo; sh -c 'echo through > /disk/fifo' >/dev/null 2>&1 &");
    assert_eq!(second.try_exec("cat /disk/fifo", 60).unwrap().1, "through\n");
    container
        .says("ln -s /disk/log /dev/log; syslogd -O /messages; while [ ! -S /disk/log ]; do sleep 0.1; done");
    second.says("ln -s /disk/log /dev/log; logger by a socket");
    wait_until("the message", PATIENCE, || container.exec("grep -c 'by a socket' /messages").1 == "1\n");

    // A socket of the node has nobody at its other end here; as a volume it is refused.
    assert_eq!(container.says("[ -S /disk/of-the-node ] && echo there"), "there");
    let refused = pod.try_container("socket", "true", |config| {
        config.mounts = vec![volume(&disk.join("of-the-node"), "/run/socket")];
    });
    let refused = refused.err().unwrap();
    assert!(refused.message().contains("socket"), "{refused}");
    drop(listener);
    pod.remove();
    assert_nothing_left();
    for dir in [&secret, &memory, &shared] {
        umount2(dir.as_path(), MntFlags::empty()).unwrap();
    }
}

#[test]
fn block_volumes_are_devices() {
    let image = directory("").join("block");
    let file = File::create(&image).unwrap();
    file.set_len(16 << 20).unwrap();
    let found = Running::start(Command::new("losetup").args(["--find", "--show"]).arg(&image)).finish();
    let device = found.expect_code(0).out().trim().to_owned();
    let pod = Pod::run("block", |_| {});
    let container = pod.idle("writer", |config| {
        config.devices = vec![Device {
            host_path: device.clone(),
            container_path: "/dev/xvda".into(),
            permissions: "rwm".into(),
        }];
    });
    assert_eq!(container.says("blockdev --getsize64 /dev/xvda"), (16 << 20).to_string());
    container.says("printf block | dd of=/dev/xvda bs=1 seek=4096 conv=fsync,notrunc 2>/dev/null");
    pod.remove();
    assert_nothing_left();
    Running::start(Command::new("losetup").args(["--detach", &device])).finish().expect_code(0);
    let mut there = [0; 5];
    File::open(&image).unwrap().read_exact_at(&mut there, 4096).unwrap();
    assert_eq!(&there, b"block");
}
