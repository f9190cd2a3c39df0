//! What callers do, and what must come of it.

use std::fmt::Display;

use futures::future::join_all;
use serde_json::{Value, json};
use taskhub::access::{Principal, Role};
use taskhub::engine::{Accepts, Report};
use taskhub::task::{Failure, Json, Level, Name, PatternSet, Progress, Status, TaskId};

use super::law::{Caller, Facts, LOGS, PAYLOAD, RECORD, RESULT, Scope, word};
use super::watcher::{Watcher, Wire};
use super::{MISSING, PATIENCE, World, send};

const TYPES: [&str; 4] = ["t.a", "t.b", "u", "deep"];
const QUEUES: [&str; 3] = ["q", "r", "r2"];
const PROJECTS: [&str; 3] = ["1", "2", "3"];
const CALLERS_MAX: usize = 16;
const TASKS_MAX: usize = 60;
const WATCHERS_MAX: usize = 7;
const ADMIN: usize = 0;

impl World {
    pub async fn step(&mut self) {
        match self.random.u32(..100) {
            0..14 => self.submit().await,
            14..22 => self.claim().await,
            22..36 => self.report().await,
            36..50 => self.read().await,
            50..62 => self.list().await,
            62..72 => self.change().await,
            72..75 => self.bulk().await,
            75..79 => self.numbers().await,
            79..83 => self.mint().await,
            83..87 => self.watch().await,
            87..91 => self.cut_and_resume().await,
            91..94 => self.go_on_from_another().await,
            94..98 => self.refresh().await,
            _ => self.revoke().await,
        }
    }

    /// A caller who may do this; mostly one that is alive.
    fn who_may(&mut self, right: &str) -> Option<usize> {
        let may = |who: &&(usize, &Caller)| who.1.is_alive && who.1.may(right);
        let able: Vec<usize> = self.callers.iter().enumerate().filter(|who| may(&who)).map(|(at, _)| at).collect();
        self.random.choice(&able).copied()
    }

    fn anyone(&mut self) -> usize {
        self.random.usize(..self.callers.len())
    }

    fn any_task(&mut self) -> Option<Facts> {
        let tasks: Vec<&Facts> = self.law.tasks.iter().filter(|facts| facts.task_type != "schedule").collect();
        self.random.choice(&tasks).map(|facts| (*facts).clone())
    }

    fn scope(&mut self) -> Scope {
        let random = &mut self.random;
        let mut scope = Scope::default();
        if random.u8(..4) == 0 {
            return scope;
        }
        let mut some = |values: &[&str]| -> Option<Vec<String>> {
            let mut values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            random.shuffle(&mut values);
            values.truncate(random.usize(1..=2));
            (random.u8(..4) == 0).then_some(values)
        };
        scope.task_types = some(&["t.a", "t.*", "u", "*"]);
        scope.queues = some(&["q", "r", "r*"]);
        scope.users = some(&["ann", "bob"]);
        scope.projects = some(&PROJECTS);
        if random.u8(..4) == 0 {
            let tasks: Vec<TaskId> = (0..2).filter_map(|_| Some(self.any_task()?.task_id)).collect();
            scope.task_ids = Some(tasks).filter(|ids| !ids.is_empty());
        }
        if self.random.u8(..8) == 0 {
            let workflows: Vec<TaskId> = self.law.tasks.iter().filter_map(|facts| facts.workflow_id).collect();
            scope.workflow_ids = self.random.choice(&workflows).map(|id| vec![*id]);
        }
        scope
    }

    /// What is set, with words in the schedules of users.
    pub async fn settings(&mut self) {
        for (path, body) in
            [("/queues/q", json!({"concurrency": 100})), ("/task-types/deep", json!({"defaults": {"queue": "r"}}))]
        {
            let answer = self.call(ADMIN, "PUT", &format!("/api/v1{path}"), Some(body)).await;
            assert!(answer.status < 300, "{answer:?}");
        }
        let limits = json!({"users": {"ann": {"waiting": 1_000}, "bob": {"waiting": 999}}});
        assert!(self.call(ADMIN, "PUT", "/api/v1/limits", Some(limits)).await.status < 300);
        for user in ["ann", "bob"] {
            let number = self.number();
            let mut task = self.task(number);
            task["user_id"] = json!(user);
            for key in ["delay_ms", "unique"] {
                task.as_object_mut().unwrap().remove(key);
            }
            let body = json!({"cron": "0 0 1 1 *", "task": task});
            let path = format!("/api/v1/schedules/s-{user}");
            let answer = self.call(ADMIN, "PUT", &path, Some(body)).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            // It stands in no list of tasks.
            self.law.submitted(Facts {
                task_id: TaskId::from_bytes([number as u8; 16]),
                number,
                task_type: "schedule".into(),
                queue: String::new(),
                user: Some(user.into()),
                labels: Default::default(),
                workflow_id: None,
                depends: false,
                deleted: true,
                holds: Default::default(),
                held: Default::default(),
            });
        }
    }

