//! `token`: API tokens, made, listed and taken back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::folder::{Folder, IfNone};
use super::outcome::{Failed, Outcome, print, print_all, print_json, tell};
use super::show::{self, Table};
use super::tables::Look;
use super::{block_on, client};
use crate::access::{AccessChange, AccessKey, AccessRecord, NewApiToken, NewTokenError, Role};
use crate::client::Client;
use crate::task::{Name, Timestamp};
use crate::wire::{ApiTokenBody, ApiTokenMade, ApiTokenView};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token for a program or a person. Its text is printed this once
    ///
    /// With the first one, the hub asks everyone who they are.
    Create(CreateArgs),
    /// List the tokens, without their texts
    List(ListArgs),
    /// Take tokens back: whoever is connected with one is closed at once
    Revoke(RevokeArgs),
}

/// Which hub: that of a folder, whether it runs or not, or one elsewhere.
#[derive(Clone, Debug, Args)]
pub(super) struct WhereArgs {
    /// The hub's data folder. Whoever may write there needs no token
    #[arg(long, env = "TASKHUB_DATA", default_value = "./data", value_name = "FOLDER")]
    pub(super) data: PathBuf,
    /// In place of the folder: the address of a hub, for whom it knows as an admin
    #[arg(long, value_name = "URL")]
    hub: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl WhereArgs {
    pub(super) fn open(&self, if_none: IfNone) -> Result<Folder, Failed> {
        match &self.hub {
            Some(hub) => client(hub, None).map(Folder::Running),
            None => Folder::open(&self.data, if_none),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// What whoever has it may do: viewer, user, worker, operator or admin
    #[arg(long)]
    role: Role,
    /// Whose tasks it submits and, for the role user, sees
    #[arg(long, value_name = "USER_ID")]
    user: Option<String>,
    /// Of a worker: a task type it takes, or the beginning of some with a trailing `*`; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Option<Vec<String>>,
    /// Of a worker: a queue it takes; may be repeated
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Option<Vec<String>>,
    /// After how long it is void, such as 90d. Without, when it is revoked
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: Option<Duration>,
    /// By it the token is listed and revoked. Made up where it is left out
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    at: WhereArgs,
}

fn expiry(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|why| format!("{why} (such as 12h, 90d, 1y)"))
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    at: WhereArgs,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Which ones, by name
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    at: WhereArgs,
}

pub(super) fn token(command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create(args) => create(args),
        TokenCommand::List(args) => list(&args.at),
        TokenCommand::Revoke(args) => revoke(&args),
    }
}

fn create(args: CreateArgs) -> Outcome {
    let body = ApiTokenBody {
        name: args.name,
        role: args.role,
        user_id: args.user,
        task_types: args.types,
        queues: args.queues,
        expires_at: None,
        ttl_ms: args.expires.map(|expires| expires.as_millis() as u64),
    };
    let made = match args.at.open(IfNone::Make)? {
        Folder::Running(client) => asked(async move |client| Ok(client.create_api_token(&body).await?), client)?,
        Folder::Resting(mut resting) => {
            let was_closed = resting.records().is_closed();
            let now = Timestamp::now();
            let wrong = |(field, why)| Failed::usage(format!("{field} {why}"));
            let (token, text) = make(body.read(now).map_err(wrong)?, now)?;
            let put = AccessChange::Put(AccessRecord::ApiToken(token.clone()));
            resting.change(vec![put], "api_token.create", token.name.as_str())?;
            if !was_closed {
                // Also where a name was mistyped, and a store was made there.
                tell(format_args!("the hub of {} asks everyone for a token from now on", args.at.data.display()));
            }
            ApiTokenMade { api_token: token.into(), token: text }
        }
    };
    if args.at.json {
        print_json(&made)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ApiTokenView { name, role, expires_at, .. } = &made.api_token;
    let until = expires_at.map_or_else(|| "until it is revoked".to_owned(), |at| format!("until {at}"));
    tell(format_args!("the token {name}, {role}, good {until}; it is not shown again:"));
    print(&format!("{}\n", made.token))?;
    Ok(ExitCode::SUCCESS)
}

/// A token and its text.
pub(super) fn make(new: NewApiToken, now: Timestamp) -> Result<(crate::access::ApiToken, String), Failed> {
    new.make(now).map_err(|error| match error {
        NewTokenError::Invalid(invalid) => Failed::usage(invalid.to_string()),
        NewTokenError::Random(error) => Failed::here(format!("the system gives no randomness: {error}")),
    })
}

fn list(at: &WhereArgs) -> Outcome {
    let tokens = match at.open(IfNone::Refuse)? {
        Folder::Running(client) => asked(async |client| Ok(client.api_tokens().await?), client)?,
        Folder::Resting(resting) => {
            let token = |record: &AccessRecord| match record {
                AccessRecord::ApiToken(token) => Some(ApiTokenView::from(token.clone())),
                _ => None,
            };
            resting.records().iter().filter_map(token).collect()
        }
    };
    print_all(&tokens, at.json, table)?;
    Ok(ExitCode::SUCCESS)
}

fn revoke(args: &RevokeArgs) -> Outcome {
    let done = |name: &str| {
        if !args.at.json {
            tell(format_args!("{name} is revoked"))
        }
    };
    match args.at.open(IfNone::Refuse)? {
        Folder::Running(client) => asked(
            async |client| {
                for name in &args.names {
                    client.revoke_api_token(name).await.map_err(|error| Failed::from(error).about(name))?;
                    done(name);
                }
                Ok(())
            },
            client,
        )?,
        Folder::Resting(mut resting) => {
            for name in &args.names {
                let remove = AccessChange::Remove(AccessKey::ApiToken { name: Name::new(name) });
                resting.change(vec![remove], "api_token.revoke", name)?;
                done(name);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks a running hub.
pub(super) fn asked<T>(ask: impl AsyncFnOnce(Client) -> Result<T, Failed>, client: Client) -> Result<T, Failed> {
    let mut answer = None;
    block_on(async {
        answer = Some(ask(client).await?);
        Ok(ExitCode::SUCCESS)
    })?;
    answer.ok_or_else(Failed::silent)
}

fn table(tokens: &[ApiTokenView], look: Look) -> String {
    let mut table = Table::new(&["NAME", "ROLE", "USER", "TYPES", "QUEUES", "AGE", "EXPIRES"], &[5]);
    for token in tokens {
        let list = |list: &Option<Vec<String>>| list.as_ref().map(|list| list.join(", ")).unwrap_or_default();
        let expires = match token.expires_at {
            Some(at) if at <= look.now => "expired".to_owned(),
            Some(at) => at.to_string(),
            None => String::new(),
        };
        table.row([
            token.name.to_string(),
            token.role.to_string(),
            show::one_line(token.user_id.as_ref().map_or("", |user| user.as_str())),
            list(&token.task_types),
            list(&token.queues),
            show::age(token.created_at, look.now),
            expires,
        ]);
    }
    table.text(look.width)
}
