//! The feed: every transition and tick, to everyone who asked, and to nobody else.
#![allow(missing_docs, unused_variables, clippy::unused_async)]

use std::sync::Arc;

use bytes::Bytes;

use crate::task::{ChangeKind, LogLine, Task, TaskId};

/// A handle to the feed.
#[derive(Clone)]
pub struct Feed {}

pub struct Tick {
    pub rev: u64,
    pub tick: u64,
    pub attempt: u32,
    pub line: Bytes,
}

pub trait Truth: Send + Sync {
    fn record_line(&self, task_id: TaskId) -> Option<Bytes>;
    fn progress(&self, task_id: TaskId) -> Option<Tick>;
    fn task(&self, task_id: TaskId) -> Option<Arc<Task>>;
}

pub struct Published {
    pub rev: u64,
    pub kind: ChangeKind,
    pub task: Arc<Task>,
    pub prev: Option<Arc<Task>>,
    pub line: Bytes,
}

#[derive(Default)]
pub struct FeedOptions {
    pub max_hz: f64,
}

pub struct Client {}

impl Feed {
    pub fn start(truth: Arc<dyn Truth>, options: FeedOptions) -> Feed {
        Feed {}
    }
    pub fn publish(&self, events: Arc<[Published]>) {}
    pub fn tick(&self, task_id: TaskId) {}
    pub fn logs(&self, task_id: TaskId, lines: &[LogLine]) {}
    pub fn watch(&self, task_id: TaskId) -> Client {
        Client {}
    }
}

impl Client {
    pub async fn ready(&mut self) {
        std::future::pending().await
    }
    pub fn take(&mut self, out: &mut Vec<Bytes>) {}
}
