//! A hub that listens: the one place where store, hub and routes meet.
//!
//! # How it ends
//!
//! When it is told to, it takes no new work but goes on answering until what runs is done or the drain is over. Then no
//! new connections are taken; watchers are told goodbye, each at its own moment within `goodbye`; then workers are; then
//! what is still being answered gets a moment; and last the writer ends and the store is closed.

mod connections;
mod tls;

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::task::TaskTracker;

use self::connections::{Connections, Front};
use self::tls::{Files, Tls};
use crate::access::AccessChange;
use crate::children;
use crate::config::{ServeConfig, StoreKind};
use crate::http::{App, BasePath};
use crate::hub::{AccessListener, Ended, Hub};
use crate::keys::Keys;
use crate::listen::{Listen, Listener, UnixMode};
use crate::signals::Signals;
use crate::store::{SqliteOptions, SqliteStore, Store, StoreError, in_memory};
use crate::task::Timestamp;
use crate::telemetry;

/// The socket in the data folder, for the hub's own commands.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// The most connections there: a few people and scripts.
const ADMIN_CONNECTIONS_MAX: usize = 16;

/// How long sockets may take to close beyond the goodbyes, and answers to be finished.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Why a hub did not start, or did not stay.
#[derive(Debug)]
pub enum StartError {
    /// The configuration cannot work; the text says what to do.
    Config(String),
    Bind {
        listen: Listen,
        cause: io::Error,
    },
    /// The store cannot be opened: damaged, not ours, or in use by another hub.
    Store(StoreError),
    /// It did start, and then its writer failed.
    Failed,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(why) => f.write_str(why),
            StartError::Bind { listen, cause } => write!(f, "cannot listen on {listen}: {cause}"),
            StartError::Store(error) => write!(f, "cannot open the store: {error}"),
            StartError::Failed => f.write_str(
                "the writer has failed; what was acknowledged is on disk, and the hub goes on from there once it is started again",
            ),
        }
    }
}

impl std::error::Error for StartError {}

/// A hub that listens. Dropping it leaves it running until the runtime ends; [`Server::shutdown`] ends it well.
pub struct Server {
    address: Listen,
    scheme: &'static str,
    base_path: BasePath,
    hub: Hub,
    end: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

impl Server {
    /// Starts a hub and everything around it. When this returns, the hub answers.
    pub async fn start(config: ServeConfig) -> Result<Server, StartError> {
        config.check().map_err(StartError::Config)?;
        let door = config.door().map_err(StartError::Config)?;
        let proxies = Arc::new(config.proxies().map_err(StartError::Config)?);
        let tls = match config.tls_files() {
            Some((cert, key)) => Some(Tls::start(Files { cert, key }).await.map_err(StartError::Config)?),
            None => None,
        };
        // Bound first, so that a hub which cannot listen does not touch the store.
        let bind = |cause| StartError::Bind { listen: config.listen.clone(), cause };
        let listener = Listener::bind(&config.listen, config.unix_mode).map_err(bind)?;
        let address = listener.place().map_err(bind)?;
        let hub = open_hub(&config).await?;
        let keys = hub.listen_to_access(|records| Keys::new(config.key_options(), records));
        let keys = keys.and_then(|keys| config.check_open(&keys).map(|()| keys));
        let keys = match keys {
            Ok(keys) => keys,
            Err(why) => {
                hub.stop().await;
                return Err(StartError::Config(why));
            }
        };
        if keys.is_open() && config.listen.is_reachable() {
            tracing::warn!(listen = %config.listen, "open to everyone who can reach it: the hub asks nobody who they are");
        }
        // A hub that answers can make tokens.
        look_after_own_keys(&hub, &keys).await;
        tokio::spawn(look_after_keys(hub.clone(), keys.clone()));
        let app = App::new(hub.clone(), keys, door, config.http_limits(), config.live_limits());
        let router = config.base_path.router(app.clone());
        let admin = admin_door(&config).map(|listener| (listener, BasePath::default().router(app.clone())));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (end, told) = watch::channel(false);
        let bounds = Bounds { connections_max: config.connections_max, drain: config.drain_timeout };
        let front = Front { router, tls, proxies, is_admin: false };
        let ended = tokio::spawn(run(listener, front, admin, hub.clone(), app, bounds, until_told(told)));
        Ok(Server { address, scheme, base_path: config.base_path, hub, end, ended })
    }

