//! Patterns: regular expressions that take time in proportion to what they read.
//!
//! A pattern is an automaton whose states are made while it reads ([`Cache`]). Reading on with states that are there costs a
//! few nanoseconds a byte, and making them is what a pattern can be made expensive with, so that is paid for in steps; one that
//! needs state after state for every byte is given up. Look-around and references back would take another kind of engine, and
//! are refused.
//!
//! They are written as ECMAScript has them, in which `\d` and `\w` mean ASCII; the rest of what people write in schemas means
//! the same to the engine here.

use regex_automata::Input;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_syntax::hir::{Hir, HirKind};

/// The most places of a pattern, with all that it counts out: `[a-z]{1,64}` has 64.
const PLACES_MAX: u64 = 1_000;
/// The most memory of a pattern, without its states.
const BYTES_MAX: usize = 1 << 20;
/// States are forgotten when they take so much memory, and the pattern is given up when that happens so often.
const STATES_BYTES_MAX: usize = 1 << 20;
const FORGOTTEN_MAX: usize = 4;
/// Bytes that are read for one step, and bytes of states that are made.
const READ_A_STEP: usize = 16;
const MADE_A_STEP: usize = 16;

/// A pattern, ready to be asked.
#[derive(Debug)]
pub(super) struct Pattern {
    automaton: DFA,
    text: String,
}

/// The states of a pattern that were made so far.
pub(super) struct States(Cache);

impl Pattern {
    /// Reads a pattern, or says what is wrong with it.
    pub(super) fn read(text: &str) -> Result<Pattern, String> {
        let too_large = || format!("must be a smaller pattern: this one has more than {PLACES_MAX} places");
        let here = as_read_here(text);
        let hir = regex_syntax::Parser::new().parse(&here).map_err(|why| {
            let why = why.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("must be a regular expression without look-around and references back: {why}")
        })?;
        if places(&hir) > PLACES_MAX {
            return Err(too_large());
        }
        let config = thompson::Config::new().nfa_size_limit(Some(BYTES_MAX));
        let nfa = thompson::Compiler::new().configure(config).build_from_hir(&hir).map_err(|_| too_large())?;
        let config = DFA::config().cache_capacity(STATES_BYTES_MAX).minimum_cache_clear_count(Some(FORGOTTEN_MAX));
        let automaton = DFA::builder().configure(config).build_from_nfa(nfa).map_err(|_| too_large())?;
        Ok(Pattern { automaton, text: text.to_owned() })
    }

    /// No states yet.
    pub(super) fn states(&self) -> States {
        States(self.automaton.create_cache())
    }

    /// Whether it is found in a text, and how many steps it took to look; `None` where it was given up.
    pub(super) fn is_in(&self, text: &str, States(states): &mut States) -> (Option<bool>, u64) {
        let (bytes, forgotten) = (states.memory_usage(), states.clear_count());
        let found = self.automaton.try_search_fwd(states, &Input::new(text).earliest(true));
        let made = (states.clear_count() - forgotten) * STATES_BYTES_MAX + states.memory_usage();
        let steps = 1 + text.len() / READ_A_STEP + made.saturating_sub(bytes) / MADE_A_STEP;
        (found.ok().map(|found| found.is_some()), steps as u64)
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// White space and ends of lines, as ECMAScript counts them.
const SPACES: &str =
    r"[\t\n\x0B\x0C\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}]";

/// The pattern as the engine here reads it: the classes written out that are ASCII in ECMAScript, and what has a meaning of its
/// own within brackets only here made plain.
fn as_read_here(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    let mut in_class = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str(SPACES),
                Some('S') => out.extend(["[^", SPACES, "]"]),
                Some('c') => match letters.next() {
                    // A control character by its letter.
                    Some(letter) if letter.is_ascii_alphabetic() => {
                        out.extend(format!("\\x{:02x}", letter as u8 & 31).chars())
                    }
                    other => out.extend(['\\', 'c'].into_iter().chain(other)),
                },
                Some('b') if in_class => out.push_str("\\x08"),
                Some('b') => out.push_str("(?-u:\\b)"),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' | '&' | '~' if in_class => out.extend(['\\', letter]),
            '[' | ']' => {
                in_class = letter == '[';
                out.push(letter);
            }
            letter => out.push(letter),
        }
    }
    out
}

/// How many places of a pattern a text may be at.
fn places(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(_) => 1,
        HirKind::Capture(capture) => places(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(places).fold(0, u64::saturating_add),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            places(&repetition.sub).max(1).saturating_mul(times.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_ecmascript_has_them_mean() {
        let check = |pattern: &str, text: &str, expected: bool| {
            let pattern = Pattern::read(pattern).unwrap();
            let (found, _) = pattern.is_in(text, &mut pattern.states());
            assert_eq!(found, Some(expected), "{} {text:?}", pattern.text());
        };
        check("b", "abc", true);
        check("^b", "abc", false);
        check(r"^\d+$", "12", true);
        check(r"^\d+$", "١٢", false);
        check(r"^[\w-]+$", "a-b_c", true);
        check(r"^\w$", "é", false);
        check(r"^[^\d]$", "a", true);
        check(r"^\W$", "é", true);
        check(r"^\s\S$", "\u{feff}a", true);
        check(r"^[\s]$", "\u{200b}", false);
        check(r"^\cJ$", "\n", true);
        check(r"^a/b\/c$", "a/b/c", true);
        check(r"^\p{L}$", "é", true);
        check("^.$", "é", true);
        check("^a$", "a\n", false);
        check(r"^\u0061$", "a", true);
        check(r"\bfoo\b", "a foo b", true);
        check(r"\\d", r"\d", true);
        check(r"^[[\]&&a]+$", "[]&a", true);
        for wrong in
            ["(", "(?=a)", r"(a)\1", "(?<!a)b", "[z-a]", "a{2,1}", r"^(a{1000}){1000}$", &"(a?){40}".repeat(60)]
        {
            assert!(Pattern::read(wrong).is_err(), "{wrong}");
        }
    }

    /// The classic ones, that take others longer than anybody waits; and some that take these automata state after state.
    #[test]
    fn no_pattern_takes_long() {
        let mut random = fastrand::Rng::with_seed(1);
        let mixed: String = (0..100_000).map(|_| if random.bool() { 'a' } else { 'b' }).collect();
        let alike = format!("{}!", "a".repeat(100_000));
        for (pattern, text, is_given_up) in [
            ("^(a+)+$", &alike, false),
            ("^(a|a)*$", &alike, false),
            ("^(a|aa)+$", &alike, false),
            ("(x+x+)+y", &alike, false),
            ("^(.*a){12}$", &alike, false),
            ("^(a?){900}a{90}$", &alike, false),
            ("(.{0,400}b){2}$", &alike, false),
            ("a[ab]{40}c", &mixed, true),
        ] {
            let pattern = Pattern::read(pattern).unwrap();
            let (found, steps) = pattern.is_in(text, &mut pattern.states());
            assert_eq!(found, (!is_given_up).then_some(false), "{}", pattern.text());
            let most = ((FORGOTTEN_MAX + 1) * STATES_BYTES_MAX / MADE_A_STEP + text.len()) as u64;
            assert!(steps < most, "{}: {steps}", pattern.text());
        }
    }
}
