//! Single flight: equal reads that are asked for at once are done once.
//!
//! Ten thousand watchers that come back after a restart want the same snapshot, or what changed since the same `rev`. A
//! request joins an equal read that waits to begin. It never joins one that has begun: it was promised a read that starts
//! after it asked. So, however many ask, at most one read of a kind runs and one waits.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::HubError;

/// What a read brought, once it has.
type Outcome<V> = Option<Result<V, HubError>>;

pub(super) struct SingleFlight<K, V> {
    /// Those that have not begun.
    waiting: Mutex<HashMap<K, watch::Receiver<Outcome<V>>>>,
    /// Reads take turns.
    turns: Arc<Semaphore>,
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(turns: Arc<Semaphore>) -> SingleFlight<K, V> {
        SingleFlight { waiting: Mutex::default(), turns }
    }

    /// What `read` brings, or another read of the same `key` that begins after this call.
    pub(super) async fn get<F>(
        self: &Arc<Self>,
        key: K,
        read: impl FnOnce() -> F + Send + 'static,
    ) -> Result<V, HubError>
    where
        F: Future<Output = Result<V, HubError>> + Send,
    {
        let mut outcome = self.join(key, read);
        // The read ends without an outcome when it panics; and when the runtime ends, but then nobody waits any more.
        let outcome = outcome.wait_for(Option::is_some).await.map_err(|_| HubError::Internal)?;
        outcome.clone().unwrap_or(Err(HubError::Internal))
    }

    fn join<F>(self: &Arc<Self>, key: K, read: impl FnOnce() -> F + Send + 'static) -> watch::Receiver<Outcome<V>>
    where
        F: Future<Output = Result<V, HubError>> + Send,
    {
        let mut waiting = self.waiting.lock();
        if let Some(outcome) = waiting.get(&key) {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        waiting.insert(key.clone(), outcome.clone());
        let flights = self.clone();
        // A future of its own: whoever asked first may leave before the others.
        tokio::spawn(async move {
            let turn = flights.turns.clone().acquire_owned().await;
            flights.waiting.lock().remove(&key);
            // Nobody wants it any more.
            if sender.receiver_count() > 0 {
                sender.send_replace(Some(read().await));
            }
            drop(turn);
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_same_shares_it_and_nobody_joins_what_has_begun() {
        let flights = Arc::new(SingleFlight::new(Arc::new(Semaphore::new(1))));
        let (reads, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let get = |key: &'static str| {
            let (flights, reads, go) = (flights.clone(), reads.clone(), go.clone());
            let read = move || async move {
                let nth = reads.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Ok(nth)
            };
            async move { flights.get(key, read).await }
        };
        let first = tokio::spawn(get("a"));
        while reads.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // The first read has begun: all of these wait for the second.
        let later = join_all((0..100).map(|_| get("a")));
        let others = join_all((0..100).map(|_| get("b")));
        let release = async {
            for nth in 0..3 {
                while reads.load(Ordering::SeqCst) == nth {
                    tokio::task::yield_now().await;
                }
                go.notify_one();
            }
        };
        let (later, others, ()) = tokio::join!(later, others, release);
        assert_eq!(first.await.unwrap(), Ok(0));
        assert_eq!((later, others), (vec![Ok(1); 100], vec![Ok(2); 100]));
        assert!(flights.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn an_error_reaches_all_and_is_not_kept() {
        let flights = Arc::new(SingleFlight::<_, ()>::new(Arc::new(Semaphore::new(1))));
        let broken = || async { Err(HubError::StorageUnavailable) };
        assert_eq!(flights.get(1, broken).await, Err(HubError::StorageUnavailable));
        assert_eq!(flights.get(1, || async { Ok(()) }).await, Ok(()));
    }
}
