//! How the programs on the other side reach a hub: its address, the token that says who calls, a WebSocket, and how long to
//! wait before another attempt. Shared by the live client and the worker; neither knows the other.

mod tls;
mod token;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

#[cfg(test)]
pub(crate) use tls::agree_in_tests;
pub(crate) use token::Issued;
#[cfg(test)]
pub(crate) use token::renew_in;
pub use token::{NoToken, Token};

/// A WebSocket to a hub.
pub type Socket = WebSocketStream<Box<dyn Connection>>;

/// What carries bytes to a hub and back.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// An attempt that has not become a WebSocket by then is given up.
const DIAL_MS_MAX: u64 = 10_000;
/// What is read from the socket at once: a few dozen messages, and small beside what a connection costs anyway.
const READ_BYTES: usize = 16 << 10;
/// The largest message taken from a hub. A snapshot part or a payload is far smaller; this only bounds the memory.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The address of a hub: `http://host:port` or `https://host:port`, perhaps with a path in front of the hub's own; or `unix:PATH`, the path of a Unix
/// socket, perhaps with that other path behind a colon, as in `unix:/run/taskhub.sock:/tasks`.
#[derive(Clone)]
pub struct HubUrl {
    base: reqwest::Url,
    /// Where it is reached, if that is no host and port.
    unix: Option<Arc<Path>>,
    /// Whom to believe, where it speaks TLS.
    tls: Option<Arc<ClientConfig>>,
}

/// What stands for the host of a hub on a Unix socket.
const UNIX_HOST: &str = "http://localhost";

/// Why a text is no address of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl {
    pub url: String,
    pub why: String,
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no address of a hub: {}", self.url, self.why)
    }
}

impl std::error::Error for BadUrl {}

/// What fetches from elsewhere: it believes whom the machine does, follows no redirect and asks no proxy. Reads files.
pub(crate) fn plain_client() -> Result<reqwest::Client, String> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_millis(DIAL_MS_MAX))
        .tls_backend_preconfigured(tls::trusting(None).unwrap_or_else(|_| tls::trusting_none()));
    client.build().map_err(|why| why.to_string())
}

impl HubUrl {
    /// Reads `http://host:port`; `host:port` alone means the same. Or `https://host:port`, of a hub that this machine's
    /// certificates know; or `unix:PATH`.
    pub fn parse(text: &str) -> Result<HubUrl, BadUrl> {
        HubUrl::parse_trusting(text, None)
    }

    /// The same, where a hub that speaks TLS must be known to the certificates of a file, in PEM.
    pub fn parse_trusting(text: &str, ca_cert: Option<&Path>) -> Result<HubUrl, BadUrl> {
        let bad = |why: &str| BadUrl { url: text.into(), why: why.into() };
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, base) = rest.split_once(":/").unwrap_or((rest, ""));
            if path.is_empty() {
                return Err(bad("the path of a socket is missing"));
            }
            let HubUrl { base, .. } = HubUrl::parse(&format!("{UNIX_HOST}/{base}"))?;
            return Ok(HubUrl { base, unix: Some(Path::new(path).into()), tls: None });
        }
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut base = reqwest::Url::parse(&whole).map_err(|_| bad("http://host:port is expected"))?;
        let is_secret = match base.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(bad("it must begin with http:// or https://")),
        };
        if base.host_str().is_none_or(str::is_empty) {
            return Err(bad("the host is missing"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(bad("a user or password has no place in it; use a token"));
        }
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let tls = match is_secret {
            true => Some(Arc::new(tls::trusting(ca_cert).map_err(|why| bad(&why))?)),
            false => None,
        };
        Ok(HubUrl { base, unix: None, tls })
    }

    /// The address of `path`, such as `api/v1/tasks`, below the hub's own.
    pub fn join(&self, path: &str) -> reqwest::Url {
        self.base.join(path).expect("a relative path joins an http address")
    }

    /// The path of the Unix socket, where it is one: no browser gets there.
    pub fn unix(&self) -> Option<&Path> {
        self.unix.as_deref()
    }

    /// What makes requests to this hub.
    pub fn http(&self) -> reqwest::Result<reqwest::Client> {
        let client = reqwest::Client::builder()
            // What a program does must not depend on variables it never named.
            .no_proxy()
            .connect_timeout(Duration::from_millis(DIAL_MS_MAX))
            .tcp_nodelay(true)
            // Left to itself it wants one that the whole process has agreed on.
            .tls_backend_preconfigured(self.tls.as_deref().cloned().unwrap_or_else(tls::trusting_none));
        match &self.unix {
            Some(path) => client.unix_socket(path.to_path_buf()).build(),
            None => client.build(),
        }
    }

    /// A WebSocket at `path` with this subprotocol, within ten seconds.
    pub async fn dial(&self, path: &str, protocol: &'static str) -> Result<Socket, DialError> {
        match tokio::time::timeout(Duration::from_millis(DIAL_MS_MAX), self.dial_unbounded(path, protocol)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::Unreachable("it did not answer in time".into())),
        }
    }

    async fn dial_unbounded(&self, path: &str, protocol: &'static str) -> Result<Socket, DialError> {
        let mut url = self.join(path);
        url.set_scheme(if self.tls.is_some() { "wss" } else { "ws" }).expect("http becomes ws, https wss");
        let mut request = url.as_str().into_client_request().map_err(|why| DialError::Refused(why.to_string()))?;
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        let connection = self.connect().await.map_err(|why| DialError::Unreachable(why.to_string()))?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        match tokio_tungstenite::client_async_with_config(request, connection, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(SocketError::Http(answer)) => {
                let status = answer.status();
                let why = format!("HTTP {status} instead of a WebSocket");
                let for_now = status.is_server_error()
                    || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
                Err(if for_now { DialError::Unreachable(why) } else { DialError::Refused(why) })
            }
            Err(SocketError::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => {
                Err(DialError::Refused(format!("it does not speak {protocol}")))
            }
            Err(why) => Err(DialError::Unreachable(why.to_string())),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        if let Some(path) = &self.unix {
            return Ok(Box::new(UnixStream::connect(path).await?));
        }
        // An IPv6 host is bracketed in the address, and must not be where it is looked up.
        let host = self.base.host_str().expect("checked when it was read").trim_matches(['[', ']']);
        let port = self.base.port_or_known_default().expect("http has a default port");
        let stream = TcpStream::connect((host, port)).await?;
        // Replies are written as soon as they are ready, many in one: there is nothing for Nagle to gather.
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?))
    }
}

