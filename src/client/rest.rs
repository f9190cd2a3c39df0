//! The REST calls: one call, one answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ClientError, Live, TaskWatch};
use crate::dial::{HubUrl, Issued, Token};
use crate::settings::{Limits, QueueSettings, ScheduleSpec, TaskTypeSpec};
use crate::task::{
    DeliveryId, DeliveryStatus, FilterSpec, Json, LogLine, NewTask, NewWorkflow, Status, TaskId, TaskPatch, TaskView,
    Timestamp, Transition,
};
use crate::wire::{
    BulkBody, BulkChanged, CallbackList, CallbackView, CancelBody, Code, History, LogList, MeView, Problem, QueueList,
    QueueView, RetryBody, ScheduleList, ScheduleView, Stats, TaskList, TaskResult, TaskTypeList, TaskTypeView,
    WorkerList, WorkerView, WorkflowView,
};

/// How long a hub may take for an answer it is not asked to hold back.
const ANSWER_MS_MAX: u64 = 30_000;
/// How long one request of [`Client::wait`] is held: below the 60 s after which proxies like to cut idle requests.
const WAIT_MS: u64 = 50_000;

/// A hub, by its address. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    url: HubUrl,
    http: reqwest::Client,
    token: Option<Token>,
}

/// Which tasks to list, and how. Empty lists ask for nothing.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    pub status: Vec<Status>,
    /// At most 100.
    pub task_id: Vec<TaskId>,
    pub task_type: Option<String>,
    pub queue: Option<String>,
    pub user_id: Option<String>,
    /// At most 100.
    pub workflow_id: Vec<TaskId>,
    pub labels: BTreeMap<String, String>,
    /// A text in title, type or id.
    pub text: Option<String>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub order: Order,
    /// 1–500, default 50.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Which callbacks to list.
#[derive(Clone, Debug, Default)]
pub struct CallbackQuery {
    /// `None`: those that are owed and those that were given up.
    pub status: Option<DeliveryStatus>,
    pub task_id: Option<TaskId>,
    /// 1–500, default 50.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// By creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// What a call on many tasks did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub matched: u64,
    pub changed: u64,
}

/// What a final task left.
#[derive(Debug)]
pub enum FetchedResult {
    Json(TaskResult),
    /// A result that was uploaded, whatever it is.
    Stream(ResultStream),
}

/// A large result on its way here.
#[derive(Debug)]
pub struct ResultStream {
    pub content_type: String,
    /// All of it.
    pub bytes: u64,
    left: u64,
    answer: reqwest::Response,
    url: String,
}

impl ResultStream {
    /// The next part of it; `None` after the last. One that is cut short is an error, and so is one that stands still for 30 s.
    pub async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, ClientError> {
        let next = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), self.answer.chunk()).await;
        let why = match next {
            Ok(Ok(Some(chunk))) => {
                self.left = self.left.saturating_sub(chunk.len() as u64);
                return Ok(Some(chunk));
            }
            Ok(Ok(None)) if self.left == 0 => return Ok(None),
            Ok(Ok(None)) => "the result ended early".to_owned(),
            Ok(Err(why)) => chain(&why),
            Err(_) => "the result stands still".to_owned(),
        };
        Err(ClientError::Unreachable { url: self.url.clone(), why })
    }
}

impl ListQuery {
    fn pairs(&self) -> Vec<(String, String)> {
        let joined = |words: Vec<String>| (!words.is_empty()).then(|| words.join(","));
        let plain = [
            ("status", joined(self.status.iter().map(Status::to_string).collect())),
            ("task_id", joined(self.task_id.iter().map(TaskId::to_string).collect())),
            ("task_type", self.task_type.clone()),
            ("queue", self.queue.clone()),
            ("user_id", self.user_id.clone()),
            ("workflow_id", joined(self.workflow_id.iter().map(TaskId::to_string).collect())),
            ("q", self.text.clone()),
            ("created_after", self.created_after.map(|at| at.to_string())),
            ("created_before", self.created_before.map(|at| at.to_string())),
            ("order", (self.order == Order::OldestFirst).then(|| "asc".into())),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("cursor", self.cursor.clone()),
        ];
        let mut pairs: Vec<_> =
            plain.into_iter().filter_map(|(key, value)| value.map(|value| (key.to_owned(), value))).collect();
        pairs.extend(self.labels.iter().map(|(key, value)| (format!("label.{key}"), value.clone())));
        pairs
    }
}