    fn task(&mut self, number: usize) -> Value {
        let random = &mut self.random;
        let secret = word(number, RECORD);
        let mut task = json!({
            "task_type": random.choice(&TYPES).unwrap(),
            "title": secret,
            "labels": {"secret": secret},
            "payload": {"s": word(number, PAYLOAD)},
            "max_attempts": random.u32(1..3),
            "retry": {"base_ms": 3_600_000, "jitter": 0.0},
        });
        match random.u8(..8) {
            0..2 => {}
            2 => task["queue"] = json!(format!("x.{secret}")),
            _ => task["queue"] = json!(random.choice(&QUEUES).unwrap()),
        }
        if random.u8(..3) > 0 {
            task["labels"]["project"] = json!(random.choice(&PROJECTS).unwrap());
        }
        match random.u8(..8) {
            0 => task["delay_ms"] = json!(3_600_000),
            1 => {
                task["concurrency_key"] = json!("k");
                task["on_conflict"] = json!(random.choice(&["reject", "replace_waiting", "cancel_running"]).unwrap());
            }
            2 => task["unique"] = json!({"key": "k", "on_conflict": random.choice(&["return", "reject"]).unwrap()}),
            _ => {}
        }
        task
    }

    pub async fn submit(&mut self) {
        if self.law.tasks.len() > TASKS_MAX {
            return;
        }
        if self.random.u8(..6) == 0 {
            return self.submit_again().await;
        }
        let caller = if self.random.u8(..10) == 0 { self.anyone() } else { self.who_may("submit").unwrap_or(ADMIN) };
        let who = self.callers[caller].clone();
        if self.random.u8(..6) == 0 {
            return self.submit_workflow(caller).await;
        }
        let count = if self.random.u8(..4) == 0 { 2 } else { 1 };
        let first = self.numbers + 1;
        let mut tasks = Vec::new();
        for _ in 0..count {
            let number = self.number();
            let mut task = self.task(number);
            if matches!(who.role, Role::Operator | Role::Admin) && who.jti.is_none() && self.random.u8(..4) > 0 {
                task["user_id"] = json!(self.random.choice(&["ann", "bob", "cid"]).unwrap());
            }
            tasks.push(task);
        }
        let other = self.any_task().filter(|_| self.random.u8(..4) == 0);
        if let Some(other) = &other {
            tasks[0]["depends_on"] = json!([other.task_id]);
            tasks[0].as_object_mut().unwrap().remove("unique");
        }
        let asks = self.random.u8(..6) == 0 && who.may("see") && who.may("mint");
        if asks {
            tasks[0]["token"] = json!({"allow": ["read"]});
        }
        let path = if count == 1 { "/api/v1/tasks" } else { "/api/v1/tasks/batch" };
        let body = if count == 1 { tasks[0].clone() } else { json!({"tasks": tasks}) };
        let key = (self.random.u8(..3) == 0).then(|| format!("k{}", self.random.u8(..3)));
        let before = self.unseen(caller).await;
        let answer = self.call_with(caller, "POST", path, Some(body.clone()), key.as_deref()).await;
        self.check_unseen(caller, before, &body).await;
        if !who.is_alive {
            return;
        }
        if !who.may("submit") {
            assert_eq!(answer.status, 403, "{who:?} {answer:?}");
            return;
        }
        let used = key.map(|key| (who.keys_of(), format!("{path} {key}")));
        if answer.json()["code"] == "idempotency_conflict" {
            assert!(self.used_keys.contains(&used.unwrap()), "{who:?} was told of a key that was another's");
            return;
        }
        if let Some(other) = other.as_ref().filter(|other| who.sees(caller, other) == Some(false)) {
            // It is told of as one that is not there.
            assert!(matches!(answer.status, 403 | 422), "{who:?} depends on {other:?}: {answer:?}");
            let id = other.task_id.to_string();
            let as_missing = body.to_string().replace(&id, MISSING);
            let as_missing = self.call(caller, "POST", path, Some(serde_json::from_str(&as_missing).unwrap())).await;
            assert_eq!(answer.text.replace(&id, MISSING), as_missing.text, "{who:?}");
            return;
        }
        if !matches!(answer.status, 200 | 201) {
            // The filter of a token says what may be submitted; of one without, all may.
            let may_refuse =
                who.jti.is_some() || matches!(answer.status, 409) || other.is_some_and(|other| other.deleted);
            assert!(may_refuse, "{who:?} said {body}: {answer:?}");
            return;
        }
        if used.is_some() {
            self.sent = Some((
                caller,
                path.to_owned(),
                body.clone(),
                used.clone().unwrap().1.rsplit(' ').next().unwrap().to_owned(),
            ));
        }
        self.used_keys.extend(used);
        let said = answer.json();
        let records = if count == 1 { vec![said.clone()] } else { said["tasks"].as_array().unwrap().clone() };
        for (at, record) in records.iter().enumerate() {
            self.submitted(record, first + at, other.is_some() && at == 0);
            let facts = self.law.task(record["task_id"].as_str().unwrap().parse().unwrap()).unwrap();
            assert!(who.sees(caller, facts) != Some(false), "{who:?} submitted what it does not see: {facts:?}");
        }
        if let Some(text) = records[0]["token"]["token"].as_str() {
            let task_id = records[0]["task_id"].as_str().unwrap().parse().unwrap();
            let jti = records[0]["token"]["jti"].as_str().unwrap().to_owned();
            self.minted(caller, text, jti, Scope::of_task(task_id), vec!["read"], Vec::new(), None);
        }
        self.sync().await;
    }

