//! What one sweep hands over, and to whom: each message is put together once for all who get the same lines.
//!
//! A shard goes through the lines of a sweep in order and says who gets each. Clients that were given the same lines so far
//! stand at the same *node* of a tree; a line moves each of its audience to the child for that line. At the end, clients
//! that stand at one node get one message: joined once, framed once, and shared. A thousand clients that watch everything
//! stand at one node; a thousand that watch a task each stand at a thousand, and each message is made for its one reader.
//!
//! A message is a whole WebSocket frame: text, not masked, as servers send it.

use bytes::Bytes;

use super::frame::{FrameHead, Opcode};
use super::outbox::{Outbox, lag_line};
use crate::task::TaskId;

/// A place in the tree: which lines of the sweep somebody is given.
pub(super) type Node = u32;
/// No line yet.
pub(super) const ROOT: Node = 0;

/// A line of a sweep.
pub(super) struct Line {
    pub task_id: TaskId,
    pub kind: LineKind,
    pub bytes: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    Transition {
        rev: u64,
    },
    /// The newest of so many transitions of a task.
    Merged {
        len: u64,
    },
    Progress,
}

/// How much of what there is in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub transitions: u64,
    pub progress: u64,
    pub bytes: u64,
    /// Messages that tell of transitions which were merged, and of how many.
    pub lags: u64,
    pub collapsed: u64,
}

/// A sweep is handed over when its lines have this many bytes: enough to fill packets, and little enough that what comes
/// after can still be replaced where a client is slow.
const SWEEP_BYTES: usize = 32 << 10;
/// Or when there are so many nodes: clients whose filters overlap in many ways stand at one each.
const SWEEP_NODES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Sweep {
    lines: Vec<Line>,
    bytes: usize,
    /// The first is the root.
    nodes: Vec<Place>,
}

#[derive(Default)]
struct Place {
    parent: Node,
    /// The last line given here; of the root, none.
    line: u32,
    /// How many stand here.
    readers: u32,
    /// The child that was made last, and for which line.
    child: Node,
    child_line: u32,
    told: Option<Told>,
    /// Without a mark, and with one.
    messages: [Option<Bytes>; 2],
}

impl Told {
    pub fn add(&mut self, other: &Told) {
        self.transitions += other.transitions;
        self.progress += other.progress;
        self.bytes += other.bytes;
        self.lags += other.lags;
        self.collapsed += other.collapsed;
    }
}

impl Sweep {
    /// A line of this sweep, after the others.
    pub fn push(&mut self, line: Line) {
        if self.nodes.is_empty() {
            self.nodes.push(Place::default());
        }
        self.bytes += line.bytes.len();
        self.lines.push(line);
    }

    /// Whether it is time to hand it over.
    pub fn is_full(&self) -> bool {
        self.bytes >= SWEEP_BYTES || self.nodes.len() >= SWEEP_NODES
    }

    /// Where somebody at `node` stands who gets the newest line as well.
    pub fn step(&mut self, node: Node) -> Node {
        let line = self.lines.len() as u32;
        let next = self.nodes.len() as Node;
        let place = &mut self.nodes[node as usize];
        place.readers = place.readers.saturating_sub(1);
        // Lines are counted from 1 here, so that 0 means none.
        if place.child_line != line {
            (place.child, place.child_line) = (next, line);
            self.nodes.push(Place { parent: node, line: line - 1, ..Place::default() });
        }
        let child = self.nodes[node as usize].child;
        self.nodes[child as usize].readers += 1;
        child
    }

    /// The message for everyone who stands at `node`; with `mark`, if there is one, as its last line.
    pub fn message(&mut self, node: Node, mark: Option<&Bytes>) -> Bytes {
        let which = usize::from(mark.is_some());
        if let Some(message) = &self.nodes[node as usize].messages[which] {
            return message.clone();
        }
        let path = self.path(node);
        let collapsed = self.told(node).collapsed;
        let lag = (collapsed > 0).then(|| lag_line(collapsed));
        let lines = path.iter().map(|line| &self.lines[*line as usize].bytes);
        let message = text_message(lag.iter().chain(lines).chain(mark));
        // For the next who stands here. A message for one is not kept: ten thousand of them would be many.
        if self.nodes[node as usize].readers > 1 {
            self.nodes[node as usize].messages[which] = Some(message.clone());
        }
        message
    }

