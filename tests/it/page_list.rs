//! The list at every size: all that is there can be reached, the counts are true, and filters offer what there is.

use futures::future::join_all;
use serde_json::{Value, json};
use taskhub::task::TaskId;

use crate::browser::{Browser, Page};
use crate::kit::{TestHub, id};

/// Tasks that are cancelled at once: the quickest way to have many that ended.
async fn cancelled(hub: &TestHub, n: usize, task_type: &str) {
    let mut ids: Vec<TaskId> = Vec::new();
    for from in (0..n).step_by(1_000) {
        let task = |n: usize| json!({"task_type": task_type, "title": format!("{task_type} {n}")});
        let tasks: Vec<_> = (from..n.min(from + 1_000)).map(task).collect();
        let made = hub.post("/api/v1/tasks/batch", json!({ "tasks": tasks })).await.expect(201);
        ids.extend(made["tasks"].as_array().unwrap().iter().map(|task| id(task).parse::<TaskId>().unwrap()));
    }
    for ids in ids.chunks(500) {
        for cancelled in join_all(ids.iter().map(|id| hub.hub().cancel(*id))).await {
            cancelled.expect("it is cancelled");
        }
    }
}

/// Presses "Show older" until there is no such button, and hears what the list says in the end. At one press the pointer
/// moves over the list, which then stands still for some seconds, while the counts come in.
async fn to_the_end(page: &mut Page) -> String {
    page.until("document.querySelector('.after button')?.checkVisibility()").await;
    let presses = page
        .look(
            "(async () => {
                const button = document.querySelector('.after button');
                const move = new PointerEvent('pointermove', { pointerType: 'mouse', bubbles: true });
                let n = 0;
                for (; button.checkVisibility() && n < 50; n++) {
                    const before = document.querySelector('.foot').innerText;
                    if (before.startsWith('2,200')) document.querySelector('ol.rows').dispatchEvent(move);
                    button.click();
                    for (let waits = 0; waits < 200; waits++) {
                        await new Promise((resolve) => setTimeout(resolve, 20));
                        const now = document.querySelector('.foot').innerText;
                        if (!button.disabled && (now !== before || !button.checkVisibility())) break;
                    }
                }
                return n;
            })()",
        )
        .await;
    assert!(presses.as_u64() < Some(50), "it never ends: {}", page.text(".foot").await);
    page.text(".foot").await
}

/// Regression: beyond the first older page the cursor was asked for in another list (`bad_cursor`), and where running
/// tasks were older than the snapshot, all between was taken for shown. For a moment "2,200 tasks" was said to be all, as the
/// counts came in before the last rows were in the list.
#[tokio::test]
async fn older_tasks_are_shown_to_the_last() {
    const ENDED: usize = 2_700;
    let hub = TestHub::builder().set(|config| config.lease = std::time::Duration::from_secs(600)).start().await;
    let running: Vec<String> =
        join_all((0..3).map(async |n| id(&hub.submit(json!({"task_type": "old", "title": format!("old {n}")})).await)))
            .await;
    hub.post("/api/v1/worker/claim", json!({"worker_id": "w", "max": 3})).await.expect(200);
    cancelled(&hub, ENDED, "ended").await;
    let mut page = Browser::start().await.open(&format!("{}/#/?status=cancelled", hub.url)).await;
    page.until("document.querySelector('.foot')?.innerText === '1,000 of 2,700 tasks'").await;
    assert_eq!(to_the_end(&mut page).await, "2,700 tasks");

    // Regression: an answer that came after the list had begun anew was taken for the next of its pages.
    page.look("location.hash = '#/?status=failed'").await;
    page.until("document.querySelector('.empty') !== null").await;
    page.look("location.hash = '#/?status=cancelled'").await;
    page.until("document.querySelector('.foot').innerText === '1,000 of 2,700 tasks'").await;
    page.look("document.querySelector('.after button').click()").await;
    page.until("document.querySelector('.foot').innerText === '1,200 of 2,700 tasks'").await;
    page.look(
        "(() => {
            const { fetch } = globalThis;
            const gate = new Promise((resolve) => (globalThis.letAnswer = resolve));
            globalThis.answered = undefined;
            globalThis.fetch = async (...request) => {
                globalThis.fetch = fetch;
                const response = await fetch(...request);
                await gate;
                setTimeout(() => (globalThis.answered = true), 50);
                return response;
            };
            document.querySelector('.after button').click();
        })()",
    )
    .await;
    page.look("location.hash = '#/?status=failed'").await;
    page.until("document.querySelector('.empty') !== null").await;
    page.look("location.hash = '#/?status=cancelled'").await;
    page.until("document.querySelector('.foot').innerText === '1,000 of 2,700 tasks'").await;
    page.look("letAnswer()").await;
    page.until("globalThis.answered").await;
    assert_eq!(to_the_end(&mut page).await, "2,700 tasks");

    // The running ones are older than all of them.
    page.look("location.hash = '#/'").await;
    page.until("document.querySelector('.foot').innerText === '1,003 of 2,703 tasks'").await;
    for (n, task_id) in running.iter().enumerate() {
        page.until(&format!("document.querySelector('a.row[href$=\"{task_id}\"]')?.dataset.status === 'running'"))
            .await;
        assert!(page.text("ol.rows").await.contains(&format!("old {n}")));
    }
    assert_eq!(to_the_end(&mut page).await, "2,703 tasks");
    page.look("location.hash = '#/?order=created'").await;
    page.until("document.querySelector('.foot').innerText === '2,703 tasks'").await;
    page.until(
        "(scrollTo(0, document.body.scrollHeight), document.querySelector('ol.rows').innerText.includes('ended 0'))",
    )
    .await;

    // Where the hub does not count, no number is made up.
    page.look("location.hash = '#/?task_type=ended'").await;
    page.until("document.querySelector('.foot').innerText === '1,000 tasks; there are more.'").await;
    page.look("location.hash = '#/?q=ended+2699'").await;
    page.until("document.querySelector('ol.rows').innerText.includes('ended 2699')").await;
    page.close().await;
}

