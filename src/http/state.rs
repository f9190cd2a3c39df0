//! What every route holds, and the count of open sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::{DashMap, Entry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::caller::CountedBy;
use super::door::Door;
use crate::access::Principal;
use crate::hub::{CallerHub, Hub, HubOptions};
use crate::keys::Keys;
use crate::task::FILTER_VALUES_MAX;
use crate::telemetry::Metrics;
use crate::wire::{CloseCode, Code, Problem};

/// What every route holds. One for each hub.
pub struct App {
    hub: Hub,
    keys: Arc<Keys>,
    /// The caller of an open hub.
    everyone: Arc<Principal>,
    /// A socket that has not said yet who it is.
    nobody: Arc<Principal>,
    owner: Arc<Principal>,
    pub limits: HttpLimits,
    /// Of live clients.
    pub live: LiveLimits,
    pub(super) door: Door,
    open: AtomicUsize,
    /// Live clients by caller.
    open_by: DashMap<CountedBy, usize>,
    sockets: TaskTracker,
    /// Room for sockets that are told why they are refused.
    refusals: Arc<Semaphore>,
    rooms: Rooms,
}

/// What large bodies share.
pub(super) struct Rooms {
    /// Room for their texts, in units of [`BODY_UNIT_BYTES`].
    texts: Semaphore,
    /// The threads that read them.
    readers: Semaphore,
}

/// The room that one body takes. It is given back when this is dropped.
pub(super) struct Room<'a> {
    texts: &'a Semaphore,
    taken: Option<SemaphorePermit<'a>>,
}

/// All bodies that are arriving or wait to be read hold at most this much memory, in bytes; more are refused as
/// overloaded. Eight of the largest batches, or five hundred payloads at their limit. The values that are made of them are
/// about as large again, for as many as are read at a time; what is counted in them is bounded while it is read.
const ARRIVING_BYTES_MAX: usize = 512 << 20;
/// The most sockets at once that are only told why they are refused: each takes a moment, and a file descriptor.
const REFUSALS_MAX: usize = 256;
/// Bodies are counted in units of this many bytes. Smaller ones are not counted: connections bound them.
const BODY_UNIT_BYTES: usize = 64 << 10;

/// A frame up to this many times too large is read to its end before the socket is closed: closing while bytes arrive
/// resets the connection, and the close code is lost.
pub(super) const FRAME_FACTOR: usize = 4;

/// Bounds of what comes in.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// The largest payload, in bytes of JSON text; the hub's own limit, from which those of bodies follow.
    pub payload_bytes_max: usize,
    /// The most WebSockets and event streams at once. Beyond it they are refused as overloaded. One that is idle
    /// costs some 2 KB, what the kernel holds, and a file descriptor.
    pub sockets_max: usize,
}

impl HttpLimits {
    /// What a submission may hold beside its payload: title, description and labels at their limits, each character
    /// escaped in the longest way (`\ud83d\ude00`), come to 120 KiB.
    const BODY_ROOM: usize = 256 << 10;
    /// The largest batch: ten thousand tasks of 6 KB. What is larger belongs in a store of its own, or in more calls.
    const BATCH_BYTES: usize = 64 << 20;

    /// The largest body of a call, and the largest message of a worker, in bytes: a payload or a result, and the rest.
    pub fn body_bytes_max(&self) -> usize {
        self.payload_bytes_max.max(crate::task::RESULT_BYTES_MAX) + HttpLimits::BODY_ROOM
    }

    /// The largest body of a batch, in bytes.
    pub fn batch_bytes_max(&self) -> usize {
        HttpLimits::BATCH_BYTES.max(self.body_bytes_max())
    }
}

