//! One try: a POST to a URL that somebody named.
//!
//! The client follows no redirect, keeps no cookie, asks no proxy and speaks HTTP/1.1. A name is resolved for each
//! connection, and connected to is what was vetted, not what the name means a moment later; a URL that names an address is
//! vetted before. A connection is kept for a few seconds for the next callback to the same place.
//!
//! What is answered is read as little of as can be: the status decides, and one header may say when to come back. Of a body so
//! much is read as lets the connection be used again.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::crypto::ring::default_provider;
use tower::Service;
use url::Url;

use super::addresses::{NotPublic, vet, vet_literal};
use crate::lived;
use crate::task::AuthorEnd;

/// How long a connection may take, TLS not included.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long all of a try may take, up to the head of the answer: what Standard Webhooks recommends as the least.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// How long a connection is kept that nothing is sent over: less than receivers keep theirs.
const IDLE_TIME: Duration = Duration::from_secs(4);
const IDLE_PER_HOST_MAX: usize = 4;
/// The most that is read of an answer's body, and for how long: a receiver that says more is hung up on.
const BODY_BYTES_MAX: usize = 16 << 10;
const BODY_TIME: Duration = Duration::from_secs(1);
/// The most that is read of an answer's head.
const HEAD_BYTES_MAX: usize = 64 << 10;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("taskhub/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is sent.
#[derive(Clone, Debug)]
pub struct Message {
    pub url: Box<str>,
    pub id: String,
    /// In seconds since 1970.
    pub at: i64,
    pub signature: String,
    pub body: Bytes,
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// It was answered, and not with 2xx.
    Answered {
        status: StatusCode,
        /// When to come back, as it was asked for.
        retry_after: Option<Duration>,
    },
    /// The place where it should have gone is none where callbacks go.
    Refused(String),
    /// There was no answer.
    Unanswered(String),
    /// It was not sent: who had it sent is let in no longer.
    Withdrawn(AuthorEnd),
}

impl Miss {
    /// It is of no use to try again: the receiver says that it wants no more of these, or who had them sent has ended.
    pub fn is_last(&self) -> bool {
        matches!(self, Miss::Withdrawn(_))
            || matches!(self, Miss::Answered { status, .. } if *status == StatusCode::GONE)
    }

    /// When to come back, where the receiver asked for it.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Miss::Answered { retry_after, .. } => *retry_after,
            Miss::Refused(_) | Miss::Unanswered(_) | Miss::Withdrawn(_) => None,
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::Answered { status, .. } if status.is_redirection() => {
                write!(f, "answered {}: redirects are not followed", status.as_u16())
            }
            Miss::Answered { status, .. } => write!(f, "answered {}", status.as_u16()),
            Miss::Refused(why) | Miss::Unanswered(why) => f.write_str(why),
            Miss::Withdrawn(end) => write!(f, "not sent: the token that its task was submitted with {}", end.words()),
        }
    }
}

type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// Sends callbacks.
#[derive(Clone)]
pub struct CallbackClient {
    /// Whether they may go anywhere.
    private: bool,
    /// Made when it is first needed: reading the certificates of the machine takes a moment, and a megabyte.
    client: Arc<OnceLock<Client<Connector, Full<Bytes>>>>,
}

impl CallbackClient {
    /// One whose messages go to public addresses only, or anywhere.
    pub fn new(private: bool) -> CallbackClient {
        CallbackClient { private, client: Arc::default() }
    }

    /// Makes what is needed to send, where it was not yet. Blocks for a moment.
    pub fn prepare(&self) {
        self.client.get_or_init(|| client(self.private));
    }

    /// Sends a message once.
    pub async fn send(&self, message: Message) -> Result<(), Miss> {
        let refused = |why: &dyn fmt::Display| Miss::Refused(why.to_string());
        let url = Url::parse(&message.url).map_err(|why| refused(&why))?;
        if !self.private {
            vet_literal(&url).map_err(|why| refused(&why))?;
        }
        let request = request(message).map_err(|why| refused(&format_args!("the URL cannot be sent to: {why}")))?;
        let client = self.client.get_or_init(|| client(self.private));
        let answer = match lived::timeout(ANSWER_TIME, client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(miss_of(&error)),
            Err(lived::TooLate) => {
                return Err(Miss::Unanswered(format!("no answer within {} s", ANSWER_TIME.as_secs())));
            }
        };
        let (status, retry_after) = (answer.status(), retry_after(&answer));
        // However that ends, the answer is known.
        let _ = lived::timeout(BODY_TIME, drain(answer.into_body())).await;
        if status.is_success() { Ok(()) } else { Err(Miss::Answered { status, retry_after }) }
    }
}

