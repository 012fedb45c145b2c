//! For tests of programs that are in a jail.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
};

/// Asserts that a process has nothing of its environment left, and of two files one.
///
/// # Panics
/// When it has not, or can't be looked at.
pub fn assert_only_inherited(pid: u32, passed: &File, stray: &File) {
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("the process lives");
    assert!(environment.iter().all(|byte| *byte == 0), "{}", String::from_utf8_lossy(&environment));
    // In a jail, paths mean other files than outside; so compare the files themselves.
    let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process lives")
        .filter_map(|entry| fs::metadata(entry.ok()?.path()).ok())
        .map(|found| (found.dev(), found.ino()))
        .collect();
    let is_open = |file: &File| {
        let file = file.metadata().expect("the file is open");
        open.contains(&(file.dev(), file.ino()))
    };
    assert_eq!((is_open(passed), is_open(stray)), (true, false), "{pid}");
}
