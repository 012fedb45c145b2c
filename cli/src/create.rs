//! From `husk run`'s and `husk create`'s options to a container's record.

use std::{fs, io::Write, path::Path, time::Duration};

use anyhow::{Context, bail};
use husk_image::{Compression, Image, LayerBlob, Reference, Store as Images};
use husk_protocol::agent;
use husk_sandbox::{
    container::{ContainerOptions, ImageConfig},
    events::{self, Event},
    network::NetworkPlan,
    paths::{Assets, Dirs},
    pod_id, spec,
    store::{self, Config, ImageInfo, Store, Timestamp, VERSION},
    unpack::{self, Layer, Layers},
};

use crate::{
    args::{CreateOptions, PullPolicy},
    commands::pull::pull,
    progress::UnpackBar,
    signals::Signals,
    unprivileged,
};

/// How a client is to be attached to the container that it creates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attachment {
    /// Some client is.
    pub(crate) attached: bool,
    /// To its standard input, which ends with the client's.
    pub(crate) stdin: bool,
}

/// What became of a wish for a container.
#[derive(Debug)]
pub(crate) enum Created {
    /// Its record is written.
    Container(Box<Config>),
    /// A signal ended it first: husk's exit code.
    Interrupted(u8),
}

/// Creates a container. The image is downloaded and unpacked if need be.
///
/// # Errors
/// When an option, the image, or the name can't be used. Nothing is left of the container then.
pub(crate) async fn create(
    dirs: &Dirs,
    args: &CreateOptions,
    attachment: Attachment,
    signals: &Signals,
) -> anyhow::Result<Created> {
    let assets = Assets::find(args.kernel.as_deref())?;
    let mut network = args.network.options(args.hostname.is_some())?;
    unprivileged::adapt(&mut network, args.network.is_default())?;
    if args.rm && args.restart.0 != store::RestartPolicy::No {
        bail!("conflicting options: cannot specify both --restart and --rm");
    }
    let mut cid_file = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let options = container_options(args, attachment)?;
    let log = args.log()?;
    let store = Store::open(dirs)?;
    let image = tokio::select! {
        image = find_image(dirs, args) => image?,
        code = signals.fatal() => return Ok(Created::Interrupted(code)),
    };
    let bar = UnpackBar::new(&image);
    let timeout = Duration::from_secs(args.boot_timeout);
    let layers = layers(&image);
    let unpacking =
        unpack::ensure(dirs, &assets, &layers, args.storage_size, timeout, |bytes| bar.update(bytes));
    let disk = tokio::select! {
        disk = unpacking => disk?,
        code = signals.fatal() => return Ok(Created::Interrupted(code)),
    };
    let id = pod_id::new(dirs)?;
    let image_config = image_config(&image);
    // What can't be run is found before anything is left of it.
    spec::build(&layers.image, &image_config, &options, &id)?;
    let name = args.name.clone().unwrap_or_else(|| store.random_name(&id));
    let config = Config {
        version: VERSION,
        created: Timestamp::now(),
        image: ImageInfo { name: args.image.clone(), id: image.config_digest.to_string(), disk },
        network: NetworkPlan {
            options: network,
            name: Some(name.clone()),
            hostname: options.hostname(&id),
            exposed_ports: image_config.exposed_ports.clone(),
        },
        image_config,
        options,
        restart: args.restart.0,
        log,
        auto_remove: args.rm,
        storage_mib: args.storage_size,
        timeout_s: args.boot_timeout,
        kernel: args.kernel.clone(),
        id,
        name,
    };
    store.create(&config)?;
    events::record(dirs, &Event::of_container(&config, "create"));
    if let Some(file) = &mut cid_file {
        file.write(&config.id)?;
    }
    Ok(Created::Container(Box::new(config)))
}

/// `--cidfile`: a file that must not be there before, and is not left without an id.
struct CidFile<'a> {
    path: &'a Path,
    file: fs::File,
    written: bool,
}

impl<'a> CidFile<'a> {
    fn create(path: &'a Path) -> anyhow::Result<Self> {
        let file = fs::File::create_new(path);
        let file = file.with_context(|| format!("cannot create the container id file {}", path.display()))?;
        Ok(Self { path, file, written: false })
    }

    fn write(&mut self, id: &str) -> anyhow::Result<()> {
        self.file
            .write_all(id.as_bytes())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            let _ = fs::remove_file(self.path);
        }
    }
}

async fn find_image(dirs: &Dirs, args: &CreateOptions) -> anyhow::Result<Image> {
    let store = Images::open(&dirs.images())?;
    let reference: Reference = args.image.parse()?;
    if args.pull != PullPolicy::Always {
        // Also by its id, of which no registry knows.
        if let Some(image) = store.find(&args.image)? {
            return Ok(image);
        }
        if args.pull == PullPolicy::Never {
            bail!("image {reference} is not here, and --pull=never forbids to download it");
        }
    }
    pull(&store, &reference, false).await
}

