//! The page of a hub that asks who is calling, in a real browser: signing in, what each may, tokens, and shared links.

use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::{Browser, Page};
use crate::kit::{Answer, TestHub, id};

/// A hub that knows an admin, and the admin's token.
async fn closed() -> (TestHub, String) {
    let hub = TestHub::start().await;
    let made = hub.post("/api/v1/api-tokens", json!({"name": "root", "role": "admin"})).await.expect(201);
    let token = made["token"].as_str().expect("a text").to_owned();
    (hub, token)
}

/// A call with a token.
async fn call(hub: &TestHub, token: &str, method: Method, path: &str, body: Value) -> Answer {
    Answer::of(hub.request(method, path).bearer_auth(token).json(&body)).await
}

async fn made(hub: &TestHub, admin: &str, body: Value) -> String {
    let made = call(hub, admin, Method::POST, "/api/v1/api-tokens", body).await.expect(201);
    made["token"].as_str().expect("a text").to_owned()
}

async fn submitted(hub: &TestHub, token: &str, body: Value) -> String {
    id(&call(hub, token, Method::POST, "/api/v1/tasks", body).await.expect(201))
}

async fn sign_in(page: &mut Page, token: &str) {
    page.until("document.querySelector('.sign-in')?.checkVisibility()").await;
    page.look(&format!("document.querySelector('#token').value = {token:?}")).await;
    page.click(".sign-in button").await;
}

/// That a browser says of a refusal what it is, is no complaint of the page.
fn forget_refusals(page: &mut Page) {
    page.errors.retain(|error| !error.contains("401") && !error.contains("WebSocket"));
}

const IS_LIVE: &str = "document.querySelector('#connection')?.innerText === 'Live'";

#[tokio::test]
async fn who_is_not_known_signs_in_and_is_offered_what_they_may() {
    let (hub, admin) = closed().await;
    let ada = made(&hub, &admin, json!({"name": "ada", "role": "user", "user_id": "ada"})).await;
    let viewer = made(&hub, &admin, json!({"name": "wall", "role": "viewer"})).await;
    let own = submitted(&hub, &ada, json!({"task_type": "t", "title": "of ada"})).await;
    submitted(&hub, &admin, json!({"task_type": "t", "title": "of bob", "user_id": "bob"})).await;
    let mut page = Browser::start().await.open(&hub.url).await;

    sign_in(&mut page, "tht_nobody").await;
    page.until("document.querySelector('.sign-in .trouble').innerText.includes('does not know this token')").await;
    sign_in(&mut page, &ada).await;
    page.until(IS_LIVE).await;
    page.until("document.querySelector('#who')?.innerText.includes('ada, user')").await;
    page.until("document.querySelector('ol.rows')?.innerText.includes('of ada')").await;
    assert!(!page.text("main").await.contains("of bob"));
    let offered = page.text(".top nav").await;
    assert!(offered.contains("Queues") && !offered.contains("Workers"), "{offered}");
    assert!(!offered.contains("Tokens") && !offered.contains("Audit"), "{offered}");
    page.look(&format!("location.hash = '#/task/{own}'")).await;
    page.until("document.querySelector('section.task .actions')?.innerText.includes('Cancel')").await;
    // It is in this tab alone.
    let stored = page
        .look("[sessionStorage.length, Object.values(localStorage).join().includes('tht_'), document.cookie]")
        .await;
    assert_eq!(stored, json!([1, false, ""]));

    page.look("globalThis.is_before = true").await;
    page.click("#who button").await;
    page.until("!globalThis.is_before").await;
    sign_in(&mut page, &viewer).await;
    page.until("document.querySelector('#who')?.innerText.includes('viewer')").await;
    page.until("document.querySelector('ol.rows')?.innerText.includes('of bob')").await;
    page.look(&format!("location.hash = '#/task/{own}'")).await;
    page.until("document.querySelector('section.task .badge')?.innerText === 'pending'").await;
    assert!(!page.text("section.task .actions").await.contains("Cancel"));

    // Taken back while the page looks on: within a moment it asks who that is.
    call(&hub, &admin, Method::DELETE, "/api/v1/api-tokens/wall", json!({})).await.expect(204);
    page.until("document.querySelector('.sign-in')?.checkVisibility()").await;
    let shown = page.look("document.querySelector('section.task')?.checkVisibility() ?? false").await;
    assert_eq!(shown, false, "what was shown is shown no longer");
    forget_refusals(&mut page);
    page.close().await;
}

