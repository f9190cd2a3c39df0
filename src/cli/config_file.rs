//! The file of `taskhub serve --config`: every option is a key of the same name.
//!
//! The options are known to clap, with their types, defaults and words, and the file adds no second list of them: what it
//! says becomes the default of its option. So the command line goes before the environment, that before the file, that
//! before the default; a value is read by the same parser and refused in the same words wherever it comes from; and an
//! option that is added is a key by itself. [`text`] writes what holds in the same shape.
//!
//! One table is no option: `auth`, with the applications whose tokens are taken ([`auth`]). It is read where it belongs, and
//! handed on.
//!
//! TOML has types, and they are kept to: a number is no text. A path is seen from the folder of the file, since a service
//! manager starts a hub from anywhere.

use std::any::TypeId;
use std::fmt::Write;
use std::path::Path;

use clap::builder::{Resettable, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use toml::{Table, Value};

use crate::config::ServeConfig;
use crate::keys::{self, AuthConfig};

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flag,
    Integer,
    Number,
    Path,
    Text,
    /// Texts, with commas between them on the command line.
    Texts,
}

impl Kind {
    fn of(option: &Arg) -> Kind {
        if matches!(option.get_action(), ArgAction::SetTrue) {
            return Kind::Flag;
        }
        if option.get_value_delimiter().is_some() {
            return Kind::Texts;
        }
        let parser: &ValueParser = option.get_value_parser();
        let is = |types: &[TypeId]| types.iter().any(|wanted| parser.type_id() == *wanted);
        let integers = [TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()];
        match () {
            () if is(&integers) => Kind::Integer,
            () if is(&[TypeId::of::<f64>()]) => Kind::Number,
            () if is(&[TypeId::of::<std::path::PathBuf>()]) => Kind::Path,
            () => Kind::Text,
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Kind::Flag => "true or false",
            Kind::Integer => "a whole number",
            Kind::Number => "a number",
            Kind::Path | Kind::Text => "a text in quotes",
            Kind::Texts => "a list of texts, such as [\"a\", \"b\"]",
        }
    }

    /// What the command line would say, or nothing where the value is of another type.
    fn words(self, value: &Value, folder: &Path) -> Option<Vec<String>> {
        let one = match (self, value) {
            (Kind::Flag, Value::Boolean(flag)) => flag.to_string(),
            (Kind::Integer | Kind::Number, Value::Integer(number)) => number.to_string(),
            (Kind::Number, Value::Float(number)) => number.to_string(),
            (Kind::Text, Value::String(text)) => text.clone(),
            // Text of TOML is Unicode; only the folder may be anything else, and then it is refused where it is read.
            (Kind::Path, Value::String(text)) if text.is_empty() => String::new(),
            (Kind::Path, Value::String(text)) => folder.join(text).to_str()?.to_owned(),
            (Kind::Texts, Value::Array(texts)) => {
                return texts.iter().map(|text| text.as_str().map(str::to_owned)).collect();
            }
            _ => return None,
        };
        Some(vec![one])
    }
}

/// The options of `serve` that a file may set.
fn options() -> Command {
    ServeConfig::augment_args(Command::new("serve"))
}

/// The key of the table that is no option.
const AUTH: &str = "auth";

/// What a file says, with paths seen from its folder.
fn table(path: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(path).map_err(|why| why.to_string())?;
    let mut table = parsed(&text)?;
    if let Some(Value::Table(auth)) = table.get_mut(AUTH) {
        AuthConfig::seen_from(auth, folder(path));
    }
    // The one option that is a path or something else.
    if let Some(Value::String(place)) = table.get_mut("jwks") {
        keys::seen_from(place, folder(path));
    }
    Ok(table)
}

