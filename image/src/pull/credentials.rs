//! Credentials from Docker's `config.json` and credential helpers.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::{Error, Result};

#[cfg(test)]
mod tests;

/// The key Docker uses for Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// A helper may have to ask the user to unlock something.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// How to log in. Has no `Debug`, so that secrets stay out of logs.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigJson {
    auths: HashMap<String, AuthJson>,
    creds_store: String,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthJson {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperJson {
    username: String,
    secret: String,
}

/// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
pub(super) fn default_config_path() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(dir.join("config.json"))
}

/// Looks up the credentials for a registry, `domain` as in an image's name.
pub(super) async fn find(config: Option<&Path>, domain: &str) -> Result<Option<Credentials>> {
    let Some(path) = config else { return Ok(None) };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let trouble = |problem: String| Error::Credentials { host: domain.to_owned(), problem };
    let config: ConfigJson =
        serde_json::from_str(&text).map_err(|e| trouble(format!("{} is not valid: {e}", path.display())))?;

    let helper = config
        .cred_helpers
        .iter()
        .find(|(key, _)| is_key_of(key, domain))
        .map(|(_, name)| name.as_str())
        .or(Some(config.creds_store.as_str()))
        .filter(|name| !name.is_empty());
    if let Some(name) = helper {
        let key = if domain == "docker.io" { HUB_KEY } else { domain };
        if let Some(found) = ask_helper(name, key).await.map_err(trouble)? {
            return Ok(Some(found));
        }
    }
    let Some(auth) = config.auths.iter().find(|(key, _)| is_key_of(key, domain)).map(|(_, auth)| auth) else {
        return Ok(None);
    };
    auth.credentials().map_err(|problem| trouble(format!("{}: {problem}", path.display())))
}

/// Whether a key of `config.json` means this registry: keys may have a scheme and a path.
fn is_key_of(key: &str, domain: &str) -> bool {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = host.split('/').next().unwrap_or(host);
    if domain == "docker.io" {
        return matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    }
    host.eq_ignore_ascii_case(domain)
}

impl AuthJson {
    fn credentials(&self) -> std::result::Result<Option<Credentials>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identitytoken.clone())));
        }
        if !self.auth.is_empty() {
            let bad = || "an \"auth\" value is not the base64 of USER:PASSWORD".to_owned();
            let bytes = STANDARD.decode(self.auth.trim()).map_err(|_| bad())?;
            let text = String::from_utf8(bytes).map_err(|_| bad())?;
            let (user, password) = text.split_once(':').ok_or_else(bad)?;
            // Docker pads with NUL in old files.
            let (user, password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
            return Ok(Some(Credentials::Password { user, password }));
        }
        if !self.username.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Ok(Some(Credentials::Password { user, password }));
        }
        Ok(None)
    }
}

/// Runs `docker-credential-NAME get`. The error is the problem in words.
async fn ask_helper(name: &str, key: &str) -> std::result::Result<Option<Credentials>, String> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err(format!("{name:?} is no name of a credential helper"));
    }
    let program = format!("docker-credential-{name}");
    let failed = |problem: String| format!("{program}: {problem}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that ends without reading says why on its own output.
        let _ = stdin.write_all(key.as_bytes()).await;
    }
    let output = tokio::time::timeout(HELPER_TIMEOUT, child.wait_with_output())
        .await
        .map_err(|_| failed("it did not answer".to_owned()))?
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        // Helpers print their errors on standard output.
        let message = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if message.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(if message.is_empty() { output.status.to_string() } else { message }));
    }
    let answer: HelperJson =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is not valid".to_owned()))?;
    Ok(Some(if answer.username == TOKEN_USER {
        Credentials::IdentityToken(answer.secret)
    } else {
        Credentials::Password { user: answer.username, password: answer.secret }
    }))
}
