//! `taskhub demo`: two minutes worth watching, in the one program.
//!
//! The hub runs in this process and keeps everything in memory; workers are processes of their own ([`cast`]) that do what
//! the tasks' payloads say ([`work`]); what is submitted, cancelled and killed when is a table ([`script`]). So there is no
//! folder to remove, and nothing that could outlive this process: the workers live by a pipe that it holds. It ends with
//! its terminal, by Ctrl-C, SIGTERM or SIGHUP.

mod cast;
mod script;
mod work;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::MissedTickBehavior;

use super::outcome::{Failed, Outcome};
use super::worker::listen;
use super::{browser, show};
use crate::client::Client;
use crate::config::ServeConfig;
use crate::server::{Server, StartError};
use crate::task::{NewTask, TaskId};
use cast::Cast;
use script::{Act, Draft};

/// Where it is to be found, unless that is taken; then it is the next port that is free.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// Ports that are tried; more demos at once would be no demo.
const PORTS_TRIED: u16 = 20;

/// Lines that are longer are hard to read.
const LINE_MAX: usize = 100;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The address to listen on [default: 127.0.0.1:8080, or the next port that is free]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// Do not open the page in a browser
    #[arg(long)]
    no_open: bool,
    /// How many times as fast it plays
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    speed: u32,
}

pub(super) fn demo(args: DemoArgs) -> Outcome {
    if let Some(part) = cast::Part::ours() {
        return super::block_on(part.act());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|why| Failed::here(format!("could not start: {why}")))?;
    runtime.block_on(play(args))
}

async fn play(args: DemoArgs) -> Outcome {
    let mut signals = listen()?;
    let server = start(args.listen).await?;
    let url = server.url();
    let shown = tokio::select! {
        shown = show(&url, &args) => shown,
        _ = signals.next() => Ok(()),
    };
    // Asked twice, it does not wait.
    tokio::select! {
        () = server.shutdown() => {}
        number = signals.next() => return Ok(ExitCode::from(128 + number)),
    }
    shown?;
    // The terminal may be gone.
    let _ = writeln!(io::stdout(), "\nThe demo is over. Nothing of it is left.");
    Ok(ExitCode::SUCCESS)
}

/// A hub that forgets, and does not wait for anybody when it ends.
fn config(listen: SocketAddr) -> ServeConfig {
    ServeConfig {
        listen: listen.into(),
        // Killed workers are to be seen, not waited for.
        grace: Duration::from_secs(3),
        // The play begins anew every two minutes; what it left long ago may go.
        retain: Duration::from_secs(600),
        drain_timeout: Duration::ZERO,
        ..ServeConfig::for_trial()
    }
}

