//! The dashboard as people use it, in a real browser.

use serde_json::json;

use crate::browser::Browser;
use crate::kit::{TestHub, id};

/// From the list to a task and back, with a hand on cancel and retry, and not a word in the console.
#[tokio::test]
async fn a_task_is_found_followed_and_cancelled() {
    let hub = TestHub::start().await;
    let task = json!({"task_type": "report", "title": "<b>Quarterly</b>", "user_id": "ada", "payload": {"pages": 12}});
    let task_id = id(&hub.submit(task).await);
    let mut page = Browser::start().await.open(&hub.url).await;
    let row = format!("document.querySelector('a.row[href$=\"{task_id}\"]')");
    page.until(&format!("{row}?.dataset.status === 'pending'")).await;
    let said = page.look(&format!("{row}.innerText")).await;
    assert!(said.as_str().is_some_and(|said| said.contains("<b>Quarterly</b>") && said.contains("ada")), "{said}");

    // It moves while we look.
    hub.claim("worker-7").await;
    page.until(&format!("{row}.dataset.status === 'running'")).await;
    let tick = json!({"progress": {"current": 3, "total": 12, "step": "drawing", "message": "page 3"}});
    hub.attempt(&task_id, 1, "progress", tick).await.expect(200);
    page.until(&format!("{row}.innerText.includes('25%')")).await;

    page.click(&format!("a.row[href$=\"{task_id}\"]")).await;
    page.until("document.querySelector('section.task h1')?.innerText === '<b>Quarterly</b>'").await;
    for wanted in ["25%", "drawing", "page 3", "3 of 12", "worker-7", "ada", "\"pages\": 12"] {
        page.until(&format!("document.querySelector('section.task').innerText.includes({wanted:?})")).await;
    }
    let log = json!({"lines": [{"message": "first line"}, {"level": "warn", "message": "<script>alert(1)</script>"}]});
    hub.attempt(&task_id, 1, "log", log).await.expect(200);
    page.until("document.querySelector('section.task').innerText.includes('<script>alert(1)</script>')").await;

    // Asked twice, it cancels; the worker stops; and the page offers to run it again.
    let cancel = "section.task .actions button:last-child";
    page.click(cancel).await;
    page.until(&format!("document.querySelector({cancel:?}).innerText === 'Really cancel?'")).await;
    assert!(hub.task(&task_id).await.get("cancel_requested_at").is_none(), "one click does nothing");
    page.click(cancel).await;
    page.until("document.querySelector('section.task .badge').innerText === 'stopping'").await;
    hub.attempt(&task_id, 1, "cancelled", json!({})).await.expect(200);
    page.until("document.querySelector('section.task .badge').innerText === 'cancelled'").await;
    page.click("section.task .actions button:first-child").await;
    hub.once(&task_id, "pending").await;
    page.until("document.querySelector('section.task .badge').innerText === 'pending'").await;
    let steps = page.text("section.task .timeline").await;
    assert!(steps.contains("worker-7"), "{steps}");

    page.click("a.back").await;
    page.until(&format!("{row}?.checkVisibility()")).await;
    page.close().await;
}

#[tokio::test]
async fn filters_and_workers_are_shown() {
    let hub = TestHub::start().await;
    let _worker = hub.worker("blade-3", json!({"queues": ["nobody"], "concurrency": 5})).await;
    hub.submit(json!({"task_type": "a", "title": "keep me"})).await;
    let task_id = id(&hub.submit(json!({"task_type": "b", "title": "hide me"})).await);
    hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(200);
    let mut page = Browser::start().await.open(&format!("{}/#/?status=pending", hub.url)).await;
    page.until("document.querySelectorAll('ol.rows a.row').length === 1").await;
    page.until("document.querySelector('ol.rows').innerText.includes('keep me')").await;
    page.look("location.hash = '#/'").await;
    page.until("document.querySelectorAll('ol.rows a.row').length === 2").await;
    page.click("nav a[data-view=workers]").await;
    page.until("document.querySelector('main').innerText.includes('blade-3')").await;
    page.close().await;
}

