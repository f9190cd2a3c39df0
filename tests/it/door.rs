//! Whom a hub without tokens lets in: programs that call it by its name, and its own pages. Nobody else's page reads,
//! submits or opens anything, on any route, method or socket.
//!
//! Regression: the only guard of a hub on loopback was its address. A page whose name was pointed at 127.0.0.1 submitted
//! tasks; sockets and REST had two rules for pages of other ports; and what was refused was refused without a word.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::browser::Browser;
use crate::kit::{Answer, HubProcess, TestHub, TestSocket, eventually, id, in_time, millis};

/// Sends a request as it stands here and answers what comes until the hub closes, or the head of what does not end.
async fn raw(hub: &TestHub, request: &str) -> String {
    let mut tcp = TcpStream::connect(hub.address()).await.expect("the hub is there");
    tcp.write_all(request.as_bytes()).await.expect("the hub reads");
    let mut answer = Vec::new();
    in_time("an answer", async {
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            if tcp.read_buf(&mut answer).await.expect("an answer") == 0 {
                break;
            }
        }
    })
    .await;
    String::from_utf8(answer).expect("a head is text")
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no status: {answer}"))
}

/// Every route there is, what is not there, and every method.
const PATHS: [&str; 14] = [
    "/",
    "/taskhub.js",
    "/api/v1/tasks",
    "/api/v1/tasks/batch",
    "/api/v1/tasks/01890000-0000-7000-8000-00000000002a",
    "/api/v1/worker/claim",
    "/api/v1/events",
    "/api/v1/ws",
    "/api/v1/worker/ws",
    "/api/v1/nothing",
    "/api/openapi.json",
    "/api/docs/",
    "/metrics",
    "/healthz",
];

#[tokio::test]
async fn one_rule_holds_on_every_route_and_method() {
    let hub = TestHub::start().await;
    let here = hub.address().to_owned();
    let port = here.rsplit(':').next().unwrap();
    let evil = format!("evil.example:{port}");
    for path in PATHS {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            for heads in [
                format!("Host: {evil}"),
                format!("Host: {evil}\r\nOrigin: http://{evil}"),
                format!("Host: {here}\r\nOrigin: http://{evil}"),
                format!("Host: {here}\r\nOrigin: null"),
                format!("Host: {here}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors"),
                format!("Host: {here}\r\nHost: {evil}"),
                "X: no host".to_owned(),
            ] {
                let body = r#"{"task_type":"owned"}"#;
                let request = format!(
                    "{method} {path} HTTP/1.1\r\n{heads}\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let answer = raw(&hub, &request).await;
                assert_eq!(status(&answer), 403, "{request}\n{answer}");
                assert!(!answer.contains("access-control-allow-origin"), "{answer}");
            }
        }
    }
    let absolute = format!("GET http://{evil}/api/v1/tasks HTTP/1.1\r\nHost: {here}\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&raw(&hub, &absolute).await), 403);
    let listed = hub.get("/api/v1/tasks").await.expect(200);
    assert_eq!(listed["tasks"], json!([]), "nothing was submitted");
}

#[tokio::test]
async fn names_of_this_machine_and_those_that_are_set_come_in() {
    let hub = TestHub::builder().set(|config| config.hosts = vec!["hub.example".into()]).start().await;
    for host in
        ["localhost:1", "app.localhost", "127.0.0.1", "[::1]:8080", "LOCALHOST.", "hub.example", "Hub.Example:80"]
    {
        let request = format!("GET /api/v1/tasks HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(status(&raw(&hub, &request).await), 200, "{host}");
    }
    // Followed links show the page, and the files that it is made of.
    let follow = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document";
    for (path, expected) in [("/", 200), ("/api/docs/", 200), ("/api/v1/tasks", 403)] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{follow}\r\nConnection: close\r\n\r\n");
        assert_eq!(status(&raw(&hub, &request).await), expected, "{path}");
    }
}

#[tokio::test]
async fn the_refusal_says_the_names_and_keeps_the_connection() {
    let hub = TestHub::start().await;
    let wrong = hub.request(reqwest::Method::POST, "/api/v1/tasks").header("host", "hub.example:8081");
    let answer = Answer::of(wrong.json(&json!({"task_type": "t"}))).await;
    assert_eq!(answer.problem(), "403 forbidden");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("hub.example:8081") && detail.contains("--hosts hub.example"), "{detail}");
    assert_eq!(answer.header("connection"), "", "what was not read was thrown away");
    let seen = hub.request(reqwest::Method::GET, "/").header("host", "hub.example").header("accept", "text/html,*/*");
    let page = Answer::of(seen).await;
    assert_eq!((page.status, page.header("content-type")), (403, "text/html; charset=utf-8"));
    assert!(page.text.contains("id=\"banner\"") && page.text.contains("--hosts hub.example"), "{}", page.text);
    let answer = Answer::of(hub.request(reqwest::Method::GET, "/").header("origin", "https://app.example")).await;
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("https://app.example") && detail.contains("--origins"), "{detail}");
    assert_eq!(answer.header("connection"), "");
}

