//! Directories that belong to one user alone.

use std::{
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::IoError;

const ROOT: u32 = 0;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// A directory can't be made, or can't be trusted.
#[derive(Debug, thiserror::Error)]
pub enum PrivateDirError {
    /// The directory can't be made or examined.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The directory was made by another user.
    #[error("{} belongs to user {owner}, not to user {user}: remove it or name another directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// This process's effective user.
        user: u32,
    },
    /// Another user's symbolic link is in the directory's place.
    #[error("{} is another user's symbolic link: remove it or name another directory", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Other users may write to the directory.
    #[error("{} has mode {mode:03o}, other users may write to it: take that right away with chmod go-w", path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Makes a directory and its missing parents, for this process's effective user alone (mode 0700).
///
/// A directory that exists must belong to that user and be writable by no other. Its parents are the administrator's
/// affair, except in a directory where everybody may make files (`/tmp`): what is on the way there must have been made
/// by this user or by root.
///
/// # Errors
/// When the directory can't be made or examined, or exists and can't be trusted.
pub fn make_private_dir(path: &Path) -> Result<(), PrivateDirError> {
    let user = rustix::process::geteuid().as_raw();
    // Before making anything: else directories would be made inside one that another user controls.
    check_parents(path, user)?;
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(IoError::of("create", path))?;
    check_parents(path, user)?;
    let metadata = fs::symlink_metadata(path).map_err(IoError::of("examine", path))?;
    check(path, &metadata, user)
}

/// Makes a directory, for this user alone, right inside one that [`make_private_dir`] has accepted: nobody else can have made
/// anything there.
///
/// # Errors
/// When it can't be made.
pub fn make_dir_inside(path: &Path) -> Result<(), IoError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(IoError::of("create", path)),
    }
}

/// Checks the directory itself. A link to it must be this user's or root's own.
fn check(path: &Path, metadata: &Metadata, user: u32) -> Result<(), PrivateDirError> {
    if metadata.is_symlink() {
        if ![user, ROOT].contains(&metadata.uid()) {
            return Err(PrivateDirError::Link { path: path.into() });
        }
        let target = fs::metadata(path).map_err(IoError::of("examine", path))?;
        return check(path, &target, user);
    }
    if metadata.uid() != user {
        return Err(PrivateDirError::Foreign { path: path.into(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(PrivateDirError::Writable { path: path.into(), mode });
    }
    Ok(())
}

/// Checks the existing parents that are in a directory where everybody may make files.
fn check_parents(path: &Path, user: u32) -> Result<(), PrivateDirError> {
    for parent in path.ancestors().skip(1) {
        let Some(above) = parent.parent() else { continue };
        let is_public = fs::metadata(above)
            .is_ok_and(|above| above.mode() & STICKY != 0 && above.mode() & WRITABLE_BY_OTHERS != 0);
        // Of a link, the owner of the link itself counts.
        if let Ok(metadata) = fs::symlink_metadata(parent)
            && is_public
            && ![user, ROOT].contains(&metadata.uid())
        {
            return Err(PrivateDirError::Foreign { path: parent.into(), owner: metadata.uid(), user });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    const OTHER: u32 = 4_000_000;

    fn user() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn directories_are_made_for_one_user_and_accepted_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        make_private_dir(&path).unwrap();
        for made in [&path, &dir.path().join("a")] {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o7777, 0o700);
        }
        make_private_dir(&path).unwrap();
        set_mode(&path, 0o755);
        make_private_dir(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o720, 0o702, 0o777, 0o1777] {
            set_mode(dir.path(), mode);
            let error = make_private_dir(dir.path()).unwrap_err();
            assert!(matches!(error, PrivateDirError::Writable { .. }), "{mode:o}: {error}");
        }
    }

    #[test]
    fn a_users_own_link_is_followed_and_what_it_leads_to_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        make_private_dir(&link).unwrap();
        make_private_dir(&link.join("below")).unwrap();
        assert!(real.join("below").is_dir());
        if user() != ROOT {
            return;
        }
        std::os::unix::fs::lchown(&link, Some(OTHER), None).unwrap();
        assert!(matches!(make_private_dir(&link), Err(PrivateDirError::Link { .. })));
        std::os::unix::fs::lchown(&link, Some(ROOT), None).unwrap();
        set_mode(&real, 0o777);
        assert!(matches!(make_private_dir(&link), Err(PrivateDirError::Writable { .. })));
    }

    #[test]
    fn a_directory_inside_needs_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            make_dir_inside(&dir.path().join("a")).unwrap();
        }
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().mode() & 0o7777, 0o700);
        assert!(make_dir_inside(&dir.path().join("b/c")).is_err());
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(make_dir_inside(&dir.path().join("file")).is_err());
    }

    #[test]
    fn a_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(make_private_dir(file.path()), Err(PrivateDirError::Io(_))));
    }

    #[test]
    fn another_users_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let metadata = fs::symlink_metadata(dir.path()).unwrap();
        check(dir.path(), &metadata, user()).unwrap();
        let error = check(dir.path(), &metadata, OTHER).unwrap_err();
        assert!(matches!(error, PrivateDirError::Foreign { user: OTHER, .. }), "{error}");
    }

    #[test]
    fn what_another_user_made_in_a_public_directory_is_refused_on_the_way() {
        let public = tempfile::tempdir().unwrap();
        let path = public.path().join("husk-1/husk");
        fs::create_dir(public.path().join("husk-1")).unwrap();
        if user() == ROOT {
            std::os::unix::fs::chown(public.path().join("husk-1"), Some(OTHER), None).unwrap();
        }
        // Seen by a user who is not the directory's owner.
        let seen_by = if user() == ROOT { ROOT } else { OTHER };
        check_parents(&path, seen_by).unwrap();
        set_mode(public.path(), 0o1777);
        let error = check_parents(&path, seen_by).unwrap_err();
        assert!(matches!(error, PrivateDirError::Foreign { .. }), "{error}");
        assert!(!path.exists());
    }
}
