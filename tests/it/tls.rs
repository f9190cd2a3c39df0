//! A hub that speaks TLS: everything as without, HTTP/2 beside HTTP/1.1, a certificate that changes while it runs, and what
//! comes of those who speak something else.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use taskhub::client::{Client, ClientError};
use taskhub::task::NewTask;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::browser::Browser;
use crate::kit::{HubProcess, PATIENCE, Program, TestHub, eventually, in_time, program};

/// A certificate of this machine and its key, in a folder.
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    pub fn new() -> Certificate {
        let made = Certificate { folder: tempfile::tempdir().expect("a temporary folder") };
        made.renew();
        made
    }

    pub fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Writes another one in the place of what is there.
    fn renew(&self) {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.arg("-keyout").arg(self.key()).arg("-out").arg(self.cert());
        let made = openssl.output().expect("openssl is needed to test TLS: run tests/deps.sh");
        assert!(made.status.success(), "{made:?}");
    }

    async fn hub(&self) -> TestHub {
        let (cert, key) = (self.cert(), self.key());
        let set =
            |config: &mut taskhub::config::ServeConfig| (config.tls_cert, config.tls_key) = (Some(cert), Some(key));
        TestHub::builder().set(set).start().await
    }

    pub fn curl(&self, arguments: &[&str]) -> Output {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(self.cert()).args(arguments);
        curl.output().expect("curl is there")
    }

    /// What curl wrote of an answer: its status, its version, its text.
    fn ask(&self, arguments: &[&str]) -> (String, String) {
        let output = self.curl(&[&["-w", "\n%{http_code} %{http_version}"], arguments].concat());
        let text = String::from_utf8(output.stdout).expect("it is text");
        let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{arguments:?}: {:?}", output.stderr));
        (status.to_owned(), body.to_owned())
    }
}