#[tokio::test]
async fn sockets_are_accepted_and_told_why_they_are_refused() {
    let hub = TestHub::start().await;
    for (path, protocols) in
        [("/api/v1/ws", &["taskhub.v1"][..]), ("/api/v1/worker/ws", &["taskhub.worker.v1"]), ("/api/v1/ws", &[])]
    {
        for heads in
            ["Host: evil.example", "Host: localhost\r\nOrigin: http://evil.example", "Host: localhost\r\nOrigin: null"]
        {
            let mut socket = TestSocket::dial_with(hub.address(), path, protocols, heads).await;
            let (code, reason) = socket.closed().await;
            assert_eq!(code, 4503, "{path} {heads}");
            assert!(reason.contains("may not use") || reason.contains("is no name of this hub"), "{reason}");
        }
        let own = format!("Host: {}\r\nOrigin: {}", hub.address(), hub.url);
        let socket = TestSocket::dial_with(hub.address(), path, protocols, &own).await;
        socket.close().await;
    }
    // The worker's and the live socket only; elsewhere a handshake is a request like any other.
    let handshake = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_eq!(status(&raw(&hub, handshake).await), 403);
}

#[tokio::test]
async fn pages_that_may_come_in_are_told_so() {
    let hub = TestHub::builder().set(|config| config.origins = vec!["https://app.example".into()]).start().await;
    for origin in ["https://app.example", "http://localhost:3000", "http://127.0.0.1:5173"] {
        let ask = |method, path: &str| hub.request(method, path).header("origin", origin);
        let preflight = ask(reqwest::Method::OPTIONS, "/api/v1/tasks")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,idempotency-key")
            .header("access-control-request-private-network", "true");
        let allowed = Answer::of(preflight).await;
        assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, origin));
        assert_eq!(
            (allowed.header("vary"), allowed.header("access-control-allow-private-network")),
            ("origin", "true")
        );
        for word in ["content-type", "idempotency-key", "last-event-id", "authorization"] {
            assert!(allowed.header("access-control-allow-headers").contains(word), "{word}");
        }
        for word in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            assert!(allowed.header("access-control-allow-methods").contains(word), "{word}");
        }
        let submit = ask(reqwest::Method::POST, "/api/v1/tasks").json(&json!({"task_type": "t"}));
        for (answer, expected) in [
            (Answer::of(submit).await, 201),
            (Answer::of(ask(reqwest::Method::GET, "/api/v1/tasks")).await, 200),
            (Answer::of(ask(reqwest::Method::GET, "/api/v1/tasks/none")).await, 404),
            (Answer::of(ask(reqwest::Method::GET, "/taskhub.js")).await, 200),
        ] {
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (expected, origin));
            assert_eq!((answer.header("vary"), answer.header("access-control-allow-credentials")), ("origin", ""));
            assert!(answer.header("access-control-expose-headers").contains("location"));
        }
    }
    let own = Answer::of(hub.request(reqwest::Method::GET, "/api/v1/tasks").header("origin", &hub.url)).await;
    assert_eq!((own.status, own.header("access-control-allow-origin"), own.header("vary")), (200, "", "origin"));
    let plain = hub.get("/taskhub.js").await;
    assert_eq!(plain.header("vary"), "origin", "no cache gives it to a page of elsewhere as it is");
}