    /// The same once more, with its key: it is answered as the first time, whatever became of it.
    async fn submit_again(&mut self) {
        let Some((caller, path, body, key)) = self.sent.clone() else { return };
        if self.callers[caller].is_alive {
            let answer = self.call_with(caller, "POST", &path, Some(body), Some(&key)).await;
            assert!(matches!(answer.status, 200 | 409), "{:?} {answer:?}", self.callers[caller]);
        }
        self.sync().await;
    }

    async fn submit_workflow(&mut self, caller: usize) {
        let who = self.callers[caller].clone();
        let first = self.numbers + 1;
        let numbers = [self.number(), self.number(), self.number()];
        let mut tasks: Vec<Value> = numbers[1..].iter().map(|number| self.task(*number)).collect();
        for (task, name) in tasks.iter_mut().zip(["a", "b"]) {
            ["unique", "delay_ms"].iter().for_each(|key| {
                task.as_object_mut().unwrap().remove(*key);
            });
            task["ref"] = json!(name);
        }
        if self.random.bool() {
            tasks[1]["depends_on"] = json!(["@a"]);
        }
        let mut body = json!({"title": word(first, RECORD), "labels": {"secret": word(first, RECORD)}, "tasks": tasks});
        if matches!(who.role, Role::Operator | Role::Admin) && who.jti.is_none() {
            body["user_id"] = json!(self.random.choice(&["ann", "bob"]).unwrap());
        }
        let answer = self.call(caller, "POST", "/api/v1/workflows", Some(body)).await;
        if answer.status == 201 {
            let said = answer.json();
            self.submitted(&said["workflow"], first, false);
            for (at, record) in said["tasks"].as_array().unwrap().iter().enumerate() {
                self.submitted(record, first + 1 + at, true);
            }
            for number in numbers {
                let facts = self.law.tasks.iter().find(|facts| facts.number == number).unwrap();
                assert!(who.sees(caller, facts) != Some(false), "{who:?} submitted what it does not see: {facts:?}");
            }
        }
        self.sync().await;
    }

    /// By the hub's own program, or by a worker that calls.
    async fn claim(&mut self) {
        let max = self.random.u32(1..4);
        let worker = self.random.usize(..self.callers.len());
        if self.callers[worker].role != Role::Worker || !self.callers[worker].is_alive {
            let accepts = Accepts { task_types: PatternSet::all(), queues: PatternSet::all() };
            let owner = self.hub.as_caller(Principal::owner().into(), None);
            let handed =
                owner.claim_for(Name::new("w"), accepts, max, None, Default::default()).await.expect("a claim");
            self.running.extend(handed.iter().map(|handed| (handed.task.task_id, handed.task.attempt, None)));
            return self.sync().await;
        }
        let who = self.callers[worker].clone();
        let body = json!({"worker_id": who.name, "queues": ["*"], "max": max, "wait_ms": 0});
        let answer = send(&self.router, &who.token, "POST", "/api/v1/worker/claim", Some(&body), None).await;
        assert_eq!(answer.status, 200, "{who:?} {answer:?}");
        for handed in answer.json()["tasks"].as_array().unwrap() {
            let task_id: TaskId = handed["task"]["task_id"].as_str().unwrap().parse().unwrap();
            let facts = self.law.task(task_id).expect("a known task");
            assert!(who.name != "narrow-worker" || facts.task_type.starts_with("t."), "{who:?} was given {facts:?}");
            self.running.push((task_id, handed["attempt"].as_u64().unwrap() as u32, Some(worker)));
        }
        self.sync().await;
        self.look_at(worker, "", &answer);
        // The name of a worker is its caller's.
        let taken = json!({"worker_id": who.name, "queues": ["*"], "wait_ms": 0});
        let other = (0..self.callers.len()).find(|at| *at != worker && self.callers[*at].role == Role::Worker).unwrap();
        if self.callers[other].is_alive {
            assert_eq!(self.call(other, "POST", "/api/v1/worker/claim", Some(taken)).await.status, 403);
        }
    }

