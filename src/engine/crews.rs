//! Who may take which task next: crews, and the seats in them.
//!
//! Crews overlap: a worker for everything and a worker for one type both wait for that type. So the next seat is looked
//! for among all crews that have something to do, by the same rule as within one: the emptiest first, then who waits
//! longest. Served crew by crew, the first would take all there is for as long as it has room.

use std::collections::{BTreeSet, HashMap};

use crate::task::Name;

use super::Accepts;
use super::lines::{Line, LineId, Lines, Place};

/// Crews nobody belongs to that are kept for the next claim. Beyond this, the one left longest goes.
const IDLE_CREWS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CrewId(u32);

/// A place for tasks: of a worker on a socket, or of a claim over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seat {
    Worker(Name),
    Claim(u64),
}

/// A seat among the free ones of its crew: the least loaded first, then who waits longest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Free {
    pub(super) load: u32,
    pub(super) turn: u64,
    pub(super) seat: Seat,
}

struct Crew {
    accepts: Accepts,
    /// The first of each line this crew accepts that is not empty.
    heads: BTreeSet<(Place, LineId)>,
    free: BTreeSet<Free>,
    /// Where it stands among those that can be served.
    stands: Option<Standing>,
    members: usize,
    idle_since: u64,
}

/// The load and the turn of a crew's first free seat.
type Standing = (u32, u64);

/// All crews.
#[derive(Default)]
pub(super) struct Crews {
    by_accepts: HashMap<Accepts, CrewId>,
    /// `None` where a crew was dropped.
    crews: Vec<Option<Crew>>,
    /// Crews with a ready task and a free seat, in the order of those seats.
    able: BTreeSet<(Standing, CrewId)>,
    turn: u64,
}

impl Crews {
    /// The crew of those who accept this, with one member more.
    pub(super) fn enter(&mut self, accepts: &Accepts, lines: &mut Lines) -> CrewId {
        if let Some(&id) = self.by_accepts.get(accepts) {
            self.crew(id).members += 1;
            return id;
        }
        let crew = Crew {
            accepts: accepts.clone(),
            heads: BTreeSet::new(),
            free: BTreeSet::new(),
            stands: None,
            members: 1,
            idle_since: 0,
        };
        let id = match self.crews.iter().position(Option::is_none) {
            Some(hole) => {
                self.crews[hole] = Some(crew);
                CrewId(hole as u32)
            }
            None => {
                self.crews.push(Some(crew));
                CrewId(self.crews.len() as u32 - 1)
            }
        };
        self.by_accepts.insert(accepts.clone(), id);
        lines.join(id, self);
        id
    }

    /// One member less.
    pub(super) fn exit(&mut self, id: CrewId, lines: &mut Lines) {
        self.turn += 1;
        let turn = self.turn;
        let crew = self.crew(id);
        crew.members -= 1;
        crew.idle_since = turn;
        let idle = |crew: &Option<Crew>| crew.as_ref().filter(|crew| crew.members == 0).map(|crew| crew.idle_since);
        if self.crews.iter().filter_map(idle).count() > IDLE_CREWS_MAX {
            let oldest = (0..self.crews.len()).filter_map(|at| Some((idle(&self.crews[at])?, at))).min();
            if let Some((_, at)) = oldest
                && let Some(crew) = self.crews[at].take()
            {
                self.by_accepts.remove(&crew.accepts);
                lines.leave(CrewId(at as u32));
            }
        }
    }

    /// Makes a seat free with this load; takes the key under which to remove it.
    pub(super) fn seat(&mut self, id: CrewId, seat: Seat, load: u32) -> Free {
        self.turn += 1;
        let free = Free { load, turn: self.turn, seat };
        self.crew(id).free.insert(free.clone());
        self.stand(id);
        free
    }

    /// Takes a free seat away.
    pub(super) fn unseat(&mut self, id: CrewId, free: &Free) {
        self.crew(id).free.remove(free);
        self.stand(id);
    }

    /// The next pair of a ready task and a seat: the best task for the emptiest seat that there is one for.
    pub(super) fn next(&self) -> Option<(Place, &Seat)> {
        let (_, id) = self.able.first()?;
        let crew = self.crews[id.0 as usize].as_ref()?;
        Some((crew.heads.first()?.0, &crew.free.first()?.seat))
    }

    /// Puts a crew where its tasks and seats say, among those that can be served.
    fn stand(&mut self, id: CrewId) {
        let crew = self.crew(id);
        let first = crew.free.first().filter(|_| !crew.heads.is_empty());
        let stands = first.map(|free| (free.load, free.turn));
        let stood = std::mem::replace(&mut crew.stands, stands);
        if stood != stands {
            if let Some(stood) = stood {
                self.able.remove(&(stood, id));
            }
            if let Some(stands) = stands {
                self.able.insert((stands, id));
            }
        }
    }

    pub(super) fn accepts(&self, id: CrewId, line: &Line) -> bool {
        self.crews[id.0 as usize]
            .as_ref()
            .is_some_and(|crew| crew.accepts.takes(line.queue.as_str(), line.task_type.as_str()))
    }

    /// Whether a worker is known, or a claim open, that takes tasks of this type in this queue.
    pub(super) fn has_member_for(&self, queue: &str, task_type: &str) -> bool {
        self.crews.iter().flatten().any(|crew| crew.members > 0 && crew.accepts.takes(queue, task_type))
    }

    pub(super) fn accepting(&self, line: &Line) -> Vec<CrewId> {
        (0..self.crews.len() as u32).map(CrewId).filter(|id| self.accepts(*id, line)).collect()
    }

    /// The first of a line is another one now.
    pub(super) fn head_moved(&mut self, crews: &[CrewId], line: LineId, before: Option<Place>, after: Option<Place>) {
        if before == after {
            return;
        }
        for id in crews {
            let crew = self.crew(*id);
            if let Some(before) = before {
                crew.heads.remove(&(before, line));
            }
            if let Some(after) = after {
                crew.heads.insert((after, line));
            }
            self.stand(*id);
        }
    }

    fn crew(&mut self, id: CrewId) -> &mut Crew {
        self.crews[id.0 as usize].as_mut().expect("ids are held only by members and lines of a living crew")
    }
}

impl Accepts {
    /// Whether a task of this type in this queue is taken.
    pub fn takes(&self, queue: &str, task_type: &str) -> bool {
        self.queues.matches(queue) && self.task_types.matches(task_type)
    }
}