fn request(message: Message) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let uri = Uri::try_from(&*message.url)?;
    Request::post(uri)
        .header(CONTENT_TYPE, JSON)
        .header(USER_AGENT, AGENT)
        .header("webhook-id", message.id)
        .header("webhook-timestamp", message.at)
        .header("webhook-signature", message.signature)
        .body(Full::new(message.body))
}

/// Reads what is left of an answer, if it is little.
async fn drain(mut body: Incoming) {
    let mut left = BODY_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// What 429 and 503 say of when to come back, in seconds; the form with a date is of clocks that may differ.
fn retry_after(answer: &Response<Incoming>) -> Option<Duration> {
    if !matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The reason of the reasons: what stands around it only says that sending failed.
fn miss_of(error: &(dyn Error + 'static)) -> Miss {
    let mut cause = error;
    loop {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.map(|inner| inner as &(dyn Error + 'static));
        if let Some(refused) = cause.downcast_ref::<NotPublic>() {
            return Miss::Refused(refused.to_string());
        }
        match inner.or(cause.source()) {
            Some(next) => cause = next,
            None => return Miss::Unanswered(cause.to_string()),
        }
    }
}

fn client(private: bool) -> Client<Connector, Full<Bytes>> {
    let mut http = HttpConnector::new_with_resolver(Resolver { private });
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT_TIME));
    http.set_nodelay(true);
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls())
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .build(https)
}

/// Certificates are those that this machine trusts. Where it has none (a container without them), every https fails, and
/// says why.
fn tls() -> ClientConfig {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        tracing::warn!(
            errors = ?found.errors,
            "this machine has no certificates to trust, so callbacks to https will fail: install ca-certificates"
        );
    }
    let versions =
        ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    versions.expect("ring has the suites of both versions").with_root_certificates(roots).with_no_client_auth()
}

/// Resolves names to addresses that callbacks may go to.
#[derive(Clone)]
struct Resolver {
    private: bool,
}

type Resolving = Pin<Box<dyn Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let private = self.private;
        Box::pin(async move {
            // The port is filled in by the connector.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if private {
                return Ok(found.into_iter());
            }
            let refused = found.iter().find_map(|address| vet(address.ip()).err());
            let public: Vec<SocketAddr> = found.into_iter().filter(|address| vet(address.ip()).is_ok()).collect();
            match (public.is_empty(), refused) {
                (true, Some(refused)) => Err(io::Error::new(io::ErrorKind::PermissionDenied, refused)),
                (true, None) => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
                (false, _) => Ok(public.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::NewCallback;

    fn message(url: &str) -> Message {
        Message { url: url.into(), id: "id".into(), at: 1, signature: "v1,x".into(), body: Bytes::from_static(b"{}") }
    }

    /// The name is one that every machine resolves to itself.
    #[tokio::test]
    async fn a_name_that_leads_here_is_refused_where_it_is_connected_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        for url in [
            format!("http://localhost:{port}/"),
            format!("http://127.0.0.1:{port}/"),
            format!("https://localhost:{port}/"),
        ] {
            let miss = CallbackClient::new(false).send(message(&url)).await.unwrap_err();
            assert!(matches!(&miss, Miss::Refused(why) if why.contains("is a loopback address")), "{url}: {miss:?}");
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody connected");
        }
    }

    #[tokio::test]
    async fn what_went_wrong_is_said_without_what_stands_around_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let miss = CallbackClient::new(true).send(message(&format!("http://{address}/"))).await.unwrap_err();
        assert!(matches!(&miss, Miss::Unanswered(why) if why.contains("Connection refused")), "{miss:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What a task takes as a callback is never refused later for its form.
        #[test]
        fn whatever_is_taken_can_be_sent_to(host in "[!-~é]{1,12}", rest in "[/?][ -~éß]{0,40}") {
            if let Ok(url) = NewCallback::new(format!("http://{host}{rest}")).checked_url() {
                prop_assert!(request(message(url.as_str())).is_ok(), "{url}");
            }
        }
    }

    #[test]
    fn a_redirect_says_that_it_is_none_of_ours() {
        let miss = |status| Miss::Answered { status, retry_after: None };
        assert_eq!(miss(StatusCode::FOUND).to_string(), "answered 302: redirects are not followed");
        assert_eq!(miss(StatusCode::INTERNAL_SERVER_ERROR).to_string(), "answered 500");
        assert!(miss(StatusCode::GONE).is_last() && !miss(StatusCode::NOT_FOUND).is_last());
    }
}
