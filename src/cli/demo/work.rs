//! What the workers of the demo do: they pretend.
//!
//! A task's payload says how long it takes and what goes wrong with it, its type how that looks. Each item that is done
//! becomes a checkpoint, so a task whose worker was killed goes on where it was, at another.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::task::{Counters, Json, Level, Progress};
use crate::worker::{Context, TaskFailure, Worker};

/// How many tasks a worker of the demo runs at once.
pub(super) const SEATS: u32 = 3;
/// How long a task that is cancelled takes to put things away.
const TIDY_UP: Duration = Duration::from_millis(1_500);
/// So long the last words of a worker that is about to die are on their way.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The payload of a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) items: u64,
    pub(super) item_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<Trouble>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Trouble {
    /// The first try fails.
    Flaky,
    /// Every try fails.
    Broken,
    /// The first try stands still, until its time is over.
    Stuck,
    /// The worker dies of it.
    Deadly,
}

/// How tasks of a type look.
pub(super) struct Role {
    pub(super) task_type: &'static str,
    steps: &'static [&'static str],
    /// Its items are counted one by one: some are skipped.
    counts: bool,
    /// A line of its log for each `every` items.
    every: u64,
    line: fn(at: u64, of: u64) -> String,
    /// Why its tries fail, where they do: kind and message.
    fails: (&'static str, &'static str),
}

/// The type whose tasks may kill their worker; it has a worker of its own.
pub(super) const SANDBOXED: &str = "thumbnail.svg";

const ROLES: &[Role] = &[
    Role {
        task_type: "report.monthly",
        steps: &["collect", "compute", "render", "upload"],
        counts: false,
        every: 5,
        line: |at, _| format!("\x1b[2m[report]\x1b[0m section {at}: \x1b[32m{} rows\x1b[0m", at * 1_733 % 9_000),
        fails: ("database", "could not read `invoices`\ndeadlock detected, the transaction was rolled back"),
    },
    Role {
        task_type: "ingest.pdf",
        steps: &["download", "read pages", "embed", "index"],
        counts: true,
        every: 4,
        line: |at, _| match at % 3 {
            0 => format!("\x1b[33mpage {at}: no text layer, reading the image\x1b[0m"),
            _ => format!("page {at}: \x1b[36m{} words\x1b[0m", 180 + at * 37 % 240),
        },
        fails: ("pdf", "page 12: the cross-reference table is damaged"),
    },
    Role {
        task_type: "media.transcode",
        steps: &["probe", "first pass", "second pass", "mux"],
        counts: false,
        every: 8,
        line: |at, of| {
            format!(
                "frame=\x1b[1m{:>5}\x1b[0m fps=48 q=28.0 time=00:{:02}:{:02} left={}",
                at * 48,
                at / 60,
                at % 60,
                of - at
            )
        },
        fails: ("ffmpeg", "exit code 1\nmoov atom not found"),
    },
    Role {
        task_type: "train.model",
        steps: &["load", "train", "evaluate"],
        counts: false,
        every: 2,
        line: |at, of| {
            let loss = 2.4 / (1.0 + at as f64 / 12.0);
            format!(
                "\x1b[35mepoch {at}/{of}\x1b[0m  loss \x1b[33m{loss:.4}\x1b[0m  accuracy \x1b[32m{:.1}%\x1b[0m",
                98.0 - loss * 20.0
            )
        },
        fails: ("cuda", "out of memory: tried to allocate 2.31 GiB"),
    },
    Role {
        task_type: "build.image",
        steps: &["resolve", "compile", "test", "push"],
        counts: false,
        every: 3,
        line: |at, of| match at * 3 / of.max(1) {
            0 | 1 => format!("   \x1b[1;32mCompiling\x1b[0m service-{at} v0.{at}.0"),
            _ => format!("test api::case_{at} ... \x1b[32mok\x1b[0m"),
        },
        fails: ("exit", "exit code 101\ntest api::login ... FAILED: expected 200, got 502"),
    },
    Role {
        task_type: "mail.send",
        steps: &["send"],
        counts: false,
        every: 1,
        line: |at, _| format!("> RCPT TO:<reader-{at}@example.org>  \x1b[32m250 ok\x1b[0m"),
        fails: ("smtp", "451 4.7.1 try again later"),
    },
    Role {
        task_type: "webhook.deliver",
        steps: &["deliver"],
        counts: false,
        every: 1,
        line: |_, _| "POST https://shop.example/hooks \x1b[31m503\x1b[0m".into(),
        fails: ("http", "https://shop.example/hooks answered 503 Service Unavailable"),
    },
    Role {
        task_type: SANDBOXED,
        steps: &["parse", "draw"],
        counts: false,
        every: 2,
        line: |at, _| format!("layer {at} drawn"),
        fails: ("svg", "unexpected end of file"),
    },
];

