//! What happened, as a number always and as text when it is wanted.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use taskhub::engine::{Answer, Command, Refusal};
use taskhub::task::{Change, ChangeKind, TaskId};

/// Shared by all parts of one world.
#[derive(Clone)]
pub struct Trace {
    hash: Rc<Cell<u64>>,
    lines: Option<Rc<RefCell<Vec<String>>>>,
}

impl Trace {
    /// Keeps nothing but the hash.
    pub fn silent() -> Trace {
        Trace { hash: Rc::new(Cell::new(0xcbf2_9ce4_8422_2325)), lines: None }
    }

    /// Keeps the text of every line as well.
    pub fn kept() -> Trace {
        Trace { lines: Some(Rc::default()), ..Trace::silent() }
    }

    /// Notes something that happened. `text` is made only if it is kept.
    pub fn note<T: fmt::Display>(&self, text: impl FnOnce() -> T) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().push(text().to_string());
        }
    }

    /// Takes a number into the hash.
    pub fn mix(&self, number: u64) {
        self.hash.set((self.hash.get().rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }

    pub fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// The last lines.
    pub fn end(&self, lines_max: usize) -> String {
        let Some(lines) = &self.lines else { return String::new() };
        let lines = lines.borrow();
        let skipped = lines.len().saturating_sub(lines_max);
        let mut text = if skipped > 0 { format!("… {skipped} lines before\n") } else { String::new() };
        for line in &lines[skipped..] {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// The end of an id, which tells it from others.
pub fn short(task_id: TaskId) -> String {
    task_id.to_string().split_off(28)
}

/// A command in few words.
pub fn command(command: &Command) -> String {
    match command {
        Command::Submit { submission, key } => {
            let key = key.map_or(0, |key| key.key >> 112);
            let tasks: Vec<_> =
                submission.tasks().iter().map(|new| (&new.task_type, &new.queue, new.priority)).collect();
            format!("submit key {key} {tasks:?}")
        }
        Command::Cancel { task_id, .. } => format!("cancel {}", short(*task_id)),
        Command::Retry { task_id, .. } => format!("retry {}", short(*task_id)),
        Command::Delete { task_id } => format!("delete {}", short(*task_id)),
        Command::Hello(hello) => {
            let held = hello.holding.as_deref();
            let holding: Option<Vec<_>> =
                held.map(|held| held.iter().map(|(id, attempt)| (short(*id), *attempt)).collect());
            format!("hello {} session {} ×{} {holding:?}", hello.worker_id, hello.session, hello.concurrency)
        }
        Command::Report { task_id, attempt, report } => {
            let mut report = format!("{report:?}");
            report.truncate(60);
            format!("report {} attempt {attempt} {report}", short(*task_id))
        }
        Command::Expire { task_ids } => {
            format!("expire {:?}", task_ids.iter().copied().map(short).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

/// An answer in few words.
pub fn result(result: &Result<Answer, Refusal>) -> String {
    match result {
        Ok(Answer::Submitted { tasks, .. }) => {
            format!("submitted {:?}", tasks.iter().map(|task| short(task.task_id)).collect::<Vec<_>>())
        }
        Ok(Answer::Task(task)) => format!("{} {}", short(task.task_id), task.status),
        Ok(Answer::Workers(workers)) => format!("{} workers", workers.len()),
        other => format!("{other:?}"),
    }
}

/// A step in few words.
pub fn change(change: &Change) -> String {
    let Change { rev, kind, task, note, .. } = change;
    let what = match kind {
        ChangeKind::Transition(event) => event.as_str(),
        ChangeKind::Gone => "gone",
    };
    let (attempt, tries, crashes) = (task.attempt, task.tries, task.crashes);
    let worker = task.worker_id().map_or("-", |worker_id| worker_id.as_str());
    let note = note.as_deref().unwrap_or_default();
    format!("rev {rev} {} {what}: {} {attempt}/{tries}/{crashes} {worker} {note}", short(task.task_id), task.status)
}