fn layers(image: &Image) -> Layers {
    let layer = |layer: &LayerBlob| Layer {
        path: layer.path.clone(),
        size: layer.size,
        compression: match layer.compression {
            Compression::None => agent::Compression::NONE,
            Compression::Gzip => agent::Compression::GZIP,
            Compression::Zstd => agent::Compression::ZSTD,
        },
        diff_id: layer.diff_id.to_string(),
    };
    Layers {
        image: image.reference.as_ref().map_or_else(|| image.config_digest.to_string(), ToString::to_string),
        key: image.disk_key().hex().to_owned(),
        // One without a single byte adds nothing, and can't be a disk.
        layers: image.layers.iter().filter(|layer| layer.size > 0).map(layer).collect(),
    }
}

fn image_config(image: &Image) -> ImageConfig {
    let defaults = image.defaults();
    ImageConfig {
        entrypoint: defaults.entrypoint,
        cmd: defaults.cmd,
        env: defaults.env,
        working_dir: defaults.working_dir,
        user: defaults.user,
        volumes: defaults.volumes,
        stop_signal: defaults.stop_signal,
        exposed_ports: defaults.exposed_ports.iter().map(ToString::to_string).collect(),
        labels: defaults.labels.into_iter().collect(),
    }
}

fn container_options(args: &CreateOptions, attachment: Attachment) -> anyhow::Result<ContainerOptions> {
    let mut labels = Vec::new();
    for file in &args.label_file {
        // As Docker has it, a key without a value is none here.
        labels.extend(read_lines_file(file, "label")?.into_iter().filter(|line| line.contains('=')));
    }
    labels.extend(args.label.iter().cloned());
    let label = |text: String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (text, String::new()),
    };
    Ok(ContainerOptions {
        args: args.args.clone(),
        entrypoint: args.entrypoint.clone(),
        env: environment(&args.env_file, &args.env)?,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        milli_cpus: args.cpus.filter(|milli| *milli > 0),
        memory_bytes: args.memory.filter(|bytes| *bytes > 0),
        read_only: args.read_only,
        init: args.init,
        tmpfs: args.tmpfs.clone(),
        terminal: args.tty,
        interactive: args.interactive,
        stdin_once: attachment.stdin && !args.tty,
        attached: attachment.attached,
        labels: labels.into_iter().map(label).collect(),
        stop_signal: args.stop_signal.clone(),
        stop_timeout_s: args.stop_timeout,
    })
}

/// The variables in files, and after them those that are given; one without a value gets husk's own.
///
/// # Errors
/// When a file can't be read.
pub(crate) fn environment(files: &[std::path::PathBuf], given: &[String]) -> anyhow::Result<Vec<String>> {
    let mut env = Vec::new();
    for file in files {
        env.extend(read_lines_file(file, "env")?);
    }
    env.extend(given.iter().cloned());
    Ok(env.into_iter().filter_map(|entry| resolve_env(&entry)).collect())
}

/// `K=V` as it is; `K` alone with the value that husk itself has, if any.
fn resolve_env(entry: &str) -> Option<String> {
    if entry.contains('=') {
        return Some(entry.to_owned());
    }
    std::env::var(entry).ok().map(|value| format!("{entry}={value}"))
}

/// Docker's format: an entry per line; lines that are empty or begin with # are skipped.
fn read_lines_file(path: &Path, kind: &str) -> anyhow::Result<Vec<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {kind} file {}", path.display()))?;
    parse_lines(&text).with_context(|| format!("in {kind} file {}", path.display()))
}

fn parse_lines(text: &str) -> anyhow::Result<Vec<String>> {
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line.split('=').next().unwrap_or_default();
        if key.is_empty() || key.contains(char::is_whitespace) {
            bail!("line {}: {key:?} is not a name", number + 1);
        }
        entries.push(line.to_owned());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_have_dockers_format() {
        let entries = parse_lines("# comment\n\nA=1\n  B = x\n").unwrap_err().to_string();
        assert!(entries.contains("line 4"), "{entries}");
        assert_eq!(parse_lines("A=1 # kept\n#x\nB=\nC\n").unwrap(), ["A=1 # kept", "B=", "C"]);
        assert!(parse_lines("=x").is_err());
    }

    #[test]
    fn a_variable_without_a_value_is_passed_on() {
        assert_eq!(resolve_env("A="), Some("A=".into()));
        assert_eq!(resolve_env("HUSK_TEST_SURELY_UNSET"), None);
        assert!(resolve_env("PATH").unwrap().starts_with("PATH="));
    }
}