    async fn report(&mut self) {
        let Some(at) = (!self.running.is_empty()).then(|| self.random.usize(..self.running.len())) else { return };
        let (task_id, attempt, worker) = self.running[at];
        let number = self.law.task(task_id).expect("a known task").number;
        let (record, result, logs) = (word(number, RECORD), word(number, RESULT), word(number, LOGS));
        let worker = worker.filter(|worker| self.callers[*worker].is_alive);
        if self.random.u8(..5) == 0 {
            return self.report_of_another(task_id, attempt, worker).await;
        }
        let kind = self.random.u8(..10);
        if kind >= 5 {
            self.running.swap_remove(at);
        }
        if let Some(worker) = worker {
            let (verb, body) = match kind {
                0..3 => (
                    "progress",
                    json!({"progress": {"percentage": 10, "message": record}, "checkpoint": {"p": word(number, PAYLOAD)}}),
                ),
                3..5 => ("log", json!({"lines": [{"level": "info", "message": logs}]})),
                5..8 => ("complete", json!({"result": {"s": result}})),
                8 => ("fail", json!({"error": {"kind": "x", "message": record, "details": {"s": result}}})),
                _ => ("release", json!({})),
            };
            let path = format!("/api/v1/tasks/{task_id}/attempts/{attempt}/{verb}");
            self.call(worker, "POST", &path, Some(body)).await;
            return self.sync().await;
        }
        let report = match kind {
            0..3 => {
                let progress = Progress { message: Some(record), ..Progress::percent(10.0) };
                let _ = self.hub.progress(task_id, attempt, Some(progress), None).await;
                return;
            }
            3..5 => {
                let _ = self.hub.log(task_id, attempt, vec![(Level::Info, logs)]);
                return;
            }
            5..8 => Report::Complete { result: Json::of(&json!({"s": result})).unwrap() },
            8 => {
                let details = Some(Json::of(&json!({"s": result})).unwrap());
                let error = Failure { details, ..Failure::new("x", &*record) };
                Report::Fail { error, retryable: true, retry_after_ms: None }
            }
            _ => Report::Release,
        };
        let _ = self.hub.report(task_id, attempt, report).await;
        self.sync().await;
    }

    /// A report on an attempt that is not the caller's comes to nothing, and tells nothing.
    async fn report_of_another(&mut self, task_id: TaskId, attempt: u32, worker: Option<usize>) {
        let caller = self.anyone();
        let who = self.callers[caller].clone();
        if Some(caller) == worker || who.role == Role::Admin || !who.is_alive {
            return;
        }
        let path = |id: &str| format!("/api/v1/tasks/{id}/attempts/{attempt}/complete");
        let before = self.unseen(caller).await;
        let answer = self.call(caller, "POST", &path(&task_id.to_string()), Some(json!({"result": "stolen"}))).await;
        let missing = self.call(caller, "POST", &path(MISSING), Some(json!({"result": "stolen"}))).await;
        assert!(matches!(answer.status, 403 | 409), "{who:?} {answer:?}");
        assert_eq!(answer, missing, "{who:?}");
        self.check_unseen(caller, before, "a report").await;
    }

    async fn read(&mut self) {
        let caller = self.anyone();
        let Some(task) = self.any_task() else { return };
        let who = self.callers[caller].clone();
        let of = *self.random.choice(&["", "", "/history", "/logs", "/result", "?wait_ms=1", "workflow"]).unwrap();
        let path = |id: &str| match of {
            "workflow" => format!("/api/v1/workflows/{id}"),
            of => format!("/api/v1/tasks/{id}{of}"),
        };
        let answer = self.call(caller, "GET", &path(&task.task_id.to_string()), None).await;
        if !who.is_alive {
            return;
        }
        let hidden = (of == "/logs" && who.hides.contains(&LOGS)) || (of == "/result" && who.hides.contains(&RESULT));
        match who.sees(caller, &task).map(|sees| sees && !task.deleted) {
            _ if !who.may("see") => assert_eq!(answer.status, 403, "{who:?} {answer:?}"),
            None => assert!(matches!(answer.status, 200 | 404 | 409), "{who:?} {answer:?}"),
            Some(true) if hidden => assert_eq!(answer.status, 403, "{who:?} {answer:?}"),
            Some(true) => {
                let may_lack = matches!((of, answer.status), ("/result", 409) | ("workflow", 404));
                assert!(answer.status == 200 || may_lack, "{who:?} {task:?} {of}: {answer:?}");
                // The parts that are not hidden are there.
                let payload = word(task.number, PAYLOAD);
                let shows = answer.text.contains(&payload) || answer.text.contains("\"workflow\"");
                assert!(
                    !of.is_empty() || who.hides.contains(&PAYLOAD) || shows || task.workflow_id.is_some(),
                    "{who:?} {answer:?}"
                );
            }
            Some(false) => {
                let missing = self.call(caller, "GET", &path(MISSING), None).await;
                assert_eq!(answer.status, 404, "{who:?} {task:?} {answer:?}");
                assert_eq!(answer.text.replace(&task.task_id.to_string(), MISSING), missing.text, "{who:?}");
            }
        }
    }