#[tokio::test]
async fn a_hub_that_listens_to_others_knows_its_addresses_and_no_public_name() {
    let open = |config: &mut taskhub::config::ServeConfig| {
        config.listen = "0.0.0.0:0".parse().unwrap();
        config.insecure_open = true;
    };
    let hub = TestHub::builder().set(open).start().await;
    for (host, expected) in [("10.0.0.7:8080", 200), ("hub:8080", 200), ("localhost", 200), ("evil.example", 403)] {
        let request = format!("GET /api/v1/stats HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(status(&raw(&hub, &request).await), expected, "{host}");
    }
}

#[tokio::test]
async fn the_log_says_what_was_refused_and_is_not_flooded() {
    let folder = tempfile::tempdir().unwrap();
    let hub = HubProcess::start(folder.path(), [""; 0]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for n in 0..200 {
        let request = client.get(format!("{}/api/v1/tasks?secret={n}", hub.url)).header("host", "hub.example");
        assert_eq!(request.send().await.unwrap().status(), 403);
    }
    let said = hub.program.said();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("refused")).collect();
    assert!((1..5).contains(&lines.len()), "{said}");
    assert!(lines[0].contains("--hosts hub.example") && !lines[0].contains("secret"), "{said}");
}

/// Regression: a hub without file descriptors wrote twenty equal lines a second.
#[tokio::test]
async fn connections_that_cannot_be_accepted_do_not_flood_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("sh");
    let serve = "ulimit -n 80; exec \"$0\" serve --listen 127.0.0.1:0 --data \"$1\"";
    command.args(["-c", serve, env!("CARGO_BIN_EXE_taskhub")]).arg(folder.path()).env("TASKHUB_LOG", "warn");
    let hub = HubProcess::from(command);
    let mut held = Vec::new();
    for _ in 0..120 {
        held.push(TcpStream::connect(hub.address()).await.unwrap());
    }
    let failed = |said: &str| said.lines().filter(|line| line.contains("could not accept")).count();
    eventually("the log says so", async || (failed(&hub.program.said()) > 0).then_some(())).await;
    // The hub tries again twenty times a second.
    tokio::time::sleep(millis(1_000)).await;
    assert_eq!(failed(&hub.program.said()), 1, "{}", hub.program.said());
    drop(held);
    let answers = async || reqwest::get(format!("{}/healthz", hub.url)).await.is_ok().then_some(());
    eventually("it goes on", answers).await;
}

