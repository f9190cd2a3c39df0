//! What stands in a path. A path that cannot be read is one that leads nowhere.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::wire::Problem;

/// The parts of a path that the URL table leaves open. What is not UTF-8 is no path of ours.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(open)) => Ok(Path(open)),
            Err(_) => Err(Problem::no_path()),
        }
    }
}
