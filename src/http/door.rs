//! The door: what every request has to pass before anything of the hub looks at it, and before its body is read.
//!
//! A hub without tokens has nothing to tell its users from others but the place it listens at, and a browser is inside that
//! place: every page that a person visits can send requests to their machine. Three things are looked at, on every route,
//! method and socket alike.
//!
//! * **`Host`** must be a name of this hub. A page of `evil.example` can point its own name at 127.0.0.1 (DNS rebinding);
//!   to the browser page and hub are one origin from then on, and only `Host` still tells. Names are `localhost` and what
//!   ends in it, loopback addresses, and `--hosts`. A hub that listens to others (`--insecure-open`) also takes what no
//!   public site can be called: addresses, names without a dot, and those of private networks. On a Unix socket the rule is
//!   that of loopback: no browser comes to it by itself, but a proxy does, and passes on what browsers send.
//! * **`Origin`**, where there is one, must be a page of this hub's own: the same origin as `Host`, or a page that comes
//!   from one of its names (whatever the port, since behind a proxy the hub is not told by which it was reached, and
//!   whoever holds a port of that name is on this machine); or it stands in `--origins`. Pages of another origin that may
//!   come in are told so by CORS, without credentials. Everything else is refused, `null` too.
//! * **`Sec-Fetch-Site: cross-site`** without an `Origin` is what a foreign page loads without reading it: images, scripts,
//!   frames. It is refused, but for a person who follows a link to the page or to the API's documentation.
//!
//! A hub that knows its callers goes by any name: there a foreign page that calls itself one of the hub's own still has no token.
//! Pages of other origins are refused there as well.
//!
//! Programs send neither `Origin` nor `Sec-Fetch-Site`, and a `Host` that they were given by their user.
//!
//! Whoever is refused hears why, in a form that their side can read (see `refusal`), and the log has a line of it.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::future::{BoxFuture, Either, FutureExt as _};
use tower::{Layer, Service};

use super::caller::Peer;
use super::gate::{self, Known};
use super::refusal;
use super::state::App;
use crate::seldom::Seldom;

/// Names that no site on the internet has: RFC 6761, 6762, 8375, and what ICANN keeps for private use.
const PRIVATE_SUFFIXES: [&str; 3] = [".local", ".internal", ".home.arpa"];
/// In `--hosts`: every name. Nothing is left of the guard against rebinding then.
const ANY: &str = "*";
/// What pages of other origins may send, and see of an answer.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, if-range, last-event-id, range");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("content-range, etag, location, retry-after, taskhub-existing, taskhub-streamed");
/// How long a browser may remember a preflight, in seconds.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");
/// The most that is said of names that somebody sent. A real one has at most 253 characters.
const WORDS_CHARS_MAX: usize = 600;
const ORIGIN: HeaderValue = HeaderValue::from_static("origin");
static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const PRIVATE_NETWORK_ASKED: HeaderName = HeaderName::from_static("access-control-request-private-network");
const PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// By which names a hub is called, and whose pages may use it.
#[derive(Clone, Debug)]
pub struct Door {
    /// Beside loopback; in lower case.
    hosts: Vec<String>,
    /// Beside the hub's own; as browsers write them.
    origins: Vec<String>,
    /// It listens where others can reach it.
    is_reachable: bool,
}

impl Door {
    /// For a hub that other machines reach or not, with `--hosts` and `--origins`; or what is wrong with one of these.
    pub fn new(is_reachable: bool, hosts: &[String], origins: &[String]) -> Result<Door, String> {
        let host = |text: &str| match Authority::parse(text) {
            Some(Authority { host, port: None }) => Ok(host),
            _ if text == ANY => Ok(ANY.to_owned()),
            _ => Err(format!("--hosts {text}: a name or an address is expected, without port, such as hub.example")),
        };
        let origin = |text: &str| match Origin::parse(text) {
            Some(origin) => Ok(origin.to_string()),
            None => {
                Err(format!("--origins {text}: the origin of a page is expected, such as https://app.example:8443"))
            }
        };
        Ok(Door {
            hosts: said(hosts).map(host).collect::<Result<_, _>>()?,
            origins: said(origins).map(origin).collect::<Result<_, _>>()?,
            is_reachable,
        })
    }

    /// Whether a request may come in, by its head alone. Only an open hub asks by which name it was called: a page that points
    /// its own name here has no token.
    fn admits(&self, parts: &Parts, is_open: bool) -> Result<Admitted, Refused> {
        let to = self.addressed(parts, is_open)?;
        let mut origins = parts.headers.get_all(header::ORIGIN).iter();
        let Some(value) = origins.next() else {
            return if is_from_elsewhere(parts) { Err(Refused::CrossSite { to }) } else { Ok(Admitted::Plain) };
        };
        let foreign = || Refused::Origin { from: text(value).to_owned(), to: to.clone() };
        let origin = Origin::parse(text(value)).filter(|_| origins.next().is_none()).ok_or_else(foreign)?;
        if origin.is_at(&to) {
            return Ok(Admitted::Own);
        }
        let known = self.is_own_page(&origin) || self.origins.contains(&origin.to_string());
        if known { Ok(Admitted::Page(value.clone())) } else { Err(foreign()) }
    }

