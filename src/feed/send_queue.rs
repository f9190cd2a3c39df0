//! A fair queue of clients to send to, with what is pending for each; one frame is built for all with the same messages.
//!
//! A client enters the queue with its first pending message, and leaves it when all that is pending is sent. After every few
//! clients the shard matches what was published meanwhile, so a client that comes first is sent everything up to that
//! moment, and one that was sent to just before enters at the end again. Under load a message has therefore reached every
//! client after one pass of the queue, and what collects in a pass leaves together; there is no batching timer.
//!
//! Messages come in order, each with its audience. What is pending for a client is a *node* of a tree, which stands for a
//! sequence of messages; a message moves each client of its audience to the child for that message. Clients at one node get
//! one frame: joined once, encoded once, and shared. A thousand clients that watch everything are at a few nodes; a thousand
//! that watch a task each are at a thousand, and each frame is made for its one reader. Messages and nodes are dropped at the
//! front once no client in the queue has anything as old pending.
//!
//! A frame is a whole WebSocket message: text, not masked, as servers send it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::frame::{FrameHead, Opcode};
use super::index::ClientSlot;
use super::outbox::{Outbox, lag_line};
use crate::task::TaskId;

/// What is pending for a client; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    node: NodeNumber,
    /// The first message of it.
    from_message: MessageNumber,
}

/// Names a node of the tree: a sequence of messages that is pending. Counted up, never used again.
type NodeNumber = u64;
/// The sequence of no message.
const ROOT: NodeNumber = 0;

/// Messages are counted from 1.
type MessageNumber = u64;

/// A message that is pending for some clients.
pub(super) struct Message {
    pub task_id: TaskId,
    pub kind: MessageKind,
    pub bytes: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    Transition {
        rev: u64,
    },
    /// The newest of so many transitions of a task.
    Merged {
        len: u64,
    },
    Progress,
}

/// How much was delivered with a frame, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    pub transitions: u64,
    pub progress: u64,
    pub bytes: u64,
    /// Messages that tell of transitions which were merged, and of how many.
    pub lags: u64,
    pub collapsed: u64,
}

/// No message comes while messages of this many bytes are owed: enough to fill packets, and little enough that what comes after can
/// still be replaced where a client is slow.
pub(super) const PENDING_BYTES_MAX: usize = 32 << 10;
/// Or while there are so many nodes: clients whose filters overlap in many ways stand at one each.
const NODES_MAX: usize = 64 << 10;
/// Capacity for so many messages and nodes is kept when nothing is pending.
const ROOM_KEPT: usize = 1_024;

pub(super) struct SendQueue {
    bytes_max: usize,
    queue: VecDeque<Queued>,
    /// From the oldest that is pending for a client in the queue to the newest.
    messages: VecDeque<Message>,
    /// How many came before the first.
    messages_gone: MessageNumber,
    /// Of `messages`.
    bytes: usize,
    /// In the order of their messages.
    nodes: VecDeque<Node>,
    /// How many came before the first.
    nodes_gone: NodeNumber,
    root: Node,
}

/// A client in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub slot: ClientSlot,
    /// Every transition up to here was handed to it.
    pub handed_rev: u64,
    from_message: MessageNumber,
}

#[derive(Default)]
struct Node {
    parent: NodeNumber,
    /// The last message of the sequence; of the root, none.
    message: MessageNumber,
    /// Clients with this sequence pending.
    readers: u32,
    /// The child that was made last, and for which message.
    child: NodeNumber,
    child_message: MessageNumber,
    delivered: Option<Delivered>,
    /// Without a mark, and with one.
    frames: [Option<Bytes>; 2],
}

impl Delivered {
    pub fn add(&mut self, other: &Delivered) {
        self.transitions += other.transitions;
        self.progress += other.progress;
        self.bytes += other.bytes;
        self.lags += other.lags;
        self.collapsed += other.collapsed;
    }
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.node == ROOT
    }
}

impl Queued {
    /// Whether it stands for `pending`. If the client was sent to out of order, what is pending since then has an entry of its
    /// own further back.
    pub fn is_for(&self, pending: Pending) -> bool {
        !pending.is_empty() && pending.from_message == self.from_message
    }
}

impl SendQueue {
    pub fn new(bytes_max: usize) -> SendQueue {
        SendQueue {
            bytes_max,
            queue: VecDeque::new(),
            messages: VecDeque::new(),
            messages_gone: 0,
            bytes: 0,
            nodes: VecDeque::new(),
            nodes_gone: 0,
            root: Node::default(),
        }
    }

