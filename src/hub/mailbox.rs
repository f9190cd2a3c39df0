//! A queue to one reader, who takes everything at once.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Many push, one takes. What may stand in it is bounded by those who push: see each use.
pub(super) struct Mailbox<T> {
    items: Mutex<Vec<T>>,
    wake: Notify,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Mailbox<T> {
        Mailbox { items: Mutex::default(), wake: Notify::new() }
    }
}

impl<T> Mailbox<T> {
    pub(super) fn push(&self, item: T) {
        let mut items = self.items.lock();
        items.push(item);
        let first = items.len() == 1;
        drop(items);
        if first {
            self.wake.notify_one();
        }
    }

    /// Waits until there is something and moves it all to `out`. Dropping the future loses nothing.
    pub(super) async fn take(&self, out: &mut Vec<T>) {
        loop {
            {
                let mut items = self.items.lock();
                if !items.is_empty() {
                    out.append(&mut items);
                    return;
                }
            }
            self.wake.notified().await;
        }
    }
}
