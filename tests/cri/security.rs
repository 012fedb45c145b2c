//! Security contexts: what Kubernetes says of a container's rights holds in the guest.

use std::{fs, path::Path};

use husk_tests::containerd::assert_nothing_left;
use k8s_cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, Mount, SecurityProfile,
    security_profile::ProfileType,
};

use crate::fixture::{Container, Pod, with_security};

const PROFILE: &str = "/var/lib/kubelet/seccomp/no-mkdir.json";
const PROFILE_TEXT: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;
/// What containers have if nothing is said.
const USUAL_CAPABILITIES: &str = "00000000a80425fb";

fn profile(kind: ProfileType, file: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref: file.into() })
}

fn status(container: &Container, name: &str) -> String {
    container.says(&format!("awk '/^{name}:/ {{print $2}}' /proc/self/status"))
}

fn confined(pod: &Pod, name: &str, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Container {
    pod.idle(name, |config| with_security(config, change))
}

#[test]
fn security_contexts_hold() {
    fs::create_dir_all("/var/lib/kubelet/seccomp").unwrap();
    fs::write(PROFILE, PROFILE_TEXT).unwrap();
    let pod = Pod::run("security", |_| {});

    let user = confined(&pod, "user", |context| {
        context.run_as_user = Some(Int64Value { value: 1000 });
        context.run_as_group = Some(Int64Value { value: 3000 });
        context.supplemental_groups = vec![4000, 5000];
        context.no_new_privs = true;
        context.readonly_rootfs = true;
        context.seccomp = profile(ProfileType::RuntimeDefault, "");
    });
    // Those of the image's /etc/group, too, as Kubernetes' policy "Merge" has it.
    assert_eq!(user.says("id -u; id -g; id -G"), "1000\n3000\n3000 2000 2001 4000 5000");
    assert_eq!((status(&user, "NoNewPrivs").as_str(), status(&user, "Seccomp").as_str()), ("1", "2"));
    assert_eq!(user.says("awk '/^(NoNewPrivs|Seccomp):/ {print $2}' /proc/1/status"), "1\n2");
    assert_eq!(status(&user, "CapEff"), "0000000000000000");
    assert!(user.exec("touch /file /tmp/file").2.contains("Read-only file system"));
    // A port below 1024 needs no rights in a pod.
    assert_eq!(user.exec("httpd -p 81 -h /etc"), (0, String::new(), String::new()));
    // What the default profile forbids.
    assert!(user.exec("unshare -U true").2.contains("Operation not permitted"));

    let usual = pod.idle("usual", |_| {});
    assert_eq!(
        (status(&usual, "CapEff").as_str(), status(&usual, "Seccomp").as_str()),
        (USUAL_CAPABILITIES, "0")
    );
    let changed = confined(&pod, "changed", |context| {
        context.capabilities = Some(Capability {
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["CHOWN".into()],
            ..Default::default()
        });
        context.seccomp = profile(ProfileType::Localhost, PROFILE);
        context.masked_paths = vec!["/proc/keys".into(), "/proc/acpi".into(), "/sys/firmware".into()];
        context.readonly_paths = vec!["/proc/sys".into(), "/proc/bus".into()];
    });
    assert_eq!(status(&changed, "CapEff"), "00000000a80435fa");
    assert!(changed.exec("chown 1 /tmp").2.contains("Operation not permitted"));
    assert_eq!(changed.exec("ip link add dummy type dummy || ip link set lo down && ip link set lo up").0, 0);
    assert!(changed.exec("mkdir /new").2.contains("Function not implemented"));
    assert_eq!(changed.says("cat /proc/keys; ls /sys/firmware"), "");
    assert!(changed.exec("echo 1 > /proc/sys/vm/swappiness").2.contains("Read-only file system"));
    let none = confined(&pod, "none", |context| {
        context.capabilities =
            Some(Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
        context.seccomp = profile(ProfileType::Unconfined, "");
    });
    assert_eq!(
        (status(&none, "CapBnd").as_str(), status(&none, "Seccomp").as_str()),
        ("0000000000000000", "0")
    );
    pod.remove();
    assert_nothing_left();
}

#[test]
fn privileged_means_all_powers_inside_and_none_outside() {
    let pod = Pod::run("privileged", |config| {
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    });
    let disk = Path::new("/lab/disk/overlay");
    fs::create_dir_all(disk).unwrap();
    let container = pod.idle("all", |config| {
        with_security(config, |context| context.privileged = true);
        config.mounts = vec![Mount {
            container_path: "/disk".into(),
            host_path: disk.display().to_string(),
            ..Mount::default()
        }];
    });
    let all = container.says("awk '/^CapEff:/ {print $2}' /proc/self/status");
    assert!(all.ends_with("fffffffff"), "{all}");
    // File systems of its own, as a container engine in a pod makes them.
    container.says("mkdir /space && mount -t tmpfs tmpfs /space");
    for dir in ["/space", "/disk"] {
        let said = container.says(&format!(
            "cd {dir} && mkdir upper work all lower lower/dir && touch lower/gone lower/dir/old \
             && mount -t overlay overlay -o lowerdir={dir}/lower:/etc,upperdir={dir}/upper,workdir={dir}/work all \
             && echo changed > all/passwd && rm -r all/gone all/dir && mkdir all/dir && chown 5:6 all/group \
             && [ ! -e all/gone ] && ls all/dir && cat upper/passwd && stat -c %u:%g upper/group && umount all",
        ));
        assert_eq!(said, "changed\n5:6", "{dir}");
    }
    fs::remove_dir_all(disk).unwrap();
    let swappiness = fs::read_to_string("/proc/sys/vm/swappiness").unwrap();
    assert_eq!(container.says("echo 7 > /proc/sys/vm/swappiness; cat /proc/sys/vm/swappiness"), "7");
    assert_eq!(fs::read_to_string("/proc/sys/vm/swappiness").unwrap(), swappiness);
    assert_eq!(
        container
            .says("mknod /tmp/null c 1 3 && echo x > /tmp/null && mkdir /sys/fs/cgroup/mine && echo made"),
        "made"
    );
    // None of the node's disks, processes or memory.
    assert_eq!(container.says("ls /dev/loop0 /dev/vda /dev/sda 2>/dev/null | wc -l"), "0");
    assert_ne!(
        container.says("cat /proc/sys/kernel/random/boot_id"),
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim()
    );
    assert_eq!(container.exec("ps | grep -c '[c]ontainerd'").1, "0\n");
    pod.remove();
    assert_nothing_left();
}
