//! Files of pods: roots and volumes of every kind, and what changes in them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use husk_base::chain;
use husk_sandbox::pod::{DiskSource, FsMount, RootView, RootfsSource};
use husk_tests::{
    pod::{Home, bind, container, exec, run},
    wait::PATIENCE,
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_the_hosts_and_their_changes_arrive() {
    let home = Home::new();
    let pod = home.start("volumes").await;
    let writable = home.volume("writable", "file", "old\n");
    let read_only = home.volume("read-only", "secret", "s3cret\n");
    let hosts = home.volume("etc", "hosts", "127.0.0.1 me\n").join("hosts");
    // As kubelet has a configMap: a link that is replaced.
    let config = home.volume("config/..1", "key", "one\n").parent().unwrap().to_owned();
    symlink("..1", config.join("..data")).unwrap();
    symlink("..data/key", config.join("key")).unwrap();
    let mounts = [
        bind(&writable, "/data", &["rbind", "rprivate", "rw"]),
        bind(&read_only, "/secret", &["rbind", "rprivate", "ro"]),
        bind(&hosts, "/etc/hosts", &["rbind", "rprivate", "rw"]),
        bind(&config, "/config", &["rbind", "rprivate", "ro"]),
    ];
    let script = "echo new > /data/made; chmod 640 /data/made; cat /data/file /secret/secret /etc/hosts /config/key; \
        echo x > /secret/secret; echo more >> /etc/hosts; exec sleep 1000";
    let request = container("c", RootfsSource::Directory(home.busybox("root")), script, &mounts);
    let created = pod.create(request).await.map_err(|error| chain::text(&error)).unwrap();
    pod.start_container("c").await.unwrap();
    let wanted = "old\ns3cret\n127.0.0.1 me\none\n";
    let (mut out, mut seen) = created.streams.stdout.unwrap().into_parts();
    seen.resize(wanted.len(), 0);
    std::io::Read::read_exact(&mut out, &mut seen).unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), wanted);

    let (code, _, err) = exec(&pod, "c", "write", "echo x > /secret/secret").await;
    assert!(code != 0 && err.contains("Read-only file system"), "{err}");
    assert_eq!(fs::read_to_string(read_only.join("secret")).unwrap(), "s3cret\n");
    let made = fs::metadata(writable.join("made")).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o7777), (0, 0o640));
    husk_tests::wait::wait_until("the container's line in hosts", PATIENCE, || {
        fs::read_to_string(&hosts).unwrap() == "127.0.0.1 me\nmore\n"
    });

    // An update: a new directory, the link replaced in one step, the old directory gone.
    home.volume("config/..2", "key", "two\n");
    symlink("..2", config.join("..new")).unwrap();
    fs::rename(config.join("..new"), config.join("..data")).unwrap();
    fs::remove_dir_all(config.join("..1")).unwrap();
    let script = "while [ \"$(cat /config/key)\" != two ]; do sleep 0.1; done; ls -A /config; ls /data";
    assert_eq!(exec(&pod, "c", "update", script).await.1, "..2\n..data\nkey\nfile\nmade\n");
    fs::remove_file(writable.join("file")).unwrap();
    assert_eq!(
        exec(&pod, "c", "gone", "while [ -e /data/file ]; do sleep 0.1; done; ls /data").await.1,
        "made\n"
    );
    pod.delete("c").await.map_err(|error| chain::text(&error)).unwrap();
    assert_eq!(fs::read_to_string(writable.join("made")).unwrap(), "new\n");
    pod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlay_is_mounted_for_the_server_alone_and_keeps_what_was_written() {
    let home = Home::in_memory();
    let pod = home.start("overlay").await;
    // A layer over a base, and so many others that their names do not fit into one call.
    let dir = "snapshots-".repeat(8);
    let volume = |name: &str, file: &str| home.volume(&format!("{dir}/{name}"), file, "of the top layer\n");
    let lower = home.busybox(&format!("{dir}/lower"));
    let between = (0..60).map(|n| volume(&n.to_string(), "x"));
    let layers = std::iter::once(volume("top", "top")).chain(between).chain([lower.clone()]);
    let layers: Vec<String> = layers.map(|path| path.display().to_string()).collect();
    assert!(layers.join(":").len() > 4096);
    let (upper, work) = (home.path().join("upper"), home.path().join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let mount = FsMount {
        fs_type: "overlay".into(),
        source: "overlay".into(),
        options: vec![
            format!("workdir={}", work.display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", layers.join(":")),
        ],
    };
    let rootfs = || RootfsSource::Mounts(vec![mount.clone()]);
    let (code, out, err) =
        run(&pod, container("c", rootfs(), "cat /top; rm /etc/passwd; echo x > /kept", &[])).await;
    assert_eq!((code, out.as_str()), (0, "of the top layer\n"), "{err}");
    assert_eq!(fs::read_to_string(upper.join("kept")).unwrap(), "x\n");
    assert!(lower.join("etc/passwd").exists());
    // As a program of the host sees it that is run before the container is.
    let seen = home.path().join("seen");
    fs::create_dir(&seen).unwrap();
    let view = RootView::open(&rootfs(), &seen, Path::new("/proc/self/ns/net")).await.unwrap();
    let mut cat = tokio::process::Command::new("cat");
    cat.arg(seen.join("kept")).stdout(Stdio::piped());
    let cat = view.spawn(cat).await.unwrap().wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&cat.stdout), "x\n");
    assert!(!seen.join("kept").exists());
    drop(view);
    // As when a container is started again.
    let (_, out, err) = run(&pod, container("c", rootfs(), "cat /kept; ls /etc", &[])).await;
    assert_eq!(out, "x\ngroup\n", "{err}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&home.path().display().to_string()), "{mounts}");
    pod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_image_is_a_root_without_a_mount_on_the_host() {
    let home = Home::new();
    let pod = home.start("disk").await;
    let image = home.path().join("root.img");
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(home.busybox("tree"))
        .arg(&image)
        .arg("64M")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let data = home.volume("data", "file", "of the host\n");
    let disk = |read_only, options: &[&str]| {
        RootfsSource::Disk(DiskSource {
            path: image.clone(),
            fs_type: "ext4".into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            read_only,
        })
    };
    let volume = [bind(&data, "/data", &["rbind", "ro"])];
    let write = "cat /data/file; echo x > /kept && cat /kept";
    for round in 0..3 {
        // One slot is used again and again.
        let (_, out, err) = run(&pod, container("c", disk(false, &["loop"]), write, &volume)).await;
        assert_eq!(out, "of the host\nx\n", "round {round}: {err}");
    }
    let check = "cat /kept; echo y > /kept || echo refused; grep -c ' / ext4 ro' /proc/mounts";
    let (_, out, err) = run(&pod, container("c", disk(true, &[]), check, &[])).await;
    assert_eq!(out, "x\nrefused\n1\n", "{err}");
    // A pod that is stopped with a container in it: what that has written is on the disk all the same.
    pod.create(container("c", disk(false, &[]), "echo z > /last", &[])).await.unwrap();
    pod.start_container("c").await.unwrap();
    assert_eq!(pod.wait("c", "").await.unwrap().code, 0);
    pod.stop().await.unwrap();
    let read = Command::new("debugfs").args(["-R", "cat /last"]).arg(&image).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), "z\n", "{read:?}");
}

