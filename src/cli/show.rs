//! How things look to people: tables, times, colours.

use std::fmt::Write;
use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::task::{AHEAD_MAX, Cancel, Failure, Progress, Status, TaskId, TaskView, Timestamp, WaitsFor};

/// Text of others, made harmless for a terminal: no control characters, no colours.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' if chars.peek() == Some(&'[') => {
                chars.next();
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\t' => out.push('\t'),
            c if c.is_control() => out.push(if c == '\n' { ' ' } else { '\u{fffd}' }),
            c => out.push(c),
        }
    }
    out
}

/// Whether standard output takes colours.
pub(super) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The word of a status in its colour. Colour is never alone: the word says the same.
pub(super) fn status(status: Status, width: usize, colours: bool) -> String {
    let word = format!("{:width$}", status.as_str());
    if !colours {
        return word;
    }
    let code = match status {
        Status::Running => "36",
        Status::Completed => "32",
        Status::Failed => "31",
        Status::Cancelled => "33",
        Status::Waiting | Status::Scheduled | Status::Pending => "2",
    };
    format!("\x1b[{code}m{word}\x1b[0m")
}

/// What a task is called.
pub(super) fn title(task: &TaskView) -> String {
    one_line(task.title.as_deref().unwrap_or(task.task_type.as_str()))
}

/// Text of others where a line has columns.
pub(super) fn one_line(text: &str) -> String {
    plain(text).replace('\t', " ")
}

/// The part of an id that tells tasks of one moment apart; the page shows the same.
pub(super) fn short_id(task: &TaskView) -> String {
    let id = task.task_id.to_string();
    id[id.len() - 8..].to_owned()
}

/// What its worker made of a request to stop, where that says more than the status.
pub(super) fn stopping(task: &TaskView) -> Option<&'static str> {
    match task.cancel {
        Some(Cancel::Delivered) if !task.status.is_final() => Some("its worker was told"),
        Some(Cancel::Ignored) => Some("its worker did not stop"),
        _ => None,
    }
}

/// Why a task failed, or its last try did: the kind and the last line, which in a traceback says most.
pub(super) fn failure(failure: &Failure) -> String {
    let line = failure.message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    one_line(&format!("{} {}", failure.kind, line.trim())).trim_end().to_owned()
}

