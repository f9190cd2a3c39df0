//! The shape of the sources: who imports whom, who writes to the terminal, how long a file is, and that each says what it
//! is. The rules are in ARCHITECTURE.md; where something differs for a reason, the reason stands here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Whom each part may import, beside itself. What is not listed may import nothing of ours.
const IMPORTS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "server",
            "client",
            "worker",
            "config",
            "telemetry",
            "signals",
            "children",
            "dial",
            "wire",
            "access",
            "settings",
            "keys",
            "task",
        ],
    ),
    (
        "server",
        &[
            "http",
            "hub",
            "keys",
            "access",
            "store",
            "telemetry",
            "config",
            "listen",
            "seldom",
            "signals",
            "children",
            "task",
        ],
    ),
    ("config", &["access", "http", "hub", "keys", "engine", "task", "telemetry", "listen"]),
    ("access", &["task"]),
    ("keys", &["access", "task", "lived", "dial"]),
    ("http", &["access", "keys", "hub", "feed", "wire", "settings", "task", "lived", "seldom"]),
    ("hub", &["access", "engine", "store", "feed", "callbacks", "wire", "settings", "task", "telemetry", "seldom"]),
    ("callbacks", &["task", "lived"]),
    ("engine", &["settings", "task"]),
    ("store", &["access", "settings", "task"]),
    ("feed", &["task"]),
    ("wire", &["access", "settings", "task"]),
    ("worker", &["wire", "task", "dial", "children", "lived"]),
    ("embedded", &["access", "hub", "store", "worker", "wire", "settings", "task"]),
    ("client", &["wire", "access", "settings", "task", "dial"]),
    ("telemetry", &["task"]),
    ("dial", &[]),
    ("listen", &[]),
    ("lived", &[]),
    ("seldom", &[]),
    ("signals", &[]),
    ("children", &[]),
    ("settings", &["schema", "task"]),
    ("schema", &["task"]),
    ("task", &[]),
    ("lib", &["hub"]),
];

/// Files that import more, and why.
const EXCEPTIONS: &[(&str, &[&str], &str)] = &[
    ("cli/callbacks.rs", &["callbacks"], "the signing secret is shown to those who may read its file, and by no hub"),
    ("cli/folder.rs", &["store"], "a token can be made, and the audit read, where no hub runs"),
    ("cli/audit.rs", &["store"], "asks the files of a hub that does not run"),
    ("cli/store.rs", &["store"], "looks after the files of a hub that may not run, or may not start"),
    ("http/session.rs", &["telemetry"], "deliveries are counted where they are made"),
    ("http/state.rs", &["telemetry"], "what is counted is handed on to those who count"),
    ("http/ops.rs", &["telemetry"], "the numbers of telemetry are shown there"),
];

/// A file longer than this has probably become two nouns.
const LINES_MAX: usize = 700;

/// Longer files, and why they are still one.
const LONG: &[(&str, &str)] = &[("store/suite.rs", "tests only: what every store promises, tried on each")];

/// A promise that no test keeps is none: those that SECURITY.md names are there.
#[test]
fn the_tests_that_security_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md can be read");
    let last = |row: &str| row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default().to_owned();
    let rows = text.lines().filter(|line| line.starts_with('|')).map(last);
    let named: BTreeSet<String> =
        rows.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect();
    assert!(named.len() > 20, "the table was not found: {named:?}");
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut there = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
                there.extend(names.map(str::to_owned));
            }
        }
    }
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that are not there: {missing:?}");
}

struct Source {
    /// Seen from `src`, such as `hub/writer.rs`.
    name: String,
    text: String,
}

impl Source {
    /// The part of the program: the folder, or the file beside the folders.
    fn part(&self) -> &str {
        self.name.split('/').next().expect("a name").trim_end_matches(".rs")
    }