    /// Where it listens.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// The same as clients are given it: `http://127.0.0.1:8080`, `https://…` or `unix:/run/taskhub.sock`; with the base path.
    pub fn url(&self) -> String {
        let base = self.base_path.as_prefix();
        match &self.address {
            Listen::Tcp(address) => format!("{}://{address}{base}", self.scheme),
            place @ Listen::Unix(_) if base.is_empty() => place.to_string(),
            place @ Listen::Unix(_) => format!("{place}:{base}"),
        }
    }

    /// The hub inside.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Ends it: drains, says goodbye, and closes the store.
    pub async fn shutdown(self) {
        self.end.send_replace(true);
        let _ = self.ended.await;
    }
}

async fn until_told(mut told: watch::Receiver<bool>) {
    if told.wait_for(|end| *end).await.is_err() {
        // The handle is gone, so nobody can tell any more.
        std::future::pending::<()>().await;
    }
}

/// Opens the store and starts the hub, where blocking is allowed: a large store takes seconds.
async fn open_hub(config: &ServeConfig) -> Result<Hub, StartError> {
    let (kind, folder, options) = (config.store, config.data.clone(), config.hub_options());
    let opening = tokio::task::spawn_blocking(move || {
        let store: Box<dyn Store> = match kind {
            StoreKind::Memory => Box::new(in_memory()?),
            StoreKind::Sqlite => Box::new(SqliteStore::open(&folder, SqliteOptions::default())?),
        };
        Hub::start(store, options)
    });
    match opening.await {
        Ok(opened) => opened.map_err(StartError::Store),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Listens in the data folder, for whoever may write there: they may do everything, and need no token for it. A hub that cannot
/// have it, because the folder's name is too long for a socket, goes on without.
fn admin_door(config: &ServeConfig) -> Option<Listener> {
    if config.store == StoreKind::Memory {
        return None;
    }
    let place = Listen::Unix(config.data.join(ADMIN_SOCKET));
    let listener = Listener::bind(&place, UnixMode::default());
    listener.inspect_err(|error| tracing::warn!(%place, %error, "there is no socket for the hub's own commands")).ok()
}

/// Each step about access holds as soon as it is on disk.
impl AccessListener for Keys {
    fn changed(&self, change: &AccessChange) {
        self.apply(change);
    }
}

/// How often it is looked whether the hub's own keys are to be changed. They are used for months.
const UPKEEP_EVERY: Duration = Duration::from_secs(3_600);

/// Makes and ends the keys that the hub itself signs with, as their time comes; none where it asks nobody who they are.
async fn look_after_own_keys(hub: &Hub, keys: &Keys) {
    if keys.is_open() {
        return;
    }
    let upkeep = match keys.upkeep(Timestamp::now()) {
        Ok(changes) if changes.is_empty() => Ok(()),
        Ok(changes) => hub.change_access(changes, None).await.map_err(|error| format!("{error:?}")),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = upkeep {
        tracing::warn!(error, "the keys that scoped tokens are signed with could not be looked after");
    }
}

/// Looks after what tokens are signed with: the hub's own keys, once it knows callers, and those of applications.
async fn look_after_keys(hub: Hub, keys: Arc<Keys>) {
    let own = async {
        let mut changes = keys.changes();
        loop {
            changes.mark_unchanged();
            look_after_own_keys(&hub, &keys).await;
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(UPKEEP_EVERY) => {}
                _ = hub.ended() => return,
            }
        }
    };
    tokio::select! {
        () = own => {}
        () = keys.tend() => {}
    }
}

/// What [`run`] has to know beside its parts.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// The most connections; more wait in the listener's backlog.
    connections_max: usize,
    /// How long running tasks may still run after `shutdown`.
    drain: Duration,
}

/// Serves the hub of `app` behind its `front` on `listener`, and where there is an `admin` door, there too, until `shutdown` resolves, and then ends it well.
async fn run(
    listener: Listener,
    front: Front,
    admin: Option<(Listener, Router)>,
    hub: Hub,
    app: Arc<App>,
    bounds: Bounds,
    shutdown: impl Future<Output = ()>,
) {
    let (close, closing) = watch::channel(false);
    let connections = TaskTracker::new();
    let mut accepting = JoinSet::new();
    if let Some((listener, router)) = admin {
        let front = Front { router, tls: None, proxies: front.proxies.clone(), is_admin: true };
        let served = Connections::new(front, connections.clone(), closing.clone());
        accepting.spawn(served.accept(listener, ADMIN_CONNECTIONS_MAX));
    }
    let served = Connections::new(front, connections.clone(), closing);
    accepting.spawn(served.accept(listener, bounds.connections_max));
    shutdown.await;

    tracing::info!(drain_ms = bounds.drain.as_millis() as u64, "draining: no new work, and running work may finish");
    hub.drain(bounds.drain).await;
    let goodbye = hub.options().feed.goodbye;
    accepting.shutdown().await;
    tokio::join!(
        // Watchers were told by the drain; each picks its own moment.
        async {
            let _ = tokio::time::timeout(goodbye, app.sockets_closed()).await;
            hub.dismiss_workers();
        },
        async {
            let _ = tokio::time::timeout(goodbye + CLOSE_TIME, app.sockets_closed()).await;
        },
    );
    close.send_replace(true);
    connections.close();
    let _ = tokio::time::timeout(CLOSE_TIME, connections.wait()).await;
    hub.stop().await;
    tracing::info!("the hub has ended");
}

/// `taskhub serve`: runs a hub until a signal asks it to end (see [`Signals`]), and ends it well. One that insists ends it
/// at once; nothing that was acknowledged is lost by that.
///
/// The first line on stdout names the address, once the hub answers.
pub fn main(config: ServeConfig) -> ExitCode {
    telemetry::start_logging(config.log_format);
    raise_file_limit();
    refuse_huge_pages();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(format_args!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let served = runtime.block_on(serve(config));
    if let Err(error @ StartError::Failed) = &served {
        tracing::error!("{error}");
    }
    // A read that never ends keeps nobody from ending.
    runtime.shutdown_timeout(CLOSE_TIME);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("{error}"));
            // 2 is for what was said on the command line.
            if matches!(error, StartError::Config(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

async fn serve(config: ServeConfig) -> Result<(), StartError> {
    let mut signals = Signals::listen().map_err(|error| StartError::Config(format!("cannot hear signals: {error}")))?;
    // What is started beside the hub in its container may leave orphans.
    tokio::spawn(children::reap_orphans());
    let server = Server::start(config).await?;
    announce(&server.url());
    let hub = server.hub().clone();
    tokio::select! {
        _ = signals.next() => {}
        _ = hub.ended() => return Err(StartError::Failed),
    }
    tokio::spawn(async move {
        let number = signals.next().await;
        tracing::warn!("ending at once");
        std::process::exit(128 + i32::from(number));
    });
    server.shutdown().await;
    match hub.ended().await {
        Ended::Well => Ok(()),
        Ended::Failed => Err(StartError::Failed),
    }
}

/// Says on standard error why the hub does not start. A terminal that is gone is no reason to panic.
fn tell(words: fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "taskhub: {words}");
}

/// Tells whoever started the hub where it is. A closed stdout is no reason to stop.
fn announce(url: &str) {
    use std::io::Write as _;
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "taskhub listening on {url}").and_then(|()| out.flush());
}

/// Lets the process open as many files as it may. Every socket is one, and the usual 1,024 are soon gone.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls are given a valid rlimit of this frame, and keep nothing of it.
        let raised = unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
            }
        };
        if !raised {
            tracing::warn!("could not raise the limit of open files");
        }
    }
}

#[cfg(test)]
mod tests;

/// Has the kernel give this process small pages only. The allocator asks for huge ones, and a few records scattered over
/// each of them would keep all of it: half as much memory again, for no CPU that could be measured.
fn refuse_huge_pages() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        const NONE: libc::c_ulong = 0;
        let yes: libc::c_ulong = 1;
        // SAFETY: sets a flag of this process; all arguments are plain numbers.
        let refused = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, yes, NONE, NONE, NONE) } == 0;
        if !refused {
            tracing::debug!("huge pages stay allowed");
        }
    }
}
