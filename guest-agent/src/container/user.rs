//! Which user a process runs as: what an image or a command line says, looked up in the container's own files.

use std::{collections::HashMap, io};

use super::in_root::Root;

/// Larger user databases are cut off here.
const MAX_FILE: u64 = 4 << 20;
/// The largest id, as in Docker.
const MAX_ID: u32 = i32::MAX.unsigned_abs();

/// A user, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// A user could not be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    #[error("uids and gids must be in range 0-{MAX_ID}")]
    Range,
    #[error("cannot read the container's {file}: {source}")]
    Read { file: &'static str, source: io::Error },
}

/// Resolves `""`, `user`, `uid`, `user:group`, `uid:gid` and so on in the container's /etc/passwd and /etc/group. A
/// number needs no entry there. A group that is named replaces all of the user's groups.
pub(crate) fn resolve(root: &Root, spec: &str) -> Result<User, UserError> {
    let read = |file| match root.read(file, MAX_FILE) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()),
        Err(source) => Err(UserError::Read { file, source }),
    };
    resolve_in(&read("/etc/passwd")?, &read("/etc/group")?, spec)
}

/// The names of user ids in the container's /etc/passwd, of each the first.
pub(crate) fn names(root: &Root) -> HashMap<u32, String> {
    let passwd = root.read("/etc/passwd", MAX_FILE).ok().flatten().unwrap_or_default();
    let mut names = HashMap::new();
    for account in String::from_utf8_lossy(&passwd).lines().filter_map(Account::parse) {
        names.entry(account.id).or_insert_with(|| account.name.to_owned());
    }
    names
}

/// The home directory of a user id; `/` when it has none.
pub(crate) fn home(root: &Root, uid: u32) -> String {
    resolve(root, &uid.to_string()).map_or_else(|_| "/".to_owned(), |user| user.home)
}

fn resolve_in(passwd: &str, group: &str, spec: &str) -> Result<User, UserError> {
    let (user_spec, group_spec) = spec.split_once(':').unwrap_or((spec, ""));
    let user_spec = if user_spec.is_empty() { "0" } else { user_spec };

    let found = passwd.lines().filter_map(Account::parse).find(|account| account.is(user_spec));
    let (name, uid, gid, home) = match found {
        Some(account) => (account.name, account.id, account.gid, account.home),
        None if is_number(user_spec) => ("", parse_id(user_spec)?, 0, ""),
        None => return Err(UserError::UnknownUser(user_spec.to_owned())),
    };
    if uid > MAX_ID {
        return Err(UserError::Range);
    }
    let home = if home.is_empty() { "/" } else { home }.to_owned();

    let mut lines = group.lines().filter_map(Group::parse);
    if group_spec.is_empty() {
        let groups =
            lines.filter(|group| !name.is_empty() && group.has(name)).map(|group| group.id).collect();
        return Ok(User { uid, gid, groups, home });
    }
    let gid = match lines.find(|group| group.name == group_spec || group.id.to_string() == group_spec) {
        Some(group) => group.id,
        None if is_number(group_spec) => parse_id(group_spec)?,
        None => return Err(UserError::UnknownGroup(group_spec.to_owned())),
    };
    if gid > MAX_ID {
        return Err(UserError::Range);
    }
    Ok(User { uid, gid, groups: Vec::new(), home })
}

/// A number, or something that was meant as one.
fn is_number(spec: &str) -> bool {
    spec.strip_prefix('-').unwrap_or(spec).bytes().all(|byte| byte.is_ascii_digit()) && spec != "-"
}

fn parse_id(spec: &str) -> Result<u32, UserError> {
    spec.parse().ok().filter(|id| *id <= MAX_ID).ok_or(UserError::Range)
}

/// A line of passwd(5).
struct Account<'a> {
    name: &'a str,
    id: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        (!name.is_empty()).then_some(Self { name, id, gid, home })
    }

    fn is(&self, spec: &str) -> bool {
        self.name == spec || self.id.to_string() == spec
    }
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    id: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        (!name.is_empty()).then_some(Self { name, id, members: fields.next().unwrap_or_default() })
    }

    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nbad:x:no:1::/:\n\
        www:x:33:33::/var/www:/bin/false\nnohome:x:44:45:::\nbig:x:4294967295:0::/:\n1000:x:7:8::/odd:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,www\nwww:x:33:\nmail:x:8:www\n:x:9:www\n50:x:60:\n";

    fn user(spec: &str) -> (u32, u32, Vec<u32>, String) {
        let User { uid, gid, groups, home } = resolve_in(PASSWD, GROUP, spec).unwrap();
        (uid, gid, groups, home)
    }

    #[test]
    fn resolves_as_docker_does() {
        assert_eq!(user(""), (0, 0, vec![10], "/root".into()));
        assert_eq!(user("www"), (33, 33, vec![10, 8], "/var/www".into()));
        assert_eq!(user("33"), (33, 33, vec![10, 8], "/var/www".into()));
        assert_eq!(user("www:mail"), (33, 8, vec![], "/var/www".into()));
        assert_eq!(user("www:5"), (33, 5, vec![], "/var/www".into()));
        assert_eq!(user(":mail"), (0, 8, vec![], "/root".into()));
        assert_eq!(user("nohome"), (44, 45, vec![], "/".into()));
        assert_eq!(user("4321"), (4321, 0, vec![], "/".into()));
        assert_eq!(user("4321:8765"), (4321, 8765, vec![], "/".into()));
        // Names that look like numbers win over numbers.
        assert_eq!(user("1000"), (7, 8, vec![], "/odd".into()));
        assert_eq!(user("0:50"), (0, 60, vec![], "/root".into()));
    }

    #[test]
    fn refuses_what_it_does_not_find() {
        let error = |spec| resolve_in(PASSWD, GROUP, spec).unwrap_err().to_string();
        assert_eq!(error("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(error("www:none"), "unable to find group none: no matching entries in group file");
        assert_eq!(error("bad"), "unable to find user bad: no matching entries in passwd file");
        for spec in ["2147483648", "-1", "0:2147483648", "big", "99999999999999999999"] {
            assert_eq!(error(spec), "uids and gids must be in range 0-2147483647", "{spec}");
        }
    }

    #[test]
    fn an_image_without_files_has_numbers_only() {
        assert_eq!(resolve_in("", "", "").unwrap().home, "/");
        assert_eq!(resolve_in("", "", "5:6").unwrap().gid, 6);
        assert!(resolve_in("", "", "root").is_err());
    }
}