    /// Adds a message. It is for the clients that it is [enqueued](Self::enqueue) for before the next one is pushed.
    pub fn push(&mut self, message: Message) {
        self.bytes += message.bytes.len();
        self.messages.push_back(message);
    }

    /// Adds the newest message to what the client in `slot` is owed. If that was nothing, it waits for a turn from here on, and
    /// everything up to `handed_rev` was handed to it.
    pub fn enqueue(&mut self, slot: ClientSlot, pending: &mut Pending, handed_rev: u64) {
        let message = self.newest();
        if pending.is_empty() {
            pending.from_message = message;
            self.queue.push_back(Queued { slot, handed_rev, from_message: message });
        }
        let next = self.nodes_gone + self.nodes.len() as NodeNumber + 1;
        let node = self.node(pending.node);
        node.readers = node.readers.saturating_sub(1);
        if node.child_message != message {
            (node.child, node.child_message) = (next, message);
            self.nodes.push_back(Node { parent: pending.node, message, ..Node::default() });
        }
        pending.node = self.node(pending.node).child;
        self.node(pending.node).readers += 1;
    }

    /// Takes the client that is to be sent to next, and drops the messages and nodes that are older than any that is pending.
    pub fn next(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front();
        let from_message = queued.map_or(self.newest() + 1, |queued| queued.from_message);
        while self.messages_gone + 1 < from_message {
            self.bytes -= self.messages.pop_front().map_or(0, |message| message.bytes.len());
            self.messages_gone += 1;
        }
        while self.nodes.front().is_some_and(|node| node.message < from_message) {
            self.nodes.pop_front();
            self.nodes_gone += 1;
        }
        if queued.is_none() {
            self.messages.shrink_to(ROOM_KEPT);
            self.nodes.shrink_to(ROOM_KEPT);
        }
        queued
    }

    /// Nothing is pending for any client.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Every transition up to here was handed to every client; `None` if nothing is pending.
    pub fn handed_rev(&self) -> Option<u64> {
        self.queue.front().map(|queued| queued.handed_rev)
    }

    /// Whether clients are to be sent to before another message is pushed.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max || self.nodes.len() >= NODES_MAX
    }

    /// The frame for all clients with this pending; with `mark`, if there is one, as its last message. It is kept for the others;
    /// their mark then is the one of the first, which is true for all of them.
    pub fn frame(&mut self, pending: Pending, mark: Option<&Bytes>) -> Bytes {
        let which = usize::from(mark.is_some());
        if let Some(frame) = &self.node(pending.node).frames[which] {
            return frame.clone();
        }
        let collapsed = self.delivered(pending).collapsed;
        let lag = (collapsed > 0).then(|| lag_line(collapsed));
        let path = self.path(pending);
        let messages = path.iter().map(|message| &message.bytes);
        let frame = text_frame(lag.iter().chain(messages).chain(mark));
        let node = self.node(pending.node);
        // A frame for one is not kept: ten thousand of them would be many.
        if node.readers > 1 {
            node.frames[which] = Some(frame.clone());
        }
        frame
    }

    /// A client has this pending no more.
    pub fn release(&mut self, pending: Pending) {
        let node = self.node(pending.node);
        node.readers = node.readers.saturating_sub(1);
        if node.readers == 0 {
            node.frames = [None, None];
        }
    }

    /// How much the frame for this delivers.
    pub fn delivered(&mut self, pending: Pending) -> Delivered {
        if let Some(delivered) = self.node(pending.node).delivered {
            return delivered;
        }
        let mut delivered = Delivered::default();
        for message in self.path(pending) {
            delivered.bytes += message.bytes.len() as u64;
            match message.kind {
                MessageKind::Transition { .. } => delivered.transitions += 1,
                MessageKind::Progress => delivered.progress += 1,
                MessageKind::Merged { len } => {
                    delivered.transitions += 1;
                    delivered.lags = 1;
                    delivered.collapsed += len;
                }
            }
        }
        self.node(pending.node).delivered = Some(delivered);
        delivered
    }

    /// Moves the messages to an outbox.
    pub fn move_to(&self, pending: Pending, outbox: &mut Outbox) {
        for Message { task_id, kind, bytes } in self.path(pending) {
            match kind {
                MessageKind::Transition { rev } => outbox.transition(*task_id, *rev, bytes.clone()),
                MessageKind::Merged { len } => outbox.merged(*task_id, bytes.clone(), *len),
                MessageKind::Progress => outbox.progress(*task_id, bytes.clone()),
            }
        }
    }

    /// The messages, in order, without the ticks that a later message of the task replaces.
    fn path(&self, pending: Pending) -> Vec<&Message> {
        let mut path: Vec<&Message> = Vec::new();
        let mut at = pending.node;
        while at != ROOT {
            let node = &self.nodes[(at - self.nodes_gone - 1) as usize];
            let message = &self.messages[(node.message - self.messages_gone - 1) as usize];
            if message.kind != MessageKind::Progress || path.iter().all(|later| later.task_id != message.task_id) {
                path.push(message);
            }
            at = node.parent;
        }
        path.reverse();
        path
    }

    fn node(&mut self, number: NodeNumber) -> &mut Node {
        if number == ROOT { &mut self.root } else { &mut self.nodes[(number - self.nodes_gone - 1) as usize] }
    }

    /// The number of the newest message.
    fn newest(&self) -> MessageNumber {
        self.messages_gone + self.messages.len() as u64
    }
}

