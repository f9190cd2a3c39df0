//! Tasks in a terminal: counts, a bar for each that runs, what comes next, and a line above them for each that ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::canvas::Canvas;
use super::show;
use crate::task::{Status, TaskId, TaskView, Timestamp};
use crate::wire::{Stats, TaskCounts};

/// Bars shown at once; more are counted.
const BARS_MAX: usize = 16;
/// Lines of a terminal that are not for bars: the counts, what comes next, how far all is, and a few that scrolled.
const LINES_ELSE: usize = 6;
/// Two drawings are so far apart, at least.
const PAUSE: Duration = Duration::from_millis(100);
/// Times go on without any news.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Titles of the tasks that are next.
const NEXT_MAX: usize = 5;

/// Tasks on standard error; nothing where that is no terminal.
#[derive(Debug)]
pub struct Bars {
    canvas: Canvas,
    picture: Picture,
    endings: Endings,
    /// Lines to be told with the next drawing.
    notes: Vec<String>,
    drawn_at: Option<Instant>,
    changed: bool,
}

/// What is told of tasks that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endings {
    /// A line of each.
    All,
    /// A line of each that did not complete.
    Bad,
}

/// What there is to draw.
#[derive(Debug, Default)]
pub(super) struct Picture {
    rows: BTreeMap<TaskId, Row>,
    /// The first line counts the tasks; else there are bars alone.
    counts: bool,
    /// There are more tasks than are known here.
    truncated: bool,
    /// Why what is shown may be old.
    connection: String,
    /// The hub's own counts, where all of its tasks are meant.
    of_hub: Option<TaskCounts>,
    /// How many ended, as far as they were seen to.
    ended: TaskCounts,
    total: Option<Total>,
    /// The widest title so far: the columns move apart, and never back.
    title_width: usize,
}

#[derive(Debug)]
struct Total {
    done: u64,
    of: u64,
    words: String,
}

/// What is shown of an unfinished task.
#[derive(Debug)]
struct Row {
    status: Status,
    title: String,
    priority: i8,
    since: Timestamp,
    run_at: Option<Timestamp>,
    percentage: Option<f64>,
    words: String,
}

impl Row {
    fn of(task: &TaskView) -> Row {
        let progress = task.progress.as_ref().filter(|_| task.status == Status::Running);
        let mut words = progress.map(|tick| show::progress(tick, false)).unwrap_or_default();
        if task.cancel_requested_at.is_some() {
            words = format!("asked to stop · {words}").trim_end_matches([' ', '·']).to_owned();
        }
        Row {
            status: task.status,
            title: show::title(task),
            priority: task.priority,
            since: task.started_at.unwrap_or(task.updated_at),
            run_at: task.run_at,
            percentage: progress.and_then(|progress| progress.percentage),
            words: show::one_line(&words),
        }
    }
}

impl Bars {
    /// No bars yet.
    pub fn new(endings: Endings) -> Bars {
        Bars {
            canvas: Canvas::new(),
            picture: Picture::default(),
            endings,
            notes: Vec::new(),
            drawn_at: None,
            changed: false,
        }
    }

    /// The same with a line of counts, and the tasks that come next.
    pub(super) fn with_counts(mut self) -> Bars {
        self.picture = Picture::with_counts();
        self
    }

    /// Shows a task as it stands now. One that ended leaves a line.
    pub fn set(&mut self, task: &TaskView) {
        let had = self.picture.set(task);
        let is_told = self.endings == Endings::All || task.status != Status::Completed;
        if had.is_some_and(|before| before == Status::Running) && is_told && task.status.is_final() {
            let width = self.canvas.size().map_or(usize::MAX, |(width, _)| width);
            self.notes.push(ending(task, width));
        }
        self.change();
    }

    /// Takes a task away without a word.
    pub fn forget(&mut self, task_id: &TaskId) {
        self.picture.rows.remove(task_id);
        self.change();
    }

