//! The configuration: one file, and drop-ins beside it that say more. Every default is good; what is unknown is an error.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    sizing::{self, MAX_VCPUS, MIN_MEM_SIZE_MIB},
};

/// The directory of `config.toml` and `config.d/*.toml`.
pub const CONFIG_DIR: &str = "/etc/husk";

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Pods of containerd, Docker and Kubernetes.
    pub pod: PodDefaults,
}

/// What a pod gets that asks for nothing, and what it may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PodDefaults {
    /// Virtual CPUs of a pod without a CPU limit, 1 to 32.
    pub vcpus: u8,
    /// Memory of the VM of a pod without a memory limit, in MiB; at least 64.
    pub mem_size_mib: u32,
    /// How long a VM may take to boot, and its agent to answer, in seconds.
    pub timeout_s: u64,
    /// Annotations by which users may choose for their pods.
    pub annotations: Vec<String>,
    /// The guests' kernel; without it, the installed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
}

impl Default for PodDefaults {
    fn default() -> Self {
        Self {
            vcpus: sizing::DEFAULT_VCPUS,
            mem_size_mib: sizing::DEFAULT_MEM_SIZE_MIB,
            timeout_s: crate::vm::DEFAULT_TIMEOUT_S,
            annotations: ANNOTATIONS.map(str::to_owned).to_vec(),
            kernel: None,
        }
    }
}

/// The annotation by which users choose their pod's virtual CPUs, if the configuration lets them.
pub const VCPUS_ANNOTATION: &str = "io.husk.vcpus";
/// The annotation by which users choose the memory of their pod's VM in MiB, if the configuration lets them.
pub const MEMORY_ANNOTATION: &str = "io.husk.memory_mib";
/// All annotations that husk knows.
const ANNOTATIONS: [&str; 2] = [VCPUS_ANNOTATION, MEMORY_ANNOTATION];

/// What a runtime class adds to the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// A file of its own, which must exist.
    File(PathBuf),
    /// The text of one, which is named so in errors.
    Text(String, PathBuf),
}

impl Config {
    /// Reads `config.toml` and `config.d/*.toml` in `dir`, in the order of their names, and then `own`: what comes later counts.
    /// Files in `dir` that don't exist say nothing.
    ///
    /// # Errors
    /// When a file can't be read, or says something that makes no sense.
    pub fn load(dir: &Path, own: Option<&Own>) -> Result<Self> {
        let mut texts = Vec::new();
        for path in files(dir)? {
            match fs::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => texts.push((other.map_err(Error::io("read", &path))?, path)),
            }
        }
        match own {
            Some(Own::File(path)) => {
                texts.push((fs::read_to_string(path).map_err(Error::io("read", path))?, path.clone()));
            }
            Some(Own::Text(text, name)) => texts.push((text.clone(), name.clone())),
            None => {}
        }
        let mut merged = toml::Table::new();
        for (text, path) in texts {
            // Each alone, so that the error names its file and line.
            Self::parse(&text).map_err(|reason| Error::Config { path, reason })?;
            merge(&mut merged, text.parse().unwrap_or_default());
        }
        merged.try_into().map_err(|error| Error::Config { path: dir.into(), reason: error.to_string() })
    }

    /// Reads one file's text; fails with what makes no sense in it.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let pod = &self.pod;
        if sizing::check_vcpus(pod.vcpus).is_err() {
            return Err(format!("pod.vcpus is {}, but must be 1 to {MAX_VCPUS}", pod.vcpus));
        }
        if pod.mem_size_mib < MIN_MEM_SIZE_MIB {
            return Err(format!(
                "pod.mem_size_mib is {}, but must be at least {MIN_MEM_SIZE_MIB}",
                pod.mem_size_mib
            ));
        }
        if pod.timeout_s == 0 {
            return Err("pod.timeout_s is 0, but must be at least 1".into());
        }
        match pod.annotations.iter().find(|name| !ANNOTATIONS.contains(&name.as_str())) {
            Some(name) => Err(format!(
                "pod.annotations names {name:?}, but there are only {}",
                ANNOTATIONS.join(" and ")
            )),
            None => Ok(()),
        }
    }

    /// As a file that says everything.
    pub fn to_toml(&self) -> String {
        // Numbers, texts and lists of them can always be written.
        toml::to_string(self).unwrap_or_default()
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let drop_ins = dir.join("config.d");
    let mut found = match fs::read_dir(&drop_ins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io("read", drop_ins)(error)),
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
    };
    found.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    found.sort();
    found.insert(0, dir.join("config.toml"));
    Ok(found)
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("config.d")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        assert_eq!(Config::load(Path::new("/nonexistent"), None).unwrap(), Config::default());
        Config::default().check().unwrap();
    }

    #[test]
    fn later_files_add_to_earlier_ones() {
        let dir = dir_with(&[
            ("config.toml", "[pod]\nvcpus = 2\nmem_size_mib = 256\n"),
            ("config.d/20.toml", "[pod]\nvcpus = 4\n"),
            ("config.d/10.toml", "[pod]\nvcpus = 3\nannotations = []\n"),
            ("config.d/ignored.txt", "no"),
        ]);
        let pod = Config::load(dir.path(), None).unwrap().pod;
        assert_eq!((pod.vcpus, pod.mem_size_mib, pod.annotations.len()), (4, 256, 0));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_file() {
        for text in ["[pod]\ncpus = 1\n", "[pod]\nvcpus = 33\n", "[pod]\nannotations = [\"x\"]\n", "pod"] {
            let dir = dir_with(&[("config.d/5.toml", text)]);
            let error = Config::load(dir.path(), None).unwrap_err().to_string();
            assert!(error.contains("5.toml"), "{error}");
        }
    }

    #[test]
    fn a_class_adds_its_own_which_must_be_there() {
        let dir = dir_with(&[("config.toml", "[pod]\nvcpus = 2\nmem_size_mib = 256\n")]);
        let load = |own: &Own| Config::load(dir.path(), Some(own)).map(|config| config.pod);
        let text = |text: &str| Own::Text(text.to_owned(), "its options".into());
        let pod = load(&text("[pod]\nvcpus = 5\n")).unwrap();
        assert_eq!((pod.vcpus, pod.mem_size_mib), (5, 256));
        let error = load(&text("SystemdCgroup = true\n")).unwrap_err().to_string();
        assert!(error.contains("its options"), "{error}");
        let file = dir.path().join("own.toml");
        assert!(load(&Own::File(file.clone())).is_err());
        fs::write(&file, "[pod]\nmem_size_mib = 300\n").unwrap();
        let pod = load(&Own::File(file)).unwrap();
        assert_eq!((pod.vcpus, pod.mem_size_mib), (2, 300));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let config = Config::default();
        assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
    }
}
