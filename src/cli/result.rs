//! `taskhub result`: what a task left, as it is.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::outcome::{FAILED, Failed, Outcome, print_json, tell};
use super::submit::finished;
use super::{HubArgs, TaskName};
use crate::client::{FetchedResult, ResultStream};
use crate::task::{Json, Status};

#[derive(Debug, Args)]
pub(super) struct ResultArgs {
    #[arg(value_name = "ID")]
    task_id: TaskName,
    /// Wait for its end
    #[arg(long, short)]
    wait: bool,
    /// Write it to this file, which is there once all of it is
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    hub: HubArgs,
}

/// Exits with 1 where the task failed or was cancelled.
pub(super) async fn result(args: ResultArgs) -> Outcome {
    let client = args.hub.client()?;
    let task_id = args.task_id.find(&client).await?;
    if args.wait {
        finished(&client, task_id).await?;
    }
    let left = match client.result(task_id).await? {
        FetchedResult::Stream(stream) => return streamed(stream, args.output.as_deref()).await,
        FetchedResult::Json(left) => left,
    };
    if left.status != Status::Completed {
        match &left.error {
            _ if args.hub.json => print_json(&left)?,
            Some(error) => tell(format_args!("taskhub: the task failed: {}: {}", error.kind, error.message)),
            None => tell(format_args!("taskhub: the task was {}", left.status)),
        }
        return Ok(ExitCode::from(FAILED));
    }
    if args.hub.json && args.output.is_none() {
        print_json(&left)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = format!("{}\n", left.result.as_ref().map_or("null", Json::as_str));
    let mut out = Out::open(args.output.as_deref())?;
    out.write(text.as_bytes())?;
    out.close()?;
    Ok(ExitCode::SUCCESS)
}

async fn streamed(mut stream: ResultStream, output: Option<&Path>) -> Outcome {
    let is_text = stream.content_type.starts_with("text/") || stream.content_type.contains("json");
    if output.is_none() && !is_text && io::stdout().is_terminal() {
        let (bytes, kind) = (stream.bytes, &stream.content_type);
        return Err(Failed::usage(format!(
            "the result is {bytes} bytes of {kind}: say --output FILE, or send it elsewhere"
        )));
    }
    let mut out = Out::open(output)?;
    while let Some(chunk) = stream.chunk().await? {
        out.write(&chunk)?;
    }
    out.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Where a result goes.
enum Out {
    Stdout,
    /// Under another name until it is whole.
    File {
        file: File,
        part: PathBuf,
        path: PathBuf,
    },
}

impl Out {
    fn open(path: Option<&Path>) -> Result<Out, Failed> {
        let Some(path) = path else { return Ok(Out::Stdout) };
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|why| Failed::here(format!("{}: {why}", part.display())))?;
        Ok(Out::File { file, part, path: path.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        let written = match self {
            Out::Stdout => io::stdout().write_all(bytes),
            Out::File { file, .. } => file.write_all(bytes),
        };
        written.map_err(failed)
    }

    fn close(self) -> Result<(), Failed> {
        let closed = match self {
            Out::Stdout => io::stdout().flush(),
            Out::File { file, part, path } => file.sync_all().and_then(|()| std::fs::rename(part, path)),
        };
        closed.map_err(failed)
    }
}

fn failed(why: io::Error) -> Failed {
    match why.kind() {
        io::ErrorKind::BrokenPipe => Failed::silent(),
        _ => Failed::here(format!("failed to write: {why}")),
    }
}
