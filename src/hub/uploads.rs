//! Large results on their way into files, out of them, and away.
//!
//! How files and records hang together is said in [`store::ResultFiles`](crate::store::ResultFiles). Here is who does what
//! when. An upload writes its file block by block where blocking is allowed, and while it does so its attempt's lease is
//! renewed; once the file is whole the writer is told, and the upload is answered when the record that names it is on disk.
//! Whoever sent it may be gone by then: that last step does not end with the connection, so that every file is either named
//! or removed.
//!
//! Files are removed by one thread, one after the other: a commit may drop hundreds of records, and to remove a file of a
//! gibibyte takes a while.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::{Refusal, Report};
use crate::seldom::Seldom;
use crate::store::{Entry, NewResult, Reader, ResultFiles, ResultName, StoreError};
use crate::task::{ChangeKind, Invalid, InvalidKind, LargeResult, ResultId, Task, TaskId};

use super::shared::Shared;
use super::{Hub, HubError};

/// Uploads at a time; more are turned away for the moment. Each holds two blocks in memory, and on the disk as much as has
/// come of it, up to `result_bytes_max`.
const UPLOADS_MAX: usize = 16;
/// What is written at once.
const BLOCK_BYTES: usize = 1 << 20;

/// What a hub that keeps results in files has for them.
pub(super) struct Results {
    files: Option<ResultFiles>,
    room: Arc<Semaphore>,
    removals: mpsc::Sender<Removal>,
    /// Files that a commit was to name which failed: whether it did is known with the next that does not.
    in_doubt: Mutex<Vec<ResultName>>,
}

enum Removal {
    File(ResultName),
    /// What was there when the store was opened, as far as no record names it.
    Leftovers {
        listed: Vec<ResultName>,
        reader: Arc<dyn Reader>,
    },
}

impl Results {
    pub(super) fn start(files: Option<ResultFiles>) -> Result<Results, StoreError> {
        let (removals, removed) = mpsc::channel();
        if let Some(files) = files.clone() {
            let remover = std::thread::Builder::new().name("results".into());
            remover.spawn(move || remove_all(&files, &removed)).map_err(failed("start to remove results"))?;
        }
        Ok(Results { files, room: Arc::new(Semaphore::new(UPLOADS_MAX)), removals, in_doubt: Mutex::default() })
    }

    /// Clears away what a crash has left. To be called before anything is uploaded, and of a store that is whole.
    pub(super) fn clear_leftovers(&self, reader: Arc<dyn Reader>) -> Result<(), StoreError> {
        let Some(files) = &self.files else { return Ok(()) };
        let listed = files.tidy().map_err(failed("look for unfinished results"))?;
        if !listed.is_empty() {
            let _ = self.removals.send(Removal::Leftovers { listed, reader });
        }
        Ok(())
    }

    /// A commit is on disk: the files that it dropped are of no use any more.
    pub(super) fn dropped_by(&self, changes: &[Entry]) {
        if self.files.is_none() {
            return;
        }
        for Entry { change, .. } in changes {
            let (before, after) = match change.kind {
                ChangeKind::Gone => (Some(&*change.task), None),
                ChangeKind::Transition(_) => (change.prev.as_deref(), change.task.large_result()),
            };
            let dropped =
                before.and_then(Task::large_result).filter(|large| after.is_none_or(|kept| kept.id != large.id));
            if let Some(large) = dropped {
                self.remove(ResultName { task_id: change.task.task_id, id: large.id });
            }
        }
    }

    /// The store takes writes: what a failed commit was to name is named by none.
    pub(super) fn no_doubt(&self) {
        let doubtful = std::mem::take(&mut *self.in_doubt.lock());
        doubtful.into_iter().for_each(|name| self.remove(name));
    }

    fn remove(&self, name: ResultName) {
        // It ends with the hub; what is left then goes at the next start.
        let _ = self.removals.send(Removal::File(name));
    }
}

