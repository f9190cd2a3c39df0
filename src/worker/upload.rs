//! Results that are too large for a report: a function uploads them before it ends.
//!
//! They go over HTTP, beside the worker's socket, or straight into the hub that runs in the same program. The hub keeps the last one
//! that arrived whole; what is cut short leaves nothing.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::roster::is_over;
use crate::dial::{HubUrl, Token};
use crate::wire::Held;

/// What is read of a result at once.
const READ_BYTES: usize = 64 << 10;

/// Why a result was not uploaded.
#[derive(Debug)]
pub enum UploadError {
    /// The hub does not take it: it is too large, or not now.
    Refused {
        /// One of the hub's codes, such as `payload_too_large`.
        code: String,
        detail: String,
    },
    /// The attempt is over, or is not this worker's any more.
    Over,
    /// It could not be read.
    Read(io::Error),
    /// The hub could not be reached, or not for as long as it took. It may be uploaded again.
    Unreachable(String),
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UploadError::Refused { code, detail } => write!(f, "the hub refused the result: {detail} ({code})"),
            UploadError::Over => f.write_str("the attempt is over: it leaves no result any more"),
            UploadError::Read(why) => write!(f, "the result could not be read: {why}"),
            UploadError::Unreachable(why) => write!(f, "the result could not be uploaded: {why}"),
        }
    }
}

impl std::error::Error for UploadError {}

/// A result as it comes.
pub(crate) type Parts = BoxStream<'static, io::Result<Bytes>>;

/// Where results go.
pub(crate) trait Uploads: fmt::Debug + Send + Sync {
    fn put(&self, held: Held, content_type: String, parts: Parts) -> BoxFuture<'static, Result<(), UploadError>>;
}

/// What can be read, as it comes.
pub(super) fn parts(result: impl AsyncRead + Send + 'static) -> Parts {
    ReaderStream::with_capacity(result, READ_BYTES).boxed()
}

/// A hub elsewhere.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) url: HubUrl,
    pub(super) token: Option<Token>,
}

impl Uploads for Remote {
    fn put(&self, held: Held, content_type: String, parts: Parts) -> BoxFuture<'static, Result<(), UploadError>> {
        let Held { task_id, attempt } = held;
        let url = self.url.join(&format!("api/v1/tasks/{task_id}/attempts/{attempt}/result"));
        // Few tasks leave such a result: a connection for each is nothing beside it.
        let (http, token) = (self.url.http(), self.token.clone());
        async move {
            let http = http.map_err(|why| unreachable(&why))?;
            let issued = match &token {
                Some(token) => Some(token.get().await.map_err(|why| UploadError::Unreachable(why.to_string()))?),
                None => None,
            };
            // What becomes of a part that cannot be read is told in the words of whoever sends the others.
            let unread = Arc::new(Mutex::new(None));
            let parts = parts.map_err({
                let unread = unread.clone();
                move |why| {
                    let told = io::Error::new(why.kind(), why.to_string());
                    *unread.lock() = Some(why);
                    told
                }
            });
            let request = http.put(url).header("content-type", content_type).body(reqwest::Body::wrap_stream(parts));
            let request = issued.iter().fold(request, |request, issued| request.bearer_auth(issued.text()));
            let sent = request.send().await;
            let answer =
                sent.map_err(|why| unread.lock().take().map_or_else(|| unreachable(&why), UploadError::Read))?;
            let status = answer.status();
            if status.is_success() {
                return Ok(());
            }
            #[derive(Deserialize)]
            struct Problem {
                code: String,
                #[serde(default)]
                detail: String,
            }
            let body = answer.bytes().await.map_err(|why| unreachable(&why))?;
            match serde_json::from_slice(&body) {
                Ok(Problem { code, .. }) if is_over(&code) => Err(UploadError::Over),
                Ok(Problem { code, detail }) => Err(UploadError::Refused { code, detail }),
                Err(_) => Err(UploadError::Unreachable(format!("HTTP {status}"))),
            }
        }
        .boxed()
    }
}

fn unreachable(error: &reqwest::Error) -> UploadError {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    UploadError::Unreachable(deepest.to_string())
}