fn parsed(text: &str) -> Result<Table, String> {
    text.trim_start_matches('\u{feff}').parse().map_err(|why: toml::de::Error| why.to_string())
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The table `auth` of the file, empty where there is none.
fn auth_table(table: Table) -> Result<Table, String> {
    match table.into_iter().find(|(key, _)| key == AUTH) {
        None => Ok(Table::new()),
        Some((_, Value::Table(auth))) => Ok(auth),
        Some((_, other)) => Err(format!("{AUTH} must be a table, and is {}", with_article(other.type_str()))),
    }
}

/// Who signs tokens, as the file says; or what is wrong with it.
pub(super) fn auth(path: &Path) -> Result<AuthConfig, String> {
    let read = table(path).and_then(auth_table).and_then(AuthConfig::read);
    read.map_err(|why| format!("{}: {}", path.display(), why.trim_end()))
}

/// The command line with what the file says in place of defaults; or what is wrong with the file.
pub(super) fn as_defaults(command: Command, path: &Path) -> Result<Command, String> {
    let read = table(path).and_then(|table| settings(&table, folder(path)));
    let settings = read.map_err(|why| format!("{}: {}", path.display(), why.trim_end()))?;
    Ok(command.mut_subcommand("serve", |serve| {
        settings.into_iter().fold(serve, |serve, (id, words)| serve.mut_arg(id, |option| option.default_values(words)))
    }))
}

/// The id of each option that the text sets, and its words.
fn settings(table: &Table, folder: &Path) -> Result<Vec<(String, Vec<String>)>, String> {
    let options = options();
    let mut settings = Vec::with_capacity(table.len());
    for (key, value) in table.iter().filter(|(key, _)| *key != AUTH) {
        let option = options.get_arguments().find(|option| option.get_long() == Some(key));
        let option = option.ok_or_else(|| unknown(key, &options))?;
        let kind = Kind::of(option);
        let words = kind
            .words(value, folder)
            .ok_or_else(|| format!("{key} must be {}, and is {}", kind.expected(), with_article(value.type_str())))?;
        if kind != Kind::Flag {
            probe(option, key, &words)?;
        }
        settings.push((option.get_id().to_string(), words));
    }
    Ok(settings)
}

fn unknown(key: &str, options: &Command) -> String {
    let plain = |text: &str| text.trim_start_matches('-').replace('_', "-").to_lowercase();
    let meant = options.get_arguments().filter_map(Arg::get_long).find(|long| *long == plain(key));
    match meant {
        Some(long) => format!("unknown key {key:?}; it is written {long}"),
        None => format!("unknown key {key:?}; `taskhub serve --print-config` shows all there are"),
    }
}

/// Has the option's own parser read the words.
fn probe(option: &Arg, key: &str, words: &[String]) -> Result<(), String> {
    let alone = Command::new("serve").no_binary_name(true).disable_help_flag(true);
    let alone = alone.arg(option.clone().env(Resettable::Reset));
    let words = words.iter().map(|word| format!("--{key}={word}"));
    alone.try_get_matches_from(words).map(drop).map_err(|why| {
        let told = why.render().to_string();
        let told = told.split("\n\n").next().unwrap_or_default();
        told.trim_start_matches("error: ").to_owned()
    })
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// The settings that hold, as a file: each with its words, where it comes from, and its value; and who signs tokens, as `file`
/// says.
pub(super) fn text(matches: &ArgMatches, file: Option<&Path>) -> Result<String, String> {
    let mut out = String::from(
        "# Settings of `taskhub serve`, for --config. Each can be given as an option of the same name, too.\n",
    );
    let mut heading = None;
    for option in options().get_arguments() {
        let Some(key) = option.get_long() else { continue };
        if option.get_help_heading() != heading {
            heading = option.get_help_heading();
            let _ = write!(out, "\n# {}\n", heading.unwrap_or_default());
        }
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let id = option.get_id().as_str();
        let whence = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => format!("--{key}"),
            Some(ValueSource::EnvVariable) => option.get_env().unwrap_or_default().to_string_lossy().into_owned(),
            _ if is_default(option, matches) => "default".to_owned(),
            _ => "the file".to_owned(),
        };
        // What is set to nothing by default has no value to write.
        if matches.get_raw(id).is_none() && matches!(Kind::of(option), Kind::Path | Kind::Text) {
            let _ = write!(out, "\n# {help} (not set)\n# {key} =\n");
            continue;
        }
        let value = value(option, matches)?;
        let _ = write!(out, "\n# {help} ({whence})\n{key} = {value}\n");
    }
    let auth = file.map_or(Ok(Table::new()), |path| table(path).and_then(auth_table))?;
    if !auth.is_empty() {
        let auth = Table::from_iter([(AUTH.to_owned(), Value::Table(auth))]);
        let _ = write!(out, "\n# Who signs tokens that are taken (the file)\n{auth}");
    }
    Ok(out)
}

/// Whether the value is the option's own: what a file says stands in the same place.
fn is_default(option: &Arg, matches: &ArgMatches) -> bool {
    let values = matches.get_raw(option.get_id().as_str()).into_iter().flatten();
    match option.get_action() {
        ArgAction::SetTrue => !matches.get_flag(option.get_id().as_str()),
        _ => values.eq(option.get_default_values().iter().map(|value| value.as_os_str())),
    }
}

fn value(option: &Arg, matches: &ArgMatches) -> Result<Value, String> {
    let id = option.get_id().as_str();
    let key = option.get_long().unwrap_or(id);
    let words = matches.get_raw(id).into_iter().flatten().map(|word| word.to_str().map(str::to_owned));
    let words = words
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| format!("--{key} is no Unicode, and TOML has no way to say it"))?;
    let word = words.first().cloned().unwrap_or_default();
    let bad = |why: &dyn std::fmt::Display| format!("--{key}: {why}");
    Ok(match Kind::of(option) {
        Kind::Flag => Value::Boolean(matches.get_flag(id)),
        Kind::Integer => Value::Integer(word.parse().map_err(|why| bad(&why as &std::num::ParseIntError))?),
        Kind::Number => Value::Float(word.parse().map_err(|why| bad(&why as &std::num::ParseFloatError))?),
        // From wherever the printed file is read, it is the same folder.
        Kind::Path => {
            let path = std::path::absolute(&word).map_err(|why| bad(&why))?;
            Value::String(path.to_string_lossy().into_owned())
        }
        Kind::Text => Value::String(word),
        Kind::Texts => Value::Array(
            words.iter().flat_map(|word| word.split(',')).map(|word| Value::String(word.to_owned())).collect(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Cli;
    use super::*;
    use clap::{CommandFactory, FromArgMatches};

    fn read(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
        parsed(text).and_then(|table| settings(&table, Path::new("/etc/taskhub")))
    }

    #[test]
    fn each_option_is_a_key_and_types_are_kept_to() {
        let set = |text: &str| read(text).unwrap().into_iter().map(|(id, words)| format!("{id}={}", words.join(",")));
        let set = |text: &str| set(text).collect::<Vec<_>>().join(" ");
        assert_eq!(set("lease = \"20s\"\nmax-hz = 2\ninsecure-open = true"), "insecure_open=true lease=20s max_hz=2");
        assert_eq!(set("\u{feff}data = \"data\""), "data=/etc/taskhub/data");
        assert_eq!(set("data = \"/var/lib/taskhub\""), "data=/var/lib/taskhub");
        assert_eq!(set("live-ping = \"10s\"\nstore = 'memory'"), "live_ping=10s store=memory");
        for (text, why) in [
            ("retian = \"1h\"", "unknown key \"retian\""),
            ("live_ping = \"1s\"", "it is written live-ping"),
            ("[live]\nping = \"1s\"", "unknown key \"live\""),
            ("config = \"other.toml\"", "unknown key \"config\""),
            ("lease = 10", "lease must be a text in quotes, and is an integer"),
            ("tasks-max = \"10\"", "tasks-max must be a whole number, and is a string"),
            ("tasks-max = 1.5", "tasks-max must be a whole number, and is a float"),
            ("insecure-open = 1", "insecure-open must be true or false"),
            ("lease = \"soon\"", "invalid value 'soon' for '--lease <TIME>': expected number at 0 (such as 500ms"),
            ("listen = \"8080\"", "invalid value '8080' for '--listen <HOST:PORT>'"),
            ("store = \"paper\"", "possible values: sqlite, memory"),
            ("max-hz = 0", "a number from 0.1 to 1000 is expected"),
            ("tasks-max = -1", "invalid value '-1'"),
            ("data = ''", "a value is required for '--data <FOLDER>'"),
            ("lease = \"1s\"\nlease = \"2s\"", "duplicate key"),
            ("lease", "line 1"),
            ("x = [", "line 1"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }

    fn config(arguments: &[&str], file: Option<&Path>) -> (ServeConfig, ArgMatches) {
        let command = match file {
            Some(path) => as_defaults(Cli::command(), path).unwrap(),
            None => Cli::command(),
        };
        let words = ["taskhub", "serve"].iter().chain(arguments);
        let matches = command.try_get_matches_from(words).unwrap();
        let serve = matches.subcommand_matches("serve").unwrap().clone();
        (ServeConfig::from_arg_matches(&serve).unwrap(), serve)
    }

    fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = folder.path().join("hub.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn what_is_printed_is_what_holds_and_can_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path =
            file(&folder, "data = \"data\"\nlease = \"20s\"\ngrace = \"1m\"\nmax-hz = 0.5\ninsecure-open = true");
        let (set, matches) = config(&["--lease", "30s", "--listen", "localhost:9000"], Some(&path));
        assert_eq!((set.lease.as_secs(), set.grace.as_secs(), set.max_hz), (30, 60, 0.5));
        assert_eq!((set.insecure_open, &set.data), (true, &folder.path().join("data")));
        let printed = text(&matches, None).unwrap();
        for line in ["(--lease)\nlease = \"30s\"\n", "(the file)\ngrace = \"1m\"\n", "(default)\nretain = \"24h\"\n"] {
            assert!(printed.contains(line), "{line}: {printed}");
        }
        for option in options().get_arguments().filter_map(Arg::get_long) {
            let is_there = |before: &str| printed.contains(&format!("\n{before}{option} ="));
            assert!(is_there("") || is_there("# "), "{option} is not in\n{printed}");
        }
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(config(&[], Some(&file(&elsewhere, &printed))).0, set);
        let (defaults, matches) = config(&[], None);
        let again = config(&[], Some(&file(&elsewhere, &text(&matches, None).unwrap()))).0;
        assert_eq!(ServeConfig { data: defaults.data.clone(), ..again }, defaults);
    }

    #[test]
    fn who_signs_tokens_is_read_from_the_file_and_printed_with_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = "lease = \"20s\"\n[[auth.jwt]]\niss = \"i\"\naud = \"a\"\nkey_file = \"key.pem\"\n\
            [auth.jwt.claims]\nuser = \"uid\"\n[auth.jwt.roles]\nstaff = \"user\"\n";
        let path = file(&folder, issuer);
        let (set, matches) = config(&[], Some(&path));
        assert_eq!(set.lease.as_secs(), 20);
        let read = auth(&path).unwrap();
        assert_eq!(read.jwt[0].key_file, Some(folder.path().join("key.pem")));
        let printed = text(&matches, Some(&path)).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(auth(&file(&elsewhere, &printed)).unwrap(), read);
        assert_eq!(auth(&file(&elsewhere, "lease = \"1s\"")).unwrap(), AuthConfig::default());
        let places = [("keys.json", elsewhere.path().join("keys.json")), ("https://i/keys", "https://i/keys".into())];
        for (said, seen) in places {
            let (set, _) = config(&[], Some(&file(&elsewhere, &format!("jwks = {said:?}"))));
            assert_eq!(set.jwt.jwks.map(PathBuf::from), Some(seen));
        }
        for (text, why) in [
            ("auth = 7", "auth must be a table, and is an integer"),
            ("[auth]\njwt = 7", "auth: "),
            ("[auth]\nkeys = []", "unknown field `keys`"),
            ("[[auth.jwt]]\niss = \"i\"\naud = \"a\"", "either key_file or jwks"),
        ] {
            let told = auth(&file(&elsewhere, text)).unwrap_err();
            assert!(told.contains(why) && told.contains("hub.toml"), "{text}: {told}");
        }
    }
}