/// What a page can try, each with what came of it: a status or a text that it read, or `no`.
const TRIES: &str = r#"(async (hub) => {
    const within = (ms, what) => Promise.race([what, new Promise((end) => setTimeout(() => end('no'), ms))]);
    const read = (path, options) => fetch(hub + path, options).then(async (answer) => answer.type === 'opaque' ? 'no' : `${answer.status} ${await answer.text()}`, () => 'no');
    const post = (type, mode) => read('/api/v1/tasks', { method: 'POST', mode, headers: { 'content-type': type }, body: '{"task_type":"owned"}' });
    const form = (enctype, method) => new Promise((end) => {
        const frame = document.createElement('iframe');
        frame.name = 'f' + Math.random();
        const form = document.createElement('form');
        Object.assign(form, { target: frame.name, action: hub + '/api/v1/tasks', method, enctype });
        form.innerHTML = `<input name='{"task_type":"owned","title":"' value='"}'>`;
        document.body.append(frame, form);
        frame.onload = () => end('no');
        form.submit();
    });
    const element = (name, attribute, path) => new Promise((end) => {
        const element = document.createElement(name);
        element.onload = () => end('loaded');
        element.onerror = () => end('no');
        element[attribute] = hub + path;
        document.body.append(element);
    });
    const socket = (path, protocol, words) => new Promise((end) => {
        const socket = new WebSocket(hub.replace('http', 'ws') + path, protocol);
        const heard = [];
        socket.onopen = () => socket.send(JSON.stringify(words));
        socket.onmessage = ({ data }) => heard.push(data);
        socket.onclose = ({ code, reason }) => end(heard.length ? heard.join() : code === 4503 && reason ? 'no' : `closed with ${code} ${reason}`);
        setTimeout(() => end(heard.join() || 'no'), 1500);
    });
    const events = () => new Promise((end) => {
        const events = new EventSource(hub + '/api/v1/events');
        events.addEventListener('hello', ({ data }) => (events.close(), end(data)));
        events.onerror = () => (events.close(), end('no'));
    });
    return {
        get: await read('/api/v1/tasks'),
        no_cors: await read('/api/v1/tasks', { mode: 'no-cors' }),
        json: await post('application/json', 'cors'),
        text: await post('text/plain', 'no-cors'),
        delete: await read('/api/v1/tasks/x', { method: 'DELETE' }),
        beacon: navigator.sendBeacon(hub + '/api/v1/tasks', new Blob(['{"task_type":"owned"}'], { type: 'text/plain' })) ? 'sent' : 'no',
        form: await within(1500, form('text/plain', 'POST')),
        urlencoded: await within(1500, form('application/x-www-form-urlencoded', 'POST')),
        multipart: await within(1500, form('multipart/form-data', 'POST')),
        image: await element('img', 'src', '/favicon.svg'),
        script: await element('script', 'src', '/api/v1/tasks'),
        module: await import(hub + '/taskhub.js').then(() => 'loaded', () => 'no'),
        live: await socket('/api/v1/ws', 'taskhub.v1', { op: 'subscribe', id: 1, sub: 'a', filter: {} }),
        worker: await socket('/api/v1/worker/ws', 'taskhub.worker.v1', { op: 'hello', worker_id: 'w' }),
        events: await within(1500, events()),
    };
})"#;

async fn tries(page_url: &str, hub: &str) -> Value {
    let rules = "--host-resolver-rules=MAP *.example 127.0.0.1";
    let mut page = Browser::start_with(&[rules]).await.open(page_url).await.without_policy().await;
    page.look(&format!("{TRIES}({hub:?})")).await
}

/// The page that a hub answers with says no, and is of that origin nevertheless: so it can try what such a page would.
#[tokio::test]
async fn pages_of_other_sites_get_nothing_in_a_real_browser() {
    let (hub, other) = (TestHub::start().await, TestHub::start().await);
    let kept = id(&hub.submit(json!({"task_type": "t", "title": "a secret"})).await);
    let port = |hub: &TestHub| hub.address().rsplit(':').next().unwrap().to_owned();
    let (there, here) = (port(&other), port(&hub));
    for (page, target) in [
        // Another site; the same under another name of this machine; and one whose name leads to the hub.
        (format!("http://evil.example:{there}/"), hub.url.clone()),
        (format!("http://evil.example:{there}/"), format!("http://localhost:{here}")),
        (format!("http://evil.example:{here}/"), format!("http://evil.example:{here}")),
    ] {
        let tried = tries(&page, &target).await;
        let rebound = page.contains(&here);
        for (what, came) in tried.as_object().unwrap() {
            let came = came.as_str().unwrap();
            let nothing = match what.as_str() {
                // That it was sent is all a page hears of it.
                "beacon" => true,
                // Of its own origin, to the browser's mind, it may read that it is refused.
                _ if rebound && came.starts_with("403 ") => true,
                _ => came == "no",
            };
            assert!(nothing, "{page}: {what}: {came}");
            assert!(!came.contains("secret"), "{page}: {what}: {came}");
        }
        let tasks = hub.get("/api/v1/tasks").await.expect(200);
        assert_eq!(tasks["tasks"].as_array().unwrap().len(), 1, "{page}: {tasks}");
        assert_eq!(hub.get("/api/v1/workers").await.expect(200)["workers"], json!([]), "{page}");
    }
    assert_eq!(hub.task(&kept).await["status"], "pending");
}