/// A file as a block device of this machine.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        // It may be built in.
        let _ = Command::new("modprobe").arg("loop").status();
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(String::from_utf8(made.stdout).unwrap().trim().to_owned())
    }

    fn number(&self) -> (u64, u64) {
        let number = fs::metadata(&self.0).unwrap().rdev();
        (nix::sys::stat::major(number), nix::sys::stat::minor(number))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_device_that_is_allowed_is_a_disk_of_the_machine() {
    let home = Home::in_memory();
    let pod = home.start("block").await;
    let file = home.path().join("disk.img");
    fs::write(&file, "of the host").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_len(1 << 20).unwrap();
    let disk = Loop::new(&file);
    let (major, minor) = disk.number();
    let run_with = async |access: &str, listed_only: bool, script: &str| {
        let mut request = container(
            "c",
            RootfsSource::Directory(home.busybox(&format!("root-{access}{listed_only}"))),
            script,
            &[],
        );
        let mut spec = serde_json::to_value(&request.spec).unwrap();
        spec["linux"]["devices"] =
            json!([{"path": "/dev/xvda", "type": "b", "major": major, "minor": minor, "fileMode": 0o600}]);
        let mut rules = vec![json!({"allow": listed_only, "access": "rwm"})];
        if !listed_only {
            rules.push(json!({"allow": true, "type": "b", "major": major, "minor": minor, "access": access}));
        }
        spec["linux"]["resources"]["devices"] = rules.into();
        request.spec = serde_json::from_value(spec).unwrap();
        run(&pod, request).await
    };
    let content = || {
        let mut seen = [0; 12];
        std::io::Read::read_exact(&mut fs::File::open(&disk.0).unwrap(), &mut seen).unwrap();
        String::from_utf8_lossy(&seen).into_owned()
    };
    // A slot can't say that its disk is read-only: what is written is refused when it gets to the VMM.
    let (_, out, err) = run_with("rm", false, "head -c 11 /dev/xvda; ls /dev/xvda; echo x > /dev/xvda").await;
    assert_eq!(out, "of the host/dev/xvda\n", "{err}");
    assert_eq!(content(), "of the host\0");
    let (_, out, err) = run_with("rwm", false, "echo of the guest > /dev/xvda && head -c 12 /dev/xvda").await;
    assert_eq!(out, "of the guest", "{err}");
    assert_eq!(content(), "of the guest");
    // As privileged containers have them: all devices of the host, and all is allowed.
    let (_, out, err) = run_with("rwm", true, "ls /dev/xvda").await;
    assert!(out.is_empty() && err.contains("No such file"), "{out}{err}");
    pod.stop().await.unwrap();
}
