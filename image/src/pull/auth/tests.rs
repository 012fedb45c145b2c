use proptest::prelude::*;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};

use super::*;

fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
    Challenge::Bearer {
        realm: realm.to_owned(),
        service: service.map(str::to_owned),
        scope: scope.map(str::to_owned),
    }
}

#[test]
fn usual_challenges() {
    assert_eq!(
        parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
        ),
        [bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:a/b:pull,push")
        )]
    );
    assert_eq!(parse(r#"Basic realm="Registry Realm""#), [Challenge::Basic]);
    assert_eq!(parse(r#"bearer REALM = "x" , error=invalid_token"#), [bearer("x", None, None)]);
    assert_eq!(parse(r#"Bearer realm="a\"b\\c""#), [bearer("a\"b\\c", None, None)]);
    assert_eq!(
        parse(r#"Negotiate, Basic realm="a, b", Bearer realm=c"#),
        [Challenge::Basic, bearer("c", None, None)]
    );
    assert_eq!(parse("Bearer"), []);
    assert_eq!(parse("Digest realm=x"), []);
    assert_eq!(parse("é=, ;\"Basic"), [Challenge::Basic]);
}

#[test]
fn bearer_is_preferred_among_headers() {
    let mut headers = HeaderMap::new();
    assert_eq!(challenge(&headers), None);
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=x"));
    assert_eq!(challenge(&headers), Some(Challenge::Basic));
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=y"));
    assert_eq!(challenge(&headers), Some(bearer("y", None, None)));
}

proptest! {
    #[test]
    fn garbage_never_panics(text in "\\PC{0,60}|(Bearer|Basic|realm|=|\"|,| |\\\\|é){0,20}") {
        parse(&text);
    }
}
