//! The command line: what its words mean, and how an outcome becomes an exit code.
//!
//! 0 done · 1 the task failed or was cancelled · 2 usage · 3 the hub cannot be reached · 4 the hub refused.
//! What programs read goes to standard output, what people are told beside it to standard error.

mod api_tokens;
mod audit;
mod bars;
mod browser;
mod bulk;
mod callbacks;
mod canvas;
mod config_file;
mod demo;
mod folder;
#[cfg(test)]
mod golden;
mod ids;
mod init;
mod login;
mod outcome;
mod page;
mod papers;
mod queues;
mod result;
mod run;
mod schedules;
mod serve;
mod show;
mod store;
mod submit;
mod tables;
mod tasks;
mod tokens;
mod types;
mod watch;
mod worker;
mod workflows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use bars::{Bars, Endings};
use ids::TaskName;
use outcome::{Failed, Outcome};

use crate::client::Client;

/// A real-time task hub: submit by REST, run anywhere, watch it live.
#[derive(Debug, Parser)]
#[command(name = "taskhub", version, max_term_width = 100, after_help = TOKEN_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const TOKEN_HELP: &str =
    "Who is calling, where a hub asks: TASKHUB_TOKEN, or the token that `taskhub login` keeps for it.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what it does: a hub, workers and tasks, made up, for two minutes of watching
    Demo(demo::DemoArgs),
    /// Set up a hub that asks who calls: a file of settings, its folder, and a first token
    Init(init::InitArgs),
    /// Run a hub
    Serve(serve::ServeArgs),
    /// Look whether all that a hub has stored is there and undamaged
    Check(store::CheckArgs),
    /// Copy what a hub has stored to a file, also while it runs
    Backup(store::BackupArgs),
    /// Put a copy in the place of what a hub has stored
    Restore(store::RestoreArgs),
    /// Run tasks: one command for each task type, as a file says
    Worker(worker::WorkerArgs),
    /// Run one command as a tracked task, here, and exit as it does
    Run(run::RunArgs),
    /// Submit a task
    Submit(submit::SubmitArgs),
    /// Show one task
    Get(tasks::GetArgs),
    /// Fetch what a task left
    Result(result::ResultArgs),
    /// Say why a task waits
    Why(tasks::WhyArgs),
    /// List tasks
    List(tasks::ListArgs),
    /// Watch tasks live
    Watch(watch::WatchArgs),
    /// Show what a task has logged
    Logs(watch::LogsArgs),
    /// Change a task that waits
    Update(tasks::UpdateArgs),
    /// Cancel tasks
    Cancel(tasks::CancelArgs),
    /// Run failed or cancelled tasks again
    Retry(tasks::RetryArgs),
    /// Show counts and rates
    Stats(tasks::HubOnly),
    /// List the workers
    Workers(tasks::HubOnly),
    /// Cancel, retry or delete many tasks at once
    #[command(subcommand)]
    Bulk(bulk::BulkCommand),
    /// Submit workflows, and look at their tasks
    #[command(subcommand)]
    Workflow(workflows::WorkflowCommand),
    /// Set queues, pause them, and look at what stands in them
    #[command(subcommand)]
    Queue(queues::QueueCommand),
    /// Show or set what users may have at once
    Limits(queues::LimitsArgs),
    /// Set schedules, run and pause them, and look at what they did
    #[command(subcommand)]
    Schedule(schedules::ScheduleCommand),
    /// Look at callbacks, have them tried again, and show what they are signed with
    #[command(subcommand)]
    Callback(callbacks::CallbackCommand),
    /// Declare task types: what their tasks have unless they say otherwise, and what their payloads must fit
    #[command(subcommand, visible_alias = "types")]
    Type(types::TypeCommand),
    /// Make, list and revoke API tokens
    #[command(subcommand)]
    Token(api_tokens::TokenCommand),
    /// Show who did what
    Audit(audit::AuditArgs),
    /// Keep a token for a hub: read from standard input, or asked for, and looked at by the hub
    Login(login::LoginArgs),
    /// Forget the token that is kept for a hub
    Logout(login::LogoutArgs),
    /// Show who you are to a hub, and what you may
    Whoami(tasks::HubOnly),
    /// Open the hub's page in a browser
    Open(page::OpenArgs),
    /// Print the completions of a shell
    Completions(papers::CompletionsArgs),
    /// Print a manual page
    Man(papers::ManArgs),
}

