//! A hub and its handlers in one program: no server, no second process.
//!
//!     cargo run --example embedded
//!
//! Give it a folder, and what it has not finished is taken up when it starts again.

use std::time::Duration;

use taskhub::Hub;
use taskhub::task::{NewTask, Progress};
use taskhub::worker::{Context, TaskFailure};

/// Counts the words of some texts, one after the other.
async fn count_words(ctx: Context) -> Result<usize, TaskFailure> {
    let texts: Vec<String> = ctx.payload()?;
    let mut words = 0;
    for (done, text) in texts.iter().enumerate() {
        if ctx.is_cancelled() {
            return Err(TaskFailure::new("cancelled", "somebody lost interest"));
        }
        words += text.split_whitespace().count();
        ctx.progress(Progress::of(done as u64 + 1, texts.len() as u64).message(format!("{words} words so far")));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(words)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut hub = Hub::builder().concurrency(2).register("count-words", count_words);
    if let Some(folder) = std::env::args().nth(1) {
        hub = hub.data(folder);
    }
    let hub = hub.open().await?;

    let texts = ["a task is submitted", "it runs", "and everyone who waits sees it end"];
    let mut task_ids = Vec::new();
    for part in [&texts[..1], &texts[1..], &texts] {
        task_ids.push(hub.submit(NewTask::new("count-words").payload(part)?).await?);
    }
    println!("{} tasks are not done yet", hub.active());
    for task in hub.wait_all(&task_ids).await?.into_iter().flatten() {
        println!("{}: {} words", task.status, task.result.map_or("no".into(), |result| result.as_str().to_owned()));
    }
    hub.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
