//! Which requests come in: by name, by page, by what browsers say of them.

use super::*;

fn door(listen: &str, hosts: &[&str], origins: &[&str]) -> Door {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let listen: IpAddr = listen.parse().unwrap();
    Door::new(!listen.to_canonical().is_loopback(), &owned(hosts), &owned(origins)).unwrap()
}

fn parts(target: &str, headers: &[(&str, &str)]) -> Parts {
    let request =
        headers.iter().fold(Request::builder().uri(target), |request, (name, value)| request.header(*name, *value));
    request.body(()).unwrap().into_parts().0
}

#[test]
fn the_names_of_a_hub_that_listens_here_only() {
    let door = door("127.0.0.1", &["hub.example", " Other.Example.", "[2001:db8::1]", ""], &[]);
    for (host, known) in [
        ("127.0.0.1:8080", true),
        ("127.0.0.1", true),
        ("127.8.9.10:1", true),
        ("localhost:8080", true),
        ("LOCALHOST:8080", true),
        ("localhost.", true),
        ("app.localhost:3000", true),
        ("[::1]:8080", true),
        ("[0:0:0:0:0:0:0:1]", true),
        ("[::ffff:127.0.0.1]", true),
        ("localhost:", true),
        ("hub.example", true),
        ("HUB.example:9000", true),
        ("other.example", true),
        ("[2001:db8:0::1]:80", true),
        ("evil.example", false),
        ("evil.example:8080", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("127.0.0.1.nip.io", false),
        ("notlocalhost", false),
        ("sub.hub.example", false),
        ("hub.example.evil", false),
        ("hub", false),
        ("0.0.0.0:8080", false),
        ("[::]:8080", false),
        ("10.0.0.5", false),
        ("127.1", false),
        ("2130706433", false),
        ("user@127.0.0.1", false),
        ("127.0.0.1@evil.example", false),
        ("127.0.0.1:8080@evil.example", false),
        ("127.0.0.1:80:80", false),
        ("127.0.0.1:99999", false),
        ("127.0.0.1:+80", false),
        ("127.0.0.1/", false),
        ("127.0.0.1, evil.example", false),
        ("http://127.0.0.1", false),
        ("[::1", false),
        ("::1", false),
        ("[::1]x", false),
        ("[::1%lo]", false),
        ("", false),
        (":8080", false),
        (".", false),
    ] {
        assert_eq!(door.admits(&parts("/", &[("host", host)]), true).is_ok(), known, "{host:?}");
    }
    for headers in
        [&[][..], &[("host", "127.0.0.1"), ("host", "127.0.0.1")], &[("host", "127.0.0.1"), ("host", "evil.example")]]
    {
        assert!(door.admits(&parts("/", headers), true).is_err(), "{headers:?}");
    }
}

#[test]
fn a_target_with_a_host_counts_as_the_host() {
    let door = door("127.0.0.1", &[], &[]);
    let check = |target: &str, headers: &[(&str, &str)], known: bool| {
        assert_eq!(door.admits(&parts(target, headers), true).is_ok(), known, "{target} {headers:?}");
    };
    check("http://localhost:8080/api/v1/tasks", &[("host", "localhost:8080")], true);
    check("http://localhost:8080/api/v1/tasks", &[], true);
    check("http://evil.example/api/v1/tasks", &[("host", "localhost:8080")], false);
    check("http://localhost:8080/api/v1/tasks", &[("host", "evil.example")], false);
    check("http://user@localhost/", &[("host", "localhost")], false);
}

#[test]
fn the_names_of_a_hub_that_others_can_reach() {
    for listen in ["0.0.0.0", "192.168.1.5", "::"] {
        let door = door(listen, &["hub.example"], &[]);
        for (host, known) in [
            ("192.168.1.5:8080", true),
            ("[fd00::5]:8080", true),
            ("127.0.0.1", true),
            ("hub:8080", true),
            ("host.docker.internal:8080", true),
            ("hub.default.svc.cluster.local", true),
            ("hub.example", true),
            ("evil.example", false),
            ("192.168.1.5.evil.example", false),
            ("evil.local.example", false),
        ] {
            assert_eq!(door.admits(&parts("/", &[("host", host)]), true).is_ok(), known, "{listen}: {host}");
        }
    }
    assert!(door("127.0.0.1", &["*"], &[]).admits(&parts("/", &[("host", "any.example")]), true).is_ok());
}

#[test]
fn whose_pages_come_in() {
    let door = door("127.0.0.1", &["hub.example"], &["https://app.example", "http://dev.example:3000", "app://x"]);
    let open = super::tests::door("0.0.0.0", &["*"], &[]);
    for (door, host, origin, expected) in [
        (&door, "127.0.0.1:8080", "http://127.0.0.1:8080", "own"),
        (&door, "hub.example", "https://hub.example", "own"),
        (&door, "hub.example", "http://hub.example", "own"),
        (&door, "hub.example:443", "https://HUB.example", "own"),
        (&door, "hub.example", "https://hub.example:443", "own"),
        (&door, "127.0.0.1:8080", "http://localhost:8080", "page"),
        (&door, "127.0.0.1:8080", "http://127.0.0.1:3000", "page"),
        (&door, "127.0.0.1:8080", "http://[::1]:3000", "page"),
        (&door, "127.0.0.1:8080", "https://app.localhost", "page"),
        (&door, "127.0.0.1:8080", "http://hub.example:8081", "page"),
        (&door, "hub.example", "http://hub.example:8081", "page"),
        (&door, "127.0.0.1:8080", "https://app.example", "page"),
        (&door, "127.0.0.1:8080", "https://app.example:443", "page"),
        (&door, "127.0.0.1:8080", "http://dev.example:3000", "page"),
        (&door, "127.0.0.1:8080", "app://x", "page"),
        (&door, "127.0.0.1:8080", "http://app.example", "no"),
        (&door, "127.0.0.1:8080", "https://app.example:8443", "no"),
        (&door, "127.0.0.1:8080", "http://dev.example", "no"),
        (&door, "127.0.0.1:8080", "https://sub.app.example", "no"),
        (&door, "127.0.0.1:8080", "https://evil.example", "no"),
        (&door, "127.0.0.1:8080", "https://localhost.evil.example", "no"),
        (&door, "127.0.0.1:8080", "http://127.0.0.1.evil.example:8080", "no"),
        (&door, "127.0.0.1:8080", "http://evil.example@127.0.0.1:8080", "no"),
        (&door, "127.0.0.1:8080", "http://127.0.0.1:8080, https://evil.example", "no"),
        (&door, "127.0.0.1:8080", "null", "no"),
        (&door, "127.0.0.1:8080", "", "no"),
        (&door, "127.0.0.1:8080", "file://", "no"),
        (&door, "127.0.0.1:8080", "127.0.0.1:8080", "no"),
        (&door, "127.0.0.1:8080", "chrome-extension://abc", "no"),
        (&door, "127.0.0.1:8080", "app://127.0.0.1:8080", "no"),
        (&open, "any.example:8080", "http://any.example:8080", "own"),
        (&open, "any.example:8080", "http://any.example", "no"),
        (&open, "10.0.0.5:8080", "http://10.0.0.6:8080", "no"),
        (&open, "hub:8080", "http://other:8080", "no"),
    ] {
        let got = match door.admits(&parts("/", &[("host", host), ("origin", origin)]), true) {
            Ok(Admitted::Own) => "own",
            Ok(Admitted::Page(named)) => {
                assert_eq!(named, origin);
                "page"
            }
            Ok(Admitted::Plain) => "plain",
            Err(_) => "no",
        };
        assert_eq!(got, expected, "{origin} to {host}");
    }
    let twice = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "https://evil.example")];
    assert!(door.admits(&parts("/", &twice), true).is_err());
}