#[tokio::test]
async fn admins_make_and_revoke_tokens_and_see_who_did_what() {
    let (hub, admin) = closed().await;
    let mut page = Browser::start().await.open(&hub.url).await;
    sign_in(&mut page, &admin).await;
    page.until("document.querySelector('.top nav')?.innerText.includes('Tokens')").await;
    page.click("nav a[data-view=tokens]").await;
    page.until("document.querySelector('.tokens')?.innerText.includes('root')").await;
    page.look("document.querySelector('.making input').value = 'ci'").await;
    page.look("const role = document.querySelector('.making select'); role.value = 'operator'; role.dispatchEvent(new Event('change'))").await;
    page.click(".making button").await;
    page.until("document.querySelector('.secret code')?.innerText.startsWith('tht_')").await;
    let secret = page.text(".secret code").await;
    let me = call(&hub, &secret, Method::GET, "/api/v1/me", json!({})).await.expect(200);
    assert_eq!(me["role"], "operator");
    page.until("document.querySelector('.tokens')?.innerText.includes('ci')").await;
    // Shown once.
    page.click("nav a[data-view=audit]").await;
    page.until("document.querySelector('.audit')?.innerText.includes('api token create')").await;
    page.click("nav a[data-view=tokens]").await;
    assert!(!page.text("body").await.contains("tht_"));
    page.until("document.querySelector('[aria-label=\"Revoke ci\"]')").await;
    page.click("[aria-label='Revoke ci']").await;
    page.click("[aria-label='Revoke ci']").await;
    page.until("!document.querySelector('.tokens')?.innerText.includes('ci,')").await;
    page.until("!document.querySelector('[aria-label=\"Revoke ci\"]')").await;
    call(&hub, &secret, Method::GET, "/api/v1/me", json!({})).await.refused(401, "unauthenticated");
    forget_refusals(&mut page);
    page.close().await;
}

#[tokio::test]
async fn a_shared_link_shows_one_task_and_leaves_the_address_at_once() {
    let (hub, admin) = closed().await;
    let ada = made(&hub, &admin, json!({"name": "ada", "role": "user", "user_id": "ada"})).await;
    let shared =
        submitted(&hub, &ada, json!({"task_type": "t", "title": "for all to see", "payload": {"iban": 7}})).await;
    let other = submitted(&hub, &ada, json!({"task_type": "t", "title": "for nobody"})).await;
    let mut page = Browser::start().await.open(&format!("{}/#/task/{shared}", hub.url)).await;
    sign_in(&mut page, &ada).await;
    page.until("document.querySelector('section.task .actions')?.innerText.includes('Share')").await;
    page.click("section.task .actions .signed-in").await;
    page.click("dialog.share form button").await;
    page.until("document.querySelector('dialog.share .secret input')?.value").await;
    let link = page.look("document.querySelector('dialog.share .secret input').value").await;
    let link = link.as_str().expect("a link").to_owned();
    assert!(link.starts_with(&format!("{}/#/share/ths_", hub.url)), "{link}");
    forget_refusals(&mut page);
    page.close().await;

    let mut page = Browser::start().await.open(&link).await;
    page.until("document.querySelector('section.task h1')?.innerText === 'for all to see'").await;
    page.until("document.querySelector('section.task .badge')?.innerText === 'pending'").await;
    assert_eq!(page.look("location.hash").await, json!(format!("#/task/{shared}")));
    page.until("document.querySelector('#who')?.innerText.includes('Shared by ada')").await;
    let said = page.text("body").await;
    assert!(!said.contains("ths_"), "{said}");
    assert_eq!(page.text("section.task .actions").await.trim(), "", "it can be looked at and nothing else");
    // It moves while they look.
    call(&hub, &ada, Method::POST, &format!("/api/v1/tasks/{shared}/cancel"), json!({})).await.expect(200);
    page.until("document.querySelector('section.task .badge')?.innerText === 'cancelled'").await;
    page.look(&format!("location.hash = '#/task/{other}'")).await;
    page.until("document.querySelector('section.task h1')?.innerText === 'There is no such task'").await;
    page.look("location.hash = '#/'").await;
    page.until("document.querySelector('ol.rows')?.innerText.includes('for all to see')").await;
    assert!(!page.text("main").await.contains("for nobody"));
    forget_refusals(&mut page);
    page.errors.retain(|error| !error.contains("404"));
    page.close().await;
}

#[tokio::test]
async fn an_open_hub_asks_nobody_and_shows_none_of_this() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    let mut page = Browser::start().await.open(&format!("{}/#/task/{task_id}", hub.url)).await;
    page.until("document.querySelector('section.task .actions')?.innerText.includes('Cancel')").await;
    page.until(IS_LIVE).await;
    let said = page.text("body").await;
    for word in ["Share", "Tokens", "Audit", "Sign out", "Sign in"] {
        assert!(!said.contains(word), "{word}: {said}");
    }
    page.close().await;
}