    /// The lines of code, without comments, and without the tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines();
        let mut before = "";
        let lines = lines.take_while(move |line| {
            let tests = before == "#[cfg(test)]" && line.starts_with("mod tests {");
            before = line;
            !tests
        });
        lines.enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_test(&self) -> bool {
        let file = self.name.rsplit('/').next().expect("a name");
        file.ends_with("tests.rs") || matches!(file, "suite.rs" | "sample.rs" | "transcripts.rs" | "measure.rs")
    }
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let sources: Vec<Source> = paths
        .iter()
        .map(|path| Source {
            name: path.strip_prefix(&root).expect("below src").to_str().expect("a plain name").to_owned(),
            text: std::fs::read_to_string(path).expect("a source"),
        })
        .collect();
    assert!(sources.len() > 80, "the sources were not found: {}", sources.len());
    sources
}

/// The parts of ours that a line of code names: `crate::hub`, and each of `crate::{hub, task::Name}`.
fn named(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for prefix in ["crate::", "taskhub::"] {
        for (at, _) in line.match_indices(prefix) {
            if line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '"') {
                continue;
            }
            let rest = &line[at + prefix.len()..];
            let word = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").len();
            match rest.strip_prefix('{') {
                None => parts.push(&rest[..word(rest)]),
                Some(list) => {
                    let mut depth = 0;
                    let mut fresh = true;
                    for (at, c) in list.char_indices() {
                        match c {
                            '{' => depth += 1,
                            '}' if depth == 0 => break,
                            '}' => depth -= 1,
                            ',' if depth == 0 => fresh = true,
                            c if fresh && depth == 0 && c.is_alphabetic() => {
                                parts.push(&list[at..at + word(&list[at..])]);
                                fresh = false;
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    parts
}

#[test]
fn names_are_found_however_they_are_imported() {
    assert_eq!(named("use crate::hub::{Hub, HubError};"), ["hub"]);
    assert_eq!(named("use crate::{hub::Hub, task::{Name, Json}, wire};"), ["hub", "task", "wire"]);
    assert_eq!(named("let x: crate::task::Json = crate::engine::now(); mycrate::feed"), ["task", "engine"]);
    assert_eq!(named("pub(crate) fn x()"), Vec::<&str>::new());
}

#[test]
fn nothing_imports_outward() {
    let parts: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let sources = sources();
    let mut unused: BTreeSet<(&str, &str)> =
        EXCEPTIONS.iter().flat_map(|(file, parts, _)| parts.iter().map(move |part| (*file, *part))).collect();
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let part = source.part();
        let allowed = parts.get(part).unwrap_or_else(|| panic!("{part} has no line in IMPORTS"));
        for (at, line) in source.code() {
            for name in named(line).into_iter().filter(|name| parts.contains_key(name) && *name != part) {
                let exception =
                    EXCEPTIONS.iter().find(|(file, parts, _)| *file == source.name && parts.contains(&name));
                if let Some((file, ..)) = exception {
                    unused.remove(&(*file, name));
                } else if !allowed.contains(&name) {
                    wrong.push(format!("src/{}:{at} imports {name}: {}", source.name, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "against ARCHITECTURE.md:\n{}", wrong.join("\n"));
    assert!(unused.is_empty(), "exceptions that nobody needs: {unused:?}");
}

#[test]
fn only_the_command_line_writes_to_the_terminal() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test() && source.part() != "cli") {
        for (at, line) in source.code() {
            for written in ["println!", "print!(", "eprint!(", "dbg!("] {
                // `taskhub serve` says why it did not start before there is a log.
                let is_start = source.name == "server.rs" || source.name.starts_with("server/");
                if line.contains(written) && !(is_start && line.contains("eprintln!")) {
                    wrong.push(format!("src/{}:{at}: {}", source.name, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "use tracing:\n{}", wrong.join("\n"));
}

#[test]
fn a_file_is_one_noun() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source, source.text.lines().count()))
        .filter(|(source, lines)| *lines > LINES_MAX && !LONG.iter().any(|(name, _)| *name == source.name))
        .map(|(source, lines)| format!("src/{}: {lines} lines", source.name))
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! ") && !source.text.starts_with("#![doc = "))
        .map(|source| source.name.clone())
        .collect();
    assert!(silent.is_empty(), "no `//!` at the head of {silent:?}");
}
