//! The real thing: Debian's docker-registry on a free port of 127.0.0.1, and skopeo to push to it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

pub(crate) const USER: &str = "testuser";
pub(crate) const PASSWORD: &str = "correct horse";

/// A running registry, ended when dropped.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`
    pub(crate) host: String,
    pub(crate) dir: TempDir,
    secure: bool,
}

impl Registry {
    /// Plain HTTP, open to all.
    pub(crate) fn open() -> Self {
        Self::start(tempfile::tempdir().unwrap(), "", false)
    }

    /// HTTPS with a CA of its own (`ca.crt` in its directory), and a password.
    pub(crate) fn secure() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let ca = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=husk test CA"];
        run(path, "openssl", &[&ca[..], &key].concat());
        let request = ["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"];
        run(path, "openssl", &[&request[..], &key[..5]].concat());
        fs::write(path.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        let sign = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt \
                    -extfile names";
        run(path, "openssl", &sign.split_whitespace().collect::<Vec<_>>());
        Self::with_password(dir)
    }

    /// As Docker's manual makes one for trying out: HTTPS with a self-signed certificate, which is a CA at the same
    /// time (`server.crt`), and a password.
    pub(crate) fn self_signed() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout server.key \
                    -out server.crt -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1";
        run(dir.path(), "openssl", &make.split_whitespace().collect::<Vec<_>>());
        Self::with_password(dir)
    }

    /// Starts it with the certificate in `dir`.
    fn with_password(dir: TempDir) -> Self {
        let path = dir.path();
        let htpasswd = run(path, "htpasswd", &["-Bbn", USER, PASSWORD]);
        fs::write(path.join("htpasswd"), htpasswd).unwrap();
        let extra = format!(
            "  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n\
             auth:\n  htpasswd:\n    realm: test\n    path: {0}/htpasswd\n",
            path.display()
        );
        Self::start(dir, &extra, true)
    }

    fn start(dir: TempDir, extra: &str, secure: bool) -> Self {
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}/data\n\
             http:\n  addr: 127.0.0.1:0\n  secret: test\n{extra}",
            dir.path().display()
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start docker-registry ({e}): install it with `make setup`"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                seen.push_str(&line);
                let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
                Some(rest.chars().take_while(char::is_ascii_digit).collect::<String>())
            })
            .unwrap_or_else(|| panic!("docker-registry did not start: {seen}"));
        // It must not block on a full pipe.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, host: format!("127.0.0.1:{port}"), dir, secure }
    }

    /// Pushes what an OCI layout directory holds as `name`, with all platforms, in OCI or Docker format.
    pub(crate) fn push(&self, layout: &Path, name: &str, options: &[&str]) {
        let source = format!("oci:{}:t", layout.display());
        let target = format!("docker://{}/{name}", self.host);
        let credentials = format!("--dest-creds={USER}:{PASSWORD}");
        let mut arguments = vec!["--insecure-policy", "copy", "--dest-tls-verify=false"];
        if self.secure {
            arguments.push(&credentials);
        }
        arguments.extend(options);
        arguments.extend([source.as_str(), &target]);
        run(self.dir.path(), "skopeo", &arguments);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Runs a program in `dir` and returns its output.
pub(crate) fn run(dir: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("cannot start {program} ({e}): install it with `make setup`"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    output.stdout
}
