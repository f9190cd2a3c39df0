//! `type`: what is declared of task types.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::HubArgs;
use super::outcome::{Failed, Outcome, print, print_all, print_json};
use super::submit;
use super::tables;
use crate::client::ClientError;
use crate::settings::TaskTypeSpec;
use crate::task::{Json, read_strictly};
use crate::wire::{Code, TaskTypeBody, TaskTypeView};

#[derive(Debug, Subcommand)]
pub(super) enum TypeCommand {
    /// Every declared type
    List(ListArgs),
    /// One type: its defaults, and the schema of its payloads
    Show(OneArgs),
    /// Set some of a type, or declare one; the rest stays as it is
    Set(SetArgs),
    /// Take back what is declared of a type; its tasks stay
    Delete(OneArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// The task type
    #[arg(value_name = "TYPE")]
    name: String,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The task type
    #[arg(value_name = "TYPE")]
    name: String,
    /// All of it, in place of what is declared, as `show --json` prints it: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    /// What it is, for people
    #[arg(long)]
    title: Option<String>,
    #[arg(long, help = "More about it")]
    description: Option<String>,
    /// Fields of submit that its tasks have unless they say otherwise: JSON, @FILE, or -
    #[arg(long, value_name = "FIELDS")]
    defaults: Option<String>,
    /// The JSON Schema that its payloads must fit: JSON, @FILE, or -; or none
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

pub(super) async fn task_type(command: TypeCommand) -> Outcome {
    match command {
        TypeCommand::List(ListArgs { hub }) => {
            print_all(&hub.client()?.task_types().await?, hub.json, tables::task_types)?;
        }
        TypeCommand::Show(OneArgs { name, hub }) => shown(&hub, &hub.client()?.task_type(&name).await?)?,
        TypeCommand::Set(args) => set(args).await?,
        TypeCommand::Delete(OneArgs { name, hub }) => hub.client()?.delete_task_type(&name).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(args: SetArgs) -> Result<(), Failed> {
    let client = args.hub.client()?;
    let known = match (&args.file, client.task_type(&args.name).await) {
        (Some(_), _) => TaskTypeSpec::default(),
        (None, Ok(task_type)) => task_type.into(),
        (None, Err(ClientError::Refused(problem))) if problem.code == Code::TaskTypeNotFound => TaskTypeSpec::default(),
        (None, Err(error)) => return Err(error.into()),
    };
    let spec = args.spec(known)?;
    shown(&args.hub, &client.set_task_type(&args.name, &spec).await?)
}

impl SetArgs {
    fn spec(&self, mut spec: TaskTypeSpec) -> Result<TaskTypeSpec, Failed> {
        if let Some(file) = &self.file {
            let text = if file == "-" { file.clone() } else { format!("@{file}") };
            spec = read::<TaskTypeBody>("--file", &submit::payload(&text)?)?.into();
        }
        spec.title = self.title.clone().or(spec.title);
        spec.description = self.description.clone().or(spec.description);
        if let Some(text) = &self.defaults {
            spec.defaults = read("--defaults", &submit::payload(text)?)?;
        }
        match self.schema.as_deref() {
            None => {}
            Some("none") => spec.payload_schema = None,
            Some(text) => spec.payload_schema = Some(submit::payload(text)?),
        }
        Ok(spec)
    }
}

fn read<T: serde::de::DeserializeOwned>(what: &str, json: &Json) -> Result<T, Failed> {
    read_strictly(json.bytes()).map_err(|why| Failed::usage(format!("{what} is no such thing: {why}")))
}

fn shown(hub: &HubArgs, task_type: &TaskTypeView) -> Result<(), Failed> {
    match hub.json {
        true => print_json(task_type),
        false => print(&tables::task_type(task_type)),
    }
}