#[tokio::test]
async fn the_programs_speak_it() {
    let made = Certificate::new();
    let hub = made.hub().await;
    assert!(hub.url.starts_with("https://127.0.0.1:"), "{}", hub.url);

    // A worker and a watcher on sockets.
    let config = made.folder.path().join("worker.toml");
    std::fs::write(&config, "[tasks.greet]\ncommand = [\"echo\", \"{}\"]\n").unwrap();
    let mut worker = program();
    worker.args(["worker", "--hub", &hub.url, "--ca-cert"]).arg(made.cert()).arg("--config").arg(&config);
    let _worker = Program::start(worker);
    let client = Client::trusting(&hub.url, &made.cert()).unwrap();
    let large = "x".repeat(900_000);
    let task = client.submit(&NewTask::new("greet").payload(&large).unwrap()).await.unwrap();
    let done = in_time("the task ends", client.task(task.task_id).finished()).await.unwrap();
    assert_eq!(done.status.to_string(), "completed", "{done:?}");

    let mut command = program();
    command.args(["run", "--if-down=fail", "--hub", &hub.url, "--ca-cert"]).arg(made.cert()).args(["--", "true"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");

    // Whoever does not know the certificate, or calls it by another name, does not go on.
    let stranger = Certificate::new();
    let refused = Client::trusting(&hub.url, &stranger.cert()).unwrap().stats().await.unwrap_err();
    assert!(matches!(&refused, ClientError::Unreachable { why, .. } if why.contains("certificate")), "{refused}");
    let other_name = hub.url.replace("127.0.0.1", "127.0.0.2");
    let output = stranger.curl(&[
        "--cacert",
        made.cert().to_str().unwrap(),
        "--connect-to",
        &format!("::{}", hub.address()),
        &other_name,
    ]);
    assert!(!output.status.success(), "{output:?}");
}

#[tokio::test]
async fn both_versions_of_http_and_of_tls() {
    let made = Certificate::new();
    let hub = made.hub().await;
    let at = |path: &str| format!("{}{path}", hub.url);
    for (options, shown) in [
        (&["--http2"][..], "200 2"),
        (&["--http1.1"], "200 1.1"),
        (&["--tlsv1.2", "--tls-max", "1.2"], "200 2"),
        (&["--tlsv1.3"], "200 2"),
    ] {
        assert_eq!(made.ask(&[options, &[&at("/api/v1/stats")]].concat()).0, shown, "{options:?}");
    }
    let old = made.curl(&["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", &at("/healthz")]);
    assert!(!old.status.success(), "{old:?}");

    // A submission, where it says that it is, and events as they come, on one connection.
    let json = ["-H", "content-type: application/json", "-d", r#"{"task_type":"t"}"#];
    let (status, body) = made.ask(&[&json[..], &[&at("/api/v1/tasks")]].concat());
    let task: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, "201 2", "{body}");
    let events = made.curl(&["-N", "--max-time", "2", &at("/api/v1/events")]);
    let text = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(text.contains(task["task_id"].as_str().unwrap()) && text.contains("event: mark"), "{text}");

    // Many requests at once, each held for a while.
    let held = at(&format!("/api/v1/tasks/{}?wait_ms=[300-359]", task["task_id"].as_str().unwrap()));
    let begun = Instant::now();
    let all = made.curl(&[
        "--parallel",
        "--parallel-max",
        "60",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{http_version}\n",
        &held,
    ]);
    assert_eq!(String::from_utf8_lossy(&all.stdout).lines().filter(|line| *line == "200 2").count(), 60, "{all:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    // A socket is one of HTTP/1.1 only.
    assert_eq!(made.ask(&[&at("/api/v1/ws")]).0, "422 2");
}

/// What the door and the bounds of bodies refuse, they refuse by HTTP/2 too, and the next request goes on.
#[tokio::test]
async fn what_is_refused_is_refused_by_http_2() {
    let made = Certificate::new();
    let hub = made.hub().await;
    let at = |path: &str| format!("{}{path}", hub.url);
    let check = |options: &[&str], path: &str, expected: &str| {
        let (status, body) = made.ask(&[options, &[&at(path)]].concat());
        assert_eq!(status, format!("{expected} 2"), "{options:?} {path}: {body}");
        body
    };
    for path in ["/", "/api/v1/tasks", "/healthz", "/api/v1/events", "/nothing"] {
        let body = check(&["-H", "Host: evil.example"], path, "403");
        assert!(body.contains("evil.example is no name of this hub"), "{body}");
        check(&["-H", "Origin: https://evil.example"], path, "403");
        check(&["-H", "Origin: null"], path, "403");
        check(&["-H", "Sec-Fetch-Site: cross-site"], path, "403");
    }
    check(
        &["-X", "OPTIONS", "-H", "Origin: https://evil.example", "-H", "Access-Control-Request-Method: POST"],
        "/api/v1/tasks",
        "403",
    );
    check(&["-X", "PUT", "-d", "{}"], "/api/v1/tasks", "405");

    let body = made.folder.path().join("body");
    for (bytes, kind, expected) in [
        (3 << 20, "application/json", "413"),
        (40 << 20, "application/json", "413"),
        (40 << 20, "text/plain", "415"),
        (100, "text/plain", "415"),
    ] {
        std::fs::write(&body, vec![b' '; bytes]).unwrap();
        let data = format!("@{}", body.display());
        let kind = format!("content-type: {kind}");
        // Twice on one connection: it goes on after the first.
        let options = ["-H", &kind, "-H", "expect:", "--data-binary", &data];
        let both = made.curl(
            &[
                &options[..],
                &[
                    "-o",
                    "/dev/null",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code} %{num_connects}\n",
                    &at("/api/v1/tasks"),
                    &at("/api/v1/tasks"),
                ],
            ]
            .concat(),
        );
        assert_eq!(String::from_utf8_lossy(&both.stdout), format!("{expected} 1\n{expected} 0\n"), "{bytes} {both:?}");
    }
    let large = format!("x: {}", "x".repeat(80 << 10));
    let (status, _) = made.ask(&["-H", &large, &at("/healthz")]);
    assert!(status.starts_with("431") || status.starts_with("000"), "{status}");
    check(&[], "/healthz", "200");
    assert_eq!(hub_tasks(&made, &hub), json!([]), "nothing was submitted");
}

fn hub_tasks(made: &Certificate, hub: &TestHub) -> Value {
    let (_, body) = made.ask(&[&format!("{}/api/v1/tasks", hub.url)]);
    serde_json::from_str::<Value>(&body).unwrap()["tasks"].clone()
}

/// Plain HTTP is told so, nonsense is told nothing, and connections that say nothing are in nobody's way, also at the end.
#[tokio::test]
async fn what_is_no_tls_is_left_alone() {
    let made = Certificate::new();
    let mut hub = made.hub().await;
    let ask = async |bytes: &[u8]| {
        let mut tcp = TcpStream::connect(hub.address()).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // What is not understood is not read to its end.
        let _ = in_time("the end", tcp.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let plain = ask(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", hub.address()).as_bytes()).await;
    assert!(plain.starts_with("HTTP/1.1 400 ") && plain.contains("https://"), "{plain}");
    let mut large = b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n".to_vec();
    large.resize(large.len() + 300_000, b' ');
    assert!(ask(&large).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(ask(b"\0\0\0\0").await, "");
    assert!(!ask(b"\x16\x03\x01\x00\x05hello").await.contains("HTTP"));

    let mut silent = Vec::new();
    for n in 0..300 {
        let mut tcp = TcpStream::connect(hub.address()).await.unwrap();
        if n % 2 == 0 {
            // The beginning of a handshake.
            tcp.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
        }
        silent.push(tcp);
    }
    assert_eq!(made.ask(&[&format!("{}/healthz", hub.url)]).0, "200 2");
    let begun = Instant::now();
    hub.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart() {
    let made = Certificate::new();
    let kept = Certificate::new();
    let save = |from: &Certificate, to: &Certificate| {
        std::fs::copy(from.cert(), to.cert()).unwrap();
        std::fs::copy(from.key(), to.key()).unwrap();
    };
    save(&made, &kept);
    let data = tempfile::tempdir().unwrap();
    let (cert, key) = (made.cert(), made.key());
    let options = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let hub = HubProcess::start(data.path(), options);
    let knows = async |certificate: &Certificate| {
        let client = Client::trusting(&hub.url, &certificate.cert()).unwrap();
        client.stats().await.is_ok().then_some(())
    };
    assert!(knows(&kept).await.is_some());
    // A connection of before goes on.
    let old = Client::trusting(&hub.url, &kept.cert()).unwrap();
    old.stats().await.unwrap();

    made.renew();
    eventually("the hub shows its new certificate", async || knows(&made).await).await;
    assert!(knows(&kept).await.is_none());
    old.stats().await.unwrap();

    // What cannot be used is said once, and what was there stays.
    save(&made, &kept);
    std::fs::write(made.cert(), "-----BEGIN CERTIFICATE-----\nnonsense").unwrap();
    let complaints = || hub.program.said().lines().filter(|line| line.contains("cannot be used")).count();
    eventually("the log says so", async || (complaints() > 0).then_some(())).await;
    assert!(knows(&kept).await.is_some());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(complaints(), 1, "{}", hub.program.said());
    made.renew();
    eventually("the hub goes on with the next", async || knows(&made).await).await;
}

#[tokio::test]
async fn a_hub_without_a_usable_certificate_does_not_start() {
    let (made, other) = (Certificate::new(), Certificate::new());
    let nothing = made.folder.path().join("nothing");
    let empty = made.folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    for (cert, key, why) in [
        (nothing.clone(), made.key(), "nothing"),
        (made.cert(), nothing.clone(), "nothing"),
        (empty.clone(), made.key(), "no certificate"),
        (made.cert(), empty.clone(), "no private key"),
        (made.cert(), other.key(), "key.pem"),
        (made.key(), made.key(), "no certificate"),
    ] {
        let mut serve = program();
        serve
            .args(["serve", "--listen", "127.0.0.1:0", "--store", "memory", "--tls-cert"])
            .arg(&cert)
            .arg("--tls-key")
            .arg(&key);
        let output = serve.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && words.contains(why), "{cert:?} {key:?}: {words}");
    }
}

#[tokio::test]
async fn the_page_is_live_over_tls_in_a_real_browser() {
    let made = Certificate::new();
    let hub = made.hub().await;
    let mut page = Browser::start_with(&["--ignore-certificate-errors"]).await.open(&format!("{}/", hub.url)).await;
    page.until("document.querySelector('#connection')?.innerText === 'Live'").await;
    let version = page.look("performance.getEntriesByType('navigation')[0].nextHopProtocol").await;
    assert_eq!(version, "h2");
    let (_, body) = made.ask(&[
        "-H",
        "content-type: application/json",
        "-d",
        r#"{"task_type":"t"}"#,
        &format!("{}/api/v1/tasks", hub.url),
    ]);
    let task: Value = serde_json::from_str(&body).unwrap();
    page.until(&format!("document.querySelector('a.row[href$={}]')", task["task_id"])).await;
    page.close().await;
}

/// A frame of HTTP/2. RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// Floods that cost a sender nothing: each ends its own connection, and nothing else.
#[tokio::test]
async fn floods_of_http_2_end_their_connection_only() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const CONTINUATION: u8 = 9;
    const END_STREAM_AND_HEADERS: u8 = 5;
    let made = Certificate::new();
    let hub = made.hub().await;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(made.cert()).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    // GET / of https, at this host.
    let head = [&[0x82, 0x84, 0x87, 0x41, 9], &b"localhost"[..]].concat();
    let resets: Vec<u8> = (0..20_000)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            [frame(HEADERS, END_STREAM_AND_HEADERS, stream, &head), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
                .concat()
        })
        .collect();
    let endless: Vec<u8> = std::iter::once(frame(HEADERS, 1, 1, &head))
        .chain((0..20_000).map(|_| frame(CONTINUATION, 0, 1, &[&[0, 1, b'x', 100][..], &[b'y'; 100]].concat())))
        .flatten()
        .collect();
    for (what, flood) in [("resets", resets), ("continuations", endless)] {
        let tcp = TcpStream::connect(hub.address()).await.unwrap();
        let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let (mut from, mut to) = tokio::io::split(tls);
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
        let sending = async {
            // It may be cut off in the midst of it.
            let _ = to.write_all(&preface).await;
            let _ = to.write_all(&flood).await;
        };
        let reading = async {
            let mut answers = Vec::new();
            let _ = from.read_to_end(&mut answers).await;
        };
        in_time(format_args!("{what} end the connection"), async { tokio::join!(sending, reading) }).await;
        assert_eq!(made.ask(&[&format!("{}/api/v1/stats", hub.url)]).0, "200 2", "{what}");
    }
}

/// Whoever begins a handshake and leaves it is let go.
#[tokio::test]
async fn a_handshake_that_goes_nowhere_ends() {
    let made = Certificate::new();
    let hub = made.hub().await;
    let mut half = TcpStream::connect(hub.address()).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
    let begun = Instant::now();
    let end = tokio::time::timeout(2 * PATIENCE, half.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "it is still open after {:?}", begun.elapsed());
}