impl fmt::Display for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unix {
            None => f.write_str(self.base.as_str().trim_end_matches('/')),
            Some(path) if self.base.path() == "/" => write!(f, "unix:{}", path.display()),
            Some(path) => write!(f, "unix:{}:{}", path.display(), self.base.path().trim_end_matches('/')),
        }
    }
}

impl fmt::Debug for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why there is no socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialError {
    /// Nobody is there, or not now: worth another attempt.
    Unreachable(String),
    /// Whoever is there will not become a hub by asking again.
    Refused(String),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Unreachable(why) | DialError::Refused(why) => f.write_str(why),
        }
    }
}

/// How long to wait before another attempt: full jitter (random between nothing and a bound), the bound doubling from
/// `first_ms` to `last_ms`, so that clients cut together do not come back together.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub first_ms: u64,
    pub last_ms: u64,
    /// Attempts in a row that did not hold.
    failures: u32,
}

impl Backoff {
    /// A connection that lasted this long was a good one: the next cut starts again at `first_ms`.
    pub const STEADY_MS: u64 = 10_000;

    /// A backoff between these bounds.
    pub const fn new(first_ms: u64, last_ms: u64) -> Backoff {
        Backoff { first_ms, last_ms, failures: 0 }
    }

    /// The wait after a cut. `random` is in 0..1; `asked` is the range the hub asked for with its `bye`, which replaces
    /// our own; `held_ms` is how long the connection was good.
    pub fn next_ms(&mut self, held_ms: u64, asked: Option<[u64; 2]>, random: f64) -> u64 {
        if held_ms >= Backoff::STEADY_MS {
            self.failures = 0;
        }
        let own = [0, self.first_ms.saturating_mul(1 << self.failures.min(30)).min(self.last_ms)];
        self.failures = self.failures.saturating_add(1);
        let [least, most] = asked.unwrap_or(own);
        least + (random * most.saturating_sub(least) as f64).round() as u64
    }
}

/// Whether a socket closed with this code is not to be opened again.
pub fn is_refusal(close_code: u16) -> bool {
    (4_500..5_000).contains(&close_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let got = HubUrl::parse(text).map(|url| url.join("api/v1/ws").to_string());
            match expected {
                Ok(url) => assert_eq!(got.as_deref(), Ok(url)),
                Err(why) => assert!(got.unwrap_err().why.contains(why), "{text}"),
            }
        };
        check("http://localhost:8080", Ok("http://localhost:8080/api/v1/ws"));
        check("localhost:8080", Ok("http://localhost:8080/api/v1/ws"));
        check("http://[::1]:8080/", Ok("http://[::1]:8080/api/v1/ws"));
        check("unix:/run/hub.sock", Ok("http://localhost/api/v1/ws"));
        check("unix:hub.sock:/tasks", Ok("http://localhost/tasks/api/v1/ws"));
        check("unix:", Err("the path of a socket"));
        check("http://proxy/hub?x=1", Ok("http://proxy/hub/api/v1/ws"));
        check("https://hub", Ok("https://hub/api/v1/ws"));
        check("ftp://hub", Err("http://"));
        check("http://me:secret@hub", Err("token"));
        check("", Err("expected"));
    }

    #[test]
    fn a_file_of_certificates_has_some() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let why = |path: &Path| HubUrl::parse_trusting("https://hub", Some(path)).unwrap_err().why;
        assert!(why(&path).contains("ca.pem"), "it is not there");
        std::fs::write(&path, "no certificate").unwrap();
        assert!(why(&path).contains("no certificate in it"));
        assert!(HubUrl::parse_trusting("http://hub", Some(&path)).is_ok(), "it is not needed");
    }

    #[test]
    fn addresses_are_shown_as_they_are_given() {
        for text in ["http://localhost:8080", "http://proxy/hub", "unix:/run/hub.sock", "unix:hub.sock:/tasks"] {
            assert_eq!(HubUrl::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn backoff_doubles_to_its_bound_and_a_good_connection_resets_it() {
        let mut backoff = Backoff::new(500, 3_000);
        let waits: Vec<_> = (0..5).map(|_| backoff.next_ms(0, None, 1.0)).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 3_000, 3_000]);
        assert_eq!(backoff.next_ms(9_999, None, 0.5), 1_500);
        assert_eq!(backoff.next_ms(10_000, None, 1.0), 500);
        assert_eq!(backoff.next_ms(0, Some([1_000, 3_000]), 0.25), 1_500);
        assert_eq!(backoff.next_ms(0, None, 0.0), 0);
        for _ in 0..100 {
            assert!(backoff.next_ms(0, None, 1.0) <= 3_000);
        }
    }

    #[test]
    fn codes_that_say_stay_away() {
        for (code, refused) in [(1006, false), (4001, false), (4499, false), (4500, true), (4999, true), (5000, false)]
        {
            assert_eq!(is_refusal(code), refused, "{code}");
        }
    }
}
