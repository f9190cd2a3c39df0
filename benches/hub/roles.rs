//! What this program does in the processes it starts beside the hub. Each role has one thread (the bare feed has more
//! to send with), takes its orders as arguments, and says what came out as lines on stdout.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use taskhub::worker::{Context, TaskFailure, Worker};
use tokio::io::AsyncBufReadExt;

use crate::connection::{Connection, last_task_id};
use crate::process::{Process, cpu_of_this_thread};
use crate::{Outcome, bare_feed, crowd, flood, floor, progress};

pub async fn run(role: &str, arguments: &[String]) -> Outcome {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (role, &arguments[..]) {
        ("worker", [url, id, concurrency, ending]) => worker(url, id, concurrency.parse()?, ending).await,
        ("submitter", [address, flood]) => submitter(address.parse()?, serde_json::from_str(flood)?).await,
        ("ticker", [address, tasks, ticks]) => progress::ticker(address.parse()?, tasks.parse()?, ticks.parse()?).await,
        ("watchers", [address, watchers]) => progress::watchers(address.parse()?, watchers.parse()?).await,
        ("crowd", [address, token]) => crowd::crowd(address.parse()?, token).await,
        ("bare-feed", [event, threads]) => bare_feed::bare_feed(event, threads.parse()?).await,
        ("flood", [address, kind]) => flood::flood(address.parse()?, kind).await,
        ("bare-http", []) => floor::bare_http().await,
        ("bare-echo", []) => floor::bare_echo().await,
        _ => Err(format!("no such role: {role} {arguments:?}").into()),
    }
}

/// Says a line to whoever started this process.
pub fn say(line: impl std::fmt::Display) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Waits for a line from whoever started this process.
pub async fn until_told() -> Outcome {
    let mut line = String::new();
    tokio::io::BufReader::new(tokio::io::stdin()).read_line(&mut line).await?;
    Ok(())
}

/// Nanoseconds of the clock that all processes share.
pub fn now_ns() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64)
}

/// The library's worker, with functions that do nothing:
/// * `noop` completes;
/// * `clock` answers how many nanoseconds after the time in its payload it started;
/// * `hold` never ends if this worker's `ending` is `never`, else completes.
async fn worker(url: &str, id: &str, concurrency: u32, ending: &str) -> Outcome {
    let never = ending == "never";
    Worker::new(url)
        .id(id)
        .concurrency(concurrency)
        .register("noop", |_| async { Ok::<_, TaskFailure>(()) })
        .register("clock", |ctx: Context| async move {
            let started = now_ns();
            let sent: u64 = ctx.payload()?;
            Ok::<_, TaskFailure>(started.saturating_sub(sent))
        })
        .register("hold", move |_| async move {
            if never {
                std::future::pending::<()>().await;
            }
            Ok::<_, TaskFailure>(())
        })
        .run(std::future::pending())
        .await?;
    Ok(())
}

/// A flood of submissions.
#[derive(Clone, Serialize, Deserialize)]
pub struct Flood {
    pub connections: usize,
    pub tasks: usize,
    /// Tasks a call; one at a time goes to `POST /tasks`.
    pub batch: usize,
    /// A task, as JSON.
    pub task: String,
}

/// What became of it.
#[derive(Serialize, Deserialize)]
pub struct Flooded {
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// The task that was acknowledged last.
    pub last_task_id: String,
}

impl Flood {
    /// From a process of its own.
    pub async fn run(&self, address: SocketAddr) -> Outcome<Flooded> {
        let mut process = Process::role("submitter", &[&address.to_string(), &serde_json::to_string(self)?])?;
        Ok(serde_json::from_str(&process.hear()?)?)
    }
}

async fn submitter(address: SocketAddr, flood: Flood) -> Outcome {
    let (path, body) = match flood.batch {
        1 => ("/api/v1/tasks", flood.task.clone()),
        batch => ("/api/v1/tasks/batch", format!(r#"{{"tasks":[{}]}}"#, vec![flood.task.as_str(); batch].join(","))),
    };
    let mut connections = Vec::new();
    for _ in 0..flood.connections {
        connections.push(Connection::open(address).await?);
    }
    let left = Rc::new(Cell::new(flood.tasks / flood.batch));
    let last = Rc::new(RefCell::new(String::new()));
    let body: Rc<[u8]> = body.into_bytes().into();
    let (begun, cpu) = (Instant::now(), cpu_of_this_thread()?);
    let local = tokio::task::LocalSet::new();
    let submit = |mut connection: Connection| {
        let (left, last, body) = (left.clone(), last.clone(), body.clone());
        local.spawn_local(async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let ends = left.get() == 0;
                let answer = connection.post(path, &body).await.map_err(|error| error.to_string())?;
                if ends {
                    *last.borrow_mut() = last_task_id(answer).map_err(|error| error.to_string())?;
                }
            }
            Ok::<_, String>(())
        })
    };
    let submissions: Vec<_> = connections.into_iter().map(submit).collect();
    local
        .run_until(async {
            for submission in submissions {
                submission.await??;
            }
            Outcome::Ok(())
        })
        .await?;
    let flooded = Flooded {
        seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: (cpu_of_this_thread()? - cpu).as_secs_f64(),
        last_task_id: last.take(),
    };
    say(serde_json::to_string(&flooded)?)
}

/// Between samples: an idle hub is what they are taken from.
pub const PAUSE: Duration = Duration::from_millis(8);
