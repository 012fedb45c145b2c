//! `husk exec`

use anyhow::bail;
use husk_protocol::pod::ExecRequest;
use husk_sandbox::{paths::Dirs, store::Store};
use husk_supervisor::Streams;

use super::container::running;
use crate::{
    args::ExecArgs,
    create::environment,
    session::{Outcome, Session, begin_to_wait},
    signals::Signals,
    terminal,
};

pub(crate) async fn run(dirs: &Dirs, args: &ExecArgs) -> anyhow::Result<u8> {
    if args.tty && args.interactive && !args.detach && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        bail!("the input device is not a TTY");
    }
    let store = Store::open(dirs)?;
    let (id, pod) = running(dirs, &store, &args.container)?;
    let exec_id = husk_base::id::random()?;
    let (rows, columns) = if args.tty { terminal::window_size().unwrap_or_default() } else { (0, 0) };
    let request = ExecRequest {
        container_id: id.clone(),
        exec_id: exec_id.clone(),
        args: args.command.clone(),
        env: environment(&args.env_file, &args.env)?,
        workdir: args.workdir.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        terminal: args.tty,
        stdin: args.interactive,
        privileged: args.privileged,
        detached: args.detach,
        rows,
        columns,
        ..ExecRequest::default()
    };
    pod.exec(&request).await?;
    if args.detach {
        pod.start(&id, &exec_id, false).await?;
        return Ok(0);
    }
    let signals = Signals::catch()?;
    let wanted = Streams { stdin: args.interactive, stdout: true, stderr: !args.tty };
    let streams = pod.attach(&id, &exec_id, wanted)?;
    let waiting = begin_to_wait(&pod, &id, &exec_id);
    let mut session = Session {
        pod: pod.clone(),
        id: id.clone(),
        exec_id: exec_id.clone(),
        streams,
        terminal: args.tty,
        sig_proxy: false,
        detach_keys: args.detach_keys.clone(),
    };
    let copying = session.begin()?;
    let started = pod.start(&id, &exec_id, false).await?;
    started.notes.iter().for_each(|note| tracing::warn!("{note}"));
    match session.attend(copying, waiting, &signals).await? {
        Outcome::Ended(ended) => Ok(ended.code),
        Outcome::Detached => Ok(0),
    }
}