    fn expected(&self, caller: usize, scope: &Scope) -> Vec<String> {
        let who = &self.callers[caller];
        let seen = self.law.tasks.iter();
        let seen = seen.filter(|task| !task.deleted && scope.means(task) && who.sees(caller, task) == Some(true));
        let mut ids: Vec<String> = seen.map(|task| task.task_id.to_string()).collect();
        ids.sort();
        ids
    }

    /// Page by page, and equal questions of several callers at once.
    async fn list(&mut self) {
        let mut scope = self.scope().for_query();
        let text = self.any_task().filter(|_| self.random.u8(..4) == 0);
        if let Some(task) = &text {
            scope = Scope::of_task(task.task_id);
        }
        let query = match &text {
            Some(task) => vec![("q".to_owned(), word(task.number, RECORD))],
            None => scope.query(),
        };
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        if self.random.bool() {
            let callers: Vec<usize> = (0..4).map(|_| self.anyone()).collect();
            let path = format!("/api/v1/tasks?{query}&limit=500");
            let asked = callers.iter().map(|at| send(&self.router, &self.callers[*at].token, "GET", &path, None, None));
            let answers = join_all(asked).await;
            for (caller, answer) in callers.into_iter().zip(answers) {
                self.look_at(caller, &path, &answer);
                self.check_list(caller, &scope, &path, vec![answer]);
            }
            return;
        }
        let caller = self.anyone();
        let limit = self.random.usize(1..6);
        let mut cursor = None::<String>;
        let mut answers = Vec::new();
        loop {
            let at = cursor.as_ref().map_or(String::new(), |cursor| format!("&cursor={cursor}"));
            let answer = self.call(caller, "GET", &format!("/api/v1/tasks?{query}&limit={limit}{at}"), None).await;
            cursor = answer.json()["next_cursor"].as_str().map(str::to_owned);
            let is_last = answer.status != 200 || cursor.is_none();
            answers.push(answer);
            if is_last {
                break;
            }
            self.cursor = cursor.clone().map(|cursor| (query.clone(), cursor));
        }
        self.check_list(caller, &scope, &query, answers);
        // A cursor of another is no way in.
        if let Some((query, cursor)) = self.cursor.clone() {
            let caller = self.anyone();
            self.call(caller, "GET", &format!("/api/v1/tasks?{query}&cursor={cursor}"), None).await;
        }
    }

    fn check_list(&self, caller: usize, scope: &Scope, query: &str, answers: Vec<super::Answer>) {
        let who = &self.callers[caller];
        if !who.is_alive {
            return;
        }
        if !who.may("watch") {
            assert_eq!(answers[0].status, 403, "{who:?} {answers:?}");
            return;
        }
        let mut ids: Vec<String> = Vec::new();
        for answer in &answers {
            assert_eq!(answer.status, 200, "{who:?} {answer:?}");
            ids.extend(
                answer.json()["tasks"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|task| task["task_id"].as_str().unwrap().to_owned()),
            );
        }
        assert!(
            answers.len() == 1 || !answers.last().unwrap().text.contains("\"tasks\":[]"),
            "{who:?} was told of more than there is"
        );
        ids.sort();
        assert_eq!(ids, self.expected(caller, scope), "{who:?} {query}");
    }

    /// The tasks that a caller does not see, as they are.
    async fn unseen(&self, caller: usize) -> Vec<(TaskId, u64)> {
        let who = &self.callers[caller];
        let truth = self.truth().await;
        // What depends on a task of theirs, or is in one workflow with it, may follow, whose it is.
        let may_follow = |task: &Facts| task.depends || task.workflow_id.is_some() || task.task_type == "workflow";
        let unseen = self.law.tasks.iter().filter(|task| who.sees(caller, task) == Some(false) && !may_follow(task));
        unseen.filter_map(|task| Some((task.task_id, truth.get(&task.task_id)?.rev))).collect()
    }

    async fn check_unseen(&mut self, caller: usize, before: Vec<(TaskId, u64)>, by: impl Display) {
        let truth = self.truth().await;
        for (task_id, rev) in before {
            let now = truth.get(&task_id).map(|task| task.rev);
            assert_eq!(now, Some(rev), "{:?} changed {:?} by {by}", self.callers[caller], self.law.task(task_id));
        }
    }