    /// Where the request goes: a name of this hub.
    fn addressed(&self, parts: &Parts, is_open: bool) -> Result<Authority, Refused> {
        let hosts = parts.headers.get_all(header::HOST);
        // A request target with a host counts before the header. Nothing is gained by a header that says something else.
        let target = parts.uri.authority().map(|authority| authority.as_str());
        let claims = || target.into_iter().chain(hosts.iter().map(text));
        let known = |claim: &str| Authority::parse(claim).filter(|to| !is_open || self.is_name(&to.host));
        let mut others = claims();
        match others.next().and_then(known) {
            Some(to) if others.all(|claim| known(claim).is_some()) && hosts.iter().count() < 2 => Ok(to),
            _ => Err(Refused::Host { claimed: claims().collect::<Vec<_>>().join(", ") }),
        }
    }

    /// Whether this hub goes by this name.
    fn is_name(&self, host: &str) -> bool {
        self.is_own_name(host) || self.hosts.iter().any(|known| known == ANY) || self.is_reachable && is_private(host)
    }

    /// Whether only this hub's operator can have something else under this name.
    fn is_own_name(&self, host: &str) -> bool {
        is_loopback(host) || self.hosts.iter().any(|known| known == host)
    }

    fn is_own_page(&self, origin: &Origin) -> bool {
        matches!(origin.scheme.as_str(), "http" | "https") && self.is_own_name(&origin.at.host)
    }
}

/// What a list says. A variable of the environment that is there and empty says nothing.
fn said(texts: &[String]) -> impl Iterator<Item = &str> {
    texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// A header as text. What is not plain ASCII is no host and no origin.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

/// Whether a page of another site sent this, as browsers say it. Following a link is no such request: the page that a
/// person sees then is the hub's own. What such a request fetches must have no effect, so only files may be fetched so.
fn is_from_elsewhere(parts: &Parts) -> bool {
    let says = |name: &HeaderName, word: &str| parts.headers.get_all(name).iter().any(|value| value == word);
    let follows_link = || {
        (parts.method == Method::GET || parts.method == Method::HEAD)
            && says(&FETCH_MODE, "navigate")
            && says(&FETCH_DEST, "document")
            && !parts.uri.path().starts_with("/api/v1/")
    };
    says(&FETCH_SITE, "cross-site") && !follows_link()
}

/// Who comes in.
enum Admitted {
    /// A program, or a page that does not say where it is from because it is the hub's own.
    Plain,
    /// A page of the same origin.
    Own,
    /// A page of this other origin, to be told that it may read the answer.
    Page(HeaderValue),
}

/// Why somebody does not come in.
#[derive(Debug, PartialEq)]
enum Refused {
    /// `Host`, or what stands for it, is no name of this hub.
    Host { claimed: String },
    /// The page that sends it is none of this hub's.
    Origin { from: String, to: Authority },
    /// A page of another site loads something.
    CrossSite { to: Authority },
}

impl Refused {
    /// What is wrong, with the names, and what an operator who wants it otherwise has to do. Short enough for the reason
    /// of a close frame, unless the names are long.
    fn words(&self) -> String {
        let words = match self {
            Refused::Host { claimed } if claimed.is_empty() => "the request names no host".into(),
            Refused::Host { claimed } => match Authority::parse(claimed) {
                Some(to) => format!("{to} is no name of this hub; allow it with --hosts {}", to.host),
                None => format!("{claimed:?} is no name of this hub"),
            },
            Refused::Origin { from, to } => match Origin::parse(from) {
                Some(Origin { at, .. }) => {
                    format!("a page of {from} may not use {to}; allow it with --hosts {} or --origins", at.host)
                }
                None => format!("a page of origin {from:?} may not use {to}"),
            },
            Refused::CrossSite { to } => format!("a page of another site may not use {to}"),
        };
        words.chars().take(WORDS_CHARS_MAX).collect()
    }

    fn log(&self, parts: &Parts) {
        static REFUSED: Seldom = Seldom::new();
        if let Some(unsaid) = REFUSED.happened() {
            // A path is no secret here, but a query may hold one.
            let (method, path) = (&parts.method, parts.uri.path());
            let why = self.words();
            let from = parts.extensions.get().map(|Peer(address)| tracing::field::display(address));
            tracing::warn!(%method, path, from, unsaid, "refused a request: {why}");
        }
    }
}

/// `HOST[:PORT]`, the host in lower case, without brackets and without the dot at the end of a full name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// `None` for what is no host and port: a user before it, something behind it, an address that is none.
    fn parse(text: &str) -> Option<Authority> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host.parse::<Ipv6Addr>().ok()?.to_string(), port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                let host = host.strip_suffix('.').unwrap_or(host);
                let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
                if host.is_empty() || !host.bytes().all(is_name) {
                    return None;
                }
                (host.to_ascii_lowercase(), port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        Some(Authority { host, port })
    }
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Authority { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }?;
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The origin of a page. `null` and whatever else has no host is none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    at: Authority,
}