    /// Shows these tasks and no others.
    pub(super) fn replace<'a>(&mut self, tasks: impl Iterator<Item = &'a TaskView>, truncated: bool) {
        self.picture.rows.clear();
        self.picture.truncated = truncated;
        tasks.for_each(|task| {
            self.picture.set(task);
        });
        self.change();
    }

    /// Takes the hub's own counts.
    pub(super) fn stats(&mut self, stats: &Stats) {
        self.picture.of_hub = Some(stats.tasks);
        self.change();
    }

    /// Says before the counts how the connection stands; nothing while all is well.
    pub(super) fn connection(&mut self, words: String) {
        self.picture.connection = words;
        self.change();
    }

    /// Writes a line above the bars.
    pub fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
        self.change();
    }

    /// Says below the bars how far all is.
    pub fn total(&mut self, done: u64, of: u64, words: String) {
        self.picture.total = Some(Total { done, of, words });
        self.change();
    }

    /// Takes all bars away.
    pub fn clear(&mut self) {
        self.picture = Picture { counts: self.picture.counts, ..Picture::default() };
        self.canvas.draw(&std::mem::take(&mut self.notes), &[]);
        self.changed = false;
    }

    /// Draws what has changed, and the times that went on. To be called a few times a second.
    pub fn tick(&mut self) {
        let rested = self.drawn_at.map_or(Duration::MAX, |at| at.elapsed());
        if rested >= PAUSE_MAX || (self.changed && rested >= PAUSE) {
            self.draw();
        }
    }

    /// Waits until it is time to [`tick`](Self::tick).
    pub async fn pause() {
        tokio::time::sleep(PAUSE).await;
    }

    fn change(&mut self) {
        self.changed = true;
        if self.drawn_at.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.draw();
        }
    }

    fn draw(&mut self) {
        self.drawn_at = Some(Instant::now());
        self.changed = false;
        let notes = std::mem::take(&mut self.notes);
        if let Some(size) = self.canvas.size() {
            let lines = self.picture.lines(size, Timestamp::now());
            self.canvas.draw(&notes, &lines);
        }
    }
}

impl Picture {
    pub(super) fn with_counts() -> Picture {
        Picture { counts: true, ..Picture::default() }
    }

    /// Takes a task as it stands. Returns how it stood before.
    pub(super) fn set(&mut self, task: &TaskView) -> Option<Status> {
        let before = match task.status.is_final() {
            true => self.rows.remove(&task.task_id),
            false => self.rows.insert(task.task_id, Row::of(task)),
        };
        if before.is_some() {
            match task.status {
                Status::Completed => self.ended.completed += 1,
                Status::Failed => self.ended.failed += 1,
                Status::Cancelled => self.ended.cancelled += 1,
                _ => {}
            }
        }
        before.map(|row| row.status)
    }

    /// The lines for a terminal of these columns and lines. None is wider than it.
    pub(super) fn lines(&mut self, (width, height): (usize, usize), now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend((!self.connection.is_empty()).then(|| self.connection.clone()));
        if self.counts {
            lines.push(self.heading());
        }
        let mut running: Vec<_> = self.rows.iter().filter(|(_, row)| row.status == Status::Running).collect();
        running.sort_by_key(|(task_id, row)| (row.since, **task_id));
        let shown = running.len().min(BARS_MAX).min(height.saturating_sub(LINES_ELSE).max(1));
        let columns = Columns::of(width);
        let widest = running[..shown].iter().map(|(_, row)| show::shown_width(&row.title)).max().unwrap_or(0);
        let title_width = self.title_width.max(widest).min(columns.title_max);
        lines.extend(running[..shown].iter().map(|(_, row)| columns.line(row, title_width, now)));
        if shown < running.len() {
            lines.push(format!("and {} more running", running.len() - shown));
        }
        self.title_width = title_width;
        if self.counts {
            lines.extend(self.next(now));
        }
        if let Some(Total { done, of, words }) = &self.total {
            let bar = bar(*done as f64 / (*of).max(1) as f64, columns.bar * 2);
            lines.push(format!("{done} of {of}  {bar}  {words}"));
        }
        lines.iter().map(|line| show::cut(line, width.saturating_sub(1))).collect()
    }

