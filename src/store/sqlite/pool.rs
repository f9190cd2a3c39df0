//! Where the database is, and the connections that readers share.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags};

use super::failure::ErrorContext as _;
use super::names::Names;
use super::pages;
use crate::store::StoreError;

/// Room for every statement that is not built for one query.
const STATEMENTS_MAX: usize = 64;

/// The longest wait for another connection of this process. Writers of the write-ahead log do not keep readers out, so
/// on disk a connection waits only for a checkpoint that starts the log anew; in memory commits and reads exclude each other.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// Where the database is kept.
#[derive(Clone, Debug)]
pub(super) enum Location {
    File(PathBuf),
    /// A name; the database lives as long as there is a connection to it.
    Memory(String),
}

impl Location {
    /// A database of its own in memory.
    pub fn new_memory() -> Location {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Location::Memory(format!("file:/taskhub-{}?vfs=memdb", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The connection that writes. Makes the database where there is none.
    pub fn writer(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = match self {
            Location::File(path) => Connection::open_with_flags_and_vfs(path, flags, pages::vfs())?,
            Location::Memory(name) => Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_URI)?,
        };
        self.set_up(conn)
    }

    /// A connection that only reads.
    pub fn reader(&self) -> rusqlite::Result<Connection> {
        let conn = match self {
            Location::File(path) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags_and_vfs(path, flags, pages::vfs())?
            }
            Location::Memory(name) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_URI)?
            }
        };
        conn.pragma_update(None, "query_only", true)?;
        self.set_up(conn)
    }

    fn set_up(&self, mut conn: Connection) -> rusqlite::Result<Connection> {
        match self {
            Location::File(_) => conn.busy_timeout(BUSY_WAIT)?,
            // SQLite's own waiting starts at a millisecond, and a commit in memory takes microseconds.
            Location::Memory(_) => conn.busy_handler(Some(|tries: i32| {
                let pause = Duration::from_micros(20);
                std::thread::sleep(pause);
                pause * (tries.max(0) as u32) < BUSY_WAIT
            }))?,
        }
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(conn)
    }
}

/// Connections for readers: opened as they are needed, at most so many, and kept.
pub(super) struct Pool {
    location: Location,
    cache_kib: usize,
    readers_max: usize,
    state: Mutex<State>,
    freed: Condvar,
    /// What the name of the database means.
    names: OnceLock<Arc<Mutex<Names>>>,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    open: usize,
}

impl Pool {
    pub fn new(location: Location, readers_max: usize, cache_kib: usize) -> Pool {
        let readers_max = readers_max.max(1);
        Pool {
            location,
            cache_kib,
            readers_max,
            state: Mutex::default(),
            freed: Condvar::new(),
            names: OnceLock::new(),
        }
    }

    /// From here on a connection is to the database that these names mean.
    pub fn know(&self, names: Arc<Mutex<Names>>) {
        self.names.set(names).ok().expect("a store is opened once");
    }

    /// A connection. Blocks while all are in use: they are given back after a query.
    pub fn checkout(&self) -> Result<Reading<'_>, StoreError> {
        let mut state = self.state.lock();
        loop {
            if let Some(conn) = state.idle.pop() {
                return Ok(Reading { pool: self, conn: Some(conn) });
            }
            if state.open < self.readers_max {
                state.open += 1;
                break;
            }
            self.freed.wait(&mut state);
        }
        drop(state);
        // Given back as a free place if opening fails.
        let mut reading = Reading { pool: self, conn: None };
        let conn = self.location.reader().context("open a connection for reading")?;
        conn.pragma_update(None, "cache_size", -(self.cache_kib as i64)).context("open a connection for reading")?;
        if let Some(names) = self.names.get() {
            names.lock().check_database()?;
        }
        reading.conn = Some(conn);
        Ok(reading)
    }
}

/// A connection on loan.
pub(super) struct Reading<'a> {
    pool: &'a Pool,
    conn: Option<Connection>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        match self.conn.take() {
            Some(conn) => state.idle.push(conn),
            None => state.open -= 1,
        }
        drop(state);
        self.pool.freed.notify_one();
    }
}

impl Deref for Reading<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.conn.as_ref().expect("a loan is handed out with its connection")
    }
}
