//! The page is for everybody: checked by axe-core, on each of its views, light and dark, on a desk and on a phone.

use serde_json::{Value, json};

use crate::browser::{Browser, Page};
use crate::kit::{TestHub, id};

const AXE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/npm/node_modules/axe-core/axe.min.js");
const RULES: &str = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']";

/// That axe finds nothing, and that nothing is wider than the window.
async fn fits_everybody(page: &mut Page, what: &str) {
    let found = page
        .look(&format!(
            "axe.run(document, {{ runOnly: {RULES} }}).then(({{ violations }}) => violations.map(({{ id, nodes }}) =>
                `${{id}}: ${{nodes.slice(0, 3).map(({{ html, failureSummary }}) => html.slice(0, 200) + failureSummary).join()}}`))"
        ))
        .await;
    assert_eq!(found, json!([]), "{what}: {found:#}");
    assert_eq!(page.look("document.documentElement.scrollWidth <= innerWidth").await, true, "{what} is too wide");
}

/// That each control of the list is within the window, and large enough for a finger.
async fn is_in_reach(page: &mut Page) {
    let out_of_reach = page
        .look(
            "[...document.querySelectorAll('.top a, .top button, .chip, .filters input, .filters select, .after button')]
                .filter((each) => each.checkVisibility()).map((each) => [each.textContent, each.getBoundingClientRect()])
                .filter(([, { left, right, width, height }]) => left < 0 || right > innerWidth || width < 24 || height < 24)
                .map(([text, { left, right, width, height }]) => `${text}: ${left}–${right}, ${width} × ${height}`)",
        )
        .await;
    assert_eq!(out_of_reach, json!([]));
}