    /// What everyone is told who stands at `node`.
    pub fn told(&mut self, node: Node) -> Told {
        if let Some(told) = self.nodes[node as usize].told {
            return told;
        }
        let mut told = Told::default();
        for line in self.path(node).into_iter().map(|line| &self.lines[line as usize]) {
            told.bytes += line.bytes.len() as u64;
            match line.kind {
                LineKind::Transition { .. } => told.transitions += 1,
                LineKind::Progress => told.progress += 1,
                LineKind::Merged { len } => {
                    told.transitions += 1;
                    told.lags = 1;
                    told.collapsed += len;
                }
            }
        }
        self.nodes[node as usize].told = Some(told);
        told
    }

    /// Puts the lines of `node` where they wait.
    pub fn queue(&self, node: Node, outbox: &mut Outbox) {
        for line in self.path(node) {
            let Line { task_id, kind, bytes } = &self.lines[line as usize];
            match kind {
                LineKind::Transition { rev } => outbox.transition(*task_id, *rev, bytes.clone()),
                LineKind::Merged { len } => outbox.merged(*task_id, bytes.clone(), *len),
                LineKind::Progress => outbox.progress(*task_id, bytes.clone()),
            }
        }
    }

    /// The lines of a node, in order.
    fn path(&self, node: Node) -> Vec<u32> {
        let mut path = Vec::new();
        let mut at = node;
        while at != ROOT {
            let place = &self.nodes[at as usize];
            path.push(place.line);
            at = place.parent;
        }
        path.reverse();
        path
    }

    /// Makes it ready for the next, keeping its room.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.nodes.clear();
        self.bytes = 0;
    }
}

/// Lines, one a line, as a whole frame.
pub fn text_message<'a>(lines: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let len = lines.clone().map(|line| line.len() + 1).sum::<usize>().saturating_sub(1);
    let head = FrameHead::new(Opcode::Text, len);
    let mut message = Vec::with_capacity(head.len() + len);
    message.extend_from_slice(&head);
    for (at, line) in lines.enumerate() {
        if at > 0 {
            message.push(b'\n');
        }
        message.extend_from_slice(line);
    }
    message.into()
}

/// A ping, and a line behind it.
pub(super) fn ping_message(line: &Bytes) -> Bytes {
    let parts = [&FrameHead::new(Opcode::Ping, 0), &*FrameHead::new(Opcode::Text, line.len()), line];
    parts.concat().into()
}

#[cfg(test)]
mod tests {
    use super::super::sample::id;
    use super::*;

    fn line(kind: LineKind, text: &str) -> Line {
        Line { task_id: id(1), kind, bytes: text.to_owned().into() }
    }

    fn transition(rev: u64, text: &str) -> Line {
        line(LineKind::Transition { rev }, text)
    }

    #[test]
    fn who_gets_the_same_lines_shares_one_message() {
        let mut sweep = Sweep::default();
        let mut at = [ROOT; 3];
        sweep.push(transition(1, "a"));
        at = [sweep.step(at[0]), sweep.step(at[1]), at[2]];
        sweep.push(transition(2, "b"));
        at = [at[0], sweep.step(at[1]), sweep.step(at[2])];
        sweep.push(transition(3, "c"));
        at = [sweep.step(at[0]), at[1], at[2]];
        let texts = at.map(|node| sweep.message(node, None).slice(2..));
        assert_eq!(texts, ["a\nc", "a\nb", "b"]);

        sweep.clear();
        sweep.push(transition(4, "d"));
        sweep.push(transition(5, "e"));
        let (one, other) = (sweep.step(ROOT), sweep.step(ROOT));
        assert_eq!(one, other);
        let message = sweep.message(one, Some(&"mark".into()));
        assert_eq!(message.slice(2..), "e\nmark");
        assert_eq!(sweep.message(other, Some(&"mark".into())).as_ptr(), message.as_ptr());
    }

    #[test]
    fn merged_lines_are_announced() {
        let mut sweep = Sweep::default();
        sweep.push(line(LineKind::Merged { len: 3 }, "a"));
        let node = sweep.step(ROOT);
        sweep.push(line(LineKind::Merged { len: 4 }, "b"));
        let node = sweep.step(node);
        sweep.push(line(LineKind::Progress, "p"));
        let node = sweep.step(node);
        let (message, told) = (sweep.message(node, None), sweep.told(node));
        assert_eq!(message.slice(2..), "{\"type\":\"lag\",\"collapsed\":7}\na\nb\np");
        assert_eq!(told, Told { transitions: 2, progress: 1, bytes: 3, lags: 1, collapsed: 7 });
    }
}
