//! `husk info`

use std::{collections::HashSet, fs};

use husk_image::Store as Images;
use husk_sandbox::{
    check,
    paths::Dirs,
    store::{List, Status, Store},
};
use serde_json::{Value, json};

use crate::{
    args::InfoArgs,
    describe, human, output,
    template::{Subject, Template},
};

pub(crate) fn run(dirs: &Dirs, args: &InfoArgs) -> anyhow::Result<u8> {
    let info = collect(dirs)?;
    match args.format.as_deref() {
        None => output::print(&text(&info))?,
        Some("json") => output::print_line(&info.to_string())?,
        Some(template) => output::print_line(&Template::parse(template)?.render(Subject::Document(&info))?)?,
    }
    Ok(0)
}

/// What is known of husk and the machine, by Docker's names.
fn collect(dirs: &Dirs) -> anyhow::Result<Value> {
    let List { records, broken } = Store::open(dirs)?.list()?;
    let count =
        |wanted: &[Status]| records.iter().filter(|record| wanted.contains(&record.state.status)).count();
    let (running, paused) = (count(&[Status::Running, Status::Restarting]), count(&[Status::Paused]));
    let images: HashSet<_> =
        Images::open(&dirs.images())?.list()?.into_iter().map(|image| image.config_digest).collect();
    let kvm = check::kvm();
    let system = nix::sys::utsname::uname()?;
    let part = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let memory = nix::sys::sysinfo::sysinfo()?.ram_total();
    Ok(json!({
        "Containers": records.len() + broken.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": records.len() + broken.len() - running - paused,
        "Images": images.len(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Driver": describe::DRIVER,
        "DriverStatus": [["Backing Filesystem", backing(dirs)]],
        "LoggingDriver": "json-file",
        "CgroupVersion": "2",
        "Runtimes": { "husk": { "path": "husk-vmm" } },
        "DefaultRuntime": "husk",
        "KVM": kvm.ok,
        "KVMStatus": kvm.found,
        "KernelVersion": part(system.release()),
        "OperatingSystem": operating_system(),
        "OSType": "linux",
        "Architecture": part(system.machine()),
        "NCPU": std::thread::available_parallelism()?.get(),
        "MemTotal": memory,
        "Name": part(system.nodename()),
        "DockerRootDir": dirs.data,
        "RunDir": dirs.run,
    }))
}

/// The file system of the data directory, by mount(8)'s name.
fn backing(dirs: &Dirs) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let data = fs::canonicalize(&dirs.data).unwrap_or_else(|_| dirs.data.clone());
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let deepest = fields.filter(|(dir, _)| data.starts_with(dir)).max_by_key(|(dir, _)| dir.len());
    deepest.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

fn operating_system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn text(info: &Value) -> String {
    let value = |name: &str| match &info[name] {
        Value::String(text) => text.clone(),
        Value::Bool(usable) => if *usable { "usable" } else { "not usable" }.to_owned(),
        Value::Number(bytes) if name == "MemTotal" => human::bytes_size(bytes.as_u64().unwrap_or_default()),
        other => other.to_string(),
    };
    let filesystem = info.pointer("/DriverStatus/0/1").and_then(Value::as_str).unwrap_or_default();
    let mut text = String::new();
    for (title, name) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("KVM", "KVM"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("Total Memory", "MemTotal"),
        ("Name", "Name"),
        ("Root Dir", "DockerRootDir"),
        ("Run Dir", "RunDir"),
    ] {
        text += &format!("{title}: {}\n", value(name));
        if name == "Driver" {
            text += &format!(" Backing Filesystem: {filesystem}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_dockers_titles() {
        let info = json!({
            "Containers": 3,
            "KVM": true,
            "MemTotal": 1_u64 << 31,
            "Driver": "disks",
            "DriverStatus": [["Backing Filesystem", "ext4"]],
        });
        let text = text(&info);
        for line in [
            "Containers: 3",
            "KVM: usable",
            "Total Memory: 2GiB",
            "Storage Driver: disks",
            " Backing Filesystem: ext4",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
        }
    }

    #[test]
    fn an_empty_machine_can_be_described() {
        let root = tempfile::tempdir().unwrap();
        let info = collect(&Dirs::new(Some(root.path()))).unwrap();
        assert_eq!((&info["Containers"], &info["Images"]), (&json!(0), &json!(0)));
        assert!(info["MemTotal"].as_u64().unwrap() > 0 && info["NCPU"].as_u64().unwrap() > 0);
    }
}
