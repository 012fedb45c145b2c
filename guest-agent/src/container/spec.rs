//! Completes an OCI runtime spec with what only the guest knows.

use std::path::{Path, PathBuf};

use husk_protocol::agent::Reason;
use oci_spec::runtime::{Mount, Process, RootBuilder, Spec};

use super::{
    in_root::{self, Root},
    user::{self, User, UserError},
};
use crate::{failure::Failure, paths};

/// Parses config.json.
pub(crate) fn parse(json: &[u8]) -> Result<Spec, Failure> {
    let spec: Spec = serde_json::from_slice(json)
        .map_err(|e| Failure::invalid(format!("not an OCI runtime spec: {e}")))?;
    if spec.process().is_none() || spec.linux().is_none() {
        return Err(Failure::invalid("the OCI runtime spec has no process or no linux section"));
    }
    Ok(spec)
}

/// Parses an OCI `process` object.
pub(crate) fn parse_process(json: &[u8]) -> Result<Process, Failure> {
    serde_json::from_slice(json).map_err(|e| Failure::invalid(format!("not an OCI process object: {e}")))
}

/// Fills in everything that depends on the mounted root.
pub(crate) fn complete(
    spec: &mut Spec,
    container_id: &str,
    root_path: &Path,
    root: &Root,
    user: &str,
    volumes: &[String],
) -> Result<(), Failure> {
    let readonly = spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or_default();
    let oci_root = RootBuilder::default().path(root_path).readonly(readonly).build();
    spec.set_root(Some(oci_root.map_err(|e| Failure::internal(e.to_string()))?));
    if let Some(linux) = spec.linux_mut() {
        let cgroup = format!("{}/{container_id}", paths::CONTAINERS_CGROUP_SPEC);
        linux.set_cgroups_path(Some(PathBuf::from(cgroup)));
    }
    add_volumes(spec, root, volumes, readonly)?;
    follow_dangling_links(spec, root)?;
    if let Some(process) = spec.process_mut() {
        complete_process(process, root, user)?;
        let cwd = process.cwd().clone();
        root.make_dir(&cwd).map_err(|e| {
            Failure::io(format_args!("cannot make the working directory {}", cwd.display()), &e)
        })?;
    }
    Ok(())
}

/// Resolves the user and sets HOME.
pub(crate) fn complete_process(process: &mut Process, root: &Root, user: &str) -> Result<(), Failure> {
    let given = process.user();
    let default = given.uid() == 0 && given.gid() == 0 && given.additional_gids().is_none();
    let home = if user.is_empty() && !default {
        user::home(root, given.uid())
    } else {
        let User { uid, gid, groups, home } = user::resolve(root, user).map_err(|error| match error {
            UserError::Read { .. } => Failure::internal(error.to_string()),
            UserError::Range => Failure::invalid(error.to_string()),
            UserError::UnknownUser(_) | UserError::UnknownGroup(_) => {
                Failure::new(Reason::NO_SUCH_USER, error.to_string())
            }
        })?;
        // With the primary group among them, as Docker has it: else a process could drop that group by a program with
        // another one, and with it a denial that files express by their group's mode.
        let groups = std::iter::once(gid).chain(groups.into_iter().filter(|group| *group != gid)).collect();
        process.user_mut().set_uid(uid).set_gid(gid).set_additional_gids(Some(groups));
        home
    };
    let env = process.env_mut().get_or_insert_default();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={home}"));
    }
    Ok(())
}

/// Makes the volumes' directories. When the root will be read-only, each is mounted over itself, writable.
fn add_volumes(spec: &mut Spec, root: &Root, volumes: &[String], readonly: bool) -> Result<(), Failure> {
    for volume in volumes {
        let failed = |e| Failure::io(format_args!("cannot make the volume {volume}"), &e);
        let directory = root.make_dir(Path::new(volume)).map_err(failed)?;
        let given = spec.mounts().iter().flatten().any(|mount| mount.destination() == Path::new(volume));
        if readonly && !given {
            let mut mount = Mount::default();
            mount
                .set_destination(PathBuf::from(volume))
                .set_typ(Some("bind".to_owned()))
                .set_source(Some(in_root::path_of(&directory).map_err(failed)?))
                .set_options(Some(vec!["rbind".to_owned(), "rw".to_owned()]));
            spec.mounts_mut().get_or_insert_default().push(mount);
        }
    }
    Ok(())
}

