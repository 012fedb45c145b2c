//! `start`: finds the shim of the container's pod, or starts it, and says where it is.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixListener, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use husk_sandbox::{
    config::{CONFIG_DIR, Config},
    oci::bundle::{self, Annotations},
};

use crate::{address, bootstrap, error::Error, flags::Flags, join, socket};

/// Starts the shim unless one serves this pod already; returns what containerd wants to read. The bundle is the working
/// directory.
///
/// # Errors
/// When the shim can't be started.
pub(crate) fn start(flags: &Flags) -> Result<Vec<u8>, Error> {
    let params = bootstrap::read(io::stdin().lock(), flags)?;
    let here = Path::new(".");
    let address = if bundle::has_spec(here) {
        let spec = bundle::spec(here)?;
        let empty = Annotations::new();
        let sandbox = bundle::sandbox_id(spec.annotations().as_ref().unwrap_or(&empty));
        let joined = if sandbox.is_none() { join::address(&spec, &flags.namespace)? } else { None };
        match joined {
            Some(address) => address,
            None => serving(flags, &params, sandbox)?,
        }
    } else {
        // What a sandbox is its creation says, in the Sandbox API.
        serving(flags, &params, Some(&flags.id))?
    };
    address::write(here, &address)?;
    params.reply(&address)
}

/// The address of the shim of a pod, or of a container alone, which is started unless it serves already.
fn serving(flags: &Flags, params: &bootstrap::Params, sandbox: Option<&str>) -> Result<String, Error> {
    let mut group = sandbox.unwrap_or(&flags.id).to_owned();
    loop {
        let path = socket::path(&params.socket_dir, &params.grpc_address, &flags.namespace, &group);
        let address = socket::address(&path);
        if let Some(listener) = socket::claim(&path)? {
            spawn(flags, params, listener, &address).inspect_err(|_| {
                let _ = fs::remove_file(&path);
            })?;
            return Ok(address);
        }
        if sandbox.is_some() {
            return Ok(address);
        }
        // This container has been in that VM before, and others that share its namespaces still are.
        group.push('+');
    }
}

/// The variable by which the shim that serves gets its configuration, as JSON. The files are read here, so that whoever wants a container
/// is told what is wrong with them, and their parser takes no memory there.
pub(crate) const CONFIG: &str = "HUSK_SHIM_CONFIG";

/// Starts the shim that serves. It has the socket as its standard input, so it can be reached as soon as it exists, and
/// outlives containerd.
fn spawn(
    flags: &Flags,
    params: &bootstrap::Params,
    listener: UnixListener,
    address: &str,
) -> Result<(), Error> {
    let config = Config::load(Path::new(CONFIG_DIR), params.own.as_ref())?;
    let config = serde_json::to_string(&config).map_err(|error| Error::invalid(error.to_string()))?;
    let program = std::env::current_exe().map_err(Error::io("find", "the running program"))?;
    let mut command = Command::new(&program);
    command.args(["-namespace", &flags.namespace, "-id", &flags.id, "-address", &params.grpc_address]);
    if params.debug {
        command.arg("-debug");
    }
    command
        .env("TTRPC_ADDRESS", &params.ttrpc_address)
        .env(CONFIG, config)
        .env(join::VARIABLE, format!("{} {address}", flags.namespace))
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let child = command.spawn().map_err(Error::io("run", program))?;
    adjust_oom_score(child.id());
    Ok(())
}

/// Makes the shim a little more likely to be killed for lack of memory than containerd, which is its grandparent. Not worth
/// a failure.
fn adjust_oom_score(pid: u32) {
    let parent = format!("/proc/{}/oom_score_adj", nix::unistd::getppid());
    let Some(score) = fs::read_to_string(parent).ok().and_then(|text| text.trim().parse::<i32>().ok()) else {
        return;
    };
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), score.saturating_add(1).min(1000).to_string());
}