async fn start(wanted: Option<SocketAddr>) -> Result<Server, Failed> {
    let last = LISTEN.port() + if wanted.is_some() { 0 } else { PORTS_TRIED };
    let mut listen = wanted.unwrap_or(LISTEN);
    loop {
        match Server::start(config(listen)).await {
            Ok(server) => return Ok(server),
            Err(StartError::Bind { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse && listen.port() < last => {
                listen.set_port(listen.port() + 1);
            }
            Err(error @ StartError::Bind { .. }) => {
                return Err(Failed::here(format!("{error}; name another address with --listen HOST:PORT")));
            }
            Err(error @ StartError::Config(_)) => return Err(Failed::usage(error.to_string())),
            Err(error) => return Err(Failed::here(error.to_string())),
        }
    }
}

/// Plays until it is dropped, or its terminal is gone.
async fn show(url: &str, args: &DemoArgs) -> Result<(), Failed> {
    let client = Client::new(url)?;
    let cast = Cast::start(url);
    let mut play = Play { client, cast, speed: args.speed, titled: HashMap::new() };
    let page = format!("{url}/");
    let with_hub = if url == super::DEFAULT_URL { String::new() } else { format!(" --hub {url}") };
    let taken = match args.listen {
        None if !with_hub.is_empty() => format!("   ({LISTEN} is taken)"),
        _ => String::new(),
    };
    let opened = !args.no_open && browser::open(&page);
    let word = if opened { "opens in your browser" } else { "open it in a browser" };
    let mut screen = Screen::new();
    screen.say(&format!(
        "A hub and four workers, all of it made up and kept in memory only.\n\n  \
         {page}   {word}{taken}\n  \
         taskhub watch{with_hub}   or watch in another terminal\n\n\
         It goes on until Ctrl-C, and leaves nothing behind.\n"
    ))?;
    for round in 0_u64.. {
        let mut seconds = tokio::time::interval(Duration::from_secs(1) / args.speed);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for second in 0..script::SECONDS {
            seconds.tick().await;
            for act in script::at(second) {
                // The second time around everybody knows.
                if let Some(words) = play.act(act).await?.filter(|_| round == 0) {
                    screen.tell(second, &words)?;
                }
            }
            screen.look()?;
        }
        if round == 0 {
            screen.tell(script::SECONDS, "That was all. It begins again, without words, until Ctrl-C.")?;
        }
    }
    Ok(())
}

struct Play {
    client: Client,
    cast: Cast,
    speed: u32,
    /// The newest task of each title.
    titled: HashMap<String, TaskId>,
}

impl Play {
    /// Does it; what there is to tell of it.
    async fn act(&mut self, act: Act) -> Result<Option<String>, Failed> {
        match act {
            Act::Say(words) => return Ok(Some(words.to_owned())),
            Act::Submit(draft) => drop(self.submit(*draft, None).await?),
            Act::SubmitFamily(parent, children) => {
                let parent_id = Some(self.submit(*parent, None).await?);
                for child in children {
                    self.submit(child, parent_id).await?;
                }
            }
            Act::KillBusiest => {
                let workers = self.client.workers().await?;
                let busy = workers.iter().filter(|worker| worker.concurrency == work::SEATS && worker.link == "socket");
                let Some(busiest) = busy.max_by_key(|worker| worker.running.len()) else { return Ok(None) };
                self.cast.kill(&busiest.worker_id);
                let tasks = match busiest.running.len() {
                    1 => "a task".to_owned(),
                    several => format!("{several} tasks"),
                };
                return Ok(Some(format!(
                    "{} was killed (SIGKILL) with {tasks} in its hands. In three seconds others go on, item by item.",
                    busiest.worker_id
                )));
            }
            Act::Cancel(title) => {
                if let Some(task_id) = self.titled.get(title) {
                    // It may have ended just now.
                    let _ = self.client.cancel(*task_id, Some("not needed any more")).await;
                }
            }
        }
        Ok(None)
    }

    async fn submit(&mut self, draft: Draft, parent_id: Option<TaskId>) -> Result<TaskId, Failed> {
        let new = NewTask { parent_id, ..draft.at_speed(self.speed) };
        let task_id = self.client.submit(&new).await?.task_id;
        self.titled.insert(new.title.unwrap_or_default(), task_id);
        Ok(task_id)
    }
}

/// Standard output, and whether the demo lives by it.
struct Screen {
    is_terminal: bool,
}

impl Screen {
    fn new() -> Screen {
        Screen { is_terminal: io::stdout().is_terminal() }
    }

    /// Says what happens at this second, in lines that begin below each other.
    fn tell(&mut self, second: u64, words: &str) -> Result<(), Failed> {
        const INDENT: &str = "      ";
        let width = show::terminal_width().unwrap_or(LINE_MAX).min(LINE_MAX);
        let mut line = format!("{:02}:{:02} ", second / 60, second % 60);
        for word in words.split(' ') {
            if line.chars().count() + 1 + word.chars().count() > width {
                self.say(&std::mem::replace(&mut line, INDENT.to_owned()))?;
            }
            line.push(' ');
            line.push_str(word);
        }
        self.say(&line)
    }

    /// A terminal that takes nothing any more is closed, and the demo ends with it; another reader may have heard enough.
    fn say(&mut self, words: &str) -> Result<(), Failed> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{words}").and_then(|()| out.flush()) {
            Err(why) if self.is_terminal => Err(Failed::here(format!("the terminal is gone: {why}"))),
            _ => Ok(()),
        }
    }

    /// Looks whether the terminal is still there, where nothing is said for long.
    fn look(&self) -> Result<(), Failed> {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the call writes one `winsize`, which `size` is.
        let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
        let gone = answer != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EIO);
        if self.is_terminal && gone { Err(Failed::here("the terminal is gone")) } else { Ok(()) }
    }
}