#[tokio::test]
async fn no_view_shuts_anybody_out() {
    let axe = std::fs::read_to_string(AXE).expect("axe-core is there: run tests/deps.sh");
    let mut hub = TestHub::builder().set(|config| config.lease = std::time::Duration::from_secs(600)).start().await;
    let task = |more: Value| {
        let mut task = json!({"task_type": "report", "title": "Quarterly", "user_id": "ada", "labels": {"a": "b"},
            "description": "For the board.", "payload": {"pages": 12}, "max_attempts": 3, "retry": {"base_ms": 3_600_000}});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    };
    let running = id(&hub.submit(task(json!({}))).await);
    hub.claim("w").await;
    let tick =
        json!({"progress": {"current": 3, "total": 9, "step": "one", "details": {"a": 1}, "counters": {"success": 3}}});
    hub.attempt(&running, 1, "progress", tick).await.expect(200);
    let colours = (30..38)
        .chain(90..98)
        .flat_map(|fg| [format!("\u{1b}[{fg}mcolour\u{1b}[0m"), format!("\u{1b}[{}mground\u{1b}[0m", fg + 10)]);
    let coloured: Vec<_> = colours.map(|message| json!({ "message": message })).collect();
    hub.attempt(&running, 1, "log", json!({ "lines": coloured })).await.expect(200);
    let levels: Vec<_> = ["trace", "debug", "info", "warn", "error"]
        .map(|level| json!({"level": level, "message": "a \u{1b}[2mdim\u{1b}[0m \u{1b}[31mred\u{1b}[0m \u{1b}[1;7mturned\u{1b}[0m line"}))
        .into();
    hub.attempt(&running, 1, "log", json!({ "lines": levels })).await.expect(200);
    let retried = id(&hub.submit(task(json!({}))).await);
    hub.claim("w").await;
    let error = json!({"error": {"kind": "exit", "message": "no", "details": {"code": 3}}, "retryable": true});
    hub.attempt(&retried, 1, "fail", error.clone()).await.expect(200);
    let failed = id(&hub.submit(task(json!({"max_attempts": 1}))).await);
    hub.claim("w").await;
    hub.attempt(&failed, 1, "fail", error).await.expect(200);
    let done = id(&hub.submit(task(json!({}))).await);
    hub.claim("w").await;
    hub.attempt(&done, 1, "complete", json!({"result": {"pages": 12}})).await.expect(200);
    let stopped = id(&hub.submit(task(json!({}))).await);
    hub.tell(&format!("/api/v1/tasks/{stopped}/cancel")).await.expect(200);
    for n in 0..40 {
        hub.submit(task(json!({"title": format!("Waits {n}"), "queue": "nobody"}))).await;
    }
    for (name, when) in [
        ("nightly", json!({"cron": "0 3 * * MON-FRI", "time_zone": "America/Argentina/ComodRivadavia"})),
        (
            "a-name-that-is-as-long-as-they-are-where-programs-make-them",
            json!({"every_ms": 86_400_000, "paused": true}),
        ),
    ] {
        let mut body = when;
        body["task"] = json!({"task_type": "report"});
        let path = format!("/api/v1/schedules/{name}");
        hub.call(reqwest::Method::PUT, &path, Some(&body)).await.expect(201);
        hub.tell(&format!("{path}/run")).await.expect(201);
    }
    let defaults = json!({"queue": "nobody", "labels": {"a": "b"}, "concurrency_key": "k".repeat(120)});
    let declared =
        json!({"title": "A report", "description": "For a month.", "defaults": defaults, "payload_schema": {}});
    hub.put("/api/v1/task-types/report", declared).await.expect(201);
    let empty = TestHub::start().await;

    let mut page = Browser::start().await.open(&hub.url).await;
    page.until("document.querySelectorAll('ol.rows a.row').length > 20").await;
    page.look(&format!("{axe}; 0")).await;
    let views = [
        ("#/".to_owned(), "document.querySelectorAll('ol.rows a.row').length > 20"),
        ("#/?status=waiting&q=none".to_owned(), "document.querySelector('.empty h2')?.checkVisibility()"),
        ("#/workers".to_owned(), "document.querySelector('.runs a')?.checkVisibility()"),
        ("#/schedules".to_owned(), "document.querySelector('.schedules li a')?.checkVisibility()"),
        ("#/types".to_owned(), "document.querySelector('.types li a')?.checkVisibility()"),
        (format!("#/task/{running}"), "document.querySelectorAll('.log li').length > 30"),
        (format!("#/task/{retried}"), "document.querySelector('.panel.error')?.checkVisibility()"),
        (format!("#/task/{failed}"), "document.querySelector('.panel.error')?.checkVisibility()"),
        (format!("#/task/{done}"), "document.querySelector('pre[aria-label=Result]')?.checkVisibility()"),
        ("#/task/nope".to_owned(), "document.querySelector('section.task h1')?.innerText === 'There is no such task'"),
    ];
    for scheme in ["light", "dark"] {
        page.prefer(scheme).await;
        for width in [1_280, 390] {
            page.resize(width, 844).await;
            for (address, is_there) in &views {
                page.look(&format!("location.hash = {address:?}")).await;
                page.until(is_there).await;
                fits_everybody(&mut page, &format!("{address} {scheme} {width}")).await;
                if address == "#/" {
                    is_in_reach(&mut page).await;
                }
            }
        }
    }
    hub.shutdown().await;
    page.until("document.querySelector('#banner button')?.checkVisibility()").await;
    for scheme in ["light", "dark"] {
        page.prefer(scheme).await;
        fits_everybody(&mut page, &format!("a hub that is away, {scheme}")).await;
    }
    page.errors.retain(|error| !error.contains("WebSocket connection") && !error.contains("net::ERR"));
    page.close().await;

    let mut page = Browser::start().await.open(&empty.url).await;
    page.until("document.querySelector('.empty h2')?.innerText === 'No tasks yet'").await;
    page.look(&format!("{axe}; 0")).await;
    for address in ["#/", "#/workers", "#/schedules", "#/types"] {
        page.look(&format!("location.hash = {address:?}")).await;
        page.until("[...document.querySelectorAll('.empty h2')].some((each) => each.checkVisibility())").await;
        fits_everybody(&mut page, &format!("an empty hub, {address}")).await;
    }
    page.close().await;
}
