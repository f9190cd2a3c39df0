//! The last lines of a terminal, drawn over again and again; what is told above them scrolls away as usual.
//!
//! Each drawing moves up over the lines of the one before, writes every line anew and clears what is left: one write, so
//! nothing flickers. The terminal is measured each time, and no line is wider than it is; where it became narrower since,
//! the old lines have wrapped, and their rows are counted as it shows them now.

use std::io::{self, IsTerminal, Write};

use super::show;

/// A terminal on standard error, or none.
#[derive(Debug)]
pub(super) struct Canvas {
    is_terminal: bool,
    /// The widths of the lines that stand there.
    drawn: Vec<usize>,
}

/// What is assumed where a terminal does not say: the size of the oldest ones.
const SIZE: (usize, usize) = (80, 24);

impl Canvas {
    pub(super) fn new() -> Canvas {
        Canvas { is_terminal: io::stderr().is_terminal(), drawn: Vec::new() }
    }

    /// Columns and lines that can be drawn on; `None` where there is no terminal.
    pub(super) fn size(&self) -> Option<(usize, usize)> {
        self.is_terminal.then(|| show::terminal_size(libc::STDERR_FILENO).unwrap_or(SIZE))
    }

    /// Writes `above` for good, and `lines` in place of those drawn before.
    pub(super) fn draw(&mut self, above: &[String], lines: &[String]) {
        let Some((width, _)) = self.size() else { return };
        let rows: usize = self.drawn.iter().map(|drawn| drawn.div_ceil(width.max(1)).max(1)).sum();
        let mut out = String::from("\r");
        if rows > 0 {
            out.push_str(&format!("\x1b[{rows}A"));
        }
        for line in above.iter().chain(lines) {
            // Cleared first: what is cleared behind a text belongs to its line, and wraps when the terminal gets narrower.
            out.push_str("\x1b[K");
            // Some terminals wrap when the last column is written.
            out.push_str(&show::cut(line, width.saturating_sub(1)));
            out.push('\n');
        }
        out.push_str("\x1b[J");
        self.drawn = lines.iter().map(|line| show::shown_width(line).min(width.saturating_sub(1))).collect();
        // A terminal that is gone has nobody to tell.
        let _ = io::stderr().lock().write_all(out.as_bytes());
    }
}