/// Which hub, and how to answer.
#[derive(Clone, Debug, Args)]
struct HubArgs {
    /// The hub's address
    #[arg(long, value_name = "URL", env = "TASKHUB_URL", default_value = DEFAULT_URL)]
    hub: String,
    /// Believe a hub at https:// by the certificates of this file, in PEM, instead of the machine's
    #[arg(long, value_name = "FILE", env = "TASKHUB_CA_CERT")]
    ca_cert: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Where a hub is found when nobody says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

impl HubArgs {
    fn client(&self) -> Result<Client, Failed> {
        client(&self.hub, self.ca_cert.as_deref())
    }
}

/// A hub, and nobody who is calling.
fn stranger(hub: &str, ca_cert: Option<&Path>) -> Result<Client, Failed> {
    Ok(match ca_cert {
        Some(path) => Client::trusting(hub, path)?,
        None => Client::new(hub)?,
    })
}

/// A hub, and who is calling.
fn client(hub: &str, ca_cert: Option<&Path>) -> Result<Client, Failed> {
    let client = stranger(hub, ca_cert)?;
    Ok(match tokens::of(client.url())? {
        Some(token) => client.with_token(token),
        None => client,
    })
}

/// Reads the command line, does what it says, and tells how it went.
pub fn main() -> ExitCode {
    let outcome = read().and_then(|(cli, matches)| obey(cli, &matches));
    outcome.unwrap_or_else(|failed| {
        failed.tell();
        failed.exit_code()
    })
}

/// Reads the words, and where `serve` names a file, that too: what it says stands where defaults stood, so the words and
/// the environment go before it. clap exits with 2 by itself where the words make no sense.
fn read() -> Result<(Cli, ArgMatches), Failed> {
    let mut matches = Cli::command().get_matches();
    if let Some(path) = matches.subcommand_matches("serve").and_then(serve::file) {
        let command = config_file::as_defaults(Cli::command(), path).map_err(Failed::usage)?;
        matches = command.get_matches();
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|why| why.exit());
    Ok((cli, matches))
}

fn obey(Cli { command }: Cli, matches: &ArgMatches) -> Outcome {
    match command {
        Command::Demo(args) => demo::demo(args),
        Command::Init(args) => init::init(&args),
        Command::Serve(args) => serve::serve(args, matches.subcommand_matches("serve")),
        Command::Check(args) => store::check(&args),
        Command::Backup(args) => store::backup(&args),
        Command::Restore(args) => store::restore(&args),
        Command::Worker(args) => block_on(worker::worker(args)),
        Command::Run(args) => block_on(run::run(args)),
        Command::Submit(args) => block_on(submit::submit(args)),
        Command::Get(args) => block_on(tasks::get(args)),
        Command::Result(args) => block_on(result::result(args)),
        Command::List(args) => block_on(tasks::list(args)),
        Command::Watch(args) => block_on(watch::watch(args)),
        Command::Logs(args) => block_on(watch::logs(args)),
        Command::Why(args) => block_on(tasks::why(args)),
        Command::Update(args) => block_on(tasks::update(args)),
        Command::Cancel(args) => block_on(tasks::cancel(args)),
        Command::Retry(args) => block_on(tasks::retry(args)),
        Command::Stats(args) => block_on(tasks::stats(args)),
        Command::Workers(args) => block_on(tasks::workers(args)),
        Command::Bulk(command) => block_on(bulk::bulk(command)),
        Command::Workflow(command) => block_on(workflows::workflow(command)),
        Command::Queue(command) => block_on(queues::queue(command)),
        Command::Limits(args) => block_on(queues::limits(args)),
        Command::Schedule(command) => block_on(schedules::schedule(command)),
        Command::Callback(command) => callbacks::callback(command),
        Command::Type(command) => block_on(types::task_type(command)),
        Command::Token(command) => api_tokens::token(command),
        Command::Audit(args) => audit::audit(&args),
        Command::Login(args) => block_on(login::login(args)),
        Command::Logout(args) => login::logout(&args),
        Command::Whoami(args) => block_on(login::whoami(args)),
        Command::Open(args) => block_on(page::open(args)),
        Command::Completions(args) => papers::completions(args, Cli::command()),
        Command::Man(args) => papers::man(args, Cli::command()),
    }
}

/// One thread is enough for a client, and commands it starts must outlive no thread but the last.
fn block_on(role: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| Failed::here(format!("could not start: {why}")))?;
    let outcome = runtime.block_on(role);
    // A read of standard input may never end; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_hold_together() {
        Cli::command().debug_assert();
    }
}
