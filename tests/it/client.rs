//! The Rust client on one task: what happens to it, and how it ends. How it comes back after a cut is in the transcripts.

use std::time::Duration;

use serde_json::json;
use taskhub::client::{Client, ClientError, TaskNews, TaskWatch};
use taskhub::wire::Code;

use crate::kit::TestHub;

/// The bound of a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn client(hub: &TestHub) -> Client {
    Client::new(&hub.url).unwrap()
}

async fn next(task: &mut TaskWatch) -> Option<TaskNews> {
    tokio::time::timeout(PATIENCE, task.next()).await.expect("something is told")
}

fn in_words(news: &TaskNews) -> String {
    match news {
        TaskNews::Change { event, task } => {
            format!("{} {}", event.map_or("known", |event| event.as_str()), task.status)
        }
        TaskNews::Progress { task } => format!("progress {:?}", task.progress.as_ref().and_then(|p| p.percentage)),
        TaskNews::Log { lines } => {
            format!("log {}", lines.iter().map(|line| &*line.message).collect::<Vec<_>>().join(","))
        }
        TaskNews::Final { task } => format!("final {}", task.status),
        TaskNews::Gone => "gone".into(),
        TaskNews::Refused { code, .. } => format!("refused {code}"),
    }
}

#[tokio::test]
async fn a_task_is_followed_to_its_end() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    let client = client(&hub);
    let mut task = client.task(task_id.parse().unwrap());
    let finished = tokio::spawn(client.task(task_id.parse().unwrap()).finished());
    assert_eq!(in_words(&next(&mut task).await.unwrap()), "known pending");
    hub.claim("w").await;
    assert_eq!(in_words(&next(&mut task).await.unwrap()), "task.running running");
    hub.attempt(&task_id, 1, "log", json!({"lines": [{"message": "a"}, {"message": "b"}]})).await.expect(200);
    assert_eq!(in_words(&next(&mut task).await.unwrap()), "log a,b");
    hub.attempt(&task_id, 1, "progress", json!({"progress": {"percentage": 40}})).await.expect(200);
    assert_eq!(in_words(&next(&mut task).await.unwrap()), "progress Some(40.0)");
    hub.attempt(&task_id, 1, "complete", json!({"result": "x".repeat(5_000)})).await.expect(200);
    let mut told = Vec::new();
    while let Some(news) = next(&mut task).await {
        told.push(in_words(&news));
    }
    assert_eq!(told, ["task.completed completed", "final completed"]);
    let finished = tokio::time::timeout(PATIENCE, finished).await.expect("it is told of the end").unwrap().unwrap();
    assert_eq!(finished.result.expect("also a large one").as_str().len(), 5_002);
}

#[tokio::test]
async fn one_that_has_ended_is_told_with_its_log() {
    let hub = TestHub::start().await;
    let task_id = hub.submit_any().await;
    hub.claim("w").await;
    hub.attempt(&task_id, 1, "log", json!({"lines": [{"message": "a"}]})).await.expect(200);
    hub.attempt(&task_id, 1, "fail", json!({"error": {"kind": "exit", "message": "no"}})).await.expect(200);
    let mut task = client(&hub).task(task_id.parse().unwrap());
    let mut told = Vec::new();
    while let Some(news) = next(&mut task).await {
        told.push(in_words(&news));
    }
    assert_eq!(told, ["known failed", "log a", "final failed"]);
    let finished = client(&hub).task(task_id.parse().unwrap()).finished().await.unwrap();
    assert_eq!(finished.error.unwrap().message, "no");

    hub.delete(&format!("/api/v1/tasks/{task_id}")).await.expect(204);
    let gone = tokio::time::timeout(PATIENCE, client(&hub).task(task_id.parse().unwrap()).finished());
    let Err(ClientError::Refused(problem)) = gone.await.expect("it is told") else { panic!("it is gone") };
    assert_eq!(problem.code, Code::TaskNotFound);
}
