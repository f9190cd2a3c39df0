//! The path that all of a hub stands under, for a proxy that does not take it off.
//!
//! Taking it off is the first thing that happens to a request, before the door: so whatever compares paths behind it knows
//! one form of them, and what the hub says of itself is relative anyway. Outside of the path there is nothing but
//! `/healthz` and `/readyz`, for probes that come past the proxy; `Host` and `Origin` are checked there as everywhere.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{future::RouteFuture, get};
use tower::Service;

use super::door::DoorLayer;
use super::ops;
use super::routes::router;
use super::state::App;
use crate::wire::{Code, Problem};

/// `/` or such as `/tasks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasePath(Box<str>);

impl FromStr for BasePath {
    type Err = String;

    /// Reads `/tasks` or `/tasks/`, of any depth.
    fn from_str(text: &str) -> Result<BasePath, String> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~');
        let is_step = |step: &str| !matches!(step, "" | "." | "..") && step.bytes().all(is_plain);
        match bare.strip_prefix('/') {
            None if text == "/" => Ok(BasePath::default()),
            Some(steps) if steps.split('/').all(is_step) => Ok(BasePath(bare.into())),
            _ => Err("a path of plain letters, digits, - . _ ~ is expected, such as /tasks".into()),
        }
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

impl BasePath {
    /// What to write between an address and a path that begins with a slash.
    pub fn as_prefix(&self) -> &str {
        &self.0
    }

    /// Every route of a hub, under this path.
    pub fn router(&self, app: Arc<App>) -> Router {
        if self.0.is_empty() {
            return router(app);
        }
        let elsewhere = {
            let base = self.clone();
            move |uri: Uri| std::future::ready(base.elsewhere(&uri))
        };
        let outside = Router::new()
            .route("/healthz", get(ops::healthz))
            .route("/readyz", get(ops::readyz))
            .fallback(elsewhere)
            .with_state(app.clone())
            .layer(DoorLayer(app.clone()));
        Router::new().fallback_service(Placed { base: self.clone(), inside: router(app), outside })
    }

    /// The same request as a hub without a path would get it; `None` where it is for something else.
    fn take_off(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path_and_query()?.as_str().strip_prefix(&*self.0).filter(|rest| rest.starts_with('/'))?;
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(rest).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// The answer outside of the path.
    fn elsewhere(&self, uri: &Uri) -> Response {
        if uri.path() == &*self.0 {
            // The page names its files relative to a folder.
            let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            return Redirect::permanent(&format!("{}/{query}", self.0)).into_response();
        }
        Problem::new(Code::NotFound, format!("nothing is here: this hub stands under {}/", self.0)).into_response()
    }
}

/// Routes under a path, and what is around it.
#[derive(Clone)]
struct Placed {
    base: BasePath,
    inside: Router,
    outside: Router,
}

impl Service<Request> for Placed {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routers are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.base.take_off(request.uri()) {
            Some(uri) => {
                *request.uri_mut() = uri;
                self.inside.call(request)
            }
            None => self.outside.call(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (text, expected) in [("/", ""), ("/tasks", "/tasks"), ("/tasks/", "/tasks"), ("/a/b-1.x_~", "/a/b-1.x_~")] {
            assert_eq!(&*BasePath::from_str(text).unwrap().0, expected);
        }
        for text in
            ["", "tasks", "//", "/a//b", "/a/../b", "/.", "/a?b", "/a b", "/ä", "/{id}", "/*x", "/%41", "http://a/b"]
        {
            assert!(BasePath::from_str(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_under_the_path_and_what_is_not() {
        let base = BasePath::from_str("/tasks").unwrap();
        let off = |uri: &str| base.take_off(&uri.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(off("/tasks/").as_deref(), Some("/"));
        assert_eq!(off("/tasks/api/v1/tasks?q=/tasks/").as_deref(), Some("/api/v1/tasks?q=/tasks/"));
        assert_eq!(off("/tasks//x").as_deref(), Some("//x"));
        assert_eq!(off("http://hub.example/tasks/x").as_deref(), Some("http://hub.example/x"));
        for outside in ["/", "/tasks", "/tasks?x", "/tasksx/", "/Tasks/", "/x/tasks/", "*", "hub.example:80"] {
            assert_eq!(off(outside), None, "{outside}");
        }
    }
}
