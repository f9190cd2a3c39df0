//! Addresses behind proxies: what a trusted proxy says counts where addresses count, and nobody else's word does.

use reqwest::Method;
use taskhub::config::ServeConfig;

use crate::kit::{HubProcess, TestHub};

/// A hub that has room for one live client of each caller.
async fn hub(set: impl FnOnce(&mut ServeConfig)) -> TestHub {
    TestHub::builder().set(|config| (config.live.live_per_caller_max = 1, set(config)).1).start().await
}

/// A stream from these forwarded addresses, while it is kept; `None` where the caller has one.
async fn stream(hub: &TestHub, headers: &[(&str, &str)]) -> Option<reqwest::Response> {
    let request = hub.request(Method::GET, "/api/v1/events");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut answer = request.send().await.expect("an answer");
    let first = answer.chunk().await.expect("the stream goes on").expect("something is said");
    (!String::from_utf8_lossy(&first).contains("event: bye")).then_some(answer)
}

const X: &str = "x-forwarded-for";

#[tokio::test]
async fn clients_of_a_trusted_proxy_are_counted_by_their_addresses() {
    let hub = hub(|config| config.trusted_proxies = vec!["127.0.0.0/8".into()]).await;
    let _first = stream(&hub, &[(X, "198.51.100.1")]).await.expect("there is room");
    let _second = stream(&hub, &[("forwarded", "for=198.51.100.2;proto=https")]).await.expect("another client");
    let _proxy = stream(&hub, &[]).await.expect("the proxy itself");
    assert!(stream(&hub, &[(X, "198.51.100.1")]).await.is_none(), "it has its one");
    // What a client writes itself stands further left, or in the header that its proxy does not write.
    assert!(stream(&hub, &[(X, "203.0.113.7, 198.51.100.1")]).await.is_none());
    assert!(stream(&hub, &[(X, "203.0.113.7, 198.51.100.1, 127.0.0.2")]).await.is_none());
    assert!(stream(&hub, &[(X, "198.51.100.3"), ("forwarded", "for=203.0.113.7")]).await.is_none());
    assert!(stream(&hub, &[(X, "nonsense")]).await.is_none(), "the proxy counts");
}

#[tokio::test]
async fn without_trust_the_headers_mean_nothing() {
    for trusted in [vec![], vec!["10.0.0.0/8".to_owned(), "unix".to_owned()]] {
        let hub = hub(|config| config.trusted_proxies = trusted).await;
        let _first = stream(&hub, &[(X, "198.51.100.1")]).await.expect("there is room");
        assert!(stream(&hub, &[(X, "198.51.100.2")]).await.is_none());
        assert!(stream(&hub, &[("forwarded", "for=198.51.100.2")]).await.is_none());
    }
}

#[tokio::test]
async fn the_log_names_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let hub = HubProcess::start(folder.path(), ["--trusted-proxies", "127.0.0.1"]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(format!("{}/", hub.url)).header("host", "evil.example").header(X, "198.51.100.1");
    assert_eq!(request.send().await.unwrap().status(), 403);
    let said = hub.program.said();
    assert!(said.contains("198.51.100.1") && said.contains("evil.example"), "{said}");
}
