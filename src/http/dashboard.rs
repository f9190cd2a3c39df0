//! The files of the dashboard, which the program carries in itself.

use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::door::varied;
use crate::wire::{Code, Problem};

#[derive(RustEmbed)]
#[folder = "web"]
#[allow_missing = true]
struct Files;

/// Pages may load and connect to nothing but the hub they came from.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
);

/// `GET /`.
pub(super) async fn index(headers: HeaderMap) -> Response {
    match Files::get("index.html") {
        Some(file) => answer("index.html", file, &headers),
        None => Problem::new(Code::NotFound, "this hub was built without a dashboard").into_response(),
    }
}

/// Every path that is not in the URL table: a file of the dashboard, or nothing.
pub(super) async fn file_or_nothing(request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let Some(file) = Files::get(path) else { return Problem::no_path().into_response() };
    match *request.method() {
        Method::GET | Method::HEAD => answer(path, file, request.headers()),
        _ => {
            let problem = Problem::new(Code::MethodNotAllowed, "this path takes GET and HEAD");
            ([(header::ALLOW, "GET,HEAD")], problem).into_response()
        }
    }
}

fn answer(path: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let etag = etag(&file.metadata.sha256_hash());
    let mime = file.metadata.mimetype().to_owned();
    // Guessing says nothing of the character set, and pages are in UTF-8.
    let mime = if mime.starts_with("text/") { format!("{mime}; charset=utf-8") } else { mime };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let response = if known.is_some_and(|known| matches(known, &etag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = match file.data {
            std::borrow::Cow::Borrowed(bytes) => Body::from(bytes),
            std::borrow::Cow::Owned(bytes) => Body::from(bytes),
        };
        Response::new(body)
    };
    let mut response = varied(response);
    let out = response.headers_mut();
    let value = |text: &str| HeaderValue::try_from(text).expect("types and digests are plain text");
    out.insert(header::CONTENT_TYPE, value(&mime));
    out.insert(header::ETAG, value(&etag));
    // The next version of the hub has other files under the same names.
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if path.ends_with(".html") || path.ends_with(".svg") {
        out.insert(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    }
    response
}

fn etag(hash: &[u8; 32]) -> String {
    let mut text = String::from("\"");
    for byte in &hash[..16] {
        let _ = write!(text, "{byte:02x}");
    }
    text + "\""
}

/// Whether a list of known tags has this one.
pub(super) fn matches(known: &str, etag: &str) -> bool {
    known.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let tag = etag(&[0xab; 32]);
        assert_eq!(tag, format!("\"{}\"", "ab".repeat(16)));
        assert!(matches(&tag, &tag) && matches(&format!("\"x\", W/{tag}"), &tag) && matches("*", &tag));
        assert!(!matches("\"x\"", &tag));
    }
}
