//! The page is in the program, and browsers are told to load nothing from anywhere else.

use reqwest::Method;

use crate::kit::{Answer, TestHub};

#[tokio::test]
async fn the_files_are_served_with_their_types_and_tags() {
    let hub = TestHub::start().await;
    for (path, media_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/taskhub.js", "text/javascript; charset=utf-8"),
        ("/views/list.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let whole = hub.get(path).await;
        assert_eq!((whole.status, whole.header("content-type")), (200, media_type), "{path}");
        assert_eq!(whole.header("x-content-type-options"), "nosniff");
        assert!(!whole.text.is_empty());
        let etag = whole.header("etag").to_owned();
        let known = Answer::of(hub.request(Method::GET, path).header("if-none-match", &etag)).await;
        assert_eq!((known.status, known.text.as_str(), known.header("etag")), (304, "", etag.as_str()), "{path}");
        let other = Answer::of(hub.request(Method::GET, path).header("if-none-match", "\"other\"")).await;
        assert_eq!(other.status, 200, "{path}");
        let head = Answer::of(hub.request(Method::HEAD, path)).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn the_page_names_nothing_that_is_not_there() {
    let hub = TestHub::start().await;
    let page = hub.get("/").await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let mut to_look_at = vec![("/".to_owned(), page.text)];
    let mut seen = std::collections::BTreeSet::new();
    while let Some((path, text)) = to_look_at.pop() {
        assert!(!text.contains("http://") || path.ends_with(".svg") || !text.contains("src=\"http"), "{path}");
        let base = reqwest::Url::parse(&hub.url).unwrap().join(&path).unwrap();
        let quoted = text.split(['"', '\'']).collect::<Vec<_>>();
        for pair in quoted.windows(2) {
            let names = ["src=", "href=", "from ", "import "].iter().any(|before| pair[0].ends_with(before));
            let is_file = [".js", ".css", ".svg"].iter().any(|end| pair[1].ends_with(end));
            if names && is_file {
                let file = base.join(pair[1]).unwrap().path().to_owned();
                if seen.insert(file.clone()) {
                    let answer = hub.get(&file).await;
                    assert_eq!(answer.status, 200, "{path} names {file}");
                    to_look_at.push((file, answer.text));
                }
            }
        }
    }
    assert!(seen.len() > 8, "the page is more than {seen:?}");
}
