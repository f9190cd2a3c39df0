//! The page of one task: what was sent is what is shown, and whoever reads it is left in peace.

use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::{Browser, Page};
use crate::kit::{Answer, TestHub, id};

/// JSON that `JSON.parse` would change: numbers too large or too exact, keys that move, keys that stand there twice.
const EXACT: &str = r#"{"id":12345678901234567890,"price":1.10,"big":1e400,"10":"a","2":"b","dup":1,"dup":2}"#;
/// Its lines on the page.
const SHOWN: [&str; 7] = [
    r#""id": 12345678901234567890"#,
    r#""price": 1.10"#,
    r#""big": 1e400"#,
    r#""10": "a""#,
    r#""2": "b""#,
    r#""dup": 1"#,
    r#""dup": 2"#,
];

async fn post_text(hub: &TestHub, path: &str, text: String) -> Value {
    let request = hub.request(Method::POST, path).header("content-type", "application/json").body(text);
    let answer = Answer::of(request).await;
    assert!(answer.status < 300, "{path}: {answer:?}");
    answer.body
}

/// A running task with an exact payload.
async fn running(hub: &TestHub, more: &str) -> String {
    let task = format!(r#"{{"task_type":"report","title":"Exact","payload":{EXACT}{more}}}"#);
    let task_id = id(&post_text(hub, "/api/v1/tasks", task).await);
    // Not every JSON parser takes the payload: this is its text.
    let claim = hub.post("/api/v1/worker/claim", json!({"worker_id": "w"})).await;
    assert!(claim.text.contains(&task_id) && claim.text.contains(EXACT), "{}", claim.text);
    task_id
}

async fn open(hub: &TestHub, task_id: &str) -> Page {
    let mut page = Browser::start().await.open(&format!("{}/#/task/{task_id}", hub.url)).await;
    page.until("document.querySelector('section.task .badge')?.checkVisibility()").await;
    page.look("navigator.clipboard.writeText = async (text) => (globalThis.copied = text), 0").await;
    page
}

/// That a panel shows each line of [`SHOWN`], in this order.
async fn shows_exactly(page: &mut Page, selector: &str) {
    page.until(&format!("document.querySelector({selector:?})?.innerText.includes('12345678901234567890')")).await;
    let text = page.text(selector).await;
    let lines: Vec<&str> = text.lines().map(|line| line.trim().trim_end_matches(',')).collect();
    let from = lines.iter().position(|line| *line == SHOWN[0]).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(lines[from..from + SHOWN.len()], SHOWN, "{text}");
}

/// Regression: the page parsed payloads, and showed and copied other numbers, orders and keys than were sent.
#[tokio::test]
async fn json_is_shown_and_copied_as_it_was_sent() {
    let hub = TestHub::start().await;
    let task_id = running(&hub, "").await;
    let attempt = format!("/api/v1/tasks/{task_id}/attempts/1");
    let progress = format!(r#"{{"progress":{{"step":"one","details":{EXACT}}}}}"#);
    let mut page = open(&hub, &task_id).await;
    shows_exactly(&mut page, ".panel.json:last-of-type pre").await;
    post_text(&hub, &format!("{attempt}/progress"), progress.clone()).await;
    shows_exactly(&mut page, ".panel.progress pre").await;
    page.look("document.querySelector('.panel.json:last-of-type button').click()").await;
    page.until("globalThis.copied").await;
    assert_eq!(page.look("copied").await, EXACT);

    post_text(&hub, &format!("{attempt}/complete"), format!(r#"{{"result":{EXACT}}}"#)).await;
    shows_exactly(&mut page, ".panel.json:not(.error) pre[aria-label=Result]").await;
    page.look(
        "copied = '', document.querySelector('pre[aria-label=Result]').parentElement.querySelector('button').click()",
    )
    .await;
    page.until("globalThis.copied").await;
    assert_eq!(page.look("copied").await, EXACT);

    let failing = running(&hub, "").await;
    let error = format!(r#"{{"error":{{"kind":"x","message":"no","details":{EXACT}}},"retryable":false}}"#);
    post_text(&hub, &format!("/api/v1/tasks/{failing}/attempts/1/progress"), progress).await;
    post_text(&hub, &format!("/api/v1/tasks/{failing}/attempts/1/fail"), error).await;
    page.look(&format!("location.hash = '#/task/{failing}'")).await;
    shows_exactly(&mut page, ".panel.error pre.details").await;
    shows_exactly(&mut page, ".panel.progress pre").await;
    page.close().await;
}

/// A result that was uploaded is not shown, for it may be anything: it is there to be saved, with its size and type.
#[tokio::test]
async fn a_large_result_is_there_to_be_saved() {
    let hub = TestHub::builder().on_disk().start().await;
    let task_id = running(&hub, "").await;
    let mut page = open(&hub, &task_id).await;
    let path = format!("/api/v1/tasks/{task_id}/attempts/1");
    let upload = hub.request(Method::PUT, &format!("{path}/result")).header("content-type", "text/html");
    Answer::of(upload.body(vec![b'x'; 3 << 20])).await.expect(200);
    page.until("document.querySelector('.facts').innerText.includes('3.0 MiB, text/html, uploaded so far')").await;
    hub.post(&format!("{path}/complete"), json!({})).await.expect(200);
    page.until("document.querySelector('.facts a[download]')?.innerText === 'Download (3.0 MiB, text/html)'").await;
    let link = page.look("document.querySelector('.facts a[download]').href").await;
    assert_eq!(link, format!("{}/api/v1/tasks/{task_id}/result", hub.url));
    page.close().await;
}

/// Regression: each second the panels were made anew, and what somebody had selected, or stood on, was gone.
#[tokio::test]
async fn a_selection_and_the_focus_stay_while_the_task_moves() {
    let hub = TestHub::start().await;
    let parent = hub.submit_any().await;
    hub.tell(&format!("/api/v1/tasks/{parent}/cancel")).await.expect(200);
    let task_id = running(&hub, &format!(r#","parent_id":"{parent}""#)).await;
    let tick = async |n: u64| {
        let tick = json!({"progress": {"current": n, "total": 99, "step": "step", "message": format!("page {n}"),
            "details": {"kept": "as it is"}, "counters": {"success": 7}}});
        hub.attempt(&task_id, 1, "progress", tick).await.expect(200);
        let lines: Vec<_> = (0..3).map(|line| json!({"message": format!("line {n}.{line}")})).collect();
        hub.attempt(&task_id, 1, "log", json!({ "lines": lines })).await.expect(200);
    };
    tick(1).await;
    let mut page = open(&hub, &task_id).await;
    page.until("document.querySelector('.log .lines')?.innerText.includes('line 1.2')").await;
    page.until("document.querySelector('pre[aria-label=Payload]')?.innerText.includes('price')").await;
    page.look("document.querySelector('.facts a').focus()").await;
    let selected = [
        (".facts dd", "report"),
        (".panel.progress .details", "kept"),
        (".timeline b", "created"),
        (".log li > span", "line 1.0"),
        ("pre[aria-label=Payload]", "price"),
    ];
    for (n, (selector, text)) in selected.into_iter().enumerate() {
        page.look(&format!("getSelection().selectAllChildren(document.querySelector({selector:?}))")).await;
        let n = n as u64 + 2;
        tick(n).await;
        page.until(&format!("document.querySelector('.panel.progress').innerText.includes('page {n}')")).await;
        let before = page.text(".panel.progress .when").await;
        page.until(&format!("document.querySelector('.panel.progress .when').innerText !== {before:?}")).await;
        let still = page.look("getSelection().toString()").await;
        assert!(still.as_str().is_some_and(|still| still.contains(text)), "{selector}: {still}");
        assert_eq!(page.look("document.activeElement === document.querySelector('.facts a')").await, true);
    }
    page.look("getSelection().removeAllRanges()").await;
    tick(90).await;
    page.until("document.querySelector('.log .lines').innerText.includes('line 90.2')").await;
    page.close().await;
}

/// Regression: escape sequences stood in the log as boxes, and only the newest lines could be reached.
#[tokio::test]
async fn a_log_keeps_its_colours_and_all_its_lines() {
    const LINES: usize = 4_000;
    let hub = TestHub::start().await;
    let task_id = running(&hub, "").await;
    for from in (0..LINES).step_by(500) {
        let line = |n: usize| json!({"message": format!("\u{1b}[1;31mred {n}\u{1b}[0m and <b>plain</b>\r")});
        let lines: Vec<_> = (from..from + 500).map(line).collect();
        hub.attempt(&task_id, 1, "log", json!({ "lines": lines })).await.expect(200);
    }
    let mut page = open(&hub, &task_id).await;
    let newest = format!("red {}", LINES - 1);
    page.until(&format!(
        "document.querySelector('.log li:last-child')?.innerText.includes('{newest} and <b>plain</b>')"
    ))
    .await;
    let said = page.text(".log .note").await;
    assert_eq!(said, "the newest 1,000 lines of 4,000");
    let at_end = "(({scrollTop, clientHeight, scrollHeight}) => scrollTop + clientHeight >= scrollHeight - 2)(document.querySelector('.log .lines'))";
    page.until(at_end).await;
    assert_eq!(page.text(".log li:last-child .red.bold").await, newest);
    let colour = page.look("getComputedStyle(document.querySelector('.log .red')).color").await;
    assert_ne!(colour, page.look("getComputedStyle(document.querySelector('.log li')).color").await);

    // Up to the first, by scrolling alone; the document never holds all of them.
    page.until(
        "(() => { const list = document.querySelector('.log .lines'); list.scrollTop = 0;
            return list.firstChild.innerText.includes('red 0 '); })()",
    )
    .await;
    let held = page.look("document.querySelectorAll('.log li').length").await;
    assert!(held.as_u64() <= Some(1_500), "{held} lines are in the document");
    assert_eq!(page.text(".log .note").await, "4,000 lines");
    page.click(".log .news").await;
    page.until(&format!("document.querySelector('.log li:last-child').innerText.includes('{newest}')")).await;

    // What is searched for is found among all.
    page.look(
        "(() => { const search = document.querySelector('.log input'); search.value = ' RED 1712'; search.dispatchEvent(new Event('input')); })()",
    )
    .await;
    page.until("document.querySelector('.log .note').innerText === '1 of 4,000 lines'").await;
    assert_eq!(page.text(".log mark").await, "red 1712");

    // Saved are all of them, with the colours or without.
    page.look(
        "URL.createObjectURL = (blob) => (blob.text().then((text) => (globalThis.saved = text)), '#'),
            HTMLAnchorElement.prototype.click = () => {}, 0",
    )
    .await;
    for (nth, line) in [(1, "red 17 and <b>plain</b>\n"), (2, "\u{1b}[1;31mred 17\u{1b}[0m and <b>plain</b>\r\n")] {
        page.look(&format!(
            "globalThis.saved = undefined, document.querySelectorAll('.log .tools button')[{nth} - 1].click()"
        ))
        .await;
        page.until("globalThis.saved !== undefined").await;
        let saved = page.look("saved").await;
        let saved = saved.as_str().unwrap();
        assert!(saved.contains(line) && saved.contains("red 0") && saved.contains(&newest), "{nth}");
        assert_eq!(saved.matches('\n').count(), LINES, "{nth}");
    }
    page.close().await;
}

/// Regression: a try that failed did not say why while another was to follow, and went on counting its time.
#[tokio::test]
async fn a_task_is_told_in_plain_words() {
    let hub = TestHub::start().await;
    let task_id = running(&hub, r#","max_attempts":3,"retry":{"base_ms":3600000,"jitter":0}"#).await;
    let error = format!(r#"{{"error":{{"kind":"exit","message":"disk full","details":{EXACT}}},"retryable":true}}"#);
    post_text(&hub, &format!("/api/v1/tasks/{task_id}/attempts/1/fail"), error).await;
    let mut page = open(&hub, &task_id).await;
    page.until("document.querySelector('.panel.error')?.innerText.includes('disk full')").await;
    shows_exactly(&mut page, ".panel.error pre.details").await;
    let said = page.text(".panel.progress").await;
    assert!(said.contains("again in") && said.contains("disk full") && !said.contains("took"), "{said}");
    assert_eq!(page.look("document.title").await, "Exact · scheduled · taskhub");

    let done = running(&hub, "").await;
    hub.attempt(&done, 1, "complete", json!({})).await.expect(200);
    page.look(&format!("location.hash = '#/task/{done}'")).await;
    page.until("document.title === 'Exact · completed · taskhub'").await;
    assert_eq!(page.text(".panel.progress").await.matches("took").count(), 1);

    for wrong in ["nope", "%E0%A4%A", "01890000-0000-7000-8000-000000000001", "a b"] {
        page.look(&format!("location.hash = '#/task/{wrong}'")).await;
        page.until("document.querySelector('section.task h1')?.innerText === 'There is no such task'").await;
        assert_eq!(page.text("section.task [role=alert]").await, "", "{wrong}");
        assert_eq!(page.look("document.title").await, "No such task · taskhub");
    }
    // The end of an id is what the list shows.
    page.look(&format!("location.hash = '#/task/{}'", &done[done.len() - 8..])).await;
    page.until(&format!("location.hash === '#/task/{done}'")).await;
    page.close().await;
}

/// A workflow's page is its tasks, live, and leads to them and back.
#[tokio::test]
async fn a_workflow_shows_its_tasks_as_they_go_on() {
    let hub = TestHub::start().await;
    let body = json!({"title": "Release", "tasks": [
        {"ref": "build", "task_type": "build"},
        {"ref": "test", "task_type": "test", "title": "All tests", "depends_on": ["@build"]},
    ]});
    let whole = hub.post("/api/v1/workflows", body).await.expect(201);
    let (workflow, test) = (id(&whole["workflow"]), id(&whole["tasks"][1]));
    let mut page = open(&hub, &workflow).await;
    let row =
        |n: usize| format!("(document.querySelectorAll('.parts li')[{n}]?.innerText.replaceAll('\\n', ' ') ?? '')");
    page.until(&format!("{}.includes('All tests after build')", row(1))).await;
    let given = hub.claim("w").await;
    let done = json!({"progress": {"percentage": 40, "step": "linking"}});
    hub.attempt(&id(&given["task"]), 1, "progress", done).await.expect(200);
    page.until(&format!("{}.includes('40%') && {}.includes('linking')", row(0), row(0))).await;
    page.until("document.querySelector('.panel.progress strong').innerText === '20%'").await;
    hub.attempt(&id(&given["task"]), 1, "complete", json!({})).await.expect(200);
    page.until("document.querySelector('.parts li a')?.dataset.status === 'completed'").await;
    page.until("document.querySelector('.panel.progress strong').innerText === '50%'").await;
    page.look("document.querySelectorAll('.parts a')[1].click(), 0").await;
    page.until(&format!(
        "location.hash === '#/task/{test}' && document.querySelector('section.task h1').innerText === 'All tests'"
    ))
    .await;
    page.until(&format!("!!document.querySelector('.facts a[href=\"#/task/{workflow}\"]')")).await;
}