impl Client {
    /// A client of the hub at this address, such as `http://127.0.0.1:8080`, `https://hub.example` or `unix:/run/taskhub.sock`. Nothing is sent yet.
    pub fn new(url: &str) -> Result<Client, ClientError> {
        Client::at(HubUrl::parse(url)?)
    }

    /// The same for a hub at `https://…` that must be known to the certificates of this file, in PEM, instead of the machine's.
    pub fn trusting(url: &str, ca_cert: &Path) -> Result<Client, ClientError> {
        Client::at(HubUrl::parse_trusting(url, Some(ca_cert))?)
    }

    fn at(url: HubUrl) -> Result<Client, ClientError> {
        let http = url.http().map_err(|why| ClientError::Unreachable { url: url.to_string(), why: chain(&why) })?;
        Ok(Client { url, http, token: None })
    }

    /// The client with a token, said with every call: a text, or a [`Token`] that is fetched. One that the hub does not take is
    /// fetched anew, once, and the call is made again.
    pub fn with_token(mut self, token: impl Into<Token>) -> Client {
        self.token = Some(token.into());
        self
    }

    /// Where the hub is.
    pub fn url(&self) -> &HubUrl {
        &self.url
    }

    /// Submits a task. Not safe to repeat: see [`submit_once`](Self::submit_once). One that is `unique` and was there already says
    /// so in [`TaskView::existing`].
    pub async fn submit(&self, task: &NewTask) -> Result<TaskView, ClientError> {
        self.submitted(self.request(Method::POST, "tasks").json(task)).await
    }

    /// Submits a task under a key (≤ 255 characters): the same task and key again, within 24 hours, give the first
    /// task.
    pub async fn submit_once(&self, task: &NewTask, key: &str) -> Result<TaskView, ClientError> {
        self.submitted(self.request(Method::POST, "tasks").header("idempotency-key", key).json(task)).await
    }

    async fn submitted(&self, request: RequestBuilder) -> Result<TaskView, ClientError> {
        let (headers, body) = self.send(request).await?;
        let task: TaskView = self.read(&body)?;
        Ok(TaskView { existing: headers.contains_key("taskhub-existing"), ..task })
    }