/// Messages, one a line, as a whole frame.
pub fn text_frame<'a>(messages: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let len = messages.clone().map(|message| message.len() + 1).sum::<usize>().saturating_sub(1);
    let head = FrameHead::new(Opcode::Text, len);
    let mut frame = Vec::with_capacity(head.len() + len);
    frame.extend_from_slice(&head);
    for (at, message) in messages.enumerate() {
        if at > 0 {
            frame.push(b'\n');
        }
        frame.extend_from_slice(message);
    }
    frame.into()
}

/// A ping, and a message behind it.
pub(super) fn ping_frame(message: &Bytes) -> Bytes {
    let parts = [&FrameHead::new(Opcode::Ping, 0), &*FrameHead::new(Opcode::Text, message.len()), message];
    parts.concat().into()
}

#[cfg(test)]
mod tests {
    use super::super::sample::id;
    use super::*;

    fn message(kind: MessageKind, text: &str) -> Message {
        Message { task_id: id(1), kind, bytes: text.to_owned().into() }
    }

    fn transition(rev: u64, text: &str) -> Message {
        message(MessageKind::Transition { rev }, text)
    }

    /// The text of the frame.
    fn text(queue: &mut SendQueue, pending: Pending) -> String {
        String::from_utf8(queue.frame(pending, None).slice(2..).to_vec()).unwrap()
    }

    /// A message for these slots, of those there are.
    fn enqueue(queue: &mut SendQueue, rev: u64, pending: &mut [Pending], slots: &[ClientSlot]) {
        queue.push(transition(rev, &rev.to_string()));
        slots.iter().for_each(|&slot| queue.enqueue(slot, &mut pending[slot as usize], rev - 1));
    }

    #[test]
    fn clients_with_the_same_messages_share_one_frame() {
        let (mut queue, mut pending) = (SendQueue::new(PENDING_BYTES_MAX), [Pending::default(); 3]);
        enqueue(&mut queue, 1, &mut pending, &[0, 1]);
        enqueue(&mut queue, 2, &mut pending, &[1, 2]);
        enqueue(&mut queue, 3, &mut pending, &[0]);
        assert_eq!(pending.map(|pending| text(&mut queue, pending)), ["1\n3", "1\n2", "2"]);

        let (mut queue, mut pending) = (SendQueue::new(PENDING_BYTES_MAX), [Pending::default(); 2]);
        enqueue(&mut queue, 4, &mut pending, &[]);
        enqueue(&mut queue, 5, &mut pending, &[0, 1]);
        let frame = queue.frame(pending[0], Some(&"mark".into()));
        assert_eq!(frame.slice(2..), "5\nmark");
        queue.release(pending[0]);
        assert_eq!(queue.frame(pending[1], Some(&"mark".into())).as_ptr(), frame.as_ptr());
        queue.release(pending[1]);
        assert!(queue.nodes.iter().all(|node| node.frames == [None, None]), "no client is left to share it");
    }

    /// A message that comes in the middle of a pass leaves with the rest for clients that are still queued; the others enter
    /// at the end again.
    #[test]
    fn what_comes_in_between_leaves_with_the_rest() {
        let (mut queue, mut pending) = (SendQueue::new(PENDING_BYTES_MAX), [Pending::default(); 3]);
        enqueue(&mut queue, 1, &mut pending, &[0, 1, 2]);
        let first = queue.next().unwrap();
        assert_eq!((first.slot, first.handed_rev, first.is_for(pending[0])), (0, 0, true));
        assert_eq!(text(&mut queue, std::mem::take(&mut pending[0])), "1");
        enqueue(&mut queue, 2, &mut pending, &[0, 1, 2]);
        assert_eq!([queue.next(), queue.next()].map(|queued| queued.unwrap().slot), [1, 2]);
        assert_eq!(queue.handed_rev(), Some(1), "the first has the first message, and waits for the second");
        assert_eq!(pending.map(|pending| text(&mut queue, pending)), ["2", "1\n2", "1\n2"]);
        assert_eq!((queue.next().unwrap().slot, queue.handed_rev()), (0, None));
        assert_eq!(text(&mut queue, pending[0]), "2");
    }

