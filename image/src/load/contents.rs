//! The files of an archive or a directory, by their names in there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::{Session, Staged};
use crate::{Error, Result};

/// Links that lead to links.
const MAX_LINKS: usize = 8;

/// A member of an archive.
#[derive(Clone, Debug)]
pub(super) enum Member {
    File(Staged),
    /// Another member's name.
    Link(String),
}

/// What was found in the source. Names are relative, with single slashes and without `.` and `..`.
pub(super) struct Contents {
    pub(super) session: Session,
    /// Names the source in errors.
    pub(super) source_name: String,
    members: HashMap<String, Member>,
    /// Where to look for what is not among the members yet.
    directory: Option<PathBuf>,
}

impl Contents {
    pub(super) fn of_directory(session: Session, directory: &Path, source_name: String) -> Self {
        Self { session, source_name, members: HashMap::new(), directory: Some(directory.to_owned()) }
    }

    pub(super) fn of_archive(
        session: Session,
        members: HashMap<String, Member>,
        source_name: String,
    ) -> Self {
        Self { session, source_name, members, directory: None }
    }

    /// A regular file, staged; `None` if there is none of this name.
    pub(super) fn file(&mut self, name: &str) -> Result<Option<Staged>> {
        let mut name = name.to_owned();
        for _ in 0..MAX_LINKS {
            match self.members.get(&name) {
                Some(Member::File(staged)) => return Ok(Some(staged.clone())),
                Some(Member::Link(target)) => name.clone_from(target),
                None => break,
            }
        }
        let Some(directory) = self.directory.clone() else { return Ok(None) };
        let path = directory.join(&name);
        // Neither a link to elsewhere nor a FIFO that never ends is wanted.
        let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
        let mut file = match File::options().read(true).custom_flags(flags.bits()).open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        if !file.metadata().map_err(Error::io("read", &path))?.is_file() {
            return Err(self.not_an_archive(&format!("{name} is no regular file")));
        }
        let staged = self.session.stage(&mut file, &path.display().to_string())?;
        self.members.insert(name, Member::File(staged.clone()));
        Ok(Some(staged))
    }

    /// A file that must be there.
    pub(super) fn required(&mut self, name: &str) -> Result<Staged> {
        self.file(name)?.ok_or_else(|| {
            self.not_an_archive(&format!("{} is missing in it", crate::manifest::printable(name)))
        })
    }

    /// The bytes of a staged file.
    pub(super) fn read(&self, staged: &Staged, limit: u64) -> Result<Vec<u8>> {
        if staged.size > limit {
            let what = format!("a document in {}", self.source_name);
            return Err(Error::TooLarge { what, actual: staged.size, limit });
        }
        self.session.read(staged)
    }

    /// The first bytes of a staged file.
    pub(super) fn first_bytes(&self, staged: &Staged) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.session
            .open(staged)
            .and_then(|file| file.take(4).read_to_end(&mut bytes))
            .map_err(Error::io("read", &staged.path))?;
        Ok(bytes)
    }

    pub(super) fn not_an_archive(&self, problem: &str) -> Error {
        Error::NotAnArchive { source_name: self.source_name.clone(), problem: problem.to_owned() }
    }
}
