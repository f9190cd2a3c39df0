//! Which states of a line that is drawn again and again become lines of the task's log.
//!
//! The last one does. Of the others one does now and then, if it has stood at the end of a gap, so that a bar that takes
//! minutes shows that it moves: after a second at first, then after a tenth of the time that the drawing has taken, at
//! most after a minute. A day of drawing is some 1,500 lines of the 10,000 that are kept.

use std::time::Duration;

use tokio::time::Instant;

use super::lines::End;

const GAP_MIN: Duration = Duration::from_secs(1);
const GAP_MAX: Duration = Duration::from_secs(60);
/// The part of the time that a drawing has taken.
const GAP_PART: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct Redraws {
    /// The newest state, until it is logged.
    state: Option<String>,
    /// What was last logged of this drawing: it is not logged twice.
    told: Option<String>,
    /// When the drawing began, and when something of it was last logged.
    begun: Option<(Instant, Instant)>,
    /// The line that has not ended has shown something.
    seen: bool,
}

impl Redraws {
    /// Takes a state of a line, or its end; what is to be logged now goes to `log`.
    pub(super) fn take(&mut self, text: String, end: End, now: Instant, mut log: impl FnMut(String)) {
        let blank = is_blank(&text);
        match end {
            End::State | End::LineAbove => {
                self.begun.get_or_insert((now, now));
                self.seen = end == End::State && (self.seen || !blank);
                if !blank {
                    self.state = Some(text).filter(|state| self.told.as_ref() != Some(state));
                }
            }
            End::Line => {
                let Redraws { state, told, seen, .. } = std::mem::take(self);
                // What was drawn in this line is covered by its last text; what was drawn above it stays.
                let covered = seen && !blank;
                if let Some(state) = state.filter(|_| !covered) {
                    log(state);
                }
                let told = (seen && blank) || told.as_ref() == Some(&text);
                if !told {
                    log(text);
                }
            }
        }
    }

    /// A word for the hub stood where a state was.
    pub(super) fn word(&mut self, end: End) {
        self.seen = end == End::State;
    }

    /// When a state is to be logged, if it still stands then.
    pub(super) fn due(&self) -> Option<Instant> {
        let (begun, told_at) = self.begun?;
        Some(told_at + ((told_at - begun) / GAP_PART).clamp(GAP_MIN, GAP_MAX))
    }

    /// The gap is over. `shown` is what the line shows now, if that is newer than its last state.
    pub(super) fn show(&mut self, shown: Option<String>, now: Instant) -> Option<String> {
        if let Some((_, told_at)) = &mut self.begun {
            *told_at = now;
        }
        let shown = shown.filter(|shown| !is_blank(shown));
        let state = shown.or(self.state.take()).filter(|state| self.told.as_ref() != Some(state))?;
        (self.state, self.told) = (None, Some(state.clone()));
        Some(state)
    }
}

fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::super::lines::Lines;
    use super::*;

    /// What is logged of these writes, each so many milliseconds after the one before.
    fn logged(writes: &[(u64, &str)]) -> Vec<String> {
        let (mut lines, mut redraws, mut logged) = (Lines::new(true), Redraws::default(), Vec::new());
        let mut now = Instant::now();
        for (millis, text) in writes {
            let then = now + Duration::from_millis(*millis);
            while let Some(due) = redraws.due().filter(|due| *due <= then) {
                logged.extend(redraws.show(lines.shown(), due));
            }
            now = then;
            lines.push(text.as_bytes(), |piece| redraws.take(piece.text(), piece.end, now, |line| logged.push(line)));
        }
        lines.finish(|piece| redraws.take(piece.text(), piece.end, now, |line| logged.push(line)));
        redraws.take(String::new(), End::State, now, |_| {});
        logged.extend(redraws.show(None, now));
        logged
    }

    #[test]
    fn the_last_state_is_logged_and_seldom_another() {
        let check = |writes: &[(u64, &str)], expected: &[&str]| assert_eq!(logged(writes), expected, "{writes:?}");
        check(&[(0, "one\n\ntwo\r\n\r\nthree")], &["one", "", "two", "", "three"]);
        check(&[(0, "\r 0 %\r 50 %\r100 %\ndone\n")], &["100 %", "done"]);
        check(&[(0, "0 %\r50 %\r100 %\r\ndone\n")], &["100 %", "done"]);
        check(&[(0, "0 %\r100 %\r     \rdone\n")], &["done"]);
        check(&[(0, "0 %\r100 %\r     \r\n")], &["100 %"]);
        check(&[(0, "0 %\r"), (10, "50 %")], &["50 %"]);
        check(&[(0, "0 %\r50 %\r")], &["50 %"]);
        // One that stands is shown, once, whether a carriage return came before it or after it.
        check(&[(0, "\r50 %"), (900, ""), (200, "\r60 %"), (100, "\n")], &["50 %", "60 %"]);
        check(&[(0, "50 %\r"), (1_100, "\n"), (0, "next\n")], &["50 %", "next"]);
        check(&[(0, "\r50 %"), (1_100, "\n"), (0, "next\n")], &["50 %", "next"]);
        check(&[(0, "50%\x08\x08\x08"), (10, "60%"), (1_100, "\x08\x08\x08"), (1, "70%\n")], &["60%", "70%"]);
        // Two bars of which the lower one is drawn by going down and up again.
        let below = "\n\rinner 1\x1b[A\n\rinner 2\x1b[A\router 1\n\rinner 3\x1b[A";
        check(&[(0, "\router 0"), (1, below), (1, "\n\nthe end\n")], &["outer 0", "inner 3", "", "the end"]);
    }

    #[test]
    fn a_day_of_drawing_leaves_room_for_the_rest() {
        let writes: Vec<_> = (0..86_400 * 2).map(|n| (500, format!("\r{n}"))).collect();
        let writes: Vec<(u64, &str)> = writes.iter().map(|(millis, text)| (*millis, text.as_str())).collect();
        let lines = logged(&writes).len();
        assert!((1_000..2_000).contains(&lines), "{lines} lines");
    }
}