    async fn change(&mut self) {
        let caller = self.anyone();
        let Some(task) = self.any_task() else { return };
        let who = self.callers[caller].clone();
        let (method, of, right, body) = match self.random.u8(..6) {
            0..2 => ("POST", "/cancel", "cancel", Some(json!({"reason": word(task.number, RECORD)}))),
            2..4 => ("POST", "/retry", "retry", None),
            4 => ("DELETE", "", "change", None),
            _ => ("PATCH", "", "change", Some(json!({"priority": self.random.i32(-5..5)}))),
        };
        let path = |id: &str| format!("/api/v1/tasks/{id}{of}");
        let before = self.unseen(caller).await;
        let answer = self.call(caller, method, &path(&task.task_id.to_string()), body.clone()).await;
        self.check_unseen(caller, before, format!("{method} {of} of {task:?}")).await;
        self.sync().await;
        if !who.is_alive {
            return;
        }
        match who.sees(caller, &task).map(|sees| sees && !task.deleted) {
            _ if !who.may(right) => assert_eq!(answer.status, 403, "{who:?} {method} {of}: {answer:?}"),
            Some(true) => assert!(!matches!(answer.status, 403 | 404), "{who:?} {method} {of} {task:?}: {answer:?}"),
            None => {}
            Some(false) => {
                let missing = self.call(caller, method, &path(MISSING), body).await;
                assert_eq!(answer.status, 404, "{who:?} {method} {of} {task:?}: {answer:?}");
                assert_eq!(answer.text.replace(&task.task_id.to_string(), MISSING), missing.text);
            }
        }
    }

    async fn bulk(&mut self) {
        let (caller, scope) = (self.anyone(), self.scope());
        let who = self.callers[caller].clone();
        let (verb, right) =
            *self.random.choice(&[("cancel", "cancel"), ("retry", "retry"), ("delete", "change")]).unwrap();
        let is_dry = self.random.u8(..4) > 0;
        let truth = self.truth().await;
        let fits = |status: Status| match verb {
            "cancel" => !status.is_final(),
            "retry" => matches!(status, Status::Failed | Status::Cancelled),
            _ => status.is_final(),
        };
        let meant = self.expected(caller, &scope);
        let meant = meant.iter().filter(|id| fits(truth[&id.parse().unwrap()].status)).count() as u64;
        let before = self.unseen(caller).await;
        let body = json!({"filter": scope.json(), "dry_run": is_dry});
        let answer = self.call(caller, "POST", &format!("/api/v1/tasks/{verb}"), Some(body.clone())).await;
        self.check_unseen(caller, before, format!("{verb} {body}")).await;
        self.sync().await;
        if who.is_alive {
            match who.may(right) {
                false => assert_eq!(answer.status, 403, "{who:?} {answer:?}"),
                true => {
                    assert_eq!(answer.status, 200, "{who:?} {answer:?}");
                    let told = answer.json()["matched"].as_u64();
                    assert_eq!(told, Some(meant), "{who:?} {verb} {body} of {truth:?}");
                }
            }
        }
    }

    /// What is told of the hub as a whole.
    async fn numbers(&mut self) {
        let caller = self.anyone();
        let who = self.callers[caller].clone();
        for path in
            ["/stats", "/queues", "/limits", "/schedules", "/me", "/task-types", "/workers", "/callbacks", "/audit"]
        {
            let answer = self.call(caller, "GET", &format!("/api/v1{path}"), None).await;
            if answer.status != 200 || who.sees_all() {
                continue;
            }
            let said = answer.json();
            match path {
                "/stats" => {
                    let truth = self.truth().await;
                    let seen = self.expected(caller, &Scope::default());
                    for status in ["waiting", "scheduled", "pending", "running", "completed", "failed", "cancelled"] {
                        let is_it = |id: &&String| truth[&id.parse().unwrap()].status.to_string() == status;
                        let count = seen.iter().filter(is_it).count() as u64;
                        assert_eq!(said["tasks"][status].as_u64().unwrap_or(0), count, "{who:?} {status}: {said}");
                    }
                    assert!(said.get("workers").is_none() && said.get("sockets").is_none(), "{who:?} {said}");
                }
                "/queues" => {
                    let queues = said["queues"].as_array().unwrap();
                    assert!(
                        queues.iter().all(|queue| queue["tasks"].is_null() && queue["name"] == "q"),
                        "{who:?} {said}"
                    );
                }
                "/limits" => {
                    let other = if who.user.as_deref() == Some("ann") { "bob" } else { "ann" };
                    assert!(said["users"].get(other).is_none(), "{who:?} {said}");
                }
                "/workers" | "/callbacks" | "/audit" => panic!("{who:?} is told of {path}"),
                _ => {}
            }
        }
        for queue in ["q", "r", "x.none"] {
            let answer = self.call(caller, "GET", &format!("/api/v1/queues/{queue}"), None).await;
            if who.is_alive && who.may("settings") && who.jti.is_none() && !who.sees_all() {
                assert_eq!(answer.status, if queue == "q" { 200 } else { 404 }, "{who:?} {queue} {answer:?}");
            }
        }
    }

