//! Listens to a command: what it writes on one of its two outputs, as words for the hub and as lines of the task's log.
//!
//! A word that cannot be read is not lost without notice. The line stays in the log, a warning says what is wrong, and
//! where it was a result the task does not complete: the last result that was printed counts, readable or not. Warnings
//! are bounded, and so are lines of progress that could not be read, of which a command may print thousands.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Context;
use super::lines::{Lines, Piece, text};
use super::redraws::Redraws;
use super::words::{Said, Word, Words};
use crate::task::{Json, Level};

/// Warnings of words that could not be read; more are only counted.
const COMPLAINTS_MAX: u64 = 5;
/// What of standard error becomes the message of a failure.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 4 << 10;

/// One output of a command.
#[derive(Debug)]
pub(super) struct Listener {
    lines: Lines,
    redraws: Redraws,
    reader: Reader,
}

/// What becomes of the pieces.
#[derive(Debug)]
struct Reader {
    /// On standard output only.
    words: Option<Words>,
    level: Level,
    result: Option<Result<Json, String>>,
    complaints: u64,
    tail: Tail,
}

/// The last lines.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Listener {
    /// Of standard output: words, and lines of level info.
    pub(super) fn to_stdout() -> Listener {
        Listener::new(Some(Words::default()), Level::Info)
    }

    /// Of standard error: lines of level warn.
    pub(super) fn to_stderr() -> Listener {
        Listener::new(None, Level::Warn)
    }

    fn new(words: Option<Words>, level: Level) -> Listener {
        Listener {
            lines: Lines::new(words.is_some()),
            redraws: Redraws::default(),
            reader: Reader { words, level, result: None, complaints: 0, tail: Tail::default() },
        }
    }

    /// Takes what was read. Without a `ctx` it is told to nobody.
    pub(super) fn hear(&mut self, bytes: &[u8], now: Instant, ctx: Option<&Context>) {
        let Listener { lines, redraws, reader } = self;
        lines.push(bytes, |piece| reader.piece(piece, redraws, now, ctx));
    }

    /// When something that is drawn is to be shown, if it stands until then.
    pub(super) fn due(&self) -> Option<Instant> {
        self.redraws.due()
    }

    /// Shows what is drawn now.
    pub(super) fn show(&mut self, now: Instant, ctx: Option<&Context>) {
        if let Some(state) = self.redraws.show(self.lines.shown(), now) {
            self.reader.line(state, ctx);
        }
    }

    /// There is no more to hear.
    pub(super) fn finish(&mut self, now: Instant, ctx: Option<&Context>) {
        let Listener { lines, redraws, reader } = self;
        lines.finish(|piece| reader.piece(piece, redraws, now, ctx));
        if let Some(state) = redraws.show(None, now) {
            reader.line(state, ctx);
        }
        let mut rest = Vec::new();
        if let Some(words) = &mut reader.words {
            words.finish(|said| rest.push(said));
        }
        for said in rest {
            reader.said(said, ctx);
        }
        if let Some(more @ 1..) = reader.complaints.checked_sub(COMPLAINTS_MAX) {
            log(ctx, Level::Warn, format!("({more} more words for the hub could not be read)"));
        }
    }

    /// The last result, or why it cannot be read.
    pub(super) fn take_result(&mut self) -> Option<Result<Json, String>> {
        self.reader.result.take()
    }

    /// The last lines, as one text.
    pub(super) fn take_tail(&mut self) -> String {
        Vec::from(std::mem::take(&mut self.reader.tail).lines).join("\n")
    }
}

impl Reader {
    fn piece(&mut self, piece: Piece<'_>, redraws: &mut Redraws, now: Instant, ctx: Option<&Context>) {
        let mut said = Vec::new();
        if let Some(words) = &mut self.words {
            words.line(piece.bytes, piece.cut, |one| said.push(one));
        }
        let mut is_line = true;
        for one in said {
            is_line = self.said(one, ctx);
        }
        if is_line {
            redraws.take(piece.text(), piece.end, now, |line| self.line(line, ctx));
        } else {
            redraws.word(piece.end);
        }
    }

    fn line(&mut self, line: String, ctx: Option<&Context>) {
        if self.level == Level::Warn {
            self.tail.keep(line.clone());
        }
        log(ctx, self.level, line);
    }

    /// Passes on what a line says. Returns whether the line itself is one for the log.
    fn said(&mut self, said: Said, ctx: Option<&Context>) -> bool {
        match said {
            Said::Line => return true,
            Said::Held => {}
            Said::Released(lines) => {
                for line in lines.split(|byte| *byte == b'\n') {
                    log(ctx, self.level, text(line.strip_suffix(b"\r").unwrap_or(line)));
                }
            }
            Said::Progress(progress) => {
                if let Some(Err(invalid)) = ctx.map(|ctx| ctx.try_progress(progress)) {
                    self.complain(ctx, format!("a progress report was left out: {invalid}"));
                }
            }
            Said::Log(line) => log(ctx, line.level, line.message),
            Said::Checkpoint(checkpoint) => {
                if let Some(Err(why)) = ctx.map(|ctx| ctx.set_checkpoint_json(checkpoint)) {
                    self.complain(ctx, why);
                }
            }
            Said::Result(result) => self.result = Some(Ok(result)),
            Said::Unread { word, why, mixed: true } => {
                let word = word.as_str();
                self.complain(ctx, format!("a line names {word:?} and is taken for a line of the log: {why}"));
                return true;
            }
            Said::Unread { word, why, mixed: false } => {
                let why = format!("the {} cannot be read: {why}", word.as_str());
                self.complain(ctx, why.clone());
                if word == Word::Result {
                    self.result = Some(Err(why));
                }
                return word != Word::Progress || self.complaints <= COMPLAINTS_MAX;
            }
        }
        false
    }

    fn complain(&mut self, ctx: Option<&Context>, why: String) {
        self.complaints += 1;
        if self.complaints <= COMPLAINTS_MAX {
            log(ctx, Level::Warn, why);
        }
    }
}

impl Tail {
    fn keep(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > TAIL_LINES || (self.bytes > TAIL_BYTES && self.lines.len() > 1) {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }
}

fn log(ctx: Option<&Context>, level: Level, message: String) {
    if let Some(ctx) = ctx {
        ctx.log(level, message);
    }
}
