//! What becomes of a connection when its answer comes before its request was read: the client gets the answer, and either
//! the connection goes on or the answer says that it does not.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kit::{TestHub, in_time};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A client that writes all it has to say before it reads, as most do.
struct Client(TcpStream);

/// The head of an answer and its body.
struct Answer {
    head: String,
    body: String,
}

impl Client {
    async fn new(hub: &TestHub) -> Client {
        Client(TcpStream::connect(hub.address()).await.expect("the hub is there"))
    }

    async fn write(&mut self, bytes: &[u8]) {
        in_time("the hub reads", self.0.write_all(bytes)).await.expect("the connection is not reset");
    }

    async fn read(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(in_time("an answer", self.0.read_u8()).await.expect("an answer, and no reset"));
        }
        let head = String::from_utf8(head).expect("a head is text").to_lowercase();
        let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest.split("\r\n").next().unwrap());
        let mut body = vec![0; length.parse().expect("a length")];
        in_time("the body", self.0.read_exact(&mut body)).await.expect("the body is whole");
        Answer { head, body: String::from_utf8(body).expect("a body is text") }
    }

    /// Whether another call on this connection is answered. If not, it was closed without an error.
    async fn goes_on(&mut self) -> bool {
        let _ = self.0.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        let mut first = [0; 12];
        match in_time("an answer or the end", self.0.read(&mut first)).await.expect("no reset") {
            0 => false,
            _ => {
                assert!(first.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&first));
                true
            }
        }
    }
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n")
}

fn with_body(method: &str, path: &str, media: &str, length: usize) -> Vec<u8> {
    let mut text = head(method, path, &format!("Content-Type: {media}\r\nContent-Length: {length}\r\n")).into_bytes();
    text.resize(text.len() + length, b' ');
    text
}

/// Regression: a refusal that did not read the body closed the connection and did not say so; clients that used it again
/// at once met a broken pipe, and of large bodies the answer itself was lost.
#[tokio::test]
async fn a_refusal_arrives_and_says_what_becomes_of_its_connection() {
    let hub = TestHub::start().await;
    let check = async |request: &[u8], status: &str, goes_on: bool| {
        let shown = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
        let mut client = Client::new(&hub).await;
        client.write(request).await;
        let answer = client.read().await;
        assert!(answer.head.starts_with(&format!("http/1.1 {status} ")), "{shown}: {}", answer.head);
        assert_eq!(answer.head.contains("connection: close"), !goes_on, "{shown}: {}", answer.head);
        assert_eq!(client.goes_on().await, goes_on, "{shown}");
    };
    let tasks = "/api/v1/tasks";
    for length in [1, 100 * KIB, 3 * MIB] {
        check(&with_body("POST", tasks, "text/plain", length), "415", true).await;
        check(&with_body("POST", "/nothing", "application/json", length), "404", true).await;
        check(&with_body("PUT", tasks, "application/json", length), "405", true).await;
        check(&with_body("POST", "/api/v1/tasks?x=1", "application/json", length), "422", true).await;
        check(&with_body("GET", "/healthz", "text/plain", length), "200", true).await;
    }
    check(&with_body("POST", tasks, "application/json", 3 * MIB), "413", true).await;
    for length in [17 * MIB, 60 * MIB] {
        check(&with_body("POST", tasks, "application/json", length), "413", false).await;
        check(&with_body("POST", tasks, "text/plain", length), "415", false).await;
    }
    let mut chunked =
        head("POST", tasks, "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n").into_bytes();
    for _ in 0..20 {
        chunked.extend_from_slice(format!("100000\r\n{}\r\n", " ".repeat(MIB)).as_bytes());
    }
    check(&chunked, "413", false).await;
    // A body that does not come is not waited for.
    check(&with_body("POST", tasks, "text/plain", 1_000)[..300], "415", false).await;
    // A head that is too large is answered below all routes.
    let mut large = head("GET", "/healthz", "").into_bytes();
    large.truncate(large.len() - 2);
    large.extend_from_slice(format!("X: {}\r\n\r\n", "x".repeat(300 * KIB)).as_bytes());
    check(&large, "431", false).await;
}

#[tokio::test]
async fn who_asks_before_sending_is_answered_before_sending() {
    let hub = TestHub::start().await;
    let expects = "Content-Type: text/plain\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n";
    let mut client = Client::new(&hub).await;
    client.write(head("POST", "/api/v1/tasks", expects).as_bytes()).await;
    let answer = client.read().await;
    assert!(answer.head.starts_with("http/1.1 415") && answer.head.contains("connection: close"), "{}", answer.head);
    assert!(!client.goes_on().await);

    let mut client = Client::new(&hub).await;
    let expects = "Content-Type: application/json\r\nContent-Length: 17\r\nExpect: 100-continue\r\n";
    client.write(head("POST", "/api/v1/tasks", expects).as_bytes()).await;
    assert!(client.read().await.head.starts_with("http/1.1 100 "));
    client.write(br#"{"task_type":"t"}"#).await;
    assert!(client.read().await.head.starts_with("http/1.1 201 "));
    assert!(client.goes_on().await);
}

#[tokio::test]
async fn calls_in_one_go_are_all_answered() {
    let hub = TestHub::start().await;
    let mut client = Client::new(&hub).await;
    let mut all = Vec::new();
    for path in ["/api/v1/tasks", "/nothing"] {
        all.extend(with_body("POST", path, "text/plain", 10 * KIB));
    }
    all.extend(head("GET", "/healthz", "").into_bytes());
    client.write(&all).await;
    for status in ["415", "404", "200"] {
        assert!(client.read().await.head.starts_with(&format!("http/1.1 {status} ")));
    }
}

/// Two hundred clients that are refused and go on at once, each on its one connection.
#[tokio::test]
async fn many_clients_use_their_connections_again_at_once() {
    let hub = TestHub::start().await;
    let clients = (0..200).map(|_| async {
        let mut client = Client::new(&hub).await;
        for _ in 0..5 {
            client.write(&with_body("POST", "/api/v1/tasks", "text/plain", 20 * KIB)).await;
            assert!(client.read().await.head.starts_with("http/1.1 415"));
            client.write(head("GET", "/healthz", "").as_bytes()).await;
            assert!(client.read().await.head.starts_with("http/1.1 200"));
        }
    });
    futures::future::join_all(clients).await;
}

/// Where there is no room for large bodies, small ones are taken, and large ones are told.
#[tokio::test]
async fn a_body_that_has_no_room_is_told_so() {
    let hub = TestHub::start().await;
    let mut holders = Vec::new();
    for _ in 0..8 {
        let mut holder = Client::new(&hub).await;
        let declared = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", 64 * MIB);
        let mut half = head("POST", "/api/v1/tasks/batch", &declared).into_bytes();
        half.extend_from_slice(b"{");
        holder.write(&half).await;
        holders.push(holder);
    }
    // The last of them is read once the room is gone.
    let mut refused = None;
    for _ in 0..1_000 {
        let mut client = Client::new(&hub).await;
        client.write(&with_body("POST", "/api/v1/tasks/batch", "application/json", 10 * MIB)).await;
        let answer = client.read().await;
        if answer.head.starts_with("http/1.1 503") {
            refused = Some((client, answer));
            break;
        }
        assert!(answer.head.starts_with("http/1.1 400"), "{}", answer.head);
    }
    let (mut client, answer) = refused.expect("there is no room");
    assert!(
        answer.body.contains(r#""code":"overloaded""#) && answer.head.contains("retry-after: 1"),
        "{}",
        answer.head
    );
    assert!(client.goes_on().await);
    hub.submit_any().await;
}