    /// Submits up to 10,000 tasks, all or none, perhaps under a key as in [`submit_once`](Self::submit_once).
    pub async fn submit_batch(&self, tasks: &[NewTask], key: Option<&str>) -> Result<Vec<TaskView>, ClientError> {
        #[derive(Serialize)]
        struct Batch<'a> {
            tasks: &'a [NewTask],
        }
        let mut request = self.request(Method::POST, "tasks/batch").json(&Batch { tasks });
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        Ok(self.call::<TaskList>(request).await?.tasks)
    }

    /// Submits a workflow, all of it or nothing, perhaps under a key as in [`submit_once`](Self::submit_once).
    pub async fn submit_workflow(
        &self,
        workflow: &NewWorkflow,
        key: Option<&str>,
    ) -> Result<WorkflowView, ClientError> {
        let mut request = self.request(Method::POST, "workflows").json(workflow);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.call(request).await
    }

    /// A workflow with its tasks, and which of these depend on which.
    pub async fn workflow(&self, task_id: TaskId) -> Result<WorkflowView, ClientError> {
        self.call(self.request(Method::GET, &format!("workflows/{task_id}"))).await
    }

    /// The task as it stands, with payload and result.
    pub async fn get(&self, task_id: TaskId) -> Result<TaskView, ClientError> {
        self.call(self.request(Method::GET, &format!("tasks/{task_id}"))).await
    }

    /// The task once it is completed, failed or cancelled, however long that takes. It fails when the hub goes away;
    /// [`TaskWatch::finished`] comes back.
    pub async fn wait(&self, task_id: TaskId) -> Result<TaskView, ClientError> {
        loop {
            let task = self.wait_ms(task_id, WAIT_MS).await?;
            if task.status.is_final() {
                return Ok(task);
            }
        }
    }

    /// The task once it is final, or as it stands when `wait_ms` (≤ 60,000) have passed; a hub holds no answer for more than
    /// 55,000.
    pub async fn wait_ms(&self, task_id: TaskId, wait_ms: u64) -> Result<TaskView, ClientError> {
        let request = self.request(Method::GET, &format!("tasks/{task_id}")).query(&[("wait_ms", wait_ms)]);
        self.call(request.timeout(Duration::from_millis(ANSWER_MS_MAX + wait_ms))).await
    }

    /// The task once its `rev` is above `since_rev`, or it is final, or `wait_ms` (≤ 60,000) have passed.
    pub async fn wait_change(&self, task_id: TaskId, since_rev: u64, wait_ms: u64) -> Result<TaskView, ClientError> {
        let query = [("wait_ms", wait_ms), ("since_rev", since_rev)];
        let request = self.request(Method::GET, &format!("tasks/{task_id}")).query(&query);
        self.call(request.timeout(Duration::from_millis(ANSWER_MS_MAX + wait_ms))).await
    }

    /// One page of tasks.
    pub async fn list(&self, query: &ListQuery) -> Result<TaskList, ClientError> {
        self.call(self.request(Method::GET, "tasks").query(&query.pairs())).await
    }

    /// What a final task left; one that is not final is refused. A large result comes as a stream.
    pub async fn result(&self, task_id: TaskId) -> Result<FetchedResult, ClientError> {
        let request = self.unbounded_request(Method::GET, &format!("tasks/{task_id}/result"));
        let patience = Duration::from_millis(ANSWER_MS_MAX);
        let head = tokio::time::timeout(patience, self.head(request)).await;
        let answer = head.unwrap_or_else(|_| Err(self.unreachable("it did not answer in time")))?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if header("taskhub-streamed").is_none() {
            let body = answer.bytes().await.map_err(|why| self.unreachable(&chain(&why)))?;
            return self.read(&body).map(FetchedResult::Json);
        }
        let content_type = header("content-type").unwrap_or_default();
        let bytes = answer.content_length().unwrap_or_default();
        Ok(FetchedResult::Stream(ResultStream { content_type, bytes, left: bytes, answer, url: self.url.to_string() }))
    }

    /// The task's transitions, oldest first.
    pub async fn history(&self, task_id: TaskId) -> Result<Vec<Transition>, ClientError> {
        Ok(self.call::<History>(self.request(Method::GET, &format!("tasks/{task_id}/history"))).await?.transitions)
    }

    /// The newest `tail` log lines (the hub's default is 100), oldest first.
    pub async fn logs(&self, task_id: TaskId, tail: Option<u32>) -> Result<Vec<LogLine>, ClientError> {
        let request =
            self.request(Method::GET, &format!("tasks/{task_id}/logs")).query(&tail.map(|tail| [("tail", tail)]));
        Ok(self.call::<LogList>(request).await?.lines)
    }

    /// Up to `limit` log lines that follow line `after`.
    pub async fn logs_after(&self, task_id: TaskId, after: u64, limit: u32) -> Result<Vec<LogLine>, ClientError> {
        let query = [("after", after), ("limit", u64::from(limit))];
        let request = self.request(Method::GET, &format!("tasks/{task_id}/logs")).query(&query);
        Ok(self.call::<LogList>(request).await?.lines)
    }

    /// Cancels the task, or asks its worker to stop: then it is `running` with `cancel_requested_at` until it has.
    pub async fn cancel(&self, task_id: TaskId, reason: Option<&str>) -> Result<TaskView, ClientError> {
        let body = CancelBody { reason: reason.map(str::to_owned) };
        self.call(self.request(Method::POST, &format!("tasks/{task_id}/cancel")).json(&body)).await
    }

    /// Runs a failed or cancelled task again.
    pub async fn retry(&self, task_id: TaskId) -> Result<TaskView, ClientError> {
        self.call(self.request(Method::POST, &format!("tasks/{task_id}/retry"))).await
    }

    /// The same, with another payload in place of the one it has.
    pub async fn retry_with(&self, task_id: TaskId, payload: Json) -> Result<TaskView, ClientError> {
        let body = RetryBody { payload: Some(payload) };
        self.call(self.request(Method::POST, &format!("tasks/{task_id}/retry")).json(&body)).await
    }

    /// Changes a task that waits.
    pub async fn update(&self, task_id: TaskId, patch: &TaskPatch) -> Result<TaskView, ClientError> {
        self.call(self.request(Method::PATCH, &format!("tasks/{task_id}")).json(patch)).await
    }

    /// Cancels the tasks that a filter means, up to 10,000 in a call, or says how many these would be.
    pub async fn cancel_many(
        &self,
        filter: FilterSpec,
        reason: Option<&str>,
        dry_run: bool,
    ) -> Result<BulkChanged, ClientError> {
        self.many("cancel", BulkBody { filter, dry_run, reason: reason.map(str::to_owned) }).await
    }

    /// Runs those again that failed or were cancelled.
    pub async fn retry_many(&self, filter: FilterSpec, dry_run: bool) -> Result<BulkChanged, ClientError> {
        self.many("retry", BulkBody { filter, dry_run, reason: None }).await
    }

    /// Deletes those that are final.
    pub async fn delete_many(&self, filter: FilterSpec, dry_run: bool) -> Result<BulkChanged, ClientError> {
        self.many("delete", BulkBody { filter, dry_run, reason: None }).await
    }

    async fn many(&self, action: &str, body: BulkBody) -> Result<BulkChanged, ClientError> {
        self.call(self.request(Method::POST, &format!("tasks/{action}")).json(&body)).await
    }

    /// Deletes a final task.
    pub async fn delete(&self, task_id: TaskId) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, &format!("tasks/{task_id}"))).await.map(|_| ())
    }

    /// Callbacks that are owed or were given up, the newest first, and where the next page begins.
    pub async fn callbacks(&self, query: &CallbackQuery) -> Result<CallbackList, ClientError> {
        let CallbackQuery { status, task_id, limit, cursor } = query;
        let mut request = self.request(Method::GET, "callbacks");
        request = request.query(&[("status", status.map(DeliveryStatus::as_str))]);
        request = request.query(&[("task_id", task_id.map(|id| id.to_string())), ("cursor", cursor.clone())]);
        self.call(request.query(&[("limit", limit)])).await
    }

    /// Has a callback tried at once, also one that was given up.
    pub async fn retry_callback(&self, callback_id: DeliveryId) -> Result<CallbackView, ClientError> {
        self.call(self.request(Method::POST, &format!("callbacks/{callback_id}/retry"))).await
    }

    /// Who calls, and what they may.
    pub async fn me(&self) -> Result<MeView, ClientError> {
        self.call(self.request(Method::GET, "me")).await
    }

    /// Counts and rates.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.call(self.request(Method::GET, "stats")).await
    }

    /// The workers the hub knows of.
    pub async fn workers(&self) -> Result<Vec<WorkerView>, ClientError> {
        Ok(self.call::<WorkerList>(self.request(Method::GET, "workers")).await?.workers)
    }

    /// The queues: those that are set, and of the others the ones with the most unfinished tasks.
    pub async fn queues(&self) -> Result<Vec<QueueView>, ClientError> {
        Ok(self.call::<QueueList>(self.request(Method::GET, "queues")).await?.queues)
    }

    /// One queue.
    pub async fn queue(&self, name: &str) -> Result<QueueView, ClientError> {
        self.call(self.of_queue(Method::GET, name, "")).await
    }

    /// Sets a queue, all of it; whether it is paused stays as it is.
    pub async fn set_queue(&self, name: &str, settings: &QueueSettings) -> Result<QueueView, ClientError> {
        self.call(self.of_queue(Method::PUT, name, "").json(settings)).await
    }

    /// Sets a queue back to the defaults. It is not paused then.
    pub async fn unset_queue(&self, name: &str) -> Result<(), ClientError> {
        self.send(self.of_queue(Method::DELETE, name, "")).await.map(|_| ())
    }

    /// Hands out nothing of a queue any more, until it is resumed.
    pub async fn pause_queue(&self, name: &str) -> Result<QueueView, ClientError> {
        self.call(self.of_queue(Method::POST, name, "/pause")).await
    }

    /// Lets a paused queue go on.
    pub async fn resume_queue(&self, name: &str) -> Result<QueueView, ClientError> {
        self.call(self.of_queue(Method::POST, name, "/resume")).await
    }

    /// Cancels what does not run of a queue.
    pub async fn purge_queue(&self, name: &str) -> Result<Changed, ClientError> {
        self.call(self.of_queue(Method::POST, name, "/purge")).await
    }

    /// What users may have at once.
    pub async fn limits(&self) -> Result<Limits, ClientError> {
        self.call(self.request(Method::GET, "limits")).await
    }

    /// Sets what users may have at once, all of it.
    pub async fn set_limits(&self, limits: &Limits) -> Result<Limits, ClientError> {
        self.call(self.request(Method::PUT, "limits").json(limits)).await
    }

    /// Every schedule, by name.
    pub async fn schedules(&self) -> Result<Vec<ScheduleView>, ClientError> {
        let (mut schedules, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let request = self.request(Method::GET, "schedules");
            let request = cursor.iter().fold(request, |request, cursor| request.query(&[("cursor", cursor)]));
            let page: ScheduleList = self.call(request).await?;
            schedules.extend(page.schedules);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(schedules);
            }
        }
    }

    /// One schedule.
    pub async fn schedule(&self, name: &str) -> Result<ScheduleView, ClientError> {
        self.call(self.of_schedule(Method::GET, name, "")).await
    }

    /// Sets a schedule, all of it.
    pub async fn set_schedule(&self, name: &str, spec: &ScheduleSpec) -> Result<ScheduleView, ClientError> {
        self.call(self.of_schedule(Method::PUT, name, "").json(spec)).await
    }

    /// Deletes a schedule. Its tasks stay.
    pub async fn delete_schedule(&self, name: &str) -> Result<(), ClientError> {
        self.send(self.of_schedule(Method::DELETE, name, "")).await.map(|_| ())
    }

    /// Submits the task of a schedule now, whatever is due.
    pub async fn run_schedule(&self, name: &str) -> Result<TaskView, ClientError> {
        self.call(self.of_schedule(Method::POST, name, "/run")).await
    }

    /// Submits nothing for a schedule, until it is resumed.
    pub async fn pause_schedule(&self, name: &str) -> Result<ScheduleView, ClientError> {
        self.call(self.of_schedule(Method::POST, name, "/pause")).await
    }

    /// Lets a paused schedule go on. Nothing is caught up.
    pub async fn resume_schedule(&self, name: &str) -> Result<ScheduleView, ClientError> {
        self.call(self.of_schedule(Method::POST, name, "/resume")).await
    }

    /// Every declared task type, by name.
    pub async fn task_types(&self) -> Result<Vec<TaskTypeView>, ClientError> {
        let (mut task_types, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let request = self.request(Method::GET, "task-types");
            let request = cursor.iter().fold(request, |request, cursor| request.query(&[("cursor", cursor)]));
            let page: TaskTypeList = self.call(request).await?;
            task_types.extend(page.task_types);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(task_types);
            }
        }
    }

    /// One declared task type.
    pub async fn task_type(&self, name: &str) -> Result<TaskTypeView, ClientError> {
        self.call(self.of_setting(Method::GET, "task-types", name, "")).await
    }

    /// Declares a task type, all of it.
    pub async fn set_task_type(&self, name: &str, spec: &TaskTypeSpec) -> Result<TaskTypeView, ClientError> {
        self.call(self.of_setting(Method::PUT, "task-types", name, "").json(spec)).await
    }

    /// Takes back what is declared of a task type. Its tasks stay.
    pub async fn delete_task_type(&self, name: &str) -> Result<(), ClientError> {
        self.send(self.of_setting(Method::DELETE, "task-types", name, "")).await.map(|_| ())
    }

    fn of_queue(&self, method: Method, name: &str, what: &str) -> RequestBuilder {
        self.of_setting(method, "queues", name, what)
    }

    fn of_schedule(&self, method: Method, name: &str, what: &str) -> RequestBuilder {
        self.of_setting(method, "schedules", name, what)
    }

    /// A name that is no name of a setting must not become another path.
    pub(super) fn of_setting(&self, method: Method, kind: &str, name: &str, what: &str) -> RequestBuilder {
        let escaped: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        self.request(method, &format!("{kind}/{escaped}{what}"))
    }

    /// The live stream. It connects when it is first polled.
    pub fn live(&self) -> Live {
        Live::new(self.url.clone(), self.token.clone())
    }

    /// One task: what happens to it, and how it ends. It connects when it is first polled.
    pub fn task(&self, task_id: TaskId) -> TaskWatch {
        TaskWatch::new(self.clone(), task_id)
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.unbounded_request(method, path).timeout(Duration::from_millis(ANSWER_MS_MAX))
    }

    /// A request that may take as long as it takes.
    fn unbounded_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url.join(&format!("api/v1/{path}")))
    }

    pub(super) async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let (_, body) = self.send(request).await?;
        self.read(&body)
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body)
            .map_err(|why| ClientError::Protocol { url: self.url.to_string(), why: why.to_string() })
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Result<(HeaderMap, bytes::Bytes), ClientError> {
        let answer = self.head(request).await?;
        let headers = answer.headers().clone();
        let body = answer.bytes().await.map_err(|why| self.unreachable(&chain(&why)))?;
        Ok((headers, body))
    }

    /// The beginning of an answer, where that is no refusal. The hub looks at who calls before it does anything, so that a call
    /// that it refused for its token is safe to make again.
    async fn head(&self, request: RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let Some(token) = &self.token else { return self.head_once(request).await };
        let said = |request: RequestBuilder, issued: &Issued| request.bearer_auth(issued.text());
        let issued = token.get().await.map_err(ClientError::Token)?;
        let again = request.try_clone();
        match (self.head_once(said(request, &issued)).await, again) {
            (Err(ClientError::Refused(problem)), Some(request)) if problem.status == 401 => {
                match token.instead_of(&issued).await.map_err(ClientError::Token)? {
                    Some(other) => self.head_once(said(request, &other)).await,
                    None => Err(ClientError::Refused(problem)),
                }
            }
            (answer, _) => answer,
        }
    }

    async fn head_once(&self, request: RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let answer = request.send().await.map_err(|why| self.unreachable(&chain(&why)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(|why| self.unreachable(&chain(&why)))?;
        match problem(&body) {
            Some(problem) => Err(ClientError::Refused(Box::new(problem))),
            None => Err(ClientError::Protocol { url: self.url.to_string(), why: format!("HTTP {status}") }),
        }
    }

    fn unreachable(&self, why: &str) -> ClientError {
        ClientError::Unreachable { url: self.url.to_string(), why: why.to_owned() }
    }
}

/// Reads a problem, also one with a code that is newer than this client.
fn problem(body: &[u8]) -> Option<Problem> {
    if let Ok(problem) = serde_json::from_slice(body) {
        return Some(problem);
    }
    #[derive(Deserialize)]
    struct Unknown {
        status: u16,
        code: String,
        #[serde(default)]
        title: String,
        #[serde(default)]
        detail: String,
    }
    let unknown: Unknown = serde_json::from_slice(body).ok()?;
    let detail = format!("{} ({})", unknown.detail, unknown.code);
    let title = unknown.title;
    Some(Problem { status: unknown.status, title, ..Problem::new(Code::Internal, detail) })
}

/// An error with its causes, without repeating the address that ours already names.
fn chain(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_only_what_is_asked() {
        assert_eq!(ListQuery::default().pairs(), []);
        let query = ListQuery {
            status: vec![Status::Pending, Status::Running],
            labels: BTreeMap::from([("project_id".into(), "p1".into())]),
            order: Order::OldestFirst,
            limit: Some(5),
            ..ListQuery::default()
        };
        let pairs: Vec<_> = query.pairs().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(pairs, ["status=pending,running", "order=asc", "limit=5", "label.project_id=p1"]);
    }

    #[test]
    fn a_problem_of_tomorrow_is_still_a_refusal() {
        let body = br#"{"type":"x","title":"No","status":418,"code":"teapot","detail":"short and stout"}"#;
        let problem = problem(body).unwrap();
        assert_eq!((problem.status, problem.detail.as_str()), (418, "short and stout (teapot)"));
        assert_eq!(super::problem(b"<html>"), None);
    }
}
