//! `taskhub login`, `taskhub logout`, `taskhub whoami`: who somebody at this machine is to a hub.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::outcome::{Failed, Outcome, print, print_json, tell};
use super::tasks::HubOnly;
use super::{DEFAULT_URL, stranger, tokens};
use crate::client::MeView;
use crate::dial::HubUrl;

/// More than a hub looks at.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// The hub's address
    #[arg(long, value_name = "URL", env = "TASKHUB_URL", default_value = DEFAULT_URL)]
    hub: String,
    /// Believe a hub at https:// by the certificates of this file, in PEM, instead of the machine's
    #[arg(long, value_name = "FILE", env = "TASKHUB_CA_CERT")]
    ca_cert: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct LogoutArgs {
    /// The hub's address
    #[arg(long, value_name = "URL", env = "TASKHUB_URL", default_value = DEFAULT_URL)]
    hub: String,
}

pub(super) async fn login(args: LoginArgs) -> Outcome {
    let client = stranger(&args.hub, args.ca_cert.as_deref())?;
    let path = tokens::path(client.url())
        .ok_or_else(|| Failed::usage("there is no HOME to keep a token in; TASKHUB_TOKEN says one"))?;
    let token = asked_for().map_err(|why| Failed::usage(format!("the token could not be read: {why}")))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(Failed::usage("no token was given"));
    }
    let me = client.clone().with_token(token).me().await?;
    tokens::keep(&path, token).map_err(|why| Failed::here(format!("{}: {why}", path.display())))?;
    tell(format_args!("{} is kept in {}", who(&me), path.display()));
    if std::env::var_os(tokens::VARIABLE).is_some_and(|value| !value.is_empty()) {
        tell(format_args!("taskhub: {} is set, and goes before it", tokens::VARIABLE));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn logout(args: &LogoutArgs) -> Outcome {
    let url = HubUrl::parse(&args.hub).map_err(|why| Failed::usage(why.to_string()))?;
    match tokens::path(&url).map(|path| (std::fs::remove_file(&path), path)) {
        Some((Ok(()), _)) => {
            tell(format_args!("the token for {url} is forgotten here; it is good until it is revoked"))
        }
        Some((Err(why), path)) if why.kind() != io::ErrorKind::NotFound => {
            return Err(Failed::here(format!("{}: {why}", path.display())));
        }
        _ => tell(format_args!("no token is kept for {url}")),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn whoami(args: HubOnly) -> Outcome {
    let (client, json) = (args.hub.client()?, args.hub.json);
    let me = client.me().await?;
    match json {
        true => print_json(&me)?,
        false => print(&described(&me))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is typed is not shown, and what comes from a pipe is taken whole.
fn asked_for() -> io::Result<String> {
    if io::stdin().is_terminal() {
        return rpassword::prompt_password("Token: ");
    }
    let mut text = String::new();
    io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// `the token of ada (user)`.
fn who(me: &MeView) -> String {
    match &me.user_id {
        Some(user_id) => format!("the token of {user_id} ({})", me.role),
        None => format!("the token of a program ({})", me.role),
    }
}

fn described(me: &MeView) -> String {
    let mut out = String::new();
    let rights = (!me.rights.is_empty()).then(|| me.rights.join(", "));
    let facts = [
        ("user", me.user_id.as_ref().map(ToString::to_string)),
        ("role", Some(me.role.to_string())),
        ("token", Some(me.token.clone())),
        ("expires", me.expires_at.map(|at| at.to_string())),
        ("may", rights),
        ("hidden", (!me.hidden.is_empty()).then(|| me.hidden.join(", "))),
    ];
    for (name, value) in facts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        let _ = writeln!(out, "{name:8} {value}");
    }
    out
}
