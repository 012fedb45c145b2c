//! A container's root as programs of the host see it that are run before the container is.

use std::{fs::File, os::fd::AsFd, path::Path};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::{Child, Command};

use super::{
    super::{DiskSource, ImageRoot, RootfsSource},
    Namespace, Root, Tree, blocking,
};
use crate::{Error, Result};

/// A mount namespace of its own, in which the root is mounted. It ends when this is dropped, and what was started from here has ended.
#[derive(Debug)]
pub struct RootView {
    namespace: Namespace,
}

impl RootView {
    /// Mounts the root on the directory `at`; no program can be run from it, and no device opened. What is started from here is in the
    /// network namespace `netns`.
    ///
    /// # Errors
    /// When the root is a disk, which the host does not mount, or it can't be mounted.
    pub async fn open(root: &RootfsSource, at: &Path, netns: &Path) -> Result<Self> {
        let tree = match root {
            RootfsSource::Directory(path) => Tree::Directory(path.clone()),
            RootfsSource::Mounts(mounts) => Tree::Mounts(mounts.clone()),
            RootfsSource::Disk(DiskSource { path, .. })
            | RootfsSource::Image(ImageRoot { base: path, .. }) => {
                let text = format!(
                    "the host does not mount the disk {}, so its programs can't see it as a container's root: use a snapshotter of directories, such as overlayfs",
                    path.display()
                );
                return Err(Error::InvalidOption(text));
            }
        };
        let root = blocking(move || Root::open(tree)).await?;
        let namespace = Namespace::start().await?;
        let (at, netns) = (at.to_owned(), netns.to_owned());
        let enter = move || {
            root.mount(&at)?;
            let network = File::open(&netns).map_err(Error::io("open", &netns))?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| Error::io("enter", netns)(error.into()))
        };
        namespace.run(enter).await??;
        Ok(Self { namespace })
    }

    /// Starts a program.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn spawn(&self, mut command: Command) -> Result<Child> {
        let runtime = tokio::runtime::Handle::current();
        let spawn = move || {
            let _here = runtime.enter();
            command
                .spawn()
                .map_err(|error| Error::io("run", Path::new(command.as_std().get_program()))(error))
        };
        self.namespace.run(spawn).await?
    }
}
