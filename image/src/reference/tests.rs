use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse(text: &str) -> Reference {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn short_names_are_filled_in_as_docker_does() {
    for (short, full, familiar) in [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("user/x:1", "docker.io/user/x:1", "user/x:1"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
        ("host:5000/a/b:t", "host:5000/a/b:t", "host:5000/a/b:t"),
        ("ghcr.io/a/b/c", "ghcr.io/a/b/c:latest", "ghcr.io/a/b/c:latest"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("UPPER/a", "UPPER/a:latest", "UPPER/a:latest"),
        ("a__b/c-d--e.f_g", "docker.io/a__b/c-d--e.f_g:latest", "a__b/c-d--e.f_g:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("library/localhost", "docker.io/library/localhost:latest", "localhost:latest"),
        ("x:5000", "docker.io/library/x:5000", "x:5000"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
        ("docker.io/localhost/c", "docker.io/localhost/c:latest", "docker.io/localhost/c:latest"),
    ] {
        assert_eq!(parse(short).to_string(), full);
        assert_eq!(parse(short).familiar(), familiar);
        assert_eq!(parse(familiar), parse(short));
    }
}

#[test]
fn digests_stand_alone_or_beside_a_tag() {
    let digest = format!("sha256:{HEX}");
    let plain = parse(&format!("host:5000/a/b@{digest}"));
    assert_eq!((plain.domain(), plain.path(), plain.tag()), ("host:5000", "a/b", None));
    assert_eq!(plain.digest().map(Digest::hex), Some(HEX));
    assert_eq!(plain.wanted(), digest);
    let both = parse(&format!("busybox:1@{digest}"));
    assert_eq!((both.tag(), both.wanted()), (Some("1"), digest.clone()));
    assert_eq!(both.to_string(), format!("docker.io/library/busybox:1@{digest}"));
    assert_eq!(both.familiar(), format!("busybox:1@{digest}"));
    assert!(
        both.same_repository(&parse("busybox")) && !both.same_repository(&parse("ghcr.io/library/busybox"))
    );
}

#[test]
fn errors_say_what_is_wrong() {
    use ReferenceError as E;
    let error = |text: &str| text.parse::<Reference>().expect_err(text);
    assert_eq!(error(""), E::Empty);
    assert!(matches!(error("Busybox"), E::UpperCase(_)));
    assert!(matches!(error("host.io/aB"), E::UpperCase(_)));
    assert!(matches!(error(HEX), E::LooksLikeId(_)));
    assert!(matches!(error("-host.io/a"), E::Domain { .. }));
    assert!(matches!(error("host:port/a"), E::Domain { .. }));
    assert!(matches!(error("host:99999/a"), E::Domain { .. }));
    assert!(matches!(error("[::1/a"), E::Domain { .. }));
    assert!(matches!(error("host..io/a"), E::Domain { .. }));
    for bad in ["/a", "a//b", "a/", "a/../b", "../a", "a b", "a___b", "a._b", "-a", "a-", ".a", "hé", "a/./b"]
    {
        assert!(matches!(error(bad), E::Path { .. } | E::Domain { .. }), "{bad}: {}", error(bad));
    }
    for bad in ["a:", "a:b:c", "a:-b", &format!("a:{}", "t".repeat(129)), "a:b/c"] {
        assert!(matches!(error(bad), E::Tag { .. } | E::Path { .. } | E::Domain { .. }), "{bad}");
    }
    for bad in
        ["a@", "a@sha256:00", "a@md5:00", &format!("a@sha512:{HEX}{HEX}"), &format!("a@sha256:{HEX}@x")]
    {
        assert!(matches!(error(bad), E::Digest { .. }), "{bad}");
    }
    assert!(matches!(error(&"a".repeat(256)), E::TooLong(_)));
    assert!(matches!(error(&"a".repeat(5000)), E::TooLong(_)));
    assert_eq!(parse(&format!("h.io/{}", "a".repeat(255))).path().len(), 255);
}

fn reference_text() -> impl Strategy<Value = String> {
    let part = "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}";
    let domain = "(localhost|[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,3})?\\.[a-z]{1,4}|127\\.0\\.0\\.1|\\[::1\\])(:[1-9][0-9]{0,3})?/";
    (
        proptest::option::of(domain),
        proptest::collection::vec(part, 1..4),
        proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        proptest::option::of("[0-9a-f]{64}"),
    )
        .prop_map(|(domain, parts, tag, hex)| {
            let ambiguous = domain.is_none() && parts[0].contains('.');
            let domain = if ambiguous { Some("docker.io/".to_owned()) } else { domain };
            let mut text = format!("{}{}", domain.unwrap_or_default(), parts.join("/"));
            text.extend(tag.map(|tag| format!(":{tag}")));
            text.extend(hex.map(|hex| format!("@sha256:{hex}")));
            text
        })
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(text in reference_text()) {
        let reference = parse(&text);
        prop_assert_eq!(&parse(&reference.to_string()), &reference);
        prop_assert_eq!(&parse(&reference.familiar()), &reference);
    }

    #[test]
    fn garbage_never_panics_and_never_climbs(text in "\\PC{0,80}|[a-zA-Z0-9./:@_\\[\\]-]{0,80}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert!(reference.path().split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
            prop_assert_eq!(&parse(&reference.to_string()), &reference);
            prop_assert_eq!(&parse(&reference.familiar()), &reference);
        }
    }
}
