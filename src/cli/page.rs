//! `taskhub open`: the hub's page, or that of a task.

use std::process::ExitCode;

use clap::Args;

use super::outcome::{Failed, Outcome, print};
use super::{HubArgs, TaskName, browser};

#[derive(Debug, Args)]
pub(super) struct OpenArgs {
    /// The task whose page it is; the list of all where absent
    #[arg(value_name = "ID")]
    task_id: Option<TaskName>,
    /// Only print its address
    #[arg(long)]
    no_open: bool,
    #[command(flatten)]
    hub: HubArgs,
}

/// Prints the address, and opens it where there is a browser. A page that cannot come is not opened.
pub(super) async fn open(args: OpenArgs) -> Outcome {
    let client = args.hub.client()?;
    if let Some(path) = client.url().unix() {
        let path = path.display();
        return Err(Failed::usage(format!(
            "no browser reaches the Unix socket {path}; name the address of a proxy with --hub"
        )));
    }
    let mut address = client.url().join("");
    match &args.task_id {
        Some(name) => {
            let task = client.get(name.find(&client).await?).await?;
            address.set_fragment(Some(&format!("/task/{}", task.task_id)));
        }
        None => drop(client.stats().await?),
    }
    match args.hub.json {
        true => super::outcome::print_json(&serde_json::json!({ "url": address.as_str() }))?,
        false => print(&format!("{address}\n"))?,
    }
    if !args.no_open {
        browser::open(address.as_str());
    }
    Ok(ExitCode::SUCCESS)
}