impl Origin {
    fn parse(text: &str) -> Option<Origin> {
        let (scheme, at) = text.split_once("://")?;
        let is_scheme = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.');
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
            return None;
        }
        let (scheme, mut at) = (scheme.to_ascii_lowercase(), Authority::parse(at)?);
        // Browsers leave out the port that a scheme has anyway.
        at.port = at.port.filter(|port| Some(*port) != default_port(&scheme));
        Some(Origin { scheme, at })
    }

    /// Whether pages at this place are of this origin. A proxy may have taken TLS away, so either scheme will do.
    fn is_at(&self, to: &Authority) -> bool {
        let Some(default) = default_port(&self.scheme) else { return false };
        self.at.host == to.host && self.at.port.unwrap_or(default) == to.port.unwrap_or(default)
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.at)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Whether a host is this machine, whoever asks. Browsers resolve what ends in `.localhost` without asking anyone.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether no site on the internet can be called so.
fn is_private(host: &str) -> bool {
    !host.contains('.')
        || PRIVATE_SUFFIXES.iter().any(|suffix| host.ends_with(suffix))
        || host.parse::<IpAddr>().is_ok()
}

/// Puts the door before routes.
#[derive(Clone)]
pub(super) struct DoorLayer(pub(super) Arc<App>);

impl<S> Layer<S> for DoorLayer {
    type Service = Behind<S>;

    fn layer(&self, inner: S) -> Behind<S> {
        Behind { app: self.0.clone(), inner }
    }
}

/// What stands behind the door.
#[derive(Clone)]
pub(super) struct Behind<S> {
    app: Arc<App>,
    inner: S,
}

impl<S> Service<Request> for Behind<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (parts, body) = request.into_parts();
        match self.app.door.admits(&parts, self.app.keys().is_open()) {
            Ok(Admitted::Plain) => self.through(parts, body),
            Ok(Admitted::Own) => {
                let answer = self.through(parts, body);
                Either::Right(answer.map(|answer| answer.map(varied)).boxed())
            }
            Ok(Admitted::Page(origin)) if is_preflight(&parts) => {
                Either::Right(std::future::ready(Ok(preflight(origin, &parts.headers))).boxed())
            }
            Ok(Admitted::Page(origin)) => {
                let answer = self.through(parts, body);
                Either::Right(answer.map(|answer| answer.map(|answer| readable(answer, origin))).boxed())
            }
            Err(refused) => {
                refused.log(&parts);
                Either::Right(refusal::tell(self.app.clone(), refused.words(), parts).map(Ok).boxed())
            }
        }
    }
}

impl<S> Behind<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    /// Lets a request through once it is known who sends it.
    fn through(&mut self, mut parts: Parts, body: Body) -> Answer<S> {
        match gate::identify(&self.app, &mut parts) {
            Ok(Known::Now) => Either::Left(self.inner.call(Request::from_parts(parts, body))),
            Ok(Known::Soon(known)) => {
                let mut inner = self.inner.clone();
                let answer = async move {
                    match known.await {
                        Ok(who) => {
                            parts.extensions.insert(who);
                            inner.call(Request::from_parts(parts, body)).await
                        }
                        Err(problem) => Ok(problem.into_response()),
                    }
                };
                Either::Right(answer.boxed())
            }
            Err(problem) => Either::Right(std::future::ready(Ok(problem.into_response())).boxed()),
        }
    }
}

/// The answer of what stands behind the door, or the door's own.
type Answer<S> = Either<<S as Service<Request>>::Future, BoxFuture<'static, Result<Response, Infallible>>>;

fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Tells a browser what pages of this origin may send.
fn preflight(origin: HeaderValue, asked: &HeaderMap) -> Response {
    let mut answer = readable(StatusCode::NO_CONTENT.into_response(), origin);
    let out = answer.headers_mut();
    out.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    out.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    out.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
    if asked.contains_key(PRIVATE_NETWORK_ASKED) {
        out.insert(PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    answer
}

/// Lets a page of this origin read the answer.
fn readable(answer: Response, origin: HeaderValue) -> Response {
    let mut answer = varied(answer);
    let out = answer.headers_mut();
    out.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    out.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    answer
}

/// Says that the answer depends on who asks, so that no cache gives that of one page to another.
pub(super) fn varied(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::VARY, ORIGIN);
    answer
}

#[cfg(test)]
mod tests;
