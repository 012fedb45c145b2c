//! From an image's defaults and a user's options to an OCI runtime spec, with Docker's defaults.

use std::path::PathBuf;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxCpuBuilder,
    LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources,
    LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, get_default_mounts,
};

pub use oci_spec::runtime::{
    get_default_maskedpaths as masked_paths, get_default_readonly_paths as readonly_paths,
};

use crate::{
    Error, Result,
    container::{ContainerOptions, ImageConfig},
    sizing::{self, CPU_PERIOD_US},
};

/// Docker's default capabilities.
const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// capabilities(7).
const EVERY_CAPABILITY: [Capability; 41] = [
    Capability::AuditControl,
    Capability::AuditRead,
    Capability::AuditWrite,
    Capability::BlockSuspend,
    Capability::Bpf,
    Capability::CheckpointRestore,
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::Kill,
    Capability::Lease,
    Capability::LinuxImmutable,
    Capability::MacAdmin,
    Capability::MacOverride,
    Capability::Mknod,
    Capability::NetAdmin,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetRaw,
    Capability::Perfmon,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysChroot,
    Capability::SysModule,
    Capability::SysNice,
    Capability::SysPacct,
    Capability::SysPtrace,
    Capability::SysRawio,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Syslog,
    Capability::WakeAlarm,
];

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MAX_OPEN_FILES: u64 = 1 << 20;

/// The runtime spec of a container.
///
/// # Errors
/// When neither image nor options name a program, or an option's value can't be used.
pub fn build(image: &str, defaults: &ImageConfig, options: &ContainerOptions, id: &str) -> Result<Spec> {
    let hostname = options.hostname(id);
    let namespaces = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Cgroup,
    ];
    let namespaces = namespaces
        .into_iter()
        .map(|typ| LinuxNamespaceBuilder::default().typ(typ).build())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(invalid)?;
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(masked_paths())
        .readonly_paths(readonly_paths())
        .cgroups_path(format!("/husk/{id}"))
        .resources(resources(options)?)
        .build()
        .map_err(invalid)?;
    let root = RootBuilder::default().path("rootfs").readonly(options.read_only).build().map_err(invalid)?;
    SpecBuilder::default()
        .root(root)
        .hostname(hostname.clone())
        .mounts(mounts(options)?)
        .process(process(image, defaults, options, &hostname)?)
        .linux(linux)
        .build()
        .map_err(invalid)
}

fn invalid(error: oci_spec::OciSpecError) -> Error {
    Error::InvalidOption(format!("cannot describe the container: {error}"))
}

fn process(
    image: &str,
    defaults: &ImageConfig,
    options: &ContainerOptions,
    hostname: &str,
) -> Result<Process> {
    let capabilities = || CAPABILITIES.into_iter().collect::<Capabilities>();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities())
        .effective(capabilities())
        .permitted(capabilities())
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .map_err(invalid)?;
    let open_files = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(MAX_OPEN_FILES)
        .hard(MAX_OPEN_FILES)
        .build()
        .map_err(invalid)?;
    let cwd = match &options.workdir {
        Some(dir) if !dir.is_absolute() => {
            return Err(Error::InvalidOption(format!(
                "the working directory {:?} is not an absolute path",
                dir.display().to_string()
            )));
        }
        Some(dir) => dir.clone(),
        None => defaults.working_dir.as_ref().map_or("/".into(), PathBuf::from),
    };
    ProcessBuilder::default()
        .terminal(options.terminal)
        .args(args(image, defaults, options)?)
        .env(environment(defaults, options, hostname))
        .cwd(cwd)
        .capabilities(capabilities)
        .rlimits([open_files])
        .no_new_privileges(false)
        .build()
        .map_err(invalid)
}

fn args(image: &str, defaults: &ImageConfig, options: &ContainerOptions) -> Result<Vec<String>> {
    let (entrypoint, cmd) = command(defaults, options);
    if entrypoint.is_empty() && cmd.is_empty() {
        return Err(Error::InvalidImage {
            image: image.into(),
            reason: "it names no command to run; give one after the image's name".into(),
        });
    }
    Ok([entrypoint, cmd].concat())
}

/// The entry point and the command: the user's, else the image's.
pub fn command(defaults: &ImageConfig, options: &ContainerOptions) -> (Vec<String>, Vec<String>) {
    let (entrypoint, cmd) = match &options.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => (Vec::new(), Vec::new()),
        Some(entrypoint) => (vec![entrypoint.clone()], Vec::new()),
        None => (defaults.entrypoint.clone(), defaults.cmd.clone()),
    };
    (entrypoint, if options.args.is_empty() { cmd } else { options.args.clone() })
}

fn environment(defaults: &ImageConfig, options: &ContainerOptions, hostname: &str) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if options.terminal {
        env.push("TERM=xterm".into());
    }
    add_variables(&mut env, defaults.env.iter().chain(&options.env));
    env
}

/// A process's environment with these variables added, and a terminal's type if it has one and none is said.
pub fn with_variables(mut env: Vec<String>, added: &[String], terminal: bool) -> Vec<String> {
    if terminal && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    add_variables(&mut env, added);
    env
}