/// Has mounts whose places are links that lead nowhere made where those lead: libcontainer would take the link for the place. Those of
/// the kernel's own file systems are left as they are: libcontainer refuses links there, since a container could have them mounted elsewhere.
fn follow_dangling_links(spec: &mut Spec, root: &Root) -> Result<(), Failure> {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let place = mount.destination().clone();
        let is_special = ["/proc", "/sys", "/dev"].iter().any(|dir| place.starts_with(dir));
        if !is_special && !root.has(&place) {
            let failed = |e| Failure::io(format_args!("cannot mount on {}", place.display()), &e);
            mount.set_destination(root.without_links(&place).map_err(failed)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn completed(json: &str, user: &str, volumes: &[&str]) -> (tempfile::TempDir, Result<Spec, Failure>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:\nwww:x:33:33::/var/www:\n").unwrap();
        fs::write(dir.path().join("etc/group"), "mail:x:8:www,root\n").unwrap();
        let volumes: Vec<String> = volumes.iter().map(|v| (*v).to_owned()).collect();
        let result = parse(json.as_bytes()).and_then(|mut spec| {
            let root = Root::open(dir.path()).unwrap();
            complete(&mut spec, "c1", dir.path(), &root, user, &volumes)?;
            Ok(spec)
        });
        (dir, result)
    }

    fn json(user: &str, env: &str, readonly: bool) -> String {
        format!(
            r#"{{"ociVersion":"1.1.0","root":{{"path":"ignored","readonly":{readonly}}},"mounts":[],"linux":{{}},
            "process":{{"user":{user},"args":["sh"],"env":[{env}],"cwd":"/srv/app"}}}}"#
        )
    }

    const ROOT_USER: &str = r#"{"uid":0,"gid":0}"#;

    #[test]
    fn fills_in_user_home_root_cgroup_and_cwd() {
        let (dir, spec) = completed(&json(ROOT_USER, r#""A=1""#, false), "www", &["/data"]);
        let spec = spec.unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (33, 33));
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[33, 8][..]));
        assert_eq!(process.env().as_ref().unwrap(), &["A=1", "HOME=/var/www"]);
        assert_eq!(spec.root().as_ref().unwrap().path(), dir.path());
        assert_eq!(spec.linux().as_ref().unwrap().cgroups_path().as_ref().unwrap(), Path::new("/husk/c1"));
        assert!(dir.path().join("srv/app").is_dir() && dir.path().join("data").is_dir());
        assert!(spec.mounts().as_ref().unwrap().is_empty());
    }

    #[test]
    fn keeps_what_is_given() {
        let (_dir, spec) = completed(&json(r#"{"uid":33,"gid":7}"#, r#""HOME=/x""#, false), "", &[]);
        let process = spec.unwrap().process().clone().unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (33, 7));
        assert_eq!(process.env().as_ref().unwrap(), &["HOME=/x"]);
    }

    #[test]
    fn no_user_at_all_is_root_with_its_groups() {
        let (_dir, spec) = completed(&json(ROOT_USER, "", false), "", &[]);
        let process = spec.unwrap().process().clone().unwrap();
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[0, 8][..]));
        assert_eq!(process.env().as_ref().unwrap(), &["HOME=/root"]);
    }

    #[test]
    fn volumes_stay_writable_under_a_read_only_root() {
        let (dir, spec) = completed(&json(ROOT_USER, "", true), "", &["/data/x"]);
        let spec = spec.unwrap();
        assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
        let mounts = spec.mounts().as_ref().unwrap();
        assert_eq!(mounts[0].destination(), Path::new("/data/x"));
        assert_eq!(
            mounts[0].source().as_deref(),
            Some(dir.path().canonicalize().unwrap().join("data/x").as_path())
        );
    }

    #[test]
    fn mounts_on_links_that_lead_nowhere_are_made_where_those_lead() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        for (link, to) in
            [("etc/resolv.conf", "../run/conf"), ("proc", "/elsewhere"), ("etc/hosts", "resolv.conf")]
        {
            std::os::unix::fs::symlink(to, dir.path().join(link)).unwrap();
        }
        fs::write(dir.path().join("etc/hostname"), "").unwrap();
        let mounts = [
            ("bind", "/etc/resolv.conf"),
            ("proc", "/proc"),
            ("bind", "/etc/hosts"),
            ("bind", "/etc/hostname"),
        ];
        let mounts: Vec<_> = mounts
            .iter()
            .map(|(typ, place)| serde_json::json!({"destination": place, "type": typ, "source": "/x"}))
            .collect();
        let spec = serde_json::json!({"ociVersion": "1.1.0", "mounts": mounts});
        let mut spec: Spec = serde_json::from_value(spec).unwrap();
        follow_dangling_links(&mut spec, &Root::open(dir.path()).unwrap()).unwrap();
        let places: Vec<_> =
            spec.mounts().iter().flatten().map(|mount| mount.destination().clone()).collect();
        assert_eq!(places, ["/run/conf", "/proc", "/run/conf", "/etc/hostname"].map(PathBuf::from));
    }

    #[test]
    fn refuses_bad_specs_and_users() {
        let reason = |result: Result<Spec, Failure>| result.unwrap_err().reason;
        assert_eq!(reason(parse(b"{}")), Reason::INVALID_REQUEST);
        assert_eq!(reason(parse(br#"{"ociVersion":"1.0.0"}"#)), Reason::INVALID_REQUEST);
        let (_dir, spec) = completed(&json(ROOT_USER, "", false), "nobody", &[]);
        assert_eq!(
            spec.unwrap_err(),
            Failure::new(
                Reason::NO_SUCH_USER,
                "unable to find user nobody: no matching entries in passwd file"
            )
        );
    }
}
