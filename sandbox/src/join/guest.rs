//! The side of a container that joins another's VM.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use husk_protocol::{
    StreamToken,
    agent::{ImageRoot, RootFs, root_fs::Root},
};
use husk_vmm::{
    client::{Client, ClientError},
    rate_limit::RateLimit,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use super::{Hello, MAX_LINE, SOCKET, Welcome, disk_ids};
use crate::{
    Error, Result,
    container::{Container, Trouble},
    disk,
    guest::{Guest, dial_agent},
    paths::Dirs,
    privilege,
    run::RunRequest,
    rundir::{self, RunDir},
    signals::Signals,
    spec,
    timeline::{Stage, Timeline},
    unpack, vm,
};

/// Ports from here on, one for each container that joins, are dialled for its streams.
const FIRST_PORT: u32 = 0x1_0000;

/// Runs a container in the VM of `owner` to its end, and returns its exit code.
pub(crate) async fn run(
    dirs: &Dirs,
    dir: &RunDir,
    owner: &str,
    base: PathBuf,
    request: &RunRequest,
    signals: &mut Signals,
    timeline: &mut Timeline,
) -> Result<u8> {
    let (owner_id, owner_dir) = rundir::find(dirs, owner)?;
    let lost = || Error::JoinedLost { owner: owner.into() };
    let mut membership = Membership::begin(&owner_dir, dir.id()).await.map_err(|_| lost())?;
    let mut container = request.container.clone();
    container.hostname = Some(membership.hostname.clone());
    let spec = spec::build(&unpack::name(&request.image), &request.image.defaults(), &container, dir.id())?;
    disk::create(dirs, dir.scratch(), request.storage_mib)?;
    let (rootfs, devices) = attach(&owner_dir, owner, dir, &base)?;
    timeline.mark(Stage::Planned);

    let port = FIRST_PORT + rundir::number(dir.id());
    let (_socket, stdio) = StdioSocket::listen(&owner_dir, &owner_id, port)?;
    let connection = dial_agent(&vm::guest_socket(&owner_dir)).await?;
    let guest = Guest::new(connection, stdio, port, membership.token.clone(), request.timeout);
    let result = tokio::select! {
        result = async {
            guest.plug_in(devices).await?;
            let container = Container::create(&guest, dir.id(), &spec, rootfs, request).await?;
            container.attend(signals, request).await
        } => result,
        // A VM that is gone takes its husk's end of the connection with it.
        () = membership.ended() => return Err(lost()),
    };
    let exit_code = match result {
        Ok(code) => code,
        Err(Trouble::Host(error)) => return Err(error),
        Err(Trouble::Rpc(error @ ttrpc::Error::RpcStatus(_))) => return Err(error.into()),
        Err(Trouble::Rpc(_)) => return Err(lost()),
    };
    membership.leave().await;
    Ok(exit_code)
}

/// The connection that says for how long a container has joined.
struct Membership {
    stream: BufReader<UnixStream>,
    hostname: String,
    token: StreamToken,
}

impl Membership {
    async fn begin(owner_dir: &Path, id: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(owner_dir.join(SOCKET)).await?;
        let mut line = serde_json::to_vec(&Hello { id: id.into() })?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut stream = BufReader::new(stream);
        let mut answer = String::new();
        (&mut stream).take(MAX_LINE).read_line(&mut answer).await?;
        let Welcome { hostname, stream_token } = serde_json::from_str(&answer)?;
        let token = stream_token.parse().map_err(io::Error::other)?;
        Ok(Self { stream, hostname, token })
    }

    async fn ended(&mut self) {
        let mut nothing = [0];
        let _ = self.stream.read(&mut nothing).await;
    }

    /// Returns when container and disks are gone.
    async fn leave(mut self) {
        if self.stream.get_mut().shutdown().await.is_ok() {
            self.ended().await;
        }
    }
}

/// Gives the VM both disks; returns their places, too.
fn attach(owner_dir: &Path, owner: &str, dir: &RunDir, base: &Path) -> Result<(RootFs, Vec<String>)> {
    let [base_disk, scratch_disk] = disk_ids(dir.id());
    let refused = |source: ClientError| Error::Join { owner: owner.into(), source };
    let mut client = Client::connect(vm::control_path(owner_dir)).map_err(refused)?;
    let mut attach = |id: &str, path: &Path, read_only: bool| {
        let file: File =
            OpenOptions::new().read(true).write(!read_only).open(path).map_err(Error::io("open", path))?;
        client.attach_open_disk(id, file.as_fd(), read_only, RateLimit::default()).map_err(refused)
    };
    let devices = [attach(&base_disk, base, true)?, attach(&scratch_disk, dir.scratch(), false)?];
    let devices = devices.map(|attached| attached.device).into();
    let image = ImageRoot { base_disk, scratch_disk, ..Default::default() };
    Ok((RootFs { root: Some(Root::Image(image)), ..Default::default() }, devices))
}

/// Where the VM reaches this husk's streams: a socket beside its own ones. Dropping this removes it.
struct StdioSocket(PathBuf);

impl StdioSocket {
    fn listen(owner_dir: &Path, owner_id: &str, port: u32) -> Result<(Self, UnixListener)> {
        let path = vm::port_path(owner_dir, port);
        let listener = UnixListener::bind(&path).map_err(Error::io("listen on", &path))?;
        let socket = Self(path);
        let uid = privilege::is_root().then(|| rundir::uid_of(owner_id));
        std::os::unix::fs::chown(&socket.0, uid, uid).map_err(Error::io("change the owner of", &socket.0))?;
        Ok((socket, listener))
    }
}

impl Drop for StdioSocket {
    fn drop(&mut self) {
        // It may have gone with the VM.
        let _ = fs::remove_file(&self.0);
    }
}
