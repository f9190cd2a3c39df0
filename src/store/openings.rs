//! Which history a store is on, and since when.
//!
//! Revs alone do not name a moment: a folder that is put back from a backup, copied, or rolled back with its disk gives out
//! the same numbers a second time, for other things. So each opening of a store has a name of its own, kept in the store
//! with the `rev` that the opening began at; that name is the `epoch` that clients see. A client that comes back says under
//! which name it heard its last `rev`. If the opening is known here, and the next one began no earlier than at that `rev`,
//! then what the client saw is part of this history. A copy does not know the openings that followed it elsewhere, and where
//! it was made in the middle of one, its own next opening began before what was said after it.

/// The openings of a store, this one the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Openings {
    list: Vec<Opening>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub epoch: String,
    /// The last `rev` before it.
    pub began: u64,
}

impl Openings {
    /// Oldest first; at least one.
    pub fn new(list: Vec<Opening>) -> Openings {
        assert!(!list.is_empty(), "a store that is open has been opened");
        Openings { list }
    }

    /// With one more.
    pub fn with(mut self, opening: Opening) -> Openings {
        self.list.push(opening);
        self
    }

    /// What this opening is called.
    pub fn epoch(&self) -> &str {
        &self.list.last().expect("there is one").epoch
    }

    /// Whether what was heard of `epoch` up to `rev` is part of this history, which has come to `newest`.
    pub fn include(&self, epoch: &str, rev: u64, newest: u64) -> bool {
        let found = self.list.iter().rposition(|opening| opening.epoch == epoch);
        found.is_some_and(|at| rev <= self.list.get(at + 1).map_or(newest, |next| next.began))
    }

    /// Whether this is one of them.
    pub fn know(&self, epoch: &str) -> bool {
        self.list.iter().any(|opening| opening.epoch == epoch)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rev_counts_under_the_name_it_was_heard_under() {
        let opening = |epoch: &str, began| Opening { epoch: epoch.to_owned(), began };
        let openings = Openings::new(vec![opening("a", 0), opening("b", 10), opening("c", 10), opening("d", 25)]);
        assert_eq!(openings.epoch(), "d");
        for (epoch, rev, is_known) in [
            ("a", 0, true),
            ("a", 10, true),
            ("a", 11, false),
            ("b", 10, true),
            ("b", 11, false),
            ("c", 25, true),
            ("c", 26, false),
            ("d", 3, true),
            ("d", 30, true),
            ("d", 31, false),
            ("elsewhere", 3, false),
        ] {
            assert_eq!(openings.include(epoch, rev, 30), is_known, "{epoch}:{rev}");
        }
    }
}