/// Bounds of a live client.
#[derive(Clone, Copy, Debug)]
pub struct LiveLimits {
    /// The most live clients of one caller: of one user, or of one address where the hub knows no users.
    pub per_caller_max: usize,
    /// The most subscriptions of one client. More tasks fit into one filter than a page can show.
    pub subscriptions_max: usize,
    /// The most values in one filter, at most [`FILTER_VALUES_MAX`].
    pub filter_values_max: usize,
    /// A client that takes nothing for this long is closed.
    pub stall: Duration,
    /// A client that says nothing for this long after it connected is closed: it holds a place that somebody else may
    /// want.
    pub hello_time: Duration,
    /// The largest message, in bytes: a filter with all its values fits.
    pub message_bytes_max: usize,
    /// The most messages and control frames in a second, and at once. A page that shows a hundred tasks subscribes to
    /// each of them at once, and then says little.
    pub messages_per_s_max: u32,
    /// The most changed tasks that a client which resumes is told of; one that missed more gets a snapshot, which is the
    /// shorter way.
    pub resume_len_max: usize,
}

impl LiveLimits {
    pub const DEFAULT: LiveLimits = LiveLimits {
        per_caller_max: 50_000,
        subscriptions_max: 64,
        filter_values_max: FILTER_VALUES_MAX,
        stall: Duration::from_secs(15),
        hello_time: Duration::from_secs(60),
        message_bytes_max: 64 << 10,
        messages_per_s_max: 200,
        resume_len_max: 100_000,
    };
}

impl Default for LiveLimits {
    fn default() -> LiveLimits {
        LiveLimits::DEFAULT
    }
}

/// Why there is no room for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowded {
    /// The hub has as many as it may.
    Hub,
    /// The caller has.
    Caller,
}

impl From<Crowded> for Problem {
    fn from(crowded: Crowded) -> Problem {
        Problem::new(Code::Overloaded, crowded.words())
    }
}

impl Crowded {
    pub(super) fn words(self) -> &'static str {
        match self {
            Crowded::Hub => "the hub has as many sockets as it may",
            Crowded::Caller => "the caller has as many live clients as one may",
        }
    }

    pub(super) fn close_code(self) -> CloseCode {
        match self {
            Crowded::Hub => CloseCode::Overloaded,
            Crowded::Caller => CloseCode::TooManyConnections,
        }
    }
}

/// Who is at the other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// A live client on a WebSocket.
    Live,
    /// A live client on server-sent events.
    Events,
    Worker,
}

impl App {
    /// The state of the routes of this hub.
    pub fn new(hub: Hub, keys: Arc<Keys>, door: Door, limits: HttpLimits, live: LiveLimits) -> Arc<App> {
        let (open, open_by, sockets) = (AtomicUsize::new(0), DashMap::new(), TaskTracker::new());
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        Arc::new(App {
            hub,
            keys,
            everyone: Arc::new(Principal::everyone()),
            nobody: Arc::new(Principal::nobody()),
            owner: Arc::new(Principal::owner()),
            limits,
            live,
            door,
            open,
            open_by,
            sockets,
            refusals,
            rooms: Rooms::new(),
        })
    }

    /// The hub as this caller has it: the only way to its tasks.
    pub(super) fn as_caller(&self, who: Arc<Principal>, address: Option<IpAddr>) -> CallerHub {
        self.hub.as_caller(who, address)
    }

    /// Which credentials are in force.
    pub(super) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// A caller without a credential; `None` where there are none.
    pub(super) fn unnamed(&self) -> Option<Arc<Principal>> {
        self.keys.is_open().then(|| self.everyone.clone())
    }

    /// Whoever may write to the hub's own folder.
    pub(super) fn owner(&self) -> Arc<Principal> {
        self.owner.clone()
    }

    /// A socket that has not said yet who it is.
    pub(super) fn nobody(&self) -> Arc<Principal> {
        self.nobody.clone()
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        self.hub.metrics()
    }

    pub(super) fn options(&self) -> &HubOptions {
        self.hub.options()
    }

    /// Whether it takes new work.
    pub(super) fn is_draining(&self) -> bool {
        self.hub.is_draining()
    }