fn remove_all(files: &ResultFiles, removals: &mpsc::Receiver<Removal>) {
    let remove = |name: ResultName| {
        if let Err(error) = files.remove(name) {
            static FAILED: Seldom = Seldom::new();
            if let Some(unsaid) = FAILED.happened() {
                tracing::warn!(file = %name, %error, unsaid, "could not remove the file of a result");
            }
        }
    };
    for removal in removals {
        match removal {
            Removal::File(name) => remove(name),
            Removal::Leftovers { listed, reader } => {
                let is_named = |name: &ResultName| match reader.records(&[name.task_id]) {
                    Ok(records) => {
                        records.into_iter().flatten().next().is_some_and(|record| match Task::parse(&record) {
                            Ok(task) => task.large_result().is_some_and(|large| large.id == name.id),
                            // It cannot be told; that is said where the task is asked for.
                            Err(_) => true,
                        })
                    }
                    Err(_) => true,
                };
                listed.into_iter().filter(|name| !is_named(name)).for_each(remove);
            }
        }
    }
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError { step, cause: error.to_string(), lasting: false }
}

/// A result that is being uploaded. Dropped before it is finished, nothing of it is left.
pub struct Upload {
    hub: Hub,
    files: ResultFiles,
    task_id: TaskId,
    attempt: u32,
    large: LargeResult,
    /// `None` while it is written elsewhere, or where that failed.
    file: Option<NewResult>,
    waiting: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl Hub {
    /// Begins to take a result of a running attempt; `declared` is how long it is said to be, if it is said.
    pub async fn upload(
        &self,
        task_id: TaskId,
        attempt: u32,
        content_type: &str,
        declared: Option<u64>,
    ) -> Result<Upload, HubError> {
        let shared = self.shared();
        // As any other report: whose attempt it is, and that it lives.
        self.report(task_id, attempt, Report::Heartbeat).await?;
        let bytes_max = shared.options.result_bytes_max;
        let Some(files) = shared.results.files.clone().filter(|_| bytes_max > 0) else {
            return Err(too_large(0, "this hub takes no results in files, only up to 1 MiB with complete"));
        };
        if declared.is_some_and(|bytes| bytes > bytes_max) {
            return Err(longer_than(bytes_max));
        }
        // Whatever comes could not be named.
        self.storage().map_err(|_| HubError::StorageUnavailable)?;
        let room = shared.results.room.clone().try_acquire_owned().map_err(|_| HubError::Overloaded)?;
        let large = LargeResult { id: ResultId::random(), bytes: 0, content_type: content_type.into() };
        let name = ResultName { task_id, id: large.id };
        let begun = {
            let files = files.clone();
            blocking(move || files.begin(name, declared.unwrap_or(0))).await?
        };
        Ok(Upload {
            hub: self.clone(),
            files,
            task_id,
            attempt,
            large,
            file: Some(begun),
            waiting: Vec::new(),
            _room: room,
        })
    }

    /// The file of the result that a completed task left, where it left one in a file.
    pub async fn result_file(&self, task_id: TaskId) -> Result<Option<File>, HubError> {
        let Some(stored) = self.task(task_id).await? else { return Ok(None) };
        let task = Task::parse(&stored.record).ok().filter(|task| task.status.is_final());
        match task.as_ref().and_then(Task::large_result) {
            Some(large) => self.open_result(task_id, large).await,
            None => Ok(None),
        }
    }

    /// Opens the file of a result. `None`: it is gone, with its task.
    pub async fn open_result(&self, task_id: TaskId, large: &LargeResult) -> Result<Option<File>, HubError> {
        let opened = match self.shared().results.files.clone() {
            Some(files) => {
                let large = large.clone();
                tokio::task::spawn_blocking(move || files.open(task_id, &large)).await.map_err(|_| HubError::Stopped)?
            }
            None => Err(io::Error::other("the hub keeps no files")),
        };
        let error = match opened {
            Ok(file) => return Ok(Some(file)),
            Err(error) => error,
        };
        let stored = self.task(task_id).await?;
        let record = stored.and_then(|stored| Task::parse(&stored.record).ok());
        if record.and_then(|task| task.large_result().map(|named| named.id)) != Some(large.id) {
            return Ok(None);
        }
        static FAILED: Seldom = Seldom::new();
        if let Some(unsaid) = FAILED.happened() {
            tracing::error!(task.id = %task_id, %error, unsaid, "the file of a result cannot be read");
        }
        Err(HubError::Internal)
    }
}

impl Upload {
    /// The next part of it. Renews the lease of the attempt, which is not silent meanwhile; an attempt that is over uploads
    /// nothing more.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), HubError> {
        self.large.bytes += bytes.len() as u64;
        let bytes_max = self.hub.options().result_bytes_max;
        if self.large.bytes > bytes_max {
            return Err(longer_than(bytes_max));
        }
        self.waiting.extend_from_slice(&bytes);
        if self.waiting.len() < BLOCK_BYTES {
            return Ok(());
        }
        self.hub.shared().board.checkpoint(self.task_id, self.attempt).map_err(HubError::Refused)?;
        self.hub.renew(self.task_id, self.attempt);
        self.write_waiting().await
    }

