//! Progress bars in a terminal: one for each running task, and a line above them for each that ended.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::show;
use crate::task::{Status, TaskId, TaskView};

/// Bars shown at once; a terminal has few lines more.
const BARS_MAX: usize = 16;
/// A bar is this many steps long: finer than any terminal shows.
const STEPS: u64 = 1_000;

/// Progress bars on standard error; nothing where that is no terminal.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    of_task: HashMap<TaskId, Bar>,
    /// Says how many run without a bar.
    more: ProgressBar,
    /// Running tasks without a bar.
    hidden: HashSet<TaskId>,
    /// Below the others: how far all is.
    total: Option<ProgressBar>,
    endings: Endings,
}

/// What is told of tasks that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endings {
    /// A line of each.
    All,
    /// A line of each that did not complete.
    Bad,
}

#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    /// It has a percentage; else it only turns.
    measured: bool,
}

impl Bars {
    /// No bars yet.
    pub fn new(endings: Endings) -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(15));
        let more = ProgressBar::new_spinner().with_style(style("{wide_msg}"));
        Bars { all, of_task: HashMap::new(), more, hidden: HashSet::new(), total: None, endings }
    }

    /// Shows a task as it stands now. One that ended leaves a line.
    pub fn set(&mut self, task: &TaskView) {
        if task.status != Status::Running {
            let was_shown = self.forget(&task.task_id);
            let is_told = self.endings == Endings::All || task.status != Status::Completed;
            if was_shown && is_told && task.status.is_final() {
                self.note(&ending(task));
            }
            return;
        }
        if !self.of_task.contains_key(&task.task_id) {
            if self.of_task.len() >= BARS_MAX {
                self.hidden.insert(task.task_id);
                return self.count();
            }
            let bar = self.add(ProgressBar::new(STEPS));
            bar.set_style(style("{spinner} {prefix}  {wide_msg}"));
            bar.enable_steady_tick(Duration::from_millis(120));
            self.hidden.remove(&task.task_id);
            self.of_task.insert(task.task_id, Bar { bar, measured: false });
        }
        let Some(Bar { bar, measured }) = self.of_task.get_mut(&task.task_id) else { return };
        let percentage = task.progress.as_ref().and_then(|progress| progress.percentage);
        if percentage.is_some() != *measured {
            *measured = percentage.is_some();
            let bar_style = "{spinner} {prefix}  {bar:24} {percent:>3}%  {wide_msg}";
            bar.set_style(style(if *measured { bar_style } else { "{spinner} {prefix}  {wide_msg}" }));
        }
        bar.set_position((percentage.unwrap_or(0.0) / 100.0 * STEPS as f64) as u64);
        bar.set_prefix(format!("{:32}", show::cut(&show::title(task), 32)));
        let mut words = task.progress.as_ref().map(|tick| show::progress(tick, false)).unwrap_or_default();
        if task.cancel_requested_at.is_some() {
            words = format!("asked to stop · {words}");
        }
        bar.set_message(words);
    }

    /// Takes a task away without a word. Returns whether it was among those that run.
    pub fn forget(&mut self, task_id: &TaskId) -> bool {
        if let Some(Bar { bar, .. }) = self.of_task.remove(task_id) {
            bar.finish_and_clear();
            self.all.remove(&bar);
            return true;
        }
        let hidden = self.hidden.remove(task_id);
        self.count();
        hidden
    }

    /// Writes a line above the bars.
    pub fn note(&self, line: &str) {
        // Where there is no terminal there is nobody to tell.
        let _ = self.all.println(line);
    }

    /// Takes all bars away.
    pub fn clear(&mut self) {
        for (_, Bar { bar, .. }) in self.of_task.drain() {
            bar.finish_and_clear();
        }
        self.hidden.clear();
        self.total = None;
        let _ = self.all.clear();
    }

    /// Says below the bars how far all is.
    pub fn total(&mut self, done: u64, of: u64, words: String) {
        let total = self.total.get_or_insert_with(|| {
            let bar = ProgressBar::new(of).with_style(style("  {pos} of {len}  {bar:40}  {wide_msg}"));
            self.all.add(bar)
        });
        total.set_length(of);
        total.set_position(done);
        total.set_message(words);
    }

    /// Adds a bar below the others, above the total.
    fn add(&self, bar: ProgressBar) -> ProgressBar {
        match &self.total {
            Some(total) => self.all.insert_before(total, bar),
            None => self.all.add(bar),
        }
    }

    fn count(&mut self) {
        match self.hidden.len() {
            0 => {
                self.more.finish_and_clear();
                self.all.remove(&self.more);
            }
            n => {
                if self.more.is_finished() || self.more.message().is_empty() {
                    self.more = self.add(ProgressBar::new_spinner().with_style(style("{wide_msg}")));
                }
                self.more.set_message(format!("  and {n} more running"));
            }
        }
    }
}

/// A line for a task that ended.
pub(super) fn ending(task: &TaskView) -> String {
    let mark = match task.status {
        Status::Completed => "✓",
        Status::Failed => "✗",
        _ => "–",
    };
    let took = task.started_at.zip(task.finished_at).map(|(start, end)| show::span(end.millis_since(start)));
    let mut words = format!("{mark} {:32}  {}", show::cut(&show::title(task), 32), task.status);
    words.extend(took.map(|took| format!(" after {took}")));
    if let Some(error) = &task.error {
        let line = error.message.lines().next_back().unwrap_or_default();
        words.push_str(&format!(": {} {}", show::plain(&error.kind), show::plain(line)));
    }
    words
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates are ours");
    style.progress_chars("━╸─").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}
