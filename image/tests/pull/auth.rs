//! Token servers, identity tokens, redirects.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use husk_image::Error;
use serde_json::json;

use crate::fixture::{Puller, TestImage};
use crate::server::{Reply, Request, Server, registry_reply};

/// `u:p`, encoded for Basic.
const BASIC: &str = "Basic dTpw";

/// A registry that wants tokens and issues them itself under `/token`; `judge` says which token a request is worth.
fn token_registry(
    made: &TestImage,
    judge: impl Fn(&Request) -> Option<String> + Send + Sync + 'static,
) -> Server {
    let image = made.clone();
    Server::start(move |request| {
        if request.path.starts_with("/token") {
            return match judge(request) {
                Some(token) => {
                    Reply::new(200, json!({"token": token, "expires_in": 60}).to_string().as_bytes())
                }
                None => Reply::new(401, br#"{"details":"incorrect username or password"}"#),
            };
        }
        if request.header("authorization") == Some("Bearer good") {
            return registry_reply(&image, request);
        }
        let host = request.header("host").unwrap_or_default();
        let challenge = format!(
            "Bearer realm=\"http://{host}/token?x=y\",service=\"the service\",scope=\"repository:a/x:pull\""
        );
        Reply::new(401, b"").header("WWW-Authenticate", challenge)
    })
}

#[tokio::test]
async fn tokens_are_fetched_once_and_used() {
    let made = TestImage::new(&[1000, 2000, 3000]);
    let server = token_registry(&made, |_| Some("good".to_owned()));
    let puller = Puller::new();
    puller.check(&puller.pull(&format!("{}/a/x", server.host)).await.unwrap(), &made);
    let requests = server.requests("/token");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].path, "/token?x=y&scope=repository%3Aa%2Fx%3Apull&service=the+service");
    assert_eq!(requests[0].header("authorization"), None);
}

#[tokio::test]
async fn passwords_go_to_the_token_server_only() {
    let made = TestImage::new(&[1000]);
    let server = token_registry(&made, |request| {
        (request.header("authorization") == Some(BASIC)).then(|| "good".to_owned())
    });
    let name = format!("{}/a/x", server.host);
    let puller = Puller::new();
    let error = puller.pull(&name).await.unwrap_err();
    assert!(matches!(&error, Error::LoginNeeded { .. }), "{error}");
    assert!(error.to_string().contains(&format!("docker login {}", server.host)), "{error}");
    puller.log_in(&server.host, "u", "wrong");
    let error = puller.pull(&name).await.unwrap_err();
    assert!(matches!(&error, Error::BadCredentials { user, .. } if user == "u"), "{error}");
    puller.log_in(&server.host, "u", "p");
    puller.check(&puller.pull(&name).await.unwrap(), &made);
    assert!(server.requests("/token").last().unwrap().path.ends_with("&account=u"));
    assert!(server.requests("/v2/").iter().all(|r| r.header("authorization") != Some(BASIC)));
}

#[tokio::test]
async fn identity_tokens_are_exchanged() {
    let made = TestImage::new(&[1000]);
    let server = token_registry(&made, |request| {
        let good = request.method == "POST"
            && request.header("content-type") == Some("application/x-www-form-urlencoded")
            && request.body.contains("grant_type=refresh_token")
            && request.body.contains("refresh_token=secret%2F1")
            && request.body.contains("service=the+service");
        good.then(|| "good".to_owned())
    });
    let puller = Puller::new();
    puller.docker_config(&json!({"auths": {&server.host: {"identitytoken": "secret/1"}}}));
    puller.check(&puller.pull(&format!("{}/a/x", server.host)).await.unwrap(), &made);
    puller.docker_config(&json!({"auths": {&server.host: {"identitytoken": "other"}}}));
    let error = puller.pull(&format!("{}/a/x", server.host)).await.unwrap_err();
    assert!(matches!(error, Error::BadCredentials { .. }), "{error}");
}

#[tokio::test]
async fn a_token_that_is_not_enough_is_an_answer() {
    let made = TestImage::new(&[10]);
    let server = token_registry(&made, |_| Some("weak".to_owned()));
    let name = format!("{}/a/x", server.host);
    let puller = Puller::new();
    assert!(matches!(puller.pull(&name).await, Err(Error::LoginNeeded { .. })));
    puller.log_in(&server.host, "u", "p");
    assert!(matches!(puller.pull(&name).await, Err(Error::Denied { .. })));
    // Line breaks would smuggle headers.
    let server = token_registry(&made, |_| Some("a\r\nX-Evil: 1".to_owned()));
    let error = puller.pull(&format!("{}/a/x", server.host)).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn an_expired_token_is_renewed() {
    let made = TestImage::new(&[1000, 2000]);
    let image = made.clone();
    // Every token is good for two requests.
    let (issued, used) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            used.store(0, Ordering::SeqCst);
            let token = format!("t{}", issued.fetch_add(1, Ordering::SeqCst) + 1);
            return Reply::new(200, json!({"access_token": token}).to_string().as_bytes());
        }
        let current = format!("Bearer t{}", issued.load(Ordering::SeqCst));
        if request.header("authorization") == Some(&current) && used.fetch_add(1, Ordering::SeqCst) < 2 {
            return registry_reply(&image, request);
        }
        let host = request.header("host").unwrap_or_default();
        Reply::new(401, b"").header("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\""))
    });
    let puller = Puller::new();
    puller.check(&puller.pull(&format!("{}/a/x", server.host)).await.unwrap(), &made);
    assert!(server.requests("/token").len() > 1);
    assert_eq!(server.requests("/token")[0].path, "/token?scope=repository%3Aa%2Fx%3Apull");
}

#[tokio::test]
async fn token_servers_in_the_clear_get_nothing() {
    for realm in ["http://token.invalid/", "ftp://x/", "nonsense", ""] {
        let server = Server::start(move |_| {
            Reply::new(401, b"").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
        });
        let puller = Puller::new();
        puller.log_in(&server.host, "u", "p");
        let error = puller.pull(&format!("{}/a/x", server.host)).await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{realm}: {error}");
    }
    let server = Server::start(|_| Reply::new(401, b""));
    let error = Puller::new().pull(&format!("{}/a/x", server.host)).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_without_the_token() {
    let made = TestImage::new(&[5000]);
    let image = made.clone();
    let storage = Arc::new(Server::start(move |request| registry_reply(&image, request)));
    let (image, target) = (made.clone(), storage.host.clone());
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            return Reply::new(200, br#"{"token":"good"}"#);
        }
        if request.header("authorization") != Some("Bearer good") {
            let host = request.header("host").unwrap_or_default();
            let realm = format!("Bearer realm=\"http://{host}/token\"");
            return Reply::new(401, b"").header("WWW-Authenticate", realm);
        }
        if request.path.contains("/blobs/") {
            return Reply::new(307, b"").header("Location", format!("http://{target}{}", request.path));
        }
        registry_reply(&image, request)
    });
    let puller = Puller::new();
    puller.check(&puller.pull(&format!("{}/a/x", server.host)).await.unwrap(), &made);
    let seen = storage.requests("/blobs/");
    assert!(!seen.is_empty() && seen.iter().all(|r| r.header("authorization").is_none()));
    // In circles.
    let server = Server::start(|request| Reply::new(302, b"").header("Location", request.path.clone()));
    let error = puller.pull(&format!("{}/a/x", server.host)).await.unwrap_err();
    assert!(error.to_string().contains("redirects in circles"), "{error}");
}