    async fn write_waiting(&mut self) -> Result<(), HubError> {
        let mut file = self.file.take().ok_or(HubError::StorageUnavailable)?;
        let (files, mut block) = (self.files.clone(), std::mem::take(&mut self.waiting));
        let (file, block) = blocking(move || {
            file.write(&files, &block)?;
            block.clear();
            Ok((file, block))
        })
        .await?;
        (self.file, self.waiting) = (Some(file), block);
        Ok(())
    }

    /// All of it has come. When this returns, the attempt's record names it, on disk; answers whether the attempt was asked to
    /// stop.
    pub async fn finish(mut self) -> Result<bool, HubError> {
        self.write_waiting().await?;
        let file = self.file.take().ok_or(HubError::StorageUnavailable)?;
        // Not to be cut short: between the name and the record somebody has to look after the file.
        let named = tokio::spawn(async move {
            let name = ResultName { task_id: self.task_id, id: self.large.id };
            blocking(move || file.finish()).await?;
            let report = Report::Upload(Box::new(self.large.clone()));
            let reported = self.hub.report(self.task_id, self.attempt, report).await;
            let results = &self.hub.shared().results;
            match &reported {
                Ok(_) => {}
                Err(HubError::StorageUnavailable | HubError::Stopped | HubError::Internal) => {
                    results.in_doubt.lock().push(name);
                }
                Err(HubError::Refused(_) | HubError::Forbidden(_) | HubError::Overloaded | HubError::CallbacksFull) => {
                    results.remove(name)
                }
            }
            reported
        });
        named.await.unwrap_or(Err(HubError::Internal))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // To remove it may take a while.
        if let Some(file) = self.file.take() {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || drop(file))),
                Err(_) => drop(file),
            }
        }
    }
}

impl Shared {
    /// Deletes files that were in doubt, once that is over.
    pub(super) fn clear_doubt(&self) {
        if self.broken().is_none() {
            self.results.no_doubt();
        }
    }
}

/// Does what takes a disk. What cannot be written is said in the log, for whoever sent it can do nothing about it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, HubError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| HubError::Stopped)?;
    done.map_err(|error| {
        static FAILED: Seldom = Seldom::new();
        if let Some(unsaid) = FAILED.happened() {
            tracing::error!(%error, unsaid, "a result could not be written");
        }
        HubError::StorageUnavailable
    })
}

fn longer_than(bytes_max: u64) -> HubError {
    too_large(bytes_max, &format!("must be at most {bytes_max} bytes"))
}

fn too_large(limit: u64, detail: &str) -> HubError {
    let kind = InvalidKind::PayloadTooLarge(limit);
    HubError::Refused(Refusal::Invalid(Invalid { kind, field: "result".into(), detail: detail.into() }))
}