#[tokio::test]
async fn the_page_says_when_the_hub_is_away_and_catches_up_by_itself() {
    let mut hub = TestHub::builder().on_disk().start().await;
    let task_id = hub.submit_any().await;
    let mut page = Browser::start().await.open(&hub.url).await;
    let row = format!("document.querySelector('a.row[href$=\"{task_id}\"]')");
    page.until(&format!("{row}?.dataset.status === 'pending'")).await;
    page.until("document.querySelector('#connection').innerText === 'Live'").await;
    assert_eq!(page.text("#banner").await, "");
    page.look("globalThis.was_here = true").await;

    hub.shutdown().await;
    page.until("document.querySelector('#connection').innerText === 'Offline'").await;
    let said = page.text("#banner").await;
    assert!(said.contains("restarting") || said.contains("cannot be reached"), "{said}");
    assert!(page.text("ol.rows").await.contains("pending"), "what was known is still shown");
    assert!(page.look("document.documentElement.hasAttribute('data-stale')").await == true);
    // What the browser itself says of a connection that failed is expected from here on.
    let before = std::mem::take(&mut page.errors);
    assert!(before.iter().all(|error| error.contains("WebSocket connection")), "{before:?}");

    hub.restart().await;
    hub.tell(&format!("/api/v1/tasks/{task_id}/cancel")).await.expect(200);
    page.click("#banner button").await;
    page.until("document.querySelector('#connection').innerText === 'Live'").await;
    page.until("document.querySelector('#banner').innerText === ''").await;
    page.until(&format!("{row}.dataset.status === 'cancelled'")).await;
    assert_eq!(page.look("globalThis.was_here").await, true, "without loading the page again");
    page.errors.retain(|error| !error.contains("WebSocket connection") && !error.contains("net::ERR"));
    page.close().await;
}

/// What the page says of its connection, with a hub that is only words.
#[tokio::test]
async fn the_page_says_how_far_it_is_behind() {
    let hub = TestHub::start().await;
    let mut page = Browser::start().await.open(&hub.url).await;
    let said = page
        .look(
            "(async () => {
                const { connectionView } = await import('/views/connection.js');
                const [word, banner] = [document.createElement('p'), document.createElement('p')];
                let status, stats;
                const hub = { status: 'live', on: (_, fn) => (status = fn), stats: (fn) => (stats = fn) };
                const nothing = () => {};
                connectionView({ hub, word, banner, announce: nothing, health: nothing, now: () => Date.now() });
                const said = [];
                const see = () => said.push(`${word.innerText || word.textContent}: ${banner.textContent.split('. ')[0]}`);
                for (const feed_lag_ms of [0, 1000, 3400, 5100, 900]) {
                    stats({ feed_lag_ms });
                    see();
                }
                stats({ feed_lag_ms: 2000 });
                status({ status: 'offline', reason: 'deaf', retry_ms: 9000 });
                see();
                status({ status: 'live' });
                see();
                return said;
            })()",
        )
        .await;
    let expected = [
        "Live: ",
        "Live: ",
        "Behind: Live updates are 3 s behind",
        "Behind: Live updates are 5 s behind",
        "Live: ",
        "Reconnecting: Live updates have stopped coming",
        "Live: ",
    ];
    assert_eq!(said, json!(expected));
    page.close().await;
}

/// A thousand rows stood in the document and were moved about in it: a frame took a third of a second.
#[tokio::test]
async fn a_busy_hub_leaves_the_page_usable() {
    let hub = TestHub::start().await;
    let mut page = Browser::start().await.open(&hub.url).await;
    page.until("document.querySelector('#connection')?.innerText === 'Live'").await;
    page.look("globalThis.frames = 0; (function frame() { frames++; requestAnimationFrame(frame); })(), 0").await;
    const BATCHES: usize = 4;
    const BATCH: usize = 300;
    for batch in 0..BATCHES {
        let task = |n: usize| json!({"task_type": "report", "title": format!("Invoice {}", batch * BATCH + n)});
        let tasks: Vec<_> = (0..BATCH).map(task).collect();
        hub.post("/api/v1/tasks/batch", json!({ "tasks": tasks })).await.expect(201);
        page.until(&format!(
            "document.querySelector('ol.rows').innerText.includes('Invoice {}')",
            (batch + 1) * BATCH - 1
        ))
        .await;
        let rows = page.look("document.querySelectorAll('ol.rows a.row').length").await;
        assert!(rows.as_u64() < Some(100), "{rows} rows are in the document");
    }
    assert!(page.look("frames").await.as_u64() > Some(20), "it draws");
    page.until("document.querySelector('.foot').innerText === '1,200 tasks'").await;

    // It is as long as if all rows were there, and those in sight always are.
    let newest = BATCHES * BATCH - 1;
    page.look("location.hash = '#/?order=created'").await;
    page.until(&format!("document.querySelector('ol.rows').innerText.includes('Invoice {newest}')")).await;
    page.look("scrollTo(0, document.body.scrollHeight)").await;
    page.until("document.querySelector('ol.rows').innerText.includes('Invoice 0\\n')").await;
    page.until("document.querySelector('ol.rows li:last-child').getBoundingClientRect().bottom < innerHeight").await;
    page.look("scrollTo(0, 0)").await;
    page.until(&format!("document.querySelector('ol.rows').innerText.includes('Invoice {newest}')")).await;
    page.close().await;
}
