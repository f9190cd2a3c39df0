//! `init`: a hub that asks who calls, from nothing: its settings, its folder, and a token to begin with.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::api_tokens::make;
use super::folder::{Folder, IfNone};
use super::outcome::{Failed, Outcome, print, print_json};
use crate::access::{AccessChange, AccessRecord, NewApiToken, Role};
use crate::task::Timestamp;

/// The name of the first token, and of its file.
const FIRST: &str = "admin";

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The file of settings to write, which must not exist
    #[arg(long, default_value = "taskhub.toml", value_name = "FILE")]
    config: PathBuf,
    /// The folder where the hub is to keep its file
    #[arg(long, env = "TASKHUB_DATA", default_value = "./data", value_name = "FOLDER")]
    data: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// `taskhub init`. What it made before something failed, it takes away again; only a token that is on disk stays.
pub(super) fn init(args: &InitArgs) -> Outcome {
    let token_file = args.config.with_file_name(format!("{FIRST}.token"));
    let config = Made::new(&args.config, 0o644)?;
    let secret = Made::new(&token_file, 0o600)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&args.data).map_err(|why| of(&args.data, &why))?;
    let Folder::Resting(mut resting) = Folder::open(&args.data, IfNone::Make)? else {
        return Err(Failed::refused(format!("a hub is running on {}", args.data.display())));
    };
    let now = Timestamp::now();
    let new = NewApiToken {
        name: FIRST.to_owned(),
        role: Role::Admin,
        user_id: None,
        task_types: None,
        queues: None,
        expires_at: None,
    };
    let (token, text) = make(new, now)?;
    config.write(&settings(&args.config, &args.data)?)?;
    secret.write(&format!("{text}\n"))?;
    resting.change(vec![AccessChange::Put(AccessRecord::ApiToken(token))], "api_token.create", FIRST)?;
    config.stays();
    secret.stays();
    tell(args, &token_file)
}

fn tell(args: &InitArgs, token_file: &Path) -> Outcome {
    if args.json {
        print_json(&serde_json::json!({"config": args.config, "data": args.data, "token_file": token_file}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (config, data, secret) = (args.config.display(), args.data.display(), token_file.display());
    print(&format!(
        "{config}  the settings of the hub\n\
         {data}  its folder, for its own user alone\n\
         {secret}  the text of its first token, {FIRST}, which may do everything: keep it from others\n\
         \n\
         Next:\n  \
         taskhub serve --config {config}\n  \
         taskhub login < {secret}\n  \
         taskhub list\n  \
         taskhub token create --role user --user ann --expires 90d --data {data}\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The file of settings: where the hub listens, and its folder, as it is seen from the file.
fn settings(config: &Path, data: &Path) -> Result<String, Failed> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|why| of(path, &why));
    let (home, data) = (absolute(config)?, absolute(data)?);
    let home = home.parent().unwrap_or(Path::new("/"));
    let data = data.strip_prefix(home).unwrap_or(&data);
    let data = data.to_str().ok_or_else(|| Failed::usage(format!("{} is no Unicode", data.display())))?;
    let data = toml::Value::String(if data.is_empty() { ".".to_owned() } else { data.to_owned() });
    Ok(format!(
        "# Settings of `taskhub serve --config`. `taskhub serve --print-config` shows all there are, with a word on each.\n\
         \n\
         # Others reach the hub at an address such as \"0.0.0.0:8080\"; give it a certificate then, or a proxy with one.\n\
         listen = \"127.0.0.1:8080\"\n\
         data = {data}\n"
    ))
}

/// A file that this made, until it is to stay.
struct Made {
    path: PathBuf,
    file: File,
    stays: std::cell::Cell<bool>,
}

impl Made {
    fn new(path: &Path, mode: u32) -> Result<Made, Failed> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let file = file.map_err(|why| match why.kind() {
            io::ErrorKind::AlreadyExists => {
                Failed::refused(format!("{} is there already, and is not written over", path.display()))
            }
            _ => of(path, &why),
        })?;
        Ok(Made { path: path.to_owned(), file, stays: false.into() })
    }

    fn write(&self, text: &str) -> Result<(), Failed> {
        let mut file = &self.file;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|why| of(&self.path, &why))
    }

    fn stays(&self) {
        self.stays.set(true);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.stays.get() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn of(path: &Path, why: &io::Error) -> Failed {
    Failed::here(format!("{}: {why}", path.display()))
}
