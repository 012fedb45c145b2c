//! `husk containerd`

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use husk_base::atomic::{self, Durable};

use crate::{
    args::{ContainerdArgs, ContainerdCommand},
    output,
    runtime_class::{self, EditError, containerd, docker},
};

pub(crate) fn run(command: &ContainerdCommand) -> anyhow::Result<u8> {
    match command {
        ContainerdCommand::Install(args) => {
            edit(&args.containerd_config, containerd::add, "containerd", true)?;
            edit(&args.docker_config, docker::add, "docker", docker_is_here(args))?;
            output::print_line("\nFor Kubernetes (kubectl apply -f):\n")?;
            output::print_line(runtime_class::MANIFEST.trim_end())?;
        }
        ContainerdCommand::Uninstall(args) => {
            edit(&args.containerd_config, containerd::remove, "containerd", false)?;
            edit(&args.docker_config, docker::remove, "docker", false)?;
        }
    }
    Ok(0)
}

fn docker_is_here(args: &ContainerdArgs) -> bool {
    args.docker_config.parent().is_some_and(Path::is_dir)
}

/// Changes a file, unless nothing changes. One that does not exist is made only with `create`.
fn edit(
    path: &Path,
    change: fn(&str) -> Result<String, EditError>,
    service: &str,
    create: bool,
) -> anyhow::Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => String::new(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let changed = change(&text).with_context(|| format!("cannot change {}", path.display()))?;
    if changed == text {
        output::print_line(&format!("{}: nothing to do", path.display()))?;
        return Ok(());
    }
    write(path, &changed)?;
    output::print_line(&format!("{}: changed; now run `systemctl restart {service}`", path.display()))?;
    Ok(())
}

/// Replaces a file as a whole. What a symbolic link leads to is replaced, not the link; the mode is kept.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let path: PathBuf = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let mode = fs::metadata(&path).map_or(0o644, |metadata| metadata.permissions().mode());
    Ok(atomic::replace(&path, text.as_bytes(), mode, Durable::Yes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_is_installing_once_and_uninstalling_undoes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("containerd/config.toml");
        edit(&path, containerd::add, "containerd", true).unwrap();
        let once = fs::read_to_string(&path).unwrap();
        edit(&path, containerd::add, "containerd", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), once);
        edit(&path, containerd::remove, "containerd", false).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("husk"));
        edit(&dir.path().join("none"), docker::remove, "docker", false).unwrap();
        assert!(!dir.path().join("none").exists());
    }
}