/// Regression: of tasks that had ended no type and no queue was offered, and the queue of each `taskhub run` stayed.
#[tokio::test]
async fn filters_offer_what_there_is() {
    let hub = TestHub::start().await;
    cancelled(&hub, 2, "ended").await;
    hub.submit(json!({"task_type": "waits", "queue": "slow"})).await;
    let of_run = id(&hub.submit(json!({"task_type": "run", "queue": "run.abc"})).await);
    let mut page = Browser::start().await.open(&hub.url).await;
    let offered = "[...document.querySelectorAll('.filters select[aria-label=Type] option, .filters select[aria-label=Queue] option')].map(({ value }) => value).filter(Boolean).sort().join()";
    page.until(&format!("{offered} === 'default,ended,run,run.abc,slow,waits'")).await;
    hub.tell(&format!("/api/v1/tasks/{of_run}/cancel")).await.expect(200);
    page.until(&format!("{offered} === 'default,ended,run,slow,waits'")).await;

    // The choice stays a choice, whatever becomes of it.
    page.look("(() => { const select = document.querySelector('.filters select[aria-label=Type]'); select.value = 'ended'; select.dispatchEvent(new Event('change')); })()").await;
    page.until("location.hash === '#/?task_type=ended' && document.querySelectorAll('ol.rows a.row').length === 2")
        .await;
    assert_eq!(page.look(offered).await, "default,ended,run,slow,waits");

    // Too many to look through are typed, with suggestions.
    page.look("location.hash = '#/'").await;
    let tasks: Vec<Value> = (0..60).map(|n| json!({"task_type": format!("t{n}")})).collect();
    hub.post("/api/v1/tasks/batch", json!({ "tasks": tasks })).await.expect(201);
    page.until("document.querySelector('.filters input[aria-label=Type]').checkVisibility()").await;
    page.until("document.querySelectorAll('#names-type option').length === 63").await;
    page.look("(() => { const field = document.querySelector('.filters input[aria-label=Type]'); field.value = 't1*'; field.dispatchEvent(new Event('change')); })()").await;
    page.until("document.querySelectorAll('ol.rows a.row').length === 11").await;
    page.close().await;
}

/// Regression: workers over HTTP were not counted, and ran more than they had places for.
#[tokio::test]
async fn workers_are_told_as_they_are() {
    let hub = TestHub::start().await;
    for n in 0..12 {
        hub.submit(json!({"task_type": "report", "title": format!("Task {n}")})).await;
    }
    let mut page = Browser::start().await.open(&hub.url).await;
    page.until("document.querySelector('.hint')?.innerText.includes('no worker')").await;
    for max in [7, 1, 3] {
        hub.post("/api/v1/worker/claim", json!({"worker_id": "by-http", "max": max})).await.expect(200);
    }
    page.until(
        "document.querySelector('#workers-n').innerText === '1' && !document.querySelector('.hint').checkVisibility()",
    )
    .await;
    page.click("nav a[data-view=workers]").await;
    page.until("document.querySelector('.summary')?.innerText === '1 worker, 11 tasks running'").await;
    let said = page.text(".workers").await;
    assert!(said.contains("11 running") && said.contains("over HTTP") && !said.contains(" of "), "{said}");
    assert_eq!(page.look("document.querySelectorAll('.places .taken').length").await, 11);

    // Who stands on one of its tasks stays there.
    page.look("document.querySelector('.runs a').focus()").await;
    let _socket = hub.worker("on-a-socket", json!({"queues": ["nobody"], "concurrency": 5})).await;
    page.until("document.querySelectorAll('.workers > li').length === 2").await;
    page.until("document.querySelector('.summary').innerText === '2 workers, 11 tasks running'").await;
    assert!(page.text(".workers").await.contains("0 of 5 running"));
    assert_eq!(page.look("document.activeElement === document.querySelector('.runs a')").await, true);
    page.close().await;
}
