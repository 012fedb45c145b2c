//! The part `Config`: what does not depend on the host.

use husk_sandbox::{spec, store::Config};
use serde_json::{Map, Value, json};

use super::list;
use crate::facts;

/// What the image and the user say of a container.
pub(super) fn config(config: &Config) -> Value {
    let (options, image) = (&config.options, &config.image_config);
    let (entrypoint, cmd) = spec::command(image, options);
    let mut description = json!({
        "Hostname": options.hostname(&config.id),
        "Domainname": "",
        "User": options.user.as_deref().or(image.user.as_deref()).unwrap_or_default(),
        "AttachStdin": options.attached && options.interactive,
        "AttachStdout": options.attached,
        "AttachStderr": options.attached,
        "Tty": options.terminal,
        "OpenStdin": options.interactive,
        "StdinOnce": options.stdin_once,
        "Env": environment(config),
        "Cmd": list(&cmd),
        "Image": config.image.name,
        "Volumes": set(image.volumes.iter().cloned()),
        "WorkingDir": working_dir(config),
        "Entrypoint": list(&entrypoint),
        "OnBuild": null,
        "Labels": config.labels(),
    });
    // What is not said is left out.
    let ports = facts::exposed_ports(config).map(|(port, protocol)| format!("{port}/{protocol}"));
    if let ports @ Value::Object(_) = set(ports) {
        description["ExposedPorts"] = ports;
    }
    if let Some(signal) = options.stop_signal.as_ref().or(image.stop_signal.as_ref()) {
        description["StopSignal"] = json!(signal);
    }
    if let Some(seconds) = options.stop_timeout_s {
        description["StopTimeout"] = seconds.into();
    }
    description
}

/// The user's variables, and those of the image that they don't replace.
fn environment(config: &Config) -> Vec<String> {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env = config.options.env.clone();
    for entry in &config.image_config.env {
        if !config.options.env.iter().any(|known| key(known) == key(entry)) {
            env.push(entry.clone());
        }
    }
    env
}

fn working_dir(config: &Config) -> String {
    match &config.options.workdir {
        Some(dir) => dir.display().to_string(),
        None => config.image_config.working_dir.clone().unwrap_or_default(),
    }
}

/// A set as Go writes it: an object with empty values. `null`: an empty one.
fn set(names: impl Iterator<Item = String>) -> Value {
    let names: Map<String, Value> = names.map(|name| (name, json!({}))).collect();
    if names.is_empty() { Value::Null } else { names.into() }
}
