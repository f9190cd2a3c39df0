//! The parser of frames against Autobahn's test suite, and the echo server that the suite talks to.
//!
//! `make autobahn` installs the suite and runs all of it but compression, which is not offered. The report of each case,
//! with what went over the wire, is left in `target/autobahn/report`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use taskhub::feed::{FrameHead, Opcode};
use taskhub::http::inside::{Broken, Heard, Inbound, close_frame, pong_frame};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::{self, Message};

/// The largest message of the suite is 16 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How long the other side may take to close once it was told.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// The cases that are left when those about compression (12 and 13) are taken away.
const CASES: usize = 301;

/// Starts an echo server that ends with the process.
fn start_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A peer that is gone is no failure of ours: the suite tells what it thinks of each connection.
            thread::spawn(move || echo(stream));
        }
    });
    address
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    let mut len = shake_hands(&mut stream, &mut buffer)?;
    let mut inbound = Inbound::new(MESSAGE_BYTES_MAX);
    let mut answers = Vec::new();
    loop {
        let mut bytes = &mut buffer[..len];
        let ends = loop {
            match inbound.next(&mut bytes) {
                Ok(None) => break false,
                Ok(Some(heard)) => {
                    answer(&heard, &mut answers);
                    if matches!(heard, Heard::Close(_)) {
                        break true;
                    }
                }
                Err(broken) => {
                    answers.extend_from_slice(&close_frame(broken.code(), why(broken)));
                    break true;
                }
            }
        };
        stream.write_all(&answers)?;
        answers.clear();
        if ends {
            stream.shutdown(Shutdown::Write)?;
            stream.set_read_timeout(Some(CLOSE_TIME))?;
            while stream.read(&mut buffer)? > 0 {}
            return Ok(());
        }
        len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
    }
}

fn answer(heard: &Heard, answers: &mut Vec<u8>) {
    let (opcode, payload) = match heard {
        Heard::Text(text) => (Opcode::Text, text.as_bytes()),
        Heard::Binary(bytes) => (Opcode::Binary, &bytes[..]),
        Heard::Ping(payload) => return answers.extend_from_slice(&pong_frame(payload)),
        Heard::Pong => return,
        Heard::Close(Some(code)) => return answers.extend_from_slice(&close_frame(*code, "")),
        Heard::Close(None) => (Opcode::Close, &[][..]),
    };
    answers.extend_from_slice(&FrameHead::new(opcode, payload.len()));
    answers.extend_from_slice(payload);
}

fn why(broken: Broken) -> &'static str {
    match broken {
        Broken::Protocol(why) => why,
        Broken::NotUtf8 => "not UTF-8",
        Broken::TooBig { .. } => "too big",
    }
}

/// Answers the request for an upgrade, and moves what came behind it to the front of the buffer.
fn shake_hands(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    let end = loop {
        if let Some(at) = buffer[..len].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer[len..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => len += more,
        }
    };
    let request = String::from_utf8_lossy(&buffer[..end]);
    let key = request.lines().filter_map(|line| line.split_once(':'));
    let key = key.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let (_, key) = key.ok_or(io::ErrorKind::InvalidData)?;
    let accept = derive_accept_key(key.trim().as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )?;
    buffer.copy_within(end..len, 0);
    Ok(len - end)
}

/// The suite's verdict on a case.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    behavior: String,
    behavior_close: String,
}

impl Verdict {
    fn is_good(&self) -> bool {
        [&self.behavior, &self.behavior_close]
            .iter()
            .all(|word| matches!(word.as_str(), "OK" | "NON-STRICT" | "INFORMATIONAL"))
    }
}

#[test]
#[ignore = "needs Autobahn's test suite, and some minutes: make autobahn"]
fn every_case_of_the_suite() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/autobahn");
    let suite = folder.join("suite/bin/wstest");
    assert!(suite.is_file(), "{} is not there: run tests/autobahn/suite.sh", suite.display());
    let report = folder.join("report");
    if report.exists() {
        std::fs::remove_dir_all(&report).expect("the last report goes");
    }
    let spec = folder.join("spec.json");
    let says = json!({
        "outdir": report,
        "servers": [{"agent": "taskhub", "url": format!("ws://{}", start_echo())}],
        "cases": ["*"],
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    std::fs::write(&spec, says.to_string()).expect("the suite is told what to do");
    let status = Command::new(suite).args(["--mode", "fuzzingclient", "--spec"]).arg(spec).status();
    assert!(status.expect("the suite starts").success(), "the suite did not come to an end");

    let index = std::fs::read(report.join("index.json")).expect("a report");
    let mut index: BTreeMap<String, BTreeMap<String, Verdict>> = serde_json::from_slice(&index).expect("its shape");
    let verdicts = index.remove("taskhub").expect("the verdicts on us");
    let bad: Vec<_> = verdicts.iter().filter(|(_, verdict)| !verdict.is_good()).collect();
    assert!(bad.is_empty(), "{} cases failed; see {}: {bad:#?}", bad.len(), report.display());
    assert_eq!(verdicts.len(), CASES, "cases");
    let mut counts = BTreeMap::new();
    for verdict in verdicts.values() {
        *counts.entry((&verdict.behavior, &verdict.behavior_close)).or_insert(0) += 1;
    }
    for ((behavior, close), count) in counts {
        println!("{count} cases: {behavior}, closing {close}");
    }
}

#[test]
fn the_echo_server_echoes() {
    let address = start_echo();
    let (mut socket, _) = tungstenite::connect(format!("ws://{address}")).expect("it accepts");
    for message in [
        Message::text("κόσμε"),
        Message::binary(vec![0xFF; 100_000]),
        Message::text(""),
        Message::text("x".repeat(126)),
    ] {
        socket.send(message.clone()).expect("it takes it");
        assert_eq!(socket.read().expect("it answers"), message);
    }
    socket.send(Message::Ping("?".into())).expect("it takes it");
    assert_eq!(socket.read().expect("it answers"), Message::Pong("?".into()));
    socket.close(None).expect("it takes it");
    assert_eq!(socket.read().expect("it answers"), Message::Close(None));
}