    pub async fn mint(&mut self) {
        let Some(maker) = self.who_may("mint").filter(|_| self.callers.len() < CALLERS_MAX) else { return };
        let who = self.callers[maker].clone();
        let mut allow: Vec<&'static str> = vec!["read"];
        for right in ["cancel", "retry", "submit"] {
            if who.may(right) && self.random.u8(..3) == 0 {
                allow.push(right);
            }
        }
        let scope = self.scope();
        let parts = [("payload", PAYLOAD), ("result", RESULT), ("logs", LOGS)];
        let hide: Vec<_> = parts.into_iter().filter(|_| self.random.u8(..4) == 0).collect();
        let words: Vec<&str> = hide.iter().map(|(word, _)| *word).collect();
        let mut body = json!({"allow": allow, "filter": scope.json(), "hide": words, "ttl_ms": 3_600_000});
        let for_user = matches!(who.role, Role::Operator | Role::Admin) && self.random.bool();
        let user = for_user.then(|| (*self.random.choice(&["ann", "bob"]).unwrap()).to_owned());
        if let Some(user) = &user {
            body["user_id"] = json!(user);
        }
        let answer = self.call(maker, "POST", "/api/v1/tokens", Some(body.clone())).await;
        assert_eq!(answer.status, 201, "{who:?} {body}: {answer:?}");
        let said = answer.json();
        let (token, jti) = (said["token"].as_str().unwrap().to_owned(), said["jti"].as_str().unwrap().to_owned());
        let hides = hide.iter().map(|(_, letter)| *letter).collect();
        self.minted(maker, &token, jti, scope, allow, hides, user);
        // It makes no others.
        let made = self.callers.len() - 1;
        assert_eq!(self.call(made, "POST", "/api/v1/tokens", Some(body)).await.status, 403);
    }

    #[allow(clippy::too_many_arguments, reason = "what a token says")]
    fn minted(
        &mut self,
        maker: usize,
        token: &str,
        jti: String,
        scope: Scope,
        allow: Vec<&'static str>,
        hides: Vec<char>,
        user: Option<String>,
    ) {
        let who = &self.callers[maker];
        let scopes = who.scopes.iter().cloned().chain([scope]).chain(user.as_deref().map(Scope::of_user)).collect();
        self.callers.push(Caller {
            name: format!("{} of {}", self.callers.len(), who.name),
            token: token.to_owned(),
            role: who.role,
            user: user.or_else(|| who.user.clone()),
            scopes,
            hides: hides.into_iter().chain(who.hides.iter().copied()).collect(),
            allow: Some(allow),
            maker: Some(maker),
            jti: Some(jti),
            is_alive: true,
        });
    }

    pub async fn watch(&mut self) {
        let Some(caller) = self.who_may("watch").filter(|_| self.watchers.len() < WATCHERS_MAX) else { return };
        let is_socket = self.random.u8(..3) > 0;
        let task = self.any_task().filter(|_| self.random.u8(..3) == 0 && !self.callers[caller].hides.contains(&LOGS));
        let scope = match &task {
            Some(task) => Scope::of_task(task.task_id),
            None => self.scope(),
        };
        let scope = if is_socket { scope } else { scope.for_query() };
        self.watchers.push(Watcher::new(caller, scope, task.map(|task| task.task_id), is_socket));
        self.open(self.watchers.len() - 1, None).await;
    }

    /// Comes back, from its mark or anew.
    async fn cut_and_resume(&mut self) {
        let at = self.random.usize(..self.watchers.len());
        let watcher = &mut self.watchers[at];
        watcher.cut();
        if self.callers[watcher.caller].is_alive {
            let since = watcher.mark.clone().filter(|_| self.random.u8(..4) > 0);
            self.open(at, since).await;
        }
    }

    /// Goes on from the mark of another, with all that they know; which is right only where both see the same.
    async fn go_on_from_another(&mut self) {
        let from = self.random.usize(..self.watchers.len());
        let Some(caller) = self.who_may("watch") else { return };
        let other = &self.watchers[from];
        let Some(mark) = other.mark.clone().filter(|_| self.watchers.len() < WATCHERS_MAX) else { return };
        let heir = other.heir(caller);
        self.watchers.push(heir);
        self.open(self.watchers.len() - 1, Some(mark)).await;
    }

