//! The contract, served: OpenAPI for the calls, AsyncAPI for the two sockets, and a page to browse it without internet.
//!
//! Both are written by hand and come first; the tests hold the URL table and the list of problems against them.

use std::sync::{Arc, LazyLock};

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use utoipa_swagger_ui::Config;

use super::door::varied;
use super::path::Path;
use super::splice;
use crate::wire::Problem;

/// The calls.
pub(super) const OPENAPI: &str = include_str!("openapi.json");
/// The sockets.
pub(super) const ASYNCAPI: &str = include_str!("asyncapi.json");

/// Starts the page with our contract, and without looking for others elsewhere.
const INITIALIZER: &str = "window.onload = () => {
  window.ui = SwaggerUIBundle({
    url: '../openapi.json',
    dom_id: '#swagger-ui',
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis],
  });
};
";

/// The page draws its icons from `data:` and styles what it shows; it loads nothing from elsewhere.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
);

/// `GET /api/openapi.json`.
pub(super) async fn openapi() -> Response {
    varied(splice::json(StatusCode::OK, OPENAPI))
}

/// `GET /api/asyncapi.json`.
pub(super) async fn asyncapi() -> Response {
    varied(splice::json(StatusCode::OK, ASYNCAPI))
}

/// `GET /api/docs`: the page names its files relative to a folder. Everything here is relative, since the hub may stand
/// behind a proxy, under a path that it does not know of.
pub(super) async fn to_page() -> Redirect {
    Redirect::permanent("docs/")
}

/// `GET /api/docs/`.
pub(super) async fn page() -> Response {
    file("index.html")
}

/// `GET /api/docs/{file}`.
pub(super) async fn page_file(Path(name): Path<String>) -> Response {
    file(&name)
}

fn file(name: &str) -> Response {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::new(["/api/openapi.json"])));
    let served = match name {
        "swagger-initializer.js" => Some((INITIALIZER.as_bytes().to_vec(), "text/javascript".to_owned())),
        name => utoipa_swagger_ui::serve(name, CONFIG.clone())
            .ok()
            .flatten()
            .map(|file| (file.bytes.into_owned(), file.content_type)),
    };
    let Some((bytes, media_type)) = served else { return Problem::no_path().into_response() };
    let mut response = varied(bytes.into_response());
    let out = response.headers_mut();
    if let Ok(media_type) = HeaderValue::try_from(media_type) {
        out.insert(header::CONTENT_TYPE, media_type);
    }
    out.insert(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
