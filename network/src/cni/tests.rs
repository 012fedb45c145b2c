mod faults;
mod real;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use super::*;
use crate::{
    netns,
    testing::{Sandboxed, block_on},
};

/// A place for plugins and records, and a container's namespace.
struct Host {
    _own: Sandboxed,
    dir: tempfile::TempDir,
    cni: Cni,
}

impl Host {
    fn new() -> Option<Self> {
        let own = Sandboxed::enter()?;
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "netns"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        netns::create(&dir.path().join("netns/pod")).unwrap();
        let cni = Cni {
            plugin_dirs: vec![dir.path().join("bin"), "/usr/lib/cni".into()],
            record_dir: dir.path().join("records"),
            timeout: Duration::from_secs(60),
        };
        Some(Self { _own: own, dir, cni })
    }

    fn netns(&self) -> PathBuf {
        self.dir.path().join("netns/pod")
    }

    fn runtime(&self) -> Runtime {
        Runtime::new("c1", self.netns(), "eth0")
    }

    /// A plugin that notes each call, then runs a script.
    fn script(&self, name: &str, script: &str) {
        let path = self.dir.path().join("bin").join(name);
        let log = self.log_path().display().to_string();
        let text = format!(
            "#!/bin/sh\ncat >\"$0.$CNI_COMMAND.in\"\necho \"$CNI_COMMAND {name}\" >>{log}\n{script}\n"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The calls so far.
    fn log(&self) -> Vec<String> {
        fs::read_to_string(self.log_path()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// What a plugin got on its standard input.
    fn input(&self, plugin: &str, command: &str) -> serde_json::Value {
        let path = self.dir.path().join("bin").join(format!("{plugin}.{command}.in"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn records(&self) -> usize {
        fs::read_dir(&self.cni.record_dir).map_or(0, Iterator::count)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = netns::remove(&self.netns());
    }
}

fn config(version: &str, plugins: &str) -> NetworkConfig {
    let text = format!(r#"{{"cniVersion": "{version}", "name": "net", "plugins": [{plugins}]}}"#);
    NetworkConfig::parse(text.as_bytes(), Path::new("test.conflist")).unwrap()
}