    /// Regression: a client that was sent to out of order is sent to once for what came since, not twice.
    #[test]
    fn each_client_is_sent_to_once_a_pass() {
        let (mut queue, mut pending) = (SendQueue::new(PENDING_BYTES_MAX), [Pending::default(); 2]);
        enqueue(&mut queue, 1, &mut pending, &[0, 1]);
        pending[1] = Pending::default();
        enqueue(&mut queue, 2, &mut pending, &[1]);
        let queued: Vec<Queued> = std::iter::from_fn(|| queue.next()).collect();
        let is_for = |queued: &Queued| (queued.slot, queued.is_for(pending[queued.slot as usize]));
        assert_eq!(queued.iter().map(is_for).collect::<Vec<_>>(), [(0, true), (1, false), (1, true)]);
    }

    #[test]
    fn what_is_pending_for_no_client_is_gone() {
        let (mut queue, mut pending) = (SendQueue::new(PENDING_BYTES_MAX), [Pending::default(); 2]);
        let enqueue = |queue: &mut SendQueue, slot: ClientSlot, pending: &mut Pending| {
            queue.push(transition(1, &"x".repeat(1_000)));
            queue.enqueue(slot, pending, 0);
        };
        enqueue(&mut queue, 0, &mut pending[0]);
        while !queue.is_full() {
            enqueue(&mut queue, 1, &mut pending[1]);
        }
        assert_eq!([queue.next(), queue.next()].map(|queued| queued.unwrap().slot), [0, 1]);
        assert_eq!(
            (queue.messages.len(), queue.nodes.len(), queue.bytes),
            (32, 32, 32_000),
            "what is pending for the last one"
        );
        assert_eq!(queue.frame(pending[1], None).len(), 4 + 32 * 1_001 - 1);
        enqueue(&mut queue, 0, &mut Pending::default());
        assert_eq!(queue.next().unwrap().slot, 0);
        assert_eq!((queue.messages.len(), queue.nodes.len(), queue.bytes), (1, 1, 1_000));
        assert_eq!(queue.next(), None);
        assert_eq!((queue.messages.len(), queue.nodes.len(), queue.bytes), (0, 0, 0));
    }

    #[test]
    fn a_tick_is_not_sent_beside_what_replaces_it() {
        let (mut queue, mut pending) = (SendQueue::new(PENDING_BYTES_MAX), Pending::default());
        let mut enqueue = |pending: &mut Pending, task_id, kind, text: &'static str| {
            queue.push(Message { task_id, kind, bytes: text.into() });
            queue.enqueue(0, pending, 0);
            self::text(&mut queue, *pending)
        };
        enqueue(&mut pending, id(1), MessageKind::Progress, "tick");
        enqueue(&mut pending, id(2), MessageKind::Progress, "other");
        assert_eq!(enqueue(&mut pending, id(1), MessageKind::Progress, "newer"), "other\nnewer");
        assert_eq!(enqueue(&mut pending, id(1), MessageKind::Transition { rev: 9 }, "step"), "other\nstep");
        assert_eq!(enqueue(&mut pending, id(1), MessageKind::Progress, "after"), "other\nstep\nafter");
    }

    #[test]
    fn merged_lines_are_announced() {
        let (mut queue, mut pending) = (SendQueue::new(PENDING_BYTES_MAX), Pending::default());
        for (kind, text) in
            [(MessageKind::Merged { len: 3 }, "a"), (MessageKind::Merged { len: 4 }, "b"), (MessageKind::Progress, "p")]
        {
            queue.push(message(kind, text));
            queue.enqueue(0, &mut pending, 0);
        }
        assert_eq!(text(&mut queue, pending), "{\"type\":\"lag\",\"collapsed\":7}\na\nb\np");
        let delivered = Delivered { transitions: 2, progress: 1, bytes: 3, lags: 1, collapsed: 7 };
        assert_eq!(queue.delivered(pending), delivered);
    }
}
