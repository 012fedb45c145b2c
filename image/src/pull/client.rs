//! One registry, one repository: requests with authentication, and errors made clear.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::auth::{Challenge, challenge};
use super::credentials::{self, Credentials};
use super::net_error::Trouble;
use super::{PullOptions, tls};
use crate::manifest::printable;
use crate::{Error, Reference, Result};

const USER_AGENT: &str = concat!("husk/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer of a token server.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;
/// Identifies husk to a token server; no secret.
const CLIENT_ID: &str = "husk";

/// A connection pool to a registry, logged in on demand.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    /// The registry as the user calls it.
    pub(super) host: String,
    /// The image as the user calls it.
    image: String,
    repository: String,
    credentials: Option<Credentials>,
    /// The `Authorization` to send, once known.
    authorization: Mutex<Option<HeaderValue>>,
    stall_timeout: Duration,
    pub(super) retry_delay: Duration,
}

#[derive(Deserialize)]
struct TokenJson {
    token: Option<String>,
    access_token: Option<String>,
}

impl Client {
    /// Prepares for requests about `reference`; for a registry on this machine, finds out whether it speaks TLS.
    pub(super) async fn connect(reference: &Reference, options: &PullOptions) -> Result<Self> {
        let host = reference.domain().to_owned();
        let server = if host == "docker.io" { "registry-1.docker.io" } else { &host };
        let loopback = is_loopback(&host);
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(options.stall_timeout)
            // A redirect must not lead out of TLS.
            .https_only(!loopback)
            .tls_backend_preconfigured(tls::client_config(&host, &options.certs_dirs)?);
        if loopback {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| Trouble::of(&e).into_error(&host, options.stall_timeout))?;
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{server}/v2/"))
                .map_err(|e| Error::Network { host: host.clone(), cause: e.to_string() })
        };
        let mut base = url("https")?;
        if loopback && let Err(error) = http.get(base.clone()).send().await {
            match Trouble::of(&error) {
                // It does speak TLS.
                trouble @ Trouble::Certificate(_) => {
                    return Err(trouble.into_error(&host, options.stall_timeout));
                }
                _ => base = url("http")?,
            }
        }
        Ok(Self {
            http,
            base,
            image: reference.familiar(),
            repository: reference.path().to_owned(),
            credentials: credentials::find(options.docker_config.as_deref(), &host).await?,
            authorization: Mutex::new(None),
            stall_timeout: options.stall_timeout,
            retry_delay: options.retry_delay,
            host,
        })
    }

    /// Requests `/v2/REPOSITORY/PATH`, logging in if asked to. Any status but success and those in `accepted` is an
    /// error; 404 is left to the caller.
    pub(super) async fn get(
        &self,
        path: &str,
        headers: &[(HeaderName, String)],
        accepted: &[StatusCode],
    ) -> Result<Response> {
        // The repository and what is put into `path` come from parsed references and digests: nothing to escape.
        let url = self
            .base
            .join(&format!("{}/{path}", self.repository))
            .map_err(|e| Error::Network { host: self.host.clone(), cause: e.to_string() })?;
        let request = |authorization: Option<&HeaderValue>| {
            let mut request = self.http.get(url.clone());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            match authorization {
                Some(value) => request.header(AUTHORIZATION, value),
                None => request,
            }
        };
        let mut sent = self.authorization.lock().await.clone();
        let mut response = self.send(request(sent.as_ref())).await?;
        if response.status() == StatusCode::UNAUTHORIZED && response.url().host() == self.base.host() {
            sent = Some(self.log_in(response.headers(), sent).await?);
            response = self.send(request(sent.as_ref())).await?;
        }
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_FOUND || accepted.contains(&status) {
            return Ok(response);
        }
        let (host, image) = (self.host.clone(), self.image.clone());
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => match &self.credentials {
                // With Basic, the password itself was refused.
                Some(Credentials::Password { user, .. })
                    if status == StatusCode::UNAUTHORIZED
                        && sent.is_some_and(|value| value.as_bytes().starts_with(b"Basic")) =>
                {
                    Error::BadCredentials { host, user: user.clone() }
                }
                Some(_) => Error::Denied { host, image },
                None => Error::LoginNeeded { host, image },
            },
            StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { host },
            _ => Error::Status { host, status: status.as_u16(), what: path.to_owned() },
        })
    }

    /// Answers a challenge; `refused` is the authorization that was not enough. Several requests may come here at
    /// once: the first does it for all.
    async fn log_in(&self, headers: &HeaderMap, refused: Option<HeaderValue>) -> Result<HeaderValue> {
        let mut authorization = self.authorization.lock().await;
        if let Some(value) = authorization.as_ref().filter(|&value| Some(value) != refused.as_ref()) {
            return Ok(value.clone());
        }
        let text = match challenge(headers) {
            Some(Challenge::Bearer { realm, service, scope }) => {
                format!("Bearer {}", self.token(&realm, service, scope).await?)
            }
            Some(Challenge::Basic) => match &self.credentials {
                Some(Credentials::Password { user, password }) if refused.is_none() => basic(user, password),
                Some(Credentials::Password { user, .. }) => {
                    return Err(Error::BadCredentials { host: self.host.clone(), user: user.clone() });
                }
                _ => {
                    return Err(Error::LoginNeeded { host: self.host.clone(), image: self.image.clone() });
                }
            },
            None => return Err(self.protocol("it refuses access and does not say how to log in".to_owned())),
        };
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| self.protocol("the token holds forbidden characters".to_owned()))?;
        value.set_sensitive(true);
        *authorization = Some(value.clone());
        Ok(value)
    }

    /// Gets a token for this repository.
    async fn token(&self, realm: &str, service: Option<String>, scope: Option<String>) -> Result<String> {
        let mut url = Url::parse(realm)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| self.protocol(format!("bad token server {:?}", printable(realm))))?;
        let realm_host = url.host_str().unwrap_or_default().to_owned();
        if url.scheme() == "http" && !is_loopback(&realm_host) {
            // A password would travel in the clear.
            return Err(self.protocol(format!("its token server {realm_host} does not use HTTPS")));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let mut parameters: Vec<(&str, &str)> = vec![("scope", &scope)];
        parameters.extend(service.as_deref().map(|service| ("service", service)));
        let request = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                parameters.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT_ID),
                    ("refresh_token", token),
                ]);
                // A form is encoded as a query is.
                let mut form = url.clone();
                form.query_pairs_mut().clear().extend_pairs(parameters);
                self.http
                    .post(url)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.query().unwrap_or_default().to_owned())
            }
            Some(Credentials::Password { user, password }) => {
                parameters.push(("account", user));
                url.query_pairs_mut().extend_pairs(parameters);
                self.http.get(url).header(AUTHORIZATION, basic(user, password))
            }
            None => {
                url.query_pairs_mut().extend_pairs(parameters);
                self.http.get(url)
            }
        };
        let response = self.send(request).await?;
        let status = response.status();
        if !status.is_success() {
            let (host, image) = (self.host.clone(), self.image.clone());
            return Err(match (status, &self.credentials) {
                (StatusCode::TOO_MANY_REQUESTS, _) => Error::RateLimited { host },
                (s, _) if !s.is_client_error() => {
                    Error::Status { host: realm_host, status: s.as_u16(), what: "a token".to_owned() }
                }
                (_, None) => Error::LoginNeeded { host, image },
                (_, Some(Credentials::Password { user, .. })) => {
                    Error::BadCredentials { host, user: user.clone() }
                }
                (_, Some(Credentials::IdentityToken(_))) => {
                    Error::BadCredentials { host, user: "(identity token)".to_owned() }
                }
            });
        }
        let body = self.body(response, MAX_TOKEN_ANSWER, "answer of the token server").await?;
        let answer: TokenJson = serde_json::from_slice(&body)
            .map_err(|_| self.protocol("the token server's answer is not valid".to_owned()))?;
        answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| self.protocol("the token server's answer has no token".to_owned()))
    }

    /// Sends a request. Redirects are followed, without the authorization when they lead to another host.
    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        request.send().await.map_err(|e| self.trouble(&e))
    }

    /// Reads a whole body of at most `limit` bytes.
    pub(super) async fn body(&self, mut response: Response, limit: u64, what: &str) -> Result<Vec<u8>> {
        let too_large = |actual| Error::TooLarge { what: what.to_owned(), actual, limit };
        if let Some(length) = response.content_length().filter(|&length| length > limit) {
            return Err(too_large(length));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.trouble(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > limit {
                return Err(too_large(body.len() as u64));
            }
        }
        Ok(body)
    }

    /// Makes an error of the HTTP client clear.
    pub(super) fn trouble(&self, error: &reqwest::Error) -> Error {
        if error.is_redirect() || error.is_builder() {
            return self.protocol("it redirects in circles, or away from HTTPS".to_owned());
        }
        // A token server or a redirect's target may be another host.
        let host = match error.url().and_then(Url::host_str) {
            Some(host) if Some(host) != self.base.host_str() => host,
            _ => &self.host,
        };
        Trouble::of(error).into_error(host, self.stall_timeout)
    }

    pub(super) fn protocol(&self, problem: String) -> Error {
        Error::Protocol { host: self.host.clone(), problem }
    }
}

/// Whether an error may go away by itself: the connection broke, or the server is in trouble.
pub(super) fn is_transient(error: &Error) -> bool {
    match error {
        Error::Network { .. } | Error::Stalled { .. } => true,
        Error::Status { status, .. } => *status >= 500,
        _ => false,
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Whether a host, with or without a port, is this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_this_machine_is_loopback() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["localhost.evil.org", "127.0.0.1.evil.org:80", "10.0.0.1:5000", "[::2]:1", "docker.io", ""]
        {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
