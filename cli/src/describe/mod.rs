//! Descriptions of containers, images and networks as Docker's `inspect` has them: records in, JSON out.

mod config;
mod host_config;
mod image;
mod network;
mod networks;
mod state;

use std::path::Path;

use husk_sandbox::store::{Record, Timestamp};
use serde_json::{Value, json};

pub(crate) use self::{image::image, networks::network};
use crate::{
    facts::{self, Size},
    times,
};

/// What Docker says for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// What keeps containers' files: unpacked images and a writable disk above them.
pub(crate) const DRIVER: &str = "disks";

/// Where a container's files are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'a> {
    /// Its directory.
    pub(crate) dir: &'a Path,
    /// Its log.
    pub(crate) log: &'a Path,
    /// The disk with what it has written.
    pub(crate) scratch: &'a Path,
}

/// A container.
pub(crate) fn container(record: &Record, files: Files<'_>, size: Option<Size>) -> Value {
    let Record { config, state } = record;
    let mut line = facts::command_line(config).into_iter();
    let path = line.next().unwrap_or_default();
    let mut description = json!({
        "Id": config.id,
        "Created": time(config.created),
        "Path": path,
        "Args": line.collect::<Vec<_>>(),
        "State": state::state(state),
        "Image": config.image.id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": log_path(record, files),
        "Name": format!("/{}", config.name),
        "RestartCount": state.restarts,
        "Driver": DRIVER,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config::host_config(config),
        "GraphDriver": {
            "Name": DRIVER,
            "Data": { "Image": config.image.disk, "Scratch": files.scratch, "Directory": files.dir },
        },
        "Mounts": [],
        "Config": config::config(config),
        "NetworkSettings": network::settings(record),
    });
    if let Some(size) = size {
        description["SizeRw"] = size.written.into();
        description["SizeRootFs"] = (size.written + size.image).into();
    }
    description
}

fn log_path(record: &Record, files: Files<'_>) -> Value {
    match record.config.log.driver() {
        husk_sandbox::logs::Driver::None => "".into(),
        _ => json!(files.log),
    }
}

fn time(at: Timestamp) -> String {
    at.moment().map_or_else(|| NEVER.to_owned(), times::rfc3339_nano)
}

/// `null` for an empty list, as Go has it.
fn list(items: &[String]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::record;

    const FILES: fn() -> Files<'static> = || Files {
        dir: Path::new("/c"),
        log: Path::new("/c/x-json.log"),
        scratch: Path::new("/c/scratch.img"),
    };

    #[test]
    fn a_container_has_dockers_fields() {
        let described = container(&record(), FILES(), None);
        for (pointer, expected) in [
            ("/Created", json!("2023-11-14T22:13:20.123456789Z")),
            ("/Path", json!("/entry")),
            ("/Args", json!(["serve", "-v"])),
            ("/Name", json!("/web")),
            ("/Image", json!(format!("sha256:{}", "f".repeat(64)))),
            ("/LogPath", json!("/c/x-json.log")),
            ("/State/Status", json!("running")),
            ("/State/Running", json!(true)),
            ("/State/Pid", json!(42)),
            ("/State/StartedAt", json!("2023-11-14T22:13:21Z")),
            ("/State/FinishedAt", json!(NEVER)),
            ("/HostConfig/Memory", json!(64 << 20)),
            ("/HostConfig/NanoCpus", json!(1_500_000_000)),
            ("/HostConfig/RestartPolicy", json!({ "Name": "on-failure", "MaximumRetryCount": 3 })),
            ("/HostConfig/NetworkMode", json!("back")),
            ("/HostConfig/LogConfig", json!({ "Type": "json-file", "Config": {} })),
            ("/Config/Env", json!(["A=user", "PATH=/bin"])),
            ("/Config/Entrypoint", json!(["/entry"])),
            ("/Config/Cmd", json!(["serve", "-v"])),
            ("/Config/ExposedPorts", json!({ "80/tcp": {}, "443/tcp": {} })),
            ("/Config/Labels", json!({ "tier": "front" })),
            ("/Config/Hostname", json!("0123456789ab")),
            ("/NetworkSettings/IPAddress", json!("10.1.2.3")),
            ("/NetworkSettings/Networks/back/IPPrefixLen", json!(24)),
            ("/NetworkSettings/Networks/back/Gateway", json!("10.1.2.1")),
            ("/NetworkSettings/Networks/back/GlobalIPv6Address", json!("fd00::3")),
            ("/NetworkSettings/Networks/back/IPv6Gateway", json!("fd00::1")),
            ("/NetworkSettings/Networks/back/NetworkID", json!("abcd")),
            ("/NetworkSettings/Networks/back/Aliases", json!(["db"])),
            ("/NetworkSettings/Ports/443~1tcp", Value::Null),
            (
                "/NetworkSettings/Ports/80~1tcp",
                json!([{ "HostIp": "0.0.0.0", "HostPort": "8080" }, { "HostIp": "::", "HostPort": "8080" }]),
            ),
        ] {
            assert_eq!(described.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert_eq!(described.get("SizeRw"), None);
    }

    #[test]
    fn sizes_are_there_when_they_are_wanted() {
        let described = container(&record(), FILES(), Some(Size { written: 5, image: 10 }));
        assert_eq!((&described["SizeRw"], &described["SizeRootFs"]), (&json!(5), &json!(15)));
    }

    #[test]
    fn a_container_that_has_ended_has_no_addresses() {
        let mut record = record();
        record.state.status = husk_sandbox::store::Status::Exited;
        record.state.exit_code = 137;
        record.state.endpoints.clear();
        record.state.ports.clear();
        let described = container(&record, FILES(), None);
        assert_eq!(described["State"]["ExitCode"], 137);
        assert_eq!(described["State"]["Running"], false);
        assert_eq!(described["NetworkSettings"]["IPAddress"], "");
        assert_eq!(described["NetworkSettings"]["Networks"]["back"]["IPAddress"], "");
        assert_eq!(described["NetworkSettings"]["Ports"], json!({}));
    }
}
