//! One task, watched: what happens to it, and how it ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt};
use serde_json::Value;

use super::{Client, ClientError, Live, LiveEvent, LiveStatus, Subscribe, TaskEvent};
use crate::task::{Event, FilterSpec, LogLine, TaskId, TaskView};
use crate::wire::{Code, LogsSpec, Problem, SnapshotSpec};

/// What is new of one task.
#[derive(Clone, Debug)]
pub enum TaskNews {
    /// Its record, when first known and after each transition. `event` is `None` for the first, after a cut that was too
    /// long to say what happened, and where a newer hub has a word that this client does not know.
    Change { event: Option<Event>, task: Arc<TaskView> },
    /// A progress report, in the record that now carries it.
    Progress { task: Arc<TaskView> },
    /// Log lines: the last hundred first, then as they come, each once.
    Log { lines: Vec<LogLine> },
    /// It is completed, failed or cancelled: look at its `status`. A large result is not in it (`result_omitted`).
    Final { task: Arc<TaskView> },
    /// Deleted, or not visible any more, or there is no such task.
    Gone,
    /// The hub refuses to tell of it.
    Refused { code: String, detail: String },
}

/// A task that is watched: a [`Stream`] of what is new of it, over a connection of its own that comes back by itself. It
/// ends after `Final`, `Gone` or `Refused`. Made by [`Client::task`].
///
/// ```no_run
/// # async fn example(task_id: taskhub::task::TaskId) -> Result<(), Box<dyn std::error::Error>> {
/// use taskhub::client::{Client, TaskNews};
///
/// let mut task = Client::new("http://127.0.0.1:8080")?.task(task_id);
/// while let Some(news) = task.next().await {
///     if let TaskNews::Progress { task } = news {
///         println!("{:?}", task.progress);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct TaskWatch {
    client: Client,
    task_id: TaskId,
    live: Live,
    waiting: VecDeque<TaskNews>,
    /// All that was missed has been told. The connection may be further than what was taken from it.
    is_live: bool,
    /// An end that was in the first picture: the log that follows it comes first.
    held: Option<Arc<TaskView>>,
    over: bool,
}

impl TaskWatch {
    pub(super) fn new(client: Client, task_id: TaskId) -> TaskWatch {
        let mut live = client.live();
        live.subscribe(Subscribe {
            filter: FilterSpec { task_id: Some(vec![task_id]), ..FilterSpec::default() },
            snapshot: Some(SnapshotSpec { limit: Some(1), ..SnapshotSpec::default() }),
            logs: Some(LogsSpec { tail: None }),
            ..Subscribe::default()
        });
        TaskWatch { client, task_id, live, waiting: VecDeque::new(), is_live: false, held: None, over: false }
    }

    /// How the connection stands.
    pub fn status(&self) -> LiveStatus {
        self.live.status()
    }

    /// The next thing that is new; `None` after the end. Nothing is lost when it is dropped.
    pub async fn next(&mut self) -> Option<TaskNews> {
        std::future::poll_fn(|cx| self.poll_next_unpin(cx)).await
    }

    /// The task, result and all, once it is completed, failed or cancelled: look at its `status`. Waits across restarts
    /// of the hub, for as long as it takes. Fails when the task is gone, also when it never was, or the hub refuses.
    pub async fn finished(mut self) -> Result<TaskView, ClientError> {
        let refused = |code: Code, detail: String| Err(ClientError::Refused(Box::new(Problem::new(code, detail))));
        while let Some(news) = self.next().await {
            match news {
                TaskNews::Final { task } if task.result_omitted => return self.client.get(self.task_id).await,
                TaskNews::Final { task } => return Ok(Arc::unwrap_or_clone(task)),
                TaskNews::Gone => return refused(Code::TaskNotFound, format!("task {} is gone", self.task_id)),
                TaskNews::Refused { code, detail } => {
                    let known = serde_json::from_value(Value::String(code));
                    return refused(known.unwrap_or(Code::Forbidden), detail);
                }
                TaskNews::Change { .. } | TaskNews::Progress { .. } | TaskNews::Log { .. } => {}
            }
        }
        refused(Code::Forbidden, "the hub does not want this connection".into())
    }

    fn take(&mut self, event: LiveEvent) {
        match event {
            LiveEvent::Status { status, .. } => {
                self.is_live = status == LiveStatus::Live;
                if !self.is_live {
                    return;
                }
                self.waiting.extend(self.held.take().map(|task| TaskNews::Final { task }));
            }
            LiveEvent::Of(_, TaskEvent::Snapshot { tasks, .. }) => match tasks.into_iter().next() {
                Some(task) => self.changed(None, task),
                None => self.waiting.push_back(TaskNews::Gone),
            },
            LiveEvent::Of(_, TaskEvent::Task { event, task } | TaskEvent::Leave { event, task }) => {
                self.changed(event, task);
            }
            LiveEvent::Of(_, TaskEvent::Progress { task }) => self.waiting.push_back(TaskNews::Progress { task }),
            LiveEvent::Of(_, TaskEvent::Log { lines, .. }) => self.waiting.push_back(TaskNews::Log { lines }),
            LiveEvent::Of(_, TaskEvent::Gone { .. }) => self.waiting.push_back(TaskNews::Gone),
            LiveEvent::Of(_, TaskEvent::Ended { code, detail }) => {
                self.waiting.push_back(TaskNews::Refused { code, detail });
            }
            LiveEvent::Of(_, TaskEvent::Stats(_)) | LiveEvent::Lag { .. } | LiveEvent::Complaint { .. } => {}
        }
    }

    fn changed(&mut self, event: Option<Event>, task: Arc<TaskView>) {
        let is_final = task.status.is_final();
        // One that is retried by hand has not ended after all.
        self.held = is_final.then(|| task.clone());
        self.waiting.push_back(TaskNews::Change { event, task });
        if self.is_live {
            self.waiting.extend(self.held.take().map(|task| TaskNews::Final { task }));
        }
    }
}

impl Stream for TaskWatch {
    type Item = TaskNews;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TaskNews>> {
        let watch = self.get_mut();
        loop {
            if watch.over {
                return Poll::Ready(None);
            }
            if let Some(news) = watch.waiting.pop_front() {
                watch.over = matches!(news, TaskNews::Final { .. } | TaskNews::Gone | TaskNews::Refused { .. });
                return Poll::Ready(Some(news));
            }
            match ready!(watch.live.poll_next_unpin(cx)) {
                Some(event) => watch.take(event),
                None => watch.over = true,
            }
        }
    }
}
