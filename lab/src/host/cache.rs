//! Where what the lab fetches from Debian is kept.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// A directory that outlives the checkout.
#[derive(Debug)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    /// `${HUSK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/husk}/lab`
    pub(crate) fn find() -> Result<Self> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("HUSK_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("husk")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/husk")))
            .context("neither HUSK_CACHE nor HOME is set, so there is no place for the cache")?;
        Ok(Self(cache.join("lab")))
    }

    /// What `look` finds; fetched first when it finds nothing. Safe to call from many processes at once.
    pub(crate) fn ensure<T>(
        &self,
        look: impl Fn(&Path) -> Option<T>,
        fetch: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        if let Some(found) = look(&self.0) {
            return Ok(found);
        }
        fs::create_dir_all(&self.0).with_context(|| format!("cannot create {}", self.0.display()))?;
        let lock = File::create(self.0.join("lock")).context("cannot create the cache's lock file")?;
        lock.lock().context("cannot lock the cache")?;
        match look(&self.0) {
            Some(found) => Ok(found),
            None => fetch(&self.0),
        }
    }
}

/// An empty directory `name`, whatever an earlier attempt left there.
pub(crate) fn fresh_dir(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).context("cannot remove what an earlier attempt left")?;
    }
    fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Fails unless these tools can be run.
pub(crate) fn need(tools: &[&str], packages: &str) -> Result<()> {
    for tool in tools {
        let there =
            Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        ensure!(there, "{tool} is missing; it comes with Debian's {packages} (run: make setup)");
    }
    Ok(())
}

/// Runs a tool with its output on stderr.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}
