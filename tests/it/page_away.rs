//! What the page says while the hub is not there, or does not want it: nothing that is not so.

use serde_json::json;

use crate::browser::{Browser, Page};
use crate::kit::{TestHub, id};

/// What the browser itself says of calls and connections that failed is expected here.
fn forgive(page: &mut Page) {
    page.errors.retain(|error| {
        !error.contains("WebSocket connection") && !error.contains("net::ERR") && !error.contains("503")
    });
}

/// Regression: a chip that was pressed while the hub was away stood beside the rows of the filter before, the workers' page
/// was blank, and an error of then stayed.
#[tokio::test]
async fn filters_and_pages_do_not_lie_while_the_hub_is_away() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let failed = id(&hub.submit(json!({"task_type": "a", "title": "went wrong"})).await);
    hub.claim("w").await;
    hub.attempt(&failed, 1, "fail", json!({"retryable": false})).await.expect(200);
    let waiting = id(&hub.submit(json!({"task_type": "b", "title": "still waits"})).await);
    let mut page = Browser::start().await.open(&hub.url).await;
    page.until("document.querySelectorAll('ol.rows a.row').length === 2").await;
    page.until("document.querySelector('#connection').innerText === 'Live'").await;
    hub.shutdown().await;
    page.until("document.querySelector('#connection').innerText === 'Offline'").await;

    page.click(".chip.failed").await;
    page.until("document.querySelectorAll('ol.rows a.row').length === 1").await;
    assert!(page.text("ol.rows").await.contains("went wrong"));
    let said = page.text(".foot").await;
    assert!(said.starts_with("Not live: of what this page knew at ") && said.contains("1 task matches"), "{said}");
    page.click(".chip.failed").await;
    page.click(".chip.cancelled").await;
    page.until("document.querySelector('.empty h2')?.innerText === 'Not live'").await;
    page.click(".chip.cancelled").await;
    page.until("document.querySelectorAll('ol.rows a.row').length === 2").await;

    page.click("nav a[data-view=workers]").await;
    page.until("document.querySelector('.summary')?.innerText.includes('The hub is not there')").await;
    page.look(&format!("location.hash = '#/task/{failed}'")).await;
    page.until("document.querySelector('section.task .description')?.innerText.includes('The hub is not there')").await;
    page.look(&format!("location.hash = '#/task/{waiting}'")).await;
    page.until("document.title.startsWith('offline')").await;

    // It is tried again within seconds, and at once when somebody clicks. That keeps its button.
    page.look("document.querySelector('#banner button').focus()").await;
    page.look("globalThis.button = document.activeElement, 0").await;
    page.until("document.querySelector('#banner').innerText.includes('Trying again')").await;
    page.look("window.dispatchEvent(new Event('online'))").await;
    page.until("document.activeElement === globalThis.button").await;
    hub.restart().await;
    page.click("#banner button").await;
    page.until("document.querySelector('#connection').innerText === 'Live'").await;
    page.until("document.querySelector('section.task h1').innerText === 'still waits'").await;

    // A cancel that could not be sent is not held against a hub that is there again.
    page.look("(globalThis.fetched = fetch, globalThis.fetch = () => Promise.reject(new Error('cut')), 0)").await;
    let cancel = "section.task .actions button:last-child";
    page.click(cancel).await;
    page.until(&format!("document.querySelector({cancel:?}).innerText === 'Really cancel?'")).await;
    page.click(cancel).await;
    page.until("document.querySelector('section.task [role=alert]').innerText.includes('Could not cancel')").await;
    page.look("globalThis.fetch = globalThis.fetched, 0").await;
    hub.restart().await;
    page.until("document.querySelector('section.task [role=alert]').innerText === ''").await;
    page.until("document.querySelector('#connection').innerText === 'Live'").await;
    assert_eq!(page.text("#banner").await, "");
    forgive(&mut page);
    page.close().await;
}

/// A hub that is only words refuses, and cannot work.
#[tokio::test]
async fn refusals_and_illness_are_told_with_what_to_do() {
    let hub = TestHub::start().await;
    let mut page = Browser::start().await.open(&hub.url).await;
    let said = page
        .look(
            "(async () => {
                const { connectionView } = await import('/views/connection.js');
                const [word, banner] = [document.createElement('p'), document.createElement('p')];
                let status;
                let ill;
                const hub = { status: 'live', on: (_, fn) => (status = fn), stats() {} };
                const nothing = () => {};
                connectionView({ hub, word, banner, announce: nothing, health: async () => ill, now: () => Date.now() });
                const said = [];
                const see = () => said.push([word.textContent, banner.textContent, banner.querySelector('button')?.textContent]);
                for (const [close_code, reason] of [[4503, 'pages of http://x are not let in'], [4505, ''], [4501, ''], [4599, 'new']]) {
                    status({ status: 'refused', close_code, reason });
                    see();
                }
                for (const each of [{ code: 'storage_unavailable', detail: 'the disk is full' }, { code: 'draining', detail: 'it ends' }, undefined]) {
                    ill = each;
                    status({ status: 'offline' });
                    status({ status: 'live' });
                    await new Promise((resolve) => setTimeout(resolve));
                    see();
                }
                return said;
            })()",
        )
        .await;
    let said = said.as_array().unwrap();
    let expect = |n: usize, word: &str, parts: &[&str], button: &str| {
        let [shown, text, control] = [0, 1, 2].map(|part| said[n][part].as_str().unwrap_or_default().to_owned());
        assert_eq!((shown.as_str(), control.as_str()), (word, button), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
    };
    expect(0, "Refused", &["does not let this page in", "pages of http://x are not let in", "4503"], "Reload");
    expect(1, "Refused", &["do not speak the same language", "4505"], "Reload");
    // Who is not known is asked by a form of its own.
    expect(2, "Not signed in", &[], "");
    expect(3, "Refused", &["does not want this connection", "new", "4599"], "Reload");
    expect(4, "Live", &["takes no new work", "the disk is full"], "");
    expect(5, "Live", &["is going down", "it ends"], "");
    expect(6, "Live", &[], "");
    assert_eq!(said[6][1], "");
    page.close().await;
}