fn add_variables<'a>(env: &mut Vec<String>, added: impl IntoIterator<Item = &'a String>) {
    for entry in added {
        let key = entry.split_once('=').map_or(entry.as_str(), |(key, _)| key);
        let same_key = |known: &&mut String| known.split_once('=').is_some_and(|(k, _)| k == key);
        match env.iter_mut().find(same_key) {
            Some(known) => known.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
}

/// All powers that root has in a VM.
///
/// # Errors
/// Never, in fact.
pub fn all_capabilities() -> Result<LinuxCapabilities> {
    let all = || EVERY_CAPABILITY.into_iter().collect::<Capabilities>();
    LinuxCapabilitiesBuilder::default()
        .bounding(all())
        .effective(all())
        .permitted(all())
        .inheritable(all())
        .ambient(Capabilities::new())
        .build()
        .map_err(invalid)
}

fn mounts(options: &ContainerOptions) -> Result<Vec<Mount>> {
    let mut mounts = get_default_mounts();
    for tmpfs in &options.tmpfs {
        let mount = MountBuilder::default()
            .destination(&tmpfs.path)
            .typ("tmpfs")
            .source("tmpfs")
            .options(tmpfs.options.clone())
            .build()
            .map_err(invalid)?;
        mounts.push(mount);
    }
    Ok(mounts)
}

fn resources(options: &ContainerOptions) -> Result<LinuxResources> {
    // No device but those that every container gets (OCI runtime spec, "Default Devices").
    let no_devices =
        LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build().map_err(invalid)?;
    let mut resources = LinuxResourcesBuilder::default().devices([no_devices]);
    if let Some(bytes) = options.memory_bytes {
        let bytes = i64::try_from(bytes)
            .map_err(|_| Error::InvalidOption(format!("the memory limit of {bytes} bytes is too large")))?;
        resources = resources
            .memory(LinuxMemoryBuilder::default().limit(bytes).swap(bytes).build().map_err(invalid)?);
    }
    // A limit of whole CPUs is the VM's number of CPUs already.
    if let Some(milli) = options.milli_cpus.filter(|milli| milli % 1000 != 0) {
        let quota = i64::try_from(sizing::cpu_quota_us(milli)).unwrap_or(i64::MAX);
        let cpu = LinuxCpuBuilder::default().period(CPU_PERIOD_US).quota(quota).build().map_err(invalid)?;
        resources = resources.cpu(cpu);
    }
    resources.build().map_err(invalid)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn image_defaults() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["PATH=/bin".into(), "A=image".into()],
            working_dir: Some("/srv".into()),
            ..Default::default()
        }
    }

    fn process_of(options: &ContainerOptions) -> Process {
        build("img", &image_defaults(), options, ID).unwrap().process().clone().unwrap()
    }

    fn args_of(options: &ContainerOptions) -> Vec<String> {
        process_of(options).args().clone().unwrap()
    }

    #[test]
    fn the_images_command_is_the_default() {
        assert_eq!(args_of(&ContainerOptions::default()), ["/entry", "default"]);
    }

    #[test]
    fn arguments_replace_the_command_but_not_the_entry_point() {
        let options = ContainerOptions { args: vec!["x".into()], ..Default::default() };
        assert_eq!(args_of(&options), ["/entry", "x"]);
    }

    #[test]
    fn an_entry_point_drops_the_images_command() {
        let options = ContainerOptions { entrypoint: Some("/sh".into()), ..Default::default() };
        assert_eq!(args_of(&options), ["/sh"]);
        let options = ContainerOptions {
            entrypoint: Some(String::new()),
            args: vec!["ls".into()],
            ..Default::default()
        };
        assert_eq!(args_of(&options), ["ls"]);
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        let error = build("img", &ImageConfig::default(), &ContainerOptions::default(), ID).unwrap_err();
        assert!(error.to_string().contains("names no command"), "{error}");
        assert_eq!(error.exit_code(), 125);
    }

    #[test]
    fn options_win_over_the_images_environment() {
        let options = ContainerOptions { env: vec!["A=user".into(), "B=2".into()], ..Default::default() };
        let env = process_of(&options).env().clone().unwrap();
        assert_eq!(env, ["PATH=/bin", "HOSTNAME=0123456789ab", "A=user", "B=2"]);
    }

    #[test]
    fn a_terminal_has_a_type() {
        let process = process_of(&ContainerOptions { terminal: true, ..Default::default() });
        assert_eq!(process.terminal(), Some(true));
        assert!(process.env().as_ref().unwrap().contains(&"TERM=xterm".to_owned()));
    }

    #[test]
    fn the_working_directory_must_be_absolute() {
        assert_eq!(process_of(&ContainerOptions::default()).cwd(), Path::new("/srv"));
        let options = ContainerOptions { workdir: Some("rel".into()), ..Default::default() };
        assert!(build("img", &image_defaults(), &options, ID).is_err());
    }

    #[test]
    fn limits_reach_the_cgroup() {
        let options =
            ContainerOptions { memory_bytes: Some(64 << 20), milli_cpus: Some(1500), ..Default::default() };
        let resources = resources(&options).unwrap();
        assert_eq!(resources.memory().unwrap().limit(), Some(64 << 20));
        assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(150_000));
    }

    #[test]
    fn the_container_shares_the_machines_network() {
        let spec = build("img", &image_defaults(), &ContainerOptions::default(), ID).unwrap();
        let linux = spec.linux().clone().unwrap();
        let types: Vec<_> = linux.namespaces().iter().flatten().map(|ns| ns.typ()).collect();
        assert!(!types.contains(&LinuxNamespaceType::Network));
        assert!(!types.contains(&LinuxNamespaceType::User));
    }
}
