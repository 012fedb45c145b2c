use proptest::prelude::*;

use super::*;

fn parse_list(text: &str) -> std::result::Result<NetworkConfig, String> {
    parse(text.as_bytes(), true)
}

#[test]
fn lists_and_single_plugins_are_read() {
    let list = parse_list(
        r#"{"cniVersion": "0.4.0", "name": "net", "disableCheck": true, "plugins": [{"type": "bridge", "mtu": 1400}, {"type": "portmap"}]}"#,
    )
    .unwrap();
    assert_eq!((list.name.as_str(), list.cni_version.as_str(), list.disable_check), ("net", "0.4.0", true));
    assert_eq!(list.plugins.len(), 2);
    assert_eq!(list.plugins[0]["mtu"], 1400);
    let single = parse(br#"{"cniVersion": "1.0.0", "name": "one", "type": "ptp"}"#, false).unwrap();
    assert_eq!((single.plugins.len(), single.has_check()), (1, true));
}

#[test]
fn the_newest_version_that_both_know_is_spoken() {
    let of = |versions: &str| {
        parse_list(&format!(r#"{{{versions}, "name": "n", "plugins": [{{"type": "p"}}]}}"#))
            .map(|config| config.cni_version)
    };
    assert_eq!(of(r#""cniVersion": "0.3.1""#).unwrap(), "0.3.1");
    assert_eq!(of(r#""cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.1.0", "2.0.0"]"#).unwrap(), "1.1.0");
    let error = of(r#""cniVersion": "0.2.0""#).unwrap_err();
    assert_eq!(error, "cniVersion 0.2.0 is none of 1.1.0, 1.0.0, 0.4.0, 0.3.1");
}

#[test]
fn what_is_wrong_is_said() {
    for (text, expected) in [
        ("", "EOF"),
        ("[]", "invalid type"),
        (r#"{"cniVersion": "1.0.0"}"#, "name is missing"),
        (r#"{"cniVersion": "1.0.0", "name": "a/b", "plugins": []}"#, "must be of letters"),
        (r#"{"cniVersion": "1.0.0", "name": "", "plugins": []}"#, "must be of letters"),
        (r#"{"cniVersion": 1, "name": "n"}"#, "cniVersion must be a string"),
        (r#"{"cniVersion": "1.0.0", "name": "n", "plugins": []}"#, "0 plugins"),
        (r#"{"cniVersion": "1.0.0", "name": "n", "plugins": {}}"#, "no list of plugins"),
        (r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [1]}"#, "must be an object"),
        (r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{}]}"#, "type is missing"),
        (
            r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "../../bin/sh"}]}"#,
            "not the name of a program",
        ),
    ] {
        let error = parse_list(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_network_is_found_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
    let net =
        |name: &str, kind: &str| format!(r#"{{"cniVersion": "1.0.0", "name": "{name}", "type": "{kind}"}}"#);
    write("10-a.conf", &net("a", "first"));
    write("20-a.json", &net("a", "second"));
    write("30-b.conf", &net("b", "third"));
    write("40.txt", &net("c", "not a configuration's name"));
    assert_eq!(NetworkConfig::find(dir.path(), "a").unwrap().plugins[0]["type"], "first");
    let error = NetworkConfig::find(dir.path(), "c").unwrap_err().to_string();
    assert_eq!(error, format!("no CNI network c in {} (there are: a, a, b)", dir.path().display()));

    write("05-broken.conflist", "{");
    assert!(NetworkConfig::find(dir.path(), "b").is_ok());
    assert!(
        matches!(NetworkConfig::find(dir.path(), "c"), Err(Error::Config { .. })),
        "it may have been that one"
    );
    fs::remove_file(dir.path().join("05-broken.conflist")).unwrap();
    write("50-huge.conf", &" ".repeat((1 << 20) + 1));
    let error = NetworkConfig::find(dir.path(), "c").unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    assert!(matches!(NetworkConfig::find(Path::new("/nonexistent"), "a"), Err(Error::NoNetwork { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_a_configuration_or_an_error(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text, true);
        let _ = parse(&text, false);
    }

    #[test]
    fn what_is_read_has_names_that_are_safe_in_paths(
        name in ".{0,20}", kind in ".{0,20}", version in "(0\\.3\\.1|0\\.4\\.0|1\\.0\\.0|.{0,6})",
    ) {
        let text = serde_json::json!({"cniVersion": version, "name": name, "plugins": [{"type": kind}]}).to_string();
        if let Ok(config) = parse(text.as_bytes(), true) {
            prop_assert!(!config.name.contains(['/', '\0']) && !config.name.starts_with('.'));
            prop_assert!(!kind.contains(['/', '\0']) && !kind.starts_with('.'));
            prop_assert!(VERSIONS.contains(&config.cni_version.as_str()));
        }
    }
}
