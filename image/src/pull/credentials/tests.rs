use std::os::unix::fs::PermissionsExt;

use super::*;

fn password(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
}

/// Looks a domain up in a configuration file of this content.
fn lookup(json: &str, domain: &str) -> Result<Option<Credentials>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, json).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(find(Some(&path), domain))
}

fn check(json: &str, domain: &str, expected: Option<Credentials>) {
    assert!(lookup(json, domain).unwrap() == expected, "{domain} in {json}");
}

#[test]
fn auths_are_found_by_any_of_the_usual_keys() {
    // "dTpwOnE=" is u:p:q
    for key in ["host:5000", "https://host:5000", "http://host:5000/v1/", "https://HOST:5000/v2/"] {
        let json = format!(r#"{{"auths":{{"other":{{"auth":"eDp5"}},"{key}":{{"auth":"dTpwOnE="}}}}}}"#);
        check(&json, "host:5000", password("u", "p:q"));
        check(&json, "host", None);
        check(&json, "docker.io", None);
    }
    for key in ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"] {
        check(
            &format!(r#"{{"auths":{{"{key}":{{"auth":"dTpwOnE="}}}}}}"#),
            "docker.io",
            password("u", "p:q"),
        );
    }
}

#[test]
fn every_kind_of_entry_is_understood() {
    check(r#"{"auths":{"h":{"username":"u","password":"p"}},"HttpHeaders":{}}"#, "h", password("u", "p"));
    let token = Some(Credentials::IdentityToken("t".to_owned()));
    check(r#"{"auths":{"h":{"auth":"dTpw","identitytoken":"t"}}}"#, "h", token);
    check(r#"{"auths":{"h":{}}}"#, "h", None);
    check("{}", "h", None);
    // "dTpwAAA=" is u:p and two NULs
    check(r#"{"auths":{"h":{"auth":"dTpwAAA="}}}"#, "h", password("u", "p"));
}

#[test]
fn bad_files_are_errors_that_name_the_host() {
    for json in ["", "{", r#"{"auths":{"h":{"auth":"%%"}}}"#, r#"{"auths":{"h":{"auth":"dQ=="}}}"#] {
        let Err(error) = lookup(json, "h") else { panic!("{json}") };
        assert!(matches!(&error, Error::Credentials { host, .. } if host == "h"), "{error}");
    }
}

#[test]
fn helper_names_are_no_paths() {
    let Err(error) = lookup(r#"{"credHelpers":{"h":"../../tmp/x"}}"#, "h") else { panic!() };
    assert!(error.to_string().contains("no name of a credential helper"), "{error}");
    let Err(error) = lookup(r#"{"credsStore":"surely-not-there"}"#, "h") else { panic!() };
    assert!(error.to_string().contains("docker-credential-surely-not-there"), "{error}");
}

#[test]
fn helpers_are_asked() {
    let dir = tempfile::tempdir().unwrap();
    let helper = dir.path().join("docker-credential-husktest");
    fs::write(
        &helper,
        "#!/bin/sh\nread -r host || true\ncase \"$host\" in\n\
         good) echo '{\"ServerURL\":\"good\",\"Username\":\"u\",\"Secret\":\"p\"}';;\n\
         token) echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}';;\n\
         https://index.docker.io/v1/) echo '{\"Username\":\"hub\",\"Secret\":\"p\"}';;\n\
         locked) echo 'the keychain is locked'; exit 1;;\n\
         *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n",
    )
    .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    // A process of its own, as PATH has to be another.
    let status = std::process::Command::new(env::current_exe().unwrap())
        .args(["--exact", "pull::credentials::tests::inside", "--ignored"])
        .env("PATH", format!("{}:{}", dir.path().display(), env::var("PATH").unwrap()))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "started by the test above, with a helper in PATH"]
fn inside() {
    let store = r#"{"credsStore":"husktest","auths":{"fallback":{"auth":"dTpw"}}}"#;
    check(store, "good", password("u", "p"));
    check(store, "token", Some(Credentials::IdentityToken("t".to_owned())));
    check(store, "docker.io", password("hub", "p"));
    check(store, "fallback", password("u", "p"));
    check(store, "nowhere", None);
    check(r#"{"credHelpers":{"good":"husktest"}}"#, "good", password("u", "p"));
    check(r#"{"credHelpers":{"other":"husktest"}}"#, "good", None);
    let Err(error) = lookup(store, "locked") else { panic!() };
    assert!(error.to_string().contains("the keychain is locked"), "{error}");
}