/// A worker of the hub at this address, with the types it is for.
pub(super) fn worker(hub: &str, worker_id: &str) -> Worker {
    let sandbox = worker_id.starts_with(super::cast::SANDBOX);
    let roles = ROLES.iter().filter(|role| (role.task_type == SANDBOXED) == sandbox);
    let worker = Worker::new(hub).id(worker_id).queues(["*"]).concurrency(if sandbox { 1 } else { SEATS });
    roles.fold(worker, |worker, role| worker.register(role.task_type, move |ctx| perform(role, ctx)))
}

async fn perform(role: &'static Role, ctx: Context) -> Result<Json, TaskFailure> {
    let piece: Piece = ctx.payload()?;
    // What fails every time fails from the start.
    let keeps = piece.trouble != Some(Trouble::Broken);
    let first = ctx.checkpoint::<u64>()?.filter(|_| keeps).unwrap_or(0).min(piece.items);
    match (ctx.attempt(), first) {
        (1, _) => ctx.log(Level::Info, format!("\x1b[1m{}\x1b[0m: {} items", role.task_type, piece.items)),
        (attempt, 0) => ctx.log(Level::Info, format!("attempt {attempt}, from the start")),
        (attempt, at) => {
            ctx.log(Level::Info, format!("attempt {attempt} goes on at item {at}, where the last one was"))
        }
    }
    for at in first..piece.items {
        if at * 5 >= piece.items * 3 || at + 1 == piece.items {
            go_wrong(role, &piece, &ctx).await?;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(piece.item_ms)) => {}
            () = ctx.cancelled() => {
                ctx.log(Level::Warn, "asked to stop: putting things away");
                tokio::time::sleep(TIDY_UP).await;
                return Err(TaskFailure::new("cancelled", "stopped when asked to"));
            }
        }
        let done = at + 1;
        if done % role.every == 0 {
            ctx.log(Level::Info, (role.line)(done, piece.items));
        }
        ctx.progress(progress(role, done, piece.items));
        ctx.set_checkpoint(&done)?;
    }
    Ok(Json::of(&serde_json::json!({ "items": piece.items, "attempt": ctx.attempt() }))?)
}

fn progress(role: &Role, done: u64, items: u64) -> Progress {
    let step = role.steps[(done * role.steps.len() as u64 / (items + 1)) as usize];
    let skipped = done / 11;
    Progress {
        step: Some(step.into()),
        message: role.counts.then(|| format!("page {done}")),
        counters: role.counts.then(|| Counters { success: done - skipped - done / 17, failed: done / 17, skipped }),
        ..Progress::of(done, items)
    }
}

/// What is to go wrong with this task, when three fifths of it are done.
async fn go_wrong(role: &Role, piece: &Piece, ctx: &Context) -> Result<(), TaskFailure> {
    let first = ctx.attempt() == 1;
    match piece.trouble {
        Some(Trouble::Broken) => {}
        Some(Trouble::Flaky) if first => {}
        Some(Trouble::Stuck) if first => {
            ctx.log(Level::Warn, "waiting for a lock…");
            ctx.cancelled().await;
        }
        Some(Trouble::Deadly) => {
            ctx.log(Level::Error, "\x1b[1;31mout of memory\x1b[0m: the kernel will end this worker");
            tokio::time::sleep(LAST_WORDS).await;
            // SAFETY: ends this process, which is what the task is for.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        _ => return Ok(()),
    }
    let (kind, message) = role.fails;
    ctx.log(Level::Error, format!("\x1b[31m{kind}\x1b[0m: {}", message.lines().next_back().unwrap_or_default()));
    Err(TaskFailure::new(kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_every_role_is_shown() {
        for role in ROLES {
            let shown = |done| progress(role, done, 20).step.unwrap();
            assert_eq!(shown(1), role.steps[0], "{}", role.task_type);
            assert_eq!(shown(20), role.steps[role.steps.len() - 1], "{}", role.task_type);
            let counted = progress(role, 20, 20).counters.map(|all| all.success + all.failed + all.skipped);
            assert!(counted.is_none_or(|counted| counted == 20), "{}", role.task_type);
        }
    }
}
