//! Streams and terminals.

use husk_protocol::{
    StdioKind,
    agent::{ResizeTtyRequest, Stdio},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    containers::guest_tests,
    guest::{Guest, context, exec, id, in_guest, request, send, sh, spec},
};

guest_tests! {
    async fn loses_and_reorders_nothing(guest: Guest) {
        // Both ways at once, more than all buffers together hold.
        let mut request = sh("cat; echo end >&2");
        request.stdio.as_mut().unwrap().stdin = true;
        guest.create(&request).await.unwrap();
        guest.start().await;
        let bytes: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let stdin = guest.stream("", StdioKind::Stdin).await;
        let mut stdout = guest.stream("", StdioKind::Stdout).await;
        let mut received = Vec::new();
        let (_, read, err, exit) = tokio::join!(
            send(stdin, &bytes),
            stdout.read_to_end(&mut received),
            guest.output("", StdioKind::Stderr),
            guest.wait("")
        );
        assert_eq!(read.unwrap(), bytes.len());
        assert!(received == bytes, "the bytes came back changed");
        assert_eq!((exit.exit_code, err.as_str()), (0, "end\n"));
        guest.delete().await;
    }

    async fn a_slow_host_holds_up_the_process(guest: Guest) {
        guest.create(&sh("seq 1 200000; echo done >&2")).await.unwrap();
        guest.start().await;
        let mut stdout = guest.stream("", StdioKind::Stdout).await;
        let stderr = guest.stream("", StdioKind::Stderr).await;
        let mut first = [0; 2];
        stdout.read_exact(&mut first).await.unwrap();
        // Nothing on stderr: the process waits in its write to stdout.
        assert!(stderr.try_read(&mut [0; 8]).is_err());
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).await.unwrap();
        assert_eq!(&first, b"1\n");
        assert!(rest.starts_with("2\n3\n") && rest.ends_with("199999\n200000\n"));
        assert_eq!(guest.wait("").await.exit_code, 0);
        guest.delete().await;
    }

    async fn a_stream_that_the_host_closes_breaks_the_pipe(guest: Guest) {
        guest.create(&request(&spec(&["yes"]))).await.unwrap();
        guest.start().await;
        let mut stdout = guest.stream("", StdioKind::Stdout).await;
        stdout.read_exact(&mut [0; 2]).await.unwrap();
        drop(stdout);
        // The first process of a PID namespace does not die of SIGPIPE; `yes` then fails with EPIPE.
        assert_eq!(guest.wait("").await.exit_code, 1);
        guest.delete().await;

        guest.create(&sh("yes; echo $? >&2")).await.unwrap();
        guest.start().await;
        drop(guest.stream("", StdioKind::Stdout).await);
        assert_eq!(guest.output("", StdioKind::Stderr).await, "141\n");
        guest.delete().await;
    }

    async fn input_ends_when_the_process_closes_it(guest: Guest) {
        let mut request = sh("exec 0<&-; echo closed; while :; do sleep 1; done");
        request.stdio.as_mut().unwrap().stdin = true;
        guest.create(&request).await.unwrap();
        guest.start().await;
        let mut stdin = guest.stream("", StdioKind::Stdin).await;
        assert_eq!(stdin.read(&mut [0]).await.unwrap(), 0);
        guest.delete().await;
    }

    async fn wait_does_not_wait_for_background_processes(guest: Guest) {
        guest.create(&sh("while :; do sleep 1; done")).await.unwrap();
        guest.start().await;
        let background = exec("e", &["sh", "-c", "(read -t 1000 x < /dev/zero; sleep 1000) & echo out"]);
        guest.api.exec(context(), &background).await.unwrap();
        assert_eq!(guest.wait("e").await.exit_code, 0);
        let mut out = [0; 4];
        guest.stream("e", StdioKind::Stdout).await.read_exact(&mut out).await.unwrap();
        assert_eq!(&out, b"out\n");
        guest.delete().await;
    }

    async fn without_streams_there_is_dev_null(guest: Guest) {
        let mut request = sh("cat; echo lost; fds=$(ls -l /proc/1/fd/0 /proc/1/fd/1); echo \"$fds\" >&2");
        *request.stdio.as_mut().unwrap() = Stdio { stderr: true, ..Default::default() };
        guest.create(&request).await.unwrap();
        guest.start().await;
        let err = guest.output("", StdioKind::Stderr).await;
        for fd in ["/proc/1/fd/0 -> /dev/null\n", "/proc/1/fd/1 -> /dev/null\n"] {
            assert!(err.contains(fd), "{err}");
        }
        assert!(!err.contains("write error"), "{err}");
        guest.delete().await;
    }

    async fn a_terminal_is_a_terminal(guest: Guest) {
        let script = "tty; stty size; stat -c %u $(tty); read line; echo got $line; read line; stty size; \
            trap 'echo int; exit 7' INT; echo again; read line";
        let mut request = sh(script);
        *request.stdio.as_mut().unwrap() =
            Stdio { stdin: true, stdout: true, terminal: true, rows: 30, columns: 90, ..Default::default() };
        request.user = "www".into();
        guest.create(&request).await.unwrap();
        guest.start().await;
        let mut stdin = guest.stream("", StdioKind::Stdin).await;
        let mut stdout = guest.stream("", StdioKind::Stdout).await;
        expect(&mut stdout, "/dev/pts/0\r\n30 90\r\n33\r\n").await;
        stdin.write_all(b"hello\n").await.unwrap();
        expect(&mut stdout, "hello\r\ngot hello\r\n").await;
        let size = ResizeTtyRequest { container_id: id(), rows: 40, columns: 100, ..Default::default() };
        guest.api.resize_tty(context(), &size).await.unwrap();
        stdin.write_all(b"\n").await.unwrap();
        expect(&mut stdout, "\r\n40 100\r\nagain\r\n").await;
        stdin.write_all(b"\x03").await.unwrap();
        expect(&mut stdout, "^C").await;
        assert_eq!(guest.wait("").await.exit_code, 7);
        guest.delete().await;

        guest.create(&sh("while :; do sleep 1; done")).await.unwrap();
        guest.start().await;
        let mut shell = exec("t", &["sh", "-c", "tty; stty size; exit 3"]);
        *shell.stdio.as_mut().unwrap() =
            Stdio { stdin: true, stdout: true, terminal: true, rows: 11, columns: 22, ..Default::default() };
        let (code, out) = guest.exec(&shell).await.unwrap();
        assert_eq!((code, out.as_str()), (3, "/dev/pts/0\r\n11 22\r\n"));
        guest.delete().await;
    }
}

async fn expect(stream: &mut tokio::net::UnixStream, expected: &str) {
    let mut text = vec![0; expected.len()];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&text), expected);
}