    /// `3 running · 12 pending · 40 completed`
    fn heading(&self) -> String {
        let here = |status| self.rows.values().filter(|row| row.status == status).count() as u64;
        let ended = self.of_hub.unwrap_or(self.ended);
        let mut counts = vec![
            (here(Status::Running), "running"),
            (here(Status::Pending), "pending"),
            (here(Status::Scheduled), "scheduled"),
            (here(Status::Waiting), "waiting"),
        ];
        if let (true, Some(of_hub)) = (self.truncated, &self.of_hub) {
            let of_hub = [of_hub.running, of_hub.pending, of_hub.scheduled, of_hub.waiting];
            counts.iter_mut().zip(of_hub).for_each(|((count, _), of_hub)| *count = of_hub);
        }
        let more = if self.truncated && self.of_hub.is_none() { "+" } else { "" };
        let unfinished = counts.into_iter().map(|(count, word)| (format!("{count}{more}"), count, word));
        let ended = [(ended.completed, "completed"), (ended.failed, "failed"), (ended.cancelled, "cancelled")];
        let ended = ended.into_iter().map(|(count, word)| (count.to_string(), count, word));
        // What runs and what waits is told when it is nothing, too.
        let told =
            unfinished.chain(ended).filter(|(_, count, word)| *count > 0 || matches!(*word, "running" | "pending"));
        told.map(|(count, _, word)| format!("{count} {word}")).collect::<Vec<_>>().join(" · ")
    }

    /// The tasks that start next, as far as that is known.
    fn next(&self, now: Timestamp) -> Vec<String> {
        if self.truncated {
            return Vec::new();
        }
        let of = |status| self.rows.iter().filter(move |(_, row)| row.status == status);
        let mut pending: Vec<_> = of(Status::Pending).collect();
        pending.sort_by_key(|(task_id, row)| (std::cmp::Reverse(row.priority), **task_id));
        let titles = pending.iter().take(NEXT_MAX).map(|(_, row)| row.title.as_str()).collect::<Vec<_>>().join(" · ");
        let mut lines = Vec::new();
        if !titles.is_empty() {
            lines.push(format!("next: {titles}"));
        }
        let soonest = of(Status::Scheduled).filter_map(|(_, row)| Some((row.run_at?, row))).min_by_key(|(at, _)| *at);
        lines.extend(soonest.map(|(at, row)| format!("in {}: {}", show::span(at.millis_since(now)), row.title)));
        lines
    }
}

/// The columns of a line: title, bar, percentage, and what it says.
struct Columns {
    title_max: usize,
    bar: usize,
}

/// ` 45%`
const PERCENT: usize = 4;

impl Columns {
    /// Two fifths of what bar and percentage leave are for what the task says.
    fn of(width: usize) -> Columns {
        let bar = match width {
            0..70 => 10,
            70..100 => 16,
            _ => 24,
        };
        let room = width.saturating_sub(bar + 1 + PERCENT + 4 + 1);
        Columns { title_max: (room * 3 / 5).max(8), bar }
    }

    fn line(&self, row: &Row, title_width: usize, now: Timestamp) -> String {
        let title = show::exactly(&row.title, title_width);
        let line = match row.percentage {
            Some(percentage) => {
                format!("{title}  {} {percentage:>3.0}%  {}", bar(percentage / 100.0, self.bar), row.words)
            }
            None if row.words.is_empty() => format!("{title}  for {}", show::span(now.millis_since(row.since))),
            None => format!("{title}  {}", row.words),
        };
        line.trim_end().to_owned()
    }
}

/// A bar of `width` columns, as far as `part` of it.
fn bar(part: f64, width: usize) -> String {
    let halves = (part.clamp(0.0, 1.0) * (2 * width) as f64) as usize;
    let (whole, half) = (halves / 2, halves % 2);
    format!("{}{}{}", "━".repeat(whole), "╸".repeat(half), "─".repeat(width - whole - half))
}

/// A line for a task that ended, for a terminal of this width.
pub(super) fn ending(task: &TaskView, width: usize) -> String {
    let mark = match task.status {
        Status::Completed => "✓",
        Status::Failed => "✗",
        _ => "–",
    };
    let took = task.started_at.zip(task.finished_at).map(|(start, end)| show::span(end.millis_since(start)));
    let title = show::cut(&show::title(task), (width / 2).max(20));
    let pad = 32.min(width / 3).saturating_sub(show::shown_width(&title));
    let mut words = format!("{mark} {title}{:pad$}  {}", "", task.status);
    words.extend(took.map(|took| format!(" after {took}")));
    words.extend(task.error.as_ref().map(|error| format!(": {}", show::failure(error))));
    words
}