#[test]
fn what_pages_of_other_sites_load_without_an_origin() {
    let door = door("127.0.0.1", &[], &[]);
    let check = |method: &str, path: &str, fetch: [&str; 3], known: bool| {
        let [site, mode, dest] = fetch;
        let headers =
            [("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
        let mut parts = parts(path, &headers);
        parts.method = method.parse().unwrap();
        assert_eq!(door.admits(&parts, true).is_ok(), known, "{method} {path} {fetch:?}");
    };
    for path in ["/", "/api/v1/tasks", "/nothing"] {
        check("GET", path, ["same-origin", "cors", "empty"], true);
        check("GET", path, ["none", "navigate", "document"], true);
        check("GET", path, ["cross-site", "no-cors", "image"], false);
        check("GET", path, ["cross-site", "no-cors", "script"], false);
        check("GET", path, ["cross-site", "navigate", "iframe"], false);
        check("POST", path, ["cross-site", "navigate", "document"], false);
        check("GET", path, ["cross-site", "navigate", "document"], !path.starts_with("/api/v1"));
    }
    check("GET", "/api/docs", ["cross-site", "navigate", "document"], true);
}

#[test]
fn who_is_refused_is_told_the_names_and_what_to_do() {
    let door = door("127.0.0.1", &[], &[]);
    let words = |headers: &[(&str, &str)]| match door.admits(&parts("/", headers), true) {
        Err(refused) => refused.words(),
        Ok(_) => panic!("{headers:?} was let in"),
    };
    assert_eq!(
        words(&[("host", "Hub.example:8081")]),
        "hub.example:8081 is no name of this hub; allow it with --hosts hub.example"
    );
    let behind_a_proxy = words(&[("host", "127.0.0.1:8080"), ("origin", "http://hub.example:8081")]);
    assert_eq!(
        behind_a_proxy,
        "a page of http://hub.example:8081 may not use 127.0.0.1:8080; allow it with --hosts hub.example or --origins"
    );
    assert!(behind_a_proxy.len() <= 123, "it fits into a close frame");
    assert_eq!(words(&[]), "the request names no host");
    assert_eq!(words(&[("host", "a@b")]), "\"a@b\" is no name of this hub");
    assert_eq!(words(&[("host", "localhost"), ("origin", "null")]), "a page of origin \"null\" may not use localhost");
    assert_eq!(words(&[("host", &format!("{}.example", "x".repeat(5_000)))]).len(), WORDS_CHARS_MAX);
}
