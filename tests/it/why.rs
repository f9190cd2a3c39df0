//! A task that waits says for what: over REST, on the page, and on the command line.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::kit::{TestHub, id, program};

async fn reasons(hub: &TestHub, task: &str) -> Value {
    hub.get(&format!("/api/v1/tasks/{task}")).await.expect(200)["waits_for"].clone()
}

fn why(hub: &TestHub, task: &str) -> String {
    let output = program().args(["why", task]).env("TASKHUB_URL", &hub.url).output().expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_says_for_what() {
    let hub = TestHub::start().await;
    let first = id(&hub.submit(json!({"task_type": "t"})).await);
    let second = id(&hub.submit(json!({"task_type": "t"})).await);
    let later = hub.submit(json!({"task_type": "t", "run_at": "2999-01-01T00:00:00Z"})).await;
    let time = json!({"kind": "time", "until": "2999-01-01T00:00:00.000Z"});
    assert_eq!(reasons(&hub, &second).await, json!([{"kind": "no_worker"}]));
    assert_eq!(reasons(&hub, &id(&later)).await, json!([time, {"kind": "no_worker"}]));
    assert_eq!(why(&hub, &second), "no worker is connected that takes tasks of type t in queue default\n");

    let mut page = Browser::start().await.open(&format!("{}#/task/{second}", hub.url)).await;
    page.until("document.querySelector('dl.facts')?.innerText.includes('a worker that takes it: none is connected')")
        .await;

    // A worker with one place is there, and that is taken.
    let mut worker = hub.worker("w", json!({"concurrency": 1})).await;
    assert_eq!(worker.expect("run").await["task"]["task_id"], first);
    assert_eq!(reasons(&hub, &first).await, Value::Null, "it runs");
    assert_eq!(reasons(&hub, &second).await, json!([{"kind": "turn", "ahead": 0}]));
    let third = id(&hub.submit(json!({"task_type": "t"})).await);
    assert_eq!(reasons(&hub, &third).await, json!([{"kind": "turn", "ahead": 1}]));
    assert_eq!(why(&hub, &third), "it waits for its turn: one task is before it\n");
    assert_eq!(reasons(&hub, &id(&later)).await, json!([time]));
    // No event says so, and the page knows all the same.
    page.until("document.querySelector('dl.facts').innerText.includes('room at its workers: it is next')").await;
    worker.say(json!({"op": "complete", "task_id": first, "attempt": 1})).await;
    page.until("document.querySelector('.badge').innerText === 'running'").await;
    assert_eq!(page.look("document.querySelector('dl.facts').innerText.includes('Waits for')").await, false);
    assert_eq!(why(&hub, &second), "it does not wait: it is running\n");
    page.close().await;
}