/// A hub with tokens answers to any name, so a page whose name leads to it is of its own site: it gets the files that are open to all,
/// hears that it is nobody, and nothing else. Nor does a browser lend it the token of whoever is signed in: no cookie holds it.
#[tokio::test]
async fn pages_of_other_sites_are_nobody_to_a_hub_with_tokens_in_a_real_browser() {
    let (hub, other) = (TestHub::start().await, TestHub::start().await);
    let made = hub.post("/api/v1/api-tokens", json!({"name": "root", "role": "admin"})).await.expect(201);
    let admin = made["token"].as_str().unwrap();
    let call = async |method: &str, path: &str, body: Value| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        Answer::of(hub.request(method, path).bearer_auth(admin).json(&body)).await
    };
    call("POST", "/api/v1/tasks", json!({"task_type": "t", "title": "a secret"})).await.expect(201);
    let port = |hub: &TestHub| hub.address().rsplit(':').next().unwrap().to_owned();
    let (there, here) = (port(&other), port(&hub));
    for (page, target) in [
        (format!("http://evil.example:{there}/"), hub.url.clone()),
        (format!("http://evil.example:{there}/"), format!("http://localhost:{here}")),
        (format!("http://evil.example:{here}/"), format!("http://evil.example:{here}")),
    ] {
        let tried = tries(&page, &target).await;
        let rebound = page.contains(&here);
        for (what, came) in tried.as_object().unwrap() {
            let came = came.as_str().unwrap();
            let nothing = match what.as_str() {
                "beacon" => true,
                "image" | "module" if rebound => came == "loaded",
                "live" | "worker" if rebound => {
                    came.contains(r#""authenticated":false"#) || came.starts_with("closed with 4501")
                }
                _ if rebound && came.starts_with("401 ") => true,
                _ => came == "no",
            };
            assert!(nothing && !came.contains("secret"), "{page}: {what}: {came}");
        }
        let tasks = call("GET", "/api/v1/tasks", Value::Null).await.expect(200);
        assert_eq!(tasks["tasks"].as_array().unwrap().len(), 1, "{page}: {tasks}");
        assert_eq!(call("GET", "/api/v1/workers", Value::Null).await.expect(200)["workers"], json!([]), "{page}");
    }
}

#[tokio::test]
async fn pages_that_may_come_in_do_everything_in_a_real_browser() {
    let other = TestHub::start().await;
    let there = other.address().rsplit(':').next().unwrap().to_owned();
    let app = format!("http://app.example:{there}");
    let hub = TestHub::builder().set(|config| config.origins = vec![app.clone()]).start().await;
    for page in [format!("{app}/"), format!("http://localhost:{there}/api/v1/nothing")] {
        let tried = tries(&page, &hub.url).await;
        for (what, expected) in [
            ("get", "200 {\"tasks\""),
            ("json", "201 {\"task_id\""),
            ("delete", "404 {"),
            ("module", "loaded"),
            ("live", "{\"type\":\"hello\""),
            ("worker", "{\"type\":\"welcome\""),
            ("events", "{\"type\":\"hello\""),
        ] {
            let came = tried[what].as_str().unwrap();
            assert!(came.starts_with(expected), "{page}: {what}: {came}");
        }
        // What needs no permission is refused for what it is: no JSON.
        assert_eq!(tried["text"], "no", "{page}");
    }
    let tasks = hub.get("/api/v1/tasks").await.expect(200);
    assert_eq!(tasks["tasks"].as_array().unwrap().len(), 2, "{tasks}");
}