    /// Whether the store takes writes; if not, why.
    pub(super) fn storage(&self) -> Result<(), String> {
        self.hub.storage()
    }

    /// How far the feed is behind.
    pub(super) fn feed_lag(&self) -> Duration {
        self.hub.feed().lag()
    }

    /// Resolves when the hub goes down.
    pub(super) async fn goodbye(&self) {
        self.hub.goodbye().await;
    }

    /// Counts a socket in; it is counted out when the guard is dropped.
    ///
    /// The future that owns the socket keeps the guard: the hub does not end before all are dropped, or their time is
    /// over.
    pub(super) fn open_socket(self: &Arc<App>, kind: SocketKind, by: CountedBy) -> Result<SocketGuard, Crowded> {
        let room = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < self.limits.sockets_max).then_some(open + 1)
        });
        room.map_err(|_| Crowded::Hub)?;
        self.hub.metrics().socket_opened(kind.word());
        let mut guard = SocketGuard { app: self.clone(), kind, by: None, _token: self.sockets.token() };
        if kind != SocketKind::Worker {
            let mut open = self.open_by.entry(by.clone()).or_default();
            if *open >= self.live.per_caller_max {
                return Err(Crowded::Caller);
            }
            *open += 1;
            guard.by = Some(Box::new(by));
        }
        Ok(guard)
    }

    /// How many sockets are open now.
    pub(super) fn clients(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Room for a socket that is only told why it is refused.
    pub(super) fn refuse_socket(&self) -> Option<OwnedSemaphorePermit> {
        self.refusals.clone().try_acquire_owned().ok()
    }

    /// Room for a body, which is to be [grown](Room::grow).
    pub(super) fn body_room(&self) -> Room<'_> {
        self.rooms.body()
    }

    /// Does what takes long where blocking is allowed, a few at a time and in turn: half of the machine is left to
    /// everything else. `None` where it panics.
    pub(super) async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _turn = self.rooms.readers.acquire().await.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Resolves when no socket is open. To be called when no new ones come.
    pub async fn sockets_closed(&self) {
        self.sockets.close();
        self.sockets.wait().await;
    }
}

impl Rooms {
    pub(super) fn new() -> Rooms {
        let readers = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1);
        Rooms { texts: Semaphore::new(ARRIVING_BYTES_MAX / BODY_UNIT_BYTES), readers: Semaphore::new(readers) }
    }

    /// Room for a body, none of it taken.
    pub(super) fn body(&self) -> Room<'_> {
        Room { texts: &self.texts, taken: None }
    }
}

impl Room<'_> {
    /// Takes room for so many bytes in all; `false` where there is none.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let has = self.taken.as_ref().map_or(0, SemaphorePermit::num_permits);
        let more = (bytes / BODY_UNIT_BYTES).saturating_sub(has);
        if more == 0 {
            return true;
        }
        let Ok(more) = self.texts.try_acquire_many(more as u32) else { return false };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        true
    }
}

impl SocketKind {
    /// The word in metrics.
    fn word(self) -> &'static str {
        match self {
            SocketKind::Live => "live",
            SocketKind::Events => "events",
            SocketKind::Worker => "worker",
        }
    }
}

/// An open socket, until it is dropped.
pub struct SocketGuard {
    app: Arc<App>,
    kind: SocketKind,
    by: Option<Box<CountedBy>>,
    _token: TaskTrackerToken,
}

impl SocketGuard {
    /// How many sockets the hub has now.
    pub(super) fn clients(&self) -> usize {
        self.app.clients()
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.app.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(by) = self.by.take()
            && let Entry::Occupied(mut open) = self.app.open_by.entry(*by)
        {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
        self.app.hub.metrics().socket_closed(self.kind.word());
    }
}

/// What asks nobody who they are.
#[cfg(test)]
pub(super) fn open_keys() -> Arc<Keys> {
    Keys::new(Default::default(), Vec::new()).expect("nothing is set")
}
