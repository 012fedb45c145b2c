//! Runs the chain of a network's plugins, and keeps ADD and DEL balanced.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use husk_base::atomic;
use serde_json::{Value, json};

use super::{
    Dns, Error, NetworkConfig, Result, Runtime,
    plugin::{Call, shown},
    record::Record,
    result,
};

const PLUGIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// A plugin may wait for a DHCP server, or for the lock of iptables.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where plugins and records are.
#[derive(Debug, Clone)]
pub struct Cni {
    /// Where plugins are looked for, in order.
    pub plugin_dirs: Vec<PathBuf>,
    /// Where records are kept; made when needed.
    pub record_dir: PathBuf,
    /// How long one plugin may take.
    pub timeout: Duration,
}

/// A container's place in a network.
#[derive(Debug, Clone)]
pub struct Attachment {
    record: Record,
    /// What the network says about name resolution.
    pub dns: Dns,
}

impl Cni {
    /// Plugins from the usual places, and from `CNI_PATH` before those.
    pub fn new(record_dir: &Path) -> Self {
        let mut plugin_dirs: Vec<PathBuf> = std::env::var_os("CNI_PATH")
            .map(|dirs| std::env::split_paths(&dirs).filter(|dir| dir.is_absolute()).collect())
            .unwrap_or_default();
        plugin_dirs.extend(PLUGIN_DIRS.map(PathBuf::from));
        Self { plugin_dirs, record_dir: record_dir.into(), timeout: TIMEOUT }
    }

    /// ADD: joins a network. If a plugin fails, everything is undone by the whole chain's DEL. If that fails, too, the
    /// record stays for [`repair`](Self::repair).
    ///
    /// # Errors
    /// The first plugin's that failed, or that the container has such an interface already.
    pub async fn add(&self, config: NetworkConfig, runtime: Runtime) -> Result<Attachment> {
        runtime.validate()?;
        if Record::path(&self.record_dir, &runtime).exists() {
            return Err(Error::Exists { container: runtime.container_id, interface: runtime.interface });
        }
        let mut attachment =
            Attachment { record: Record { config, runtime, result: None }, dns: Dns::default() };
        attachment.record.write(&self.record_dir)?;
        let added = match self.add_all(&mut attachment).await {
            Ok(()) => attachment.record.write(&self.record_dir),
            Err(error) => Err(error),
        };
        if let Err(error) = added {
            // The first error is the one to tell; a record that stays is undone by repair.
            let _ = self.del(&attachment).await;
            return Err(error);
        }
        Ok(attachment)
    }

    /// CHECK: whether everything is as ADD made it. Networks whose version or configuration has no CHECK always are.
    ///
    /// # Errors
    /// The first plugin's that found something else.
    pub async fn check(&self, attachment: &Attachment) -> Result<()> {
        let record = &attachment.record;
        if record.config.has_check() {
            for index in 0..record.config.plugins.len() {
                self.run("CHECK", record, index, record.result.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// DEL: leaves the network, in reverse order; every plugin runs, whatever happens to others.
    ///
    /// # Errors
    /// The first plugin's that failed; the record then stays for [`repair`](Self::repair).
    pub async fn del(&self, attachment: &Attachment) -> Result<()> {
        self.undo(&attachment.record).await
    }

    /// Undoes what is left of dead containers: `alive` is asked by container id. Call it before the namespaces of the dead
    /// are removed. Gives the failures; what failed stays for the next time.
    ///
    /// # Errors
    /// When the records can't be listed.
    pub async fn repair(&self, alive: impl Fn(&str) -> bool) -> Result<Vec<Error>> {
        let mut failures = Vec::new();
        atomic::sweep(&self.record_dir);
        for (id, path) in Record::list(&self.record_dir)? {
            if alive(&id) {
                continue;
            }
            let undone = match Record::read(&path) {
                Ok(Some(record)) => self.undo(&record).await,
                // Another process has undone it.
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            failures.extend(undone.err());
        }
        Ok(failures)
    }

    async fn add_all(&self, attachment: &mut Attachment) -> Result<()> {
        for index in 0..attachment.record.config.plugins.len() {
            let record = &attachment.record;
            let output = self.run("ADD", record, index, record.result.as_ref()).await?;
            let (value, dns) = result::read(&output).map_err(|reason| Error::BadResult {
                plugin: kind(record, index).into(),
                reason,
                output: shown(&output),
            })?;
            attachment.record.result = Some(value);
            attachment.dns = dns;
        }
        Ok(())
    }

    async fn undo(&self, record: &Record) -> Result<()> {
        let mut outcome = Ok(());
        for index in (0..record.config.plugins.len()).rev() {
            let run = self.run("DEL", record, index, record.result.as_ref()).await;
            outcome = outcome.and(run.map(|_| ()));
        }
        outcome?;
        record.remove(&self.record_dir)
    }

    async fn run(
        &self,
        command: &'static str,
        record: &Record,
        index: usize,
        previous: Option<&Value>,
    ) -> Result<Vec<u8>> {
        let Record { config, runtime, .. } = record;
        // A namespace that is gone is told as such: DEL has to work without.
        let netns = if runtime.netns.exists() { runtime.netns.clone().into() } else { OsString::new() };
        let call = Call {
            command,
            plugin: kind(record, index),
            env: vec![
                ("CNI_CONTAINERID", runtime.container_id.clone().into()),
                ("CNI_NETNS", netns),
                ("CNI_IFNAME", runtime.interface.clone().into()),
                ("CNI_ARGS", runtime.args().into()),
            ],
            stdin: stdin(config, runtime, index, previous),
            dirs: &self.plugin_dirs,
            timeout: self.timeout,
        };
        call.run().await
    }
}

fn kind(record: &Record, index: usize) -> &str {
    // That it is there was seen when the configuration was read.
    record.config.plugins[index].get("type").and_then(Value::as_str).unwrap_or_default()
}

/// A plugin's own configuration, with what belongs to the whole network and to this container.
fn stdin(config: &NetworkConfig, runtime: &Runtime, index: usize, previous: Option<&Value>) -> Vec<u8> {
    let mut own = config.plugins[index].clone();
    own.insert("name".into(), json!(config.name));
    own.insert("cniVersion".into(), json!(config.cni_version));
    let capabilities = own.remove("capabilities");
    let asked = runtime.config(capabilities.as_ref());
    if !asked.is_empty() {
        own.insert("runtimeConfig".into(), Value::Object(asked));
    }
    if let Some(previous) = previous {
        own.insert("prevResult".into(), previous.clone());
    }
    Value::Object(own).to_string().into_bytes()
}