/// A span in its largest unit or two: `850 ms`, `3.2 s`, `4 m 10 s`, `5 h 2 m`, `3 d`.
pub(super) fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    let two = |a: u64, unit: &str, b: u64, small: &str| match b {
        0 => format!("{a} {unit}"),
        b => format!("{a} {unit} {b} {small}"),
    };
    match seconds {
        0 => format!("{millis} ms"),
        1..10 => format!("{}.{} s", seconds, millis % 1_000 / 100),
        10..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// How long ago, in one short unit: `now`, `12s`, `5m`, `3h`, `2d`.
pub(super) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.millis_since(at) / 1_000;
    match seconds {
        0 => "now".into(),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `2026-11-21 14:15:00` of a time, in UTC.
pub(super) fn moment(at: Timestamp) -> String {
    at.to_string()[..19].replace('T', " ")
}

/// A number as people write it: 3, 4.5.
pub(super) fn number(n: f64) -> String {
    if n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.1}") }
}

/// How far a task is, in few characters: `45%`, `12/20`, or nothing.
pub(super) fn short_progress(progress: Option<&Progress>) -> String {
    let Some(progress) = progress else { return String::new() };
    match (progress.percentage, progress.current) {
        (Some(percentage), _) => format!("{percentage:.0}%"),
        (None, Some(current)) => number(current),
        _ => plain(progress.step.as_deref().unwrap_or_default()),
    }
}

/// How far a task is, in words: `45% · 9 of 20 · embedding · page 9 · 1 failed · 12 s left`.
pub(super) fn progress(progress: &Progress, with_percentage: bool) -> String {
    let mut parts = Vec::new();
    if with_percentage {
        parts.extend(progress.percentage.map(|percentage| format!("{}%", number(percentage))));
    }
    parts.extend(match (progress.current, progress.total) {
        // Large numbers are bytes or the like, which a message says better.
        (Some(_), Some(total)) if total >= 100_000.0 && progress.message.is_some() => None,
        (Some(current), Some(total)) => Some(format!("{} of {}", number(current), number(total))),
        (Some(current), None) => Some(number(current)),
        _ => None,
    });
    parts.extend(progress.step.as_deref().map(plain));
    parts.extend(progress.message.as_deref().map(plain));
    if let Some(counters) = progress.counters {
        let named = [(counters.failed, "failed"), (counters.skipped, "skipped")];
        parts.extend(named.into_iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")));
    }
    parts.extend(progress.eta_ms.map(|millis| format!("{} left", span(millis))));
    parts.retain(|part| !part.is_empty());
    parts.join(" · ")
}

/// Rows under a head, each column as wide as its widest cell. Where that is wider than the terminal, the widest columns
/// are cut.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: &'static [usize],
}

impl Table {
    /// A table with these heads; the columns named in `right` hold numbers.
    pub(super) fn new(heads: &[&str], right: &'static [usize]) -> Table {
        Table { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()], right }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The whole table. `width` is that of the terminal, if there is one.
    pub(super) fn text(&self, width: Option<usize>) -> String {
        let columns = self.rows[0].len();
        let wide = |column: usize| self.rows.iter().map(|row| shown_width(&row[column])).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..columns).map(wide).collect();
        if let Some(width) = width {
            fit(&mut widths, width);
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let cell = cut(cell, widths[column]);
                let pad = widths[column].saturating_sub(shown_width(&cell));
                let _ = match self.right.contains(&column) {
                    true => write!(line, "{:pad$}{cell}", ""),
                    false => write!(line, "{cell}{:pad$}", ""),
                };
                if column + 1 < columns {
                    line.push_str(GAP);
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Between two columns.
const GAP: &str = "  ";
/// A column is not cut below this, the length of a status: of less nothing can be read.
const COLUMN_MIN: usize = 9;

/// Takes from the widest columns what is beyond `width`.
fn fit(widths: &mut [usize], width: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > COLUMN_MIN) else { return };
        *widest -= 1;
    }
}

/// How many columns of a terminal a text takes, without its colours.
pub(super) fn shown_width(text: &str) -> usize {
    if text.contains('\x1b') { plain(text).width() } else { text.width() }
}

/// The text in at most so many columns of a terminal. A colour that is cut off is ended.
pub(super) fn cut(text: &str, width: usize) -> String {
    if shown_width(text) <= width {
        return text.to_owned();
    }
    let (mut out, mut room, mut in_colour) = (String::new(), width.saturating_sub(1), false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            // Our own colours only: `ESC [ … m`.
            out.push(c);
            for c in chars.by_ref() {
                out.push(c);
                if c == 'm' {
                    break;
                }
            }
            in_colour = true;
            continue;
        }
        let wide = c.width().unwrap_or(0);
        if wide > room {
            break;
        }
        room -= wide;
        out.push(c);
    }
    out.extend((width > 0).then_some('…'));
    if in_colour {
        out.push_str("\x1b[0m");
    }
    out
}

/// The text, filled up with spaces to so many columns, or cut to them.
pub(super) fn exactly(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let pad = width.saturating_sub(shown_width(&text));
    format!("{text}{:pad$}", "")
}

/// The width of the terminal behind standard output, if it is one.
pub(super) fn terminal_width() -> Option<usize> {
    std::io::stdout().is_terminal().then(|| terminal_size(libc::STDOUT_FILENO)).flatten().map(|(width, _)| width)
}

/// The columns and lines of the terminal behind a descriptor.
pub(super) fn terminal_size(descriptor: i32) -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes one `winsize`, which `size` is.
    let answer = unsafe { libc::ioctl(descriptor, libc::TIOCGWINSZ, &mut size) };
    (answer == 0 && size.ws_col > 0).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// Why a task waits, a line for each reason; or that it does not wait.
pub(super) fn why(task: &TaskView, now: Timestamp) -> String {
    let mut out = String::new();
    for reason in &task.waits_for {
        let words = match reason {
            WaitsFor::Dependency { task_ids, count } => match &task_ids[..] {
                [task_id] => format!("it depends on {task_id}, which is not finished"),
                _ => {
                    let some: Vec<String> = task_ids.iter().take(3).map(TaskId::to_string).collect();
                    let more = if *count > some.len() { " and others" } else { "" };
                    format!("it depends on {count} tasks that are not finished: {}{more}", some.join(", "))
                }
            },
            WaitsFor::Time { until } => {
                format!("it waits until {}, in {}", moment(*until), span(until.millis_since(now)))
            }
            WaitsFor::QueuePaused => format!("its queue {} is paused", task.queue),
            WaitsFor::QueueLimit { limit, running } => {
                format!("{running} tasks of queue {} run, and {limit} may at a time", task.queue)
            }
            WaitsFor::KeyLimit { limit, running } => {
                let key = task.concurrency_key.as_ref().map_or("", |key| key.as_str());
                format!("{running} with the key {key:?} run, and {limit} may at a time")
            }
            WaitsFor::UserLimit { limit, running } => {
                let user = task.user_id.as_ref().map_or("", |user| user.as_str());
                format!("{running} of user {user:?} run, and {limit} may at a time")
            }
            WaitsFor::Rate { until } => format!(
                "as many were handed out as the rate of queue {} allows: the next from {} on, in {}",
                task.queue,
                moment(*until),
                span(until.millis_since(now))
            ),
            WaitsFor::NoWorker => {
                format!("no worker is connected that takes tasks of type {} in queue {}", task.task_type, task.queue)
            }
            WaitsFor::Turn { ahead: None } => "it waits for its turn".to_owned(),
            WaitsFor::Turn { ahead: Some(0) } => "it is next for its workers, and they have no room".to_owned(),
            WaitsFor::Turn { ahead: Some(1) } => "it waits for its turn: one task is before it".to_owned(),
            WaitsFor::Turn { ahead: Some(ahead) } => {
                let more = if *ahead >= AHEAD_MAX { " or more" } else { "" };
                format!("it waits for its turn: {ahead}{more} tasks are before it")
            }
            WaitsFor::Other => "it waits for something that this version does not know".to_owned(),
        };
        let _ = writeln!(out, "{words}");
    }
    if out.is_empty() {
        let _ = match task.status {
            Status::Waiting | Status::Scheduled | Status::Pending => {
                writeln!(out, "it is {}, and the hub is too busy to say what it waits for", task.status)
            }
            _ => writeln!(out, "it does not wait: it is {}", task.status),
        };
    }
    out
}

/// Everything about one task.
pub(super) fn task(task: &TaskView, now: Timestamp, colours: bool) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<12}{value}");
        }
    };
    let ago = |at: Timestamp| format!("{}, {} ago", moment(at), span(now.millis_since(at)));
    line("task", task.task_id.to_string());
    line("type", task.task_type.to_string());
    line("title", task.title.as_deref().map(plain).unwrap_or_default());
    line("about", task.description.as_deref().map(plain).unwrap_or_default());
    line("status", {
        let mut words = status(task.status, 0, colours);
        if let Some(at) = task.cancel_requested_at {
            let _ = write!(words, ", asked to stop {} ago", span(now.millis_since(at)));
        }
        if let Some(how) = stopping(task) {
            let _ = write!(words, ", {how}");
        }
        words
    });
    line("progress", task.progress.as_ref().map(|tick| progress(tick, true)).unwrap_or_default());
    // No worker takes a workflow, from no queue.
    let own = |value: String| if task.workflow.is_some() { String::new() } else { value };
    line("queue", own(task.queue.to_string()));
    line("user", task.user_id.as_ref().map(|user| plain(user.as_str())).unwrap_or_default());
    let labels: Vec<_> = task.labels.iter().map(|(key, value)| format!("{}={}", plain(key), plain(value))).collect();
    line("labels", labels.join(" "));
    line("priority", if task.priority == 0 { String::new() } else { task.priority.to_string() });
    line(
        "attempt",
        own({
            let tries = format!("{} ({} of {} tries", task.attempt, task.tries, task.max_attempts);
            let crashes = if task.crashes > 0 {
                format!(", {} of {} crashes", task.crashes, task.max_crashes)
            } else {
                "".into()
            };
            format!("{tries}{crashes})")
        }),
    );
    line("worker", task.worker_id.as_ref().map(|worker| worker.to_string()).unwrap_or_default());
    line("workflow", task.workflow_id.map(|workflow| workflow.to_string()).unwrap_or_default());
    line("ref", task.reference.as_ref().map(|name| name.to_string()).unwrap_or_default());
    line("depends on", task.depends_on.iter().map(TaskId::to_string).collect::<Vec<_>>().join(" "));
    line("parent", task.parent_id.map(|parent| parent.to_string()).unwrap_or_default());
    line("created", ago(task.created_at));
    line("run at", task.run_at.filter(|_| !task.status.is_final()).map(moment).unwrap_or_default());
    line("started", task.started_at.map(ago).unwrap_or_default());
    line("finished", {
        let took = |at: Timestamp| match task.started_at {
            Some(started) => format!("{}, took {}", moment(at), span(at.millis_since(started))),
            None => moment(at),
        };
        task.finished_at.map(took).unwrap_or_default()
    });
    line("payload", task.payload.as_ref().map(|json| plain(json.as_str())).unwrap_or_default());
    line("result", task.result.as_ref().map(|json| plain(json.as_str())).unwrap_or_default());
    let large = task.result_bytes.zip(task.result_type.as_ref());
    let fetched = if task.status.is_final() { "`taskhub result` fetches it" } else { "uploaded so far" };
    line("result", large.map(|(bytes, kind)| format!("{bytes} bytes, {}: {fetched}", plain(kind))).unwrap_or_default());
    for (name, failure) in [("error", &task.error), ("last error", &task.last_error)] {
        let Some(failure) = failure else { continue };
        line(name, plain(&failure.kind));
        for text in failure.message.lines() {
            line("", plain(text));
        }
        line("", failure.details.as_ref().map(|json| plain(json.as_str())).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_ages() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (3_290, "3.2 s"),
            (59_999, "59 s"),
            (60_000, "1 m"),
            (250_000, "4 m 10 s"),
            (18_120_000, "5 h 2 m"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(millis), text);
        }
        let now = Timestamp::from_millis(1_000_000_000);
        assert_eq!(age(Timestamp::from_millis(999_988_000), now), "12s");
        assert_eq!(age(now, now), "now");
    }

    #[test]
    fn what_became_of_a_request_to_stop_is_said_where_the_status_does_not() {
        let said = |status: &str, cancel: &str| {
            let at = "2026-01-01T00:00:00.000Z";
            let task = serde_json::json!({
                "task_id": "01890000-0000-7000-8000-00000000002a", "task_type": "t", "queue": "q", "priority": 0, "attempt": 1,
                "tries": 1, "max_attempts": 1, "crashes": 0, "max_crashes": 3, "created_at": at, "updated_at": at, "rev": 7,
                "status": status, "cancel": cancel,
            });
            stopping(&serde_json::from_value(task).unwrap())
        };
        assert_eq!(said("running", "requested"), None);
        assert_eq!(said("running", "delivered"), Some("its worker was told"));
        assert_eq!(said("completed", "delivered"), None);
        assert_eq!(said("cancelled", "acknowledged"), None);
        assert_eq!(said("cancelled", "ignored"), Some("its worker did not stop"));
    }

    #[test]
    fn text_of_others_is_harmless() {
        assert_eq!(plain("\x1b[31mred\x1b[0m \x1b]0;title\x07\r\nx"), "red \u{fffd}]0;title\u{fffd}\u{fffd} x");
    }

    #[test]
    fn columns_are_aligned_with_and_without_colour() {
        let mut table = Table::new(&["NAME", "N", "TITLE"], &[1]);
        table.row(["a".into(), "10".into(), "a title that is far too long for it".into()]);
        table.row(["\x1b[32mbbbbbb\x1b[0m".into(), "9".into(), "short".into()]);
        let expected = "NAME     N  TITLE\na       10  a title that is…\n\x1b[32mbbbbbb\x1b[0m   9  short\n";
        assert_eq!(table.text(Some(28)), expected);
        // Characters that take two columns count for two; colours count for none.
        for (text, width, expected) in [
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("\x1b[31mfailed\x1b[0m now", 4, "\x1b[31mfai…\x1b[0m"),
            ("abc", 0, ""),
        ] {
            assert_eq!(cut(text, width), expected);
        }
        assert_eq!(exactly("日本", 6), "日本  ");
    }

    #[test]
    fn progress_in_words() {
        let tick: Progress = serde_json::from_str(
            r#"{"percentage":45,"current":9,"total":20,"step":"embedding","counters":{"success":8,"failed":1,"skipped":0},"eta_ms":12000}"#,
        )
        .unwrap();
        assert_eq!(progress(&tick, true), "45% · 9 of 20 · embedding · 1 failed · 12 s left");
        assert_eq!(short_progress(Some(&tick)), "45%");
    }
}
