//! `audit`: who did what to which task, token or setting.

use std::process::ExitCode;

use clap::Args;

use super::api_tokens::{WhereArgs, asked};
use super::folder::{Folder, IfNone, Resting};
use super::outcome::{Failed, Outcome, print_all};
use super::show::{self, Table};
use super::tables::Look;
use crate::access::{AuditEntry, Role};
use crate::client::{self, Client};
use crate::store::AuditQuery;
use crate::task::{Name, Timestamp};
use crate::wire::ACCESS_PAGE_LEN_MAX;

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Only what this user did
    #[arg(long, value_name = "USER_ID")]
    who: Option<String>,
    /// Only what was done in this role
    #[arg(long)]
    role: Option<Role>,
    /// Only what was done with this credential, such as api:NAME
    #[arg(long, value_name = "CREDENTIAL")]
    token: Option<String>,
    /// Only this: submit, cancel, queue.set, api_token.create, …
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this: a task's id, or the name of a token or setting
    #[arg(long)]
    target: Option<String>,
    /// Only what came out so: ok, or the code of a problem such as forbidden
    #[arg(long)]
    outcome: Option<String>,
    /// Only what was done at this time or later, in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    after: Option<Timestamp>,
    /// Only what was done before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Option<Timestamp>,
    /// The most rows, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    #[command(flatten)]
    at: WhereArgs,
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|why| why.to_string())
}

/// `taskhub audit`: the newest first; with `--json` a line each.
pub(super) fn audit(args: &AuditArgs) -> Outcome {
    let rows = match args.at.open(IfNone::Refuse)? {
        Folder::Running(client) => asked(async |client| args.of_hub(&client).await, client)?,
        Folder::Resting(resting) => args.of_files(&resting)?,
    };
    print_all(&rows, args.at.json, table)?;
    Ok(ExitCode::SUCCESS)
}

impl AuditArgs {
    fn missing(&self, rows: &[AuditEntry]) -> usize {
        (self.limit as usize).saturating_sub(rows.len()).min(ACCESS_PAGE_LEN_MAX)
    }

    fn of_files(&self, resting: &Resting) -> Result<Vec<AuditEntry>, Failed> {
        let mut query = AuditQuery {
            who: self.who.as_deref().map(Name::new),
            role: self.role,
            token: self.token.clone(),
            action: self.action.clone(),
            target: self.target.clone(),
            outcome: self.outcome.clone(),
            after: self.after,
            before: self.before,
            ..AuditQuery::default()
        };
        let mut rows = Vec::new();
        loop {
            query.limit = self.missing(&rows);
            let page = resting.audit(&query)?;
            rows.extend(page.entries);
            query.beyond = page.beyond;
            if query.beyond.is_none() || self.missing(&rows) == 0 {
                return Ok(rows);
            }
        }
    }

    async fn of_hub(&self, client: &Client) -> Result<Vec<AuditEntry>, Failed> {
        let wanted = [
            ("who", self.who.clone()),
            ("role", self.role.map(|role| role.to_string())),
            ("token_name", self.token.clone()),
            ("action", self.action.clone()),
            ("target", self.target.clone()),
            ("outcome", self.outcome.clone()),
            ("after", self.after.map(|at| at.to_string())),
            ("before", self.before.map(|at| at.to_string())),
        ];
        let wanted = wanted.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let mut query = client::AuditQuery { wanted, ..client::AuditQuery::default() };
        let mut rows = Vec::new();
        loop {
            query.limit = Some(self.missing(&rows) as u32);
            let page = client.audit(&query).await?;
            rows.extend(page.rows);
            query.cursor = page.next_cursor;
            if query.cursor.is_none() || self.missing(&rows) == 0 {
                return Ok(rows);
            }
        }
    }
}

fn table(rows: &[AuditEntry], look: Look) -> String {
    let mut table = Table::new(&["AT", "WHO", "ROLE", "TOKEN", "FROM", "ACTION", "TARGET", "OUTCOME"], &[]);
    for AuditEntry { at, row, .. } in rows {
        table.row([
            at.to_string(),
            show::one_line(row.who.as_ref().map_or("", |who| who.as_str())),
            row.role.to_string(),
            show::one_line(&row.token),
            row.address.map(|address| address.to_string()).unwrap_or_default(),
            show::one_line(&row.action),
            show::one_line(row.target.as_deref().unwrap_or_default()),
            show::one_line(&row.outcome),
        ]);
    }
    table.text(look.width)
}