    /// Another token of the same user.
    async fn refresh(&mut self) {
        let at = self.random.usize(..self.watchers.len());
        let watcher = &self.watchers[at];
        let was = watcher.caller;
        if watcher.was.is_some() || !matches!(watcher.wire, Some(Wire::Socket(_))) {
            return;
        }
        let fits = |who: &&(usize, &Caller)| {
            let (_, who) = who;
            let logs = watcher.logs_of.is_none() || !who.hides.contains(&LOGS);
            who.is_alive && who.may("watch") && who.user == self.callers[was].user && logs
        };
        let fit: Vec<usize> = self.callers.iter().enumerate().filter(|who| fits(&who)).map(|(at, _)| at).collect();
        let Some(caller) = self.random.choice(&fit).copied() else { return };
        let watcher = &mut self.watchers[at];
        (watcher.was, watcher.caller) = (Some(was), caller);
        watcher.counts.refreshes += 1;
        watcher.say(json!({"op": "refresh", "id": 5, "token": self.callers[caller].token})).await;
    }

    async fn revoke(&mut self) {
        let gone = self.random.usize(1..self.callers.len());
        let who = self.callers[gone].clone();
        if !who.is_alive || self.counts.revocations >= 4 {
            return;
        }
        // Somebody waits for a task meanwhile.
        let truth = self.truth().await;
        let waits = |task: &&Facts| {
            who.sees(gone, task) == Some(true) && truth.get(&task.task_id).is_some_and(|task| !task.status.is_final())
        };
        let waits = self.law.tasks.iter().find(waits).filter(|_| who.may("see"));
        let held = waits.map(|task| {
            let (router, token) = (self.router.clone(), who.token.clone());
            let path = format!("/api/v1/tasks/{}?wait_ms=60000", task.task_id);
            tokio::spawn(async move { send(&router, &token, "GET", &path, None, None).await })
        });
        // A call that comes too late is refused as well.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        let path = match &who.jti {
            Some(jti) => format!("/api/v1/tokens/{jti}"),
            None => format!("/api/v1/api-tokens/{}", who.name),
        };
        // Those who may not, do not.
        let other = self.anyone();
        if other != gone && Some(other) != who.maker && self.callers[other].role != Role::Admin {
            let answer = self.call(other, "DELETE", &path, None).await;
            assert!(matches!(answer.status, 401 | 403 | 404), "{:?} ended {who:?}: {answer:?}", self.callers[other]);
        }
        let by = who.maker.filter(|maker| self.callers[*maker].is_alive && self.random.bool()).unwrap_or(ADMIN);
        let answer = self.call(by, "DELETE", &path, None).await;
        assert_eq!(answer.status, 204, "{:?} ends {who:?}: {answer:?}", self.callers[by]);
        self.counts.revocations += 1;
        for caller in &mut self.callers {
            caller.is_alive &= caller.maker != Some(gone);
        }
        self.callers[gone].is_alive = false;
        if let Some(held) = held {
            let answer = tokio::time::timeout(PATIENCE / 6, held).await.expect("it ends soon").unwrap();
            assert_eq!(answer.status, 401, "{who:?} waited, and its token was taken back: {answer:?}");
            self.counts.held_ended += 1;
        }
        for watcher in &mut self.watchers {
            let is_over = |at: usize, callers: &[Caller]| !callers[at].is_alive;
            // Before a renewed token is answered, it is either's.
            while watcher.was.is_some()
                && watcher.wire.is_some()
                && is_over(watcher.caller, &self.callers) | is_over(watcher.was.unwrap(), &self.callers)
            {
                let heard = tokio::time::timeout(PATIENCE / 6, watcher.next(&self.law, &self.callers)).await;
                assert!(heard.is_ok(), "no answer to refresh: {}", watcher.story());
            }
            if !is_over(watcher.caller, &self.callers) {
                continue;
            }
            let was_open = watcher.wire.is_some();
            while watcher.wire.is_some() {
                let heard = tokio::time::timeout(PATIENCE / 6, watcher.next(&self.law, &self.callers)).await;
                assert!(heard.is_ok(), "{:?} watches on: {}", self.callers[watcher.caller], watcher.story());
            }
            assert!(!was_open || watcher.code == Some(4501), "closed with {:?}: {}", watcher.code, watcher.story());
        }
    }

    /// Takes over what became of the tasks.
    async fn sync(&mut self) {
        let truth = self.truth().await;
        let workers: Vec<(usize, String)> = self
            .callers
            .iter()
            .enumerate()
            .filter(|(_, who)| who.role == Role::Worker)
            .map(|(at, who)| (at, who.name.clone()))
            .collect();
        for facts in self.law.tasks.iter_mut().filter(|facts| !facts.deleted) {
            facts.deleted = !truth.contains_key(&facts.task_id);
            let task = truth.get(&facts.task_id).filter(|task| task.status == Status::Running);
            let by = task.and_then(|task| task.worker_id());
            let by = by.and_then(|by| workers.iter().find(|(_, name)| name == by.as_str())).map(|(at, _)| *at);
            facts.holds = by.into_iter().collect();
            facts.held.extend(by);
        }
    }
}
