//! The contract is served, and every call in it is there.

use serde_json::Value;

use crate::kit::{Answer, TestHub};

#[tokio::test]
async fn every_documented_call_is_a_route() {
    let hub = TestHub::start().await;
    let contract = hub.get("/api/openapi.json").await.expect(200);
    let version = contract["openapi"].as_str().unwrap();
    assert!(version.starts_with("3."), "{version}");
    let mut calls = 0;
    for (path, methods) in contract["paths"].as_object().unwrap() {
        let filled = path.replace("{id}", "x").replace("{task_id}", "x").replace("{attempt}", "1").replace("{n}", "1");
        let filled = filled.replace("{file}", "index.html").replace("{name}", "x").replace("{jti}", "x");
        for method in methods.as_object().unwrap().keys().filter(|key| !key.starts_with("x-") && *key != "parameters") {
            let request = hub.request(method.to_uppercase().parse().unwrap(), &filled);
            // An event stream does not end by itself: its head is enough.
            if path.ends_with("/events") {
                assert_eq!(request.send().await.unwrap().status().as_u16(), 200, "{path}");
            } else {
                let answer = Answer::of(request).await;
                let code = answer.body["code"].as_str().unwrap_or_default();
                assert!(code != "not_found" && code != "method_not_allowed", "{method} {path}: {}", answer.text);
            }
            calls += 1;
        }
    }
    assert!(calls >= 20, "{calls}");
}

#[tokio::test]
async fn every_problem_a_call_answers_is_documented() {
    let hub = TestHub::start().await;
    let contract = hub.get("/api/openapi.json").await.text;
    for code in taskhub::wire::Code::ALL {
        assert!(contract.contains(&format!("\"{}\"", code.as_str())), "{} is not documented", code.as_str());
    }
}

#[tokio::test]
async fn the_sockets_are_documented_too() {
    let hub = TestHub::start().await;
    let contract = hub.get("/api/asyncapi.json").await.expect(200);
    let channels: Vec<&Value> = contract["channels"].as_object().unwrap().values().collect();
    let addresses: Vec<&str> = channels.iter().filter_map(|channel| channel["address"].as_str()).collect();
    assert!(addresses.contains(&"/api/v1/ws") && addresses.contains(&"/api/v1/worker/ws"), "{addresses:?}");
}

/// The page and all its parts come from the hub itself.
#[tokio::test]
async fn the_page_works_without_internet() {
    let hub = TestHub::start().await;
    let page = hub.get("/api/docs").await;
    assert_eq!((page.status, page.header("content-type").starts_with("text/html")), (200, true));
    assert!(!page.text.contains("//unpkg") && !page.text.contains("https://"), "{}", page.text);
    for pair in page.text.split('"').collect::<Vec<_>>().windows(2) {
        if pair[0].ends_with("src=") || pair[0].ends_with("href=") {
            let path = format!("/api/docs/{}", pair[1].trim_start_matches("./"));
            assert_eq!(hub.get(&path).await.status, 200, "{path}");
        }
    }
    let start = hub.get("/api/docs/swagger-initializer.js").await.text;
    assert!(start.contains("'../openapi.json'") && start.contains("validatorUrl: null"), "{start}");
}
