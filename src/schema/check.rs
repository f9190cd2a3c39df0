//! Asking a schema about a value: a walk over both, in counted steps.
//!
//! Where what is found is told (*loud*), the walk goes on after a fault, for more of them; below `anyOf`, `not` and the like it
//! only matters whether there is one, so it ends with the first. What `unevaluated…` must know is gathered only where somebody
//! asks.

use std::collections::{HashMap, HashSet};

use crate::task::Json;

use super::keywords::{At, Keyword, Node};
use super::number::Decimal;
use super::pattern::{Pattern, States};
use super::value::Value;
use super::{DEPTH_MAX, Fault, STEPS_A_BYTE, STEPS_LEAST, cut, push_token};

pub(super) fn check(nodes: &[Node], payload: &Json, faults_max: usize) -> Vec<Fault> {
    let whole = |message: &str| vec![Fault { pointer: String::new(), message: message.to_owned() }];
    let Some(value) = Value::of(payload) else { return whole("is nested too deep to be checked") };
    let steps_left = STEPS_LEAST + STEPS_A_BYTE * payload.len() as u64;
    let (faults, pointer, states) = (Vec::new(), String::new(), HashMap::new());
    let mut check = Check { nodes, steps_left, depth: 0, ended: None, faults, faults_max, pointer, states };
    check.apply(0, &value, None, true);
    match check.ended {
        Some(End::Steps) => whole("takes too many steps to be checked against the schema"),
        Some(End::Depth) => whole("goes too deep to be checked against the schema"),
        Some(End::Faults) | None => check.faults,
    }
}

struct Check<'s> {
    nodes: &'s [Node],
    steps_left: u64,
    depth: u32,
    /// The walk is over before its end: nothing fits any more.
    ended: Option<End>,
    faults: Vec<Fault>,
    faults_max: usize,
    /// Where the walk is in the payload, while it is loud.
    pointer: String,
    /// Of the patterns that were asked.
    states: HashMap<*const Pattern, States>,
}

#[derive(Clone, Copy)]
enum End {
    Steps,
    Depth,
    /// As many as are told are found.
    Faults,
}

/// What schemas that fit have looked at of a value.
#[derive(Default)]
struct Seen {
    /// Members, by their place.
    members: HashSet<usize>,
    /// Items: all before this one, and others.
    items_before: usize,
    items: HashSet<usize>,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.members.extend(other.members);
        self.items_before = self.items_before.max(other.items_before);
        self.items.extend(other.items);
    }
}

impl<'s> Check<'s> {
    /// Whether so many more steps may be made.
    fn step(&mut self, steps: u64) -> bool {
        match self.steps_left.checked_sub(steps) {
            Some(left) => self.steps_left = left,
            None => self.end(End::Steps),
        }
        self.ended.is_none()
    }

    fn end(&mut self, why: End) {
        self.ended.get_or_insert(why);
    }

    /// Something does not fit.
    fn fault(&mut self, loud: bool, message: impl FnOnce() -> String) -> bool {
        if loud && self.ended.is_none() {
            self.faults.push(Fault { pointer: cut(self.pointer.clone()), message: cut(message()) });
            if self.faults.len() >= self.faults_max {
                self.end(End::Faults);
            }
        }
        false
    }

    /// Whether a value fits a schema; what it has looked at of the value is added to what was seen.
    fn apply(&mut self, at: At, value: &Value<'_>, seen: Option<&mut Seen>, loud: bool) -> bool {
        if !self.step(1) {
            return false;
        }
        let nodes: &'s [Node] = self.nodes;
        let keywords = match &nodes[at] {
            Node::All(true) => return true,
            Node::All(false) => return self.fault(loud, || "must not be there".to_owned()),
            Node::Each(keywords) => keywords,
        };
        if self.depth >= DEPTH_MAX {
            self.end(End::Depth);
            return false;
        }
        self.depth += 1;
        let asks =
            |keyword: &Keyword| matches!(keyword, Keyword::UnevaluatedItems(_) | Keyword::UnevaluatedProperties(_));
        let mut own = (seen.is_some() || keywords.iter().any(asks)).then(Seen::default);
        let mut fits = true;
        for keyword in keywords {
            // What was not looked at is not known once something else went wrong.
            if !self.step(1) || !fits && (!loud || asks(keyword)) {
                fits = false;
                break;
            }
            fits &= match value {
                Value::Object(members) => self.of_object(keyword, members, &mut own, loud),
                Value::Array(items) => self.of_array(keyword, items, &mut own, loud),
                Value::String(text) => self.of_string(keyword, text, loud),
                Value::Number(text) => self.of_number(keyword, text, loud),
                Value::Null | Value::Bool(_) => true,
            } && self.of_any(keyword, value, &mut own, loud);
        }
        self.depth -= 1;
        if fits && let (Some(seen), Some(own)) = (seen, own) {
            seen.add(own);
        }
        fits
    }

    /// Whether a value within another fits.
    fn below(&mut self, token: &str, at: At, value: &Value<'_>, loud: bool) -> bool {
        if !loud {
            return self.apply(at, value, None, false);
        }
        let here = self.pointer.len();
        push_token(&mut self.pointer, token);
        let fits = self.apply(at, value, None, true);
        self.pointer.truncate(here);
        fits
    }

    fn item(&mut self, place: usize, at: At, value: &Value<'_>, loud: bool) -> bool {
        match loud {
            true => self.below(&place.to_string(), at, value, true),
            false => self.apply(at, value, None, false),
        }
    }

    fn of_any(&mut self, keyword: &'s Keyword, value: &Value<'_>, own: &mut Option<Seen>, loud: bool) -> bool {
        match keyword {
            Keyword::Type(types) => types.hold(value) || self.fault(loud, || format!("must be {types}")),
            Keyword::Enum(keys, shown) => match self.key(value) {
                Some(key) => keys.contains(&key) || self.fault(loud, || format!("must be one of {shown}")),
                None => false,
            },
            Keyword::Const(expected, shown) => match self.key(value) {
                Some(key) => key == *expected || self.fault(loud, || format!("must be {shown}")),
                None => false,
            },
            Keyword::Ref(at) => self.apply(*at, value, own.as_mut(), loud),
            Keyword::AllOf(all) => {
                let mut fits = true;
                for at in all {
                    fits &= (fits || loud) && self.apply(*at, value, own.as_mut(), loud);
                }
                fits
            }
            Keyword::AnyOf(all) => {
                let (whole, mut fits) = (own.is_some(), false);
                for at in all {
                    fits |= (whole || !fits) && self.apply(*at, value, own.as_mut(), false);
                }
                fits || self.fault(loud, || "must fit one of the schemas of anyOf".to_owned())
            }
            Keyword::OneOf(all) => {
                let fitting = all.iter().filter(|at| self.apply(**at, value, own.as_mut(), false)).take(2).count();
                let message = || match fitting {
                    0 => "must fit one of the schemas of oneOf".to_owned(),
                    _ => "must fit one of the schemas of oneOf only".to_owned(),
                };
                fitting == 1 || self.fault(loud, message)
            }
            Keyword::DependentSchemas(all) => {
                let mut fits = true;
                for (_, at) in all.iter().filter(|(name, _)| value.get(name).is_some()) {
                    fits &= (fits || loud) && self.apply(*at, value, own.as_mut(), loud);
                }
                fits
            }
            Keyword::Not(at) => {
                let fits = self.apply(*at, value, None, false);
                self.ended.is_none() && (!fits || self.fault(loud, || "must not fit the schema of not".to_owned()))
            }
            Keyword::If { condition, then, otherwise } => {
                let holds = self.apply(*condition, value, own.as_mut(), false);
                let branch = if holds { then } else { otherwise };
                self.ended.is_none() && branch.is_none_or(|at| self.apply(at, value, own.as_mut(), loud))
            }
            _ => true,
        }
    }

    fn of_object(
        &mut self,
        keyword: &'s Keyword,
        members: &[(String, Value<'_>)],
        own: &mut Option<Seen>,
        loud: bool,
    ) -> bool {
        let has = |name: &str| members.binary_search_by(|(known, _)| known.as_str().cmp(name)).is_ok();
        match keyword {
            Keyword::Properties(count) => {
                count.holds(members.len()) || self.fault(loud, || format!("must have {count} properties"))
            }
            Keyword::Required(names) => {
                self.step(names.len() as u64);
                self.all_there(names, has, loud)
            }
            Keyword::DependentRequired(all) => {
                let mut fits = true;
                for (_, names) in all.iter().filter(|(name, _)| has(name)) {
                    self.step(names.len() as u64);
                    fits &= (fits || loud) && self.all_there(names, has, loud);
                }
                fits
            }
            Keyword::PropertyNames(at) => {
                let mut fits = true;
                for (name, _) in members {
                    fits &= (fits || loud) && {
                        let named = Value::String(name.clone());
                        self.step(name.len() as u64 / 64);
                        self.apply(*at, &named, None, false)
                            || self.fault(loud, || format!("must not have a property called {name:?}"))
                    };
                }
                fits
            }
            Keyword::EachProperty { named, patterns, additional } => {
                let mut fits = true;
                for (place, (name, value)) in members.iter().enumerate() {
                    if !(fits || loud) || !self.step(1) {
                        return false;
                    }
                    let mut known = false;
                    if let Some(at) = named.get(name) {
                        known = true;
                        fits &= self.below(name, *at, value, loud);
                    }
                    for (pattern, at) in patterns {
                        if self.is_in(pattern, name) {
                            known = true;
                            fits &= self.below(name, *at, value, loud);
                        }
                    }
                    if let Some(at) = additional.filter(|_| !known) {
                        known = true;
                        fits &= self.additional(name, at, value, loud);
                    }
                    if known && let Some(own) = own {
                        own.members.insert(place);
                    }
                }
                fits
            }
            Keyword::UnevaluatedProperties(at) => {
                let Some(seen) = own else { return true };
                let unseen: Vec<usize> = (0..members.len()).filter(|place| !seen.members.contains(place)).collect();
                let mut fits = true;
                for place in &unseen {
                    let (name, value) = &members[*place];
                    fits &= (fits || loud) && self.additional(name, *at, value, loud);
                }
                seen.members.extend(unseen);
                fits
            }
            _ => true,
        }
    }

    /// A member that nothing else names.
    fn additional(&mut self, name: &str, at: At, value: &Value<'_>, loud: bool) -> bool {
        match self.nodes[at] {
            Node::All(false) => self.fault(loud, || format!("must not have a property {name:?}")),
            _ => self.below(name, at, value, loud),
        }
    }

    fn all_there(&mut self, names: &[String], has: impl Fn(&str) -> bool, loud: bool) -> bool {
        let mut fits = true;
        for name in names.iter().filter(|name| !has(name)) {
            fits = self.fault(loud, || format!("must have the property {name:?}"));
            if !loud {
                break;
            }
        }
        fits
    }

    fn of_array(&mut self, keyword: &'s Keyword, items: &[Value<'_>], own: &mut Option<Seen>, loud: bool) -> bool {
        match keyword {
            Keyword::Items(count) => {
                count.holds(items.len()) || self.fault(loud, || format!("must have {count} items"))
            }
            Keyword::UniqueItems => {
                let mut known: HashSet<Box<[u8]>> = HashSet::with_capacity(items.len());
                for (place, item) in items.iter().enumerate() {
                    let Some(key) = self.key(item) else { return false };
                    if !known.insert(key) {
                        return self.fault(loud, || {
                            format!("must not have an item twice: the one at {place} is there before")
                        });
                    }
                }
                true
            }
            Keyword::EachItem { prefix, rest } => {
                let mut fits = true;
                let schemas = prefix.iter().copied().map(Some).chain(std::iter::repeat(*rest));
                for (place, (item, at)) in items.iter().zip(schemas).enumerate() {
                    let Some(at) = at else { break };
                    if !(fits || loud) || !self.step(1) {
                        return false;
                    }
                    fits &= self.item(place, at, item, loud);
                }
                if let Some(own) = own {
                    let looked_at = if rest.is_some() { items.len() } else { prefix.len().min(items.len()) };
                    own.items_before = own.items_before.max(looked_at);
                }
                fits
            }
            Keyword::Contains { at, min, max } => {
                let mut found = 0;
                for (place, item) in items.iter().enumerate() {
                    // Enough is enough, unless it matters which they are.
                    if own.is_none() && max.is_none() && found >= *min {
                        break;
                    }
                    if self.apply(*at, item, None, false) {
                        found += 1;
                        if let Some(own) = own {
                            own.items.insert(place);
                        }
                    }
                }
                let too_few = found < *min;
                let too_many = max.is_some_and(|max| found > max);
                let message = || match (too_few, max) {
                    (false, Some(max)) => format!("must have at most {max} items that fit the schema of contains"),
                    _ => format!("must have at least {min} items that fit the schema of contains"),
                };
                !(too_few || too_many) || self.fault(loud, message)
            }
            Keyword::UnevaluatedItems(at) => {
                let Some(seen) = own else { return true };
                let mut fits = true;
                for (place, item) in items.iter().enumerate().skip(seen.items_before) {
                    if !seen.items.contains(&place) {
                        fits &= (fits || loud) && self.item(place, *at, item, loud);
                    }
                }
                seen.items_before = items.len();
                fits
            }
            _ => true,
        }
    }

    fn of_string(&mut self, keyword: &'s Keyword, text: &str, loud: bool) -> bool {
        match keyword {
            Keyword::Length(count) => {
                self.step(text.len() as u64 / 64);
                count.holds(text.chars().count()) || self.fault(loud, || format!("must have {count} characters"))
            }
            Keyword::Pattern(pattern) => {
                self.is_in(pattern, text) || self.fault(loud, || format!("must match {}", pattern.text()))
            }
            _ => true,
        }
    }

    fn of_number(&mut self, keyword: &'s Keyword, text: &str, loud: bool) -> bool {
        match keyword {
            Keyword::Compare(bound, limit, shown) => {
                self.step(text.len() as u64 / 16);
                bound.holds(&Decimal::of(text), limit) || self.fault(loud, || format!("must be {bound} {shown}"))
            }
            Keyword::MultipleOf(divisor, shown) => {
                self.step(text.len() as u64);
                Decimal::of(text).is_multiple_of(divisor)
                    || self.fault(loud, || format!("must be a multiple of {shown}"))
            }
            _ => true,
        }
    }

    fn is_in(&mut self, pattern: &'s Pattern, text: &str) -> bool {
        let states = self.states.entry(std::ptr::from_ref(pattern)).or_insert_with(|| pattern.states());
        let (found, steps) = pattern.is_in(text, states);
        let found = found.unwrap_or_else(|| {
            self.end(End::Steps);
            false
        });
        self.step(steps) && found
    }

    /// The key of a value, where there are steps left for it.
    fn key(&mut self, value: &Value<'_>) -> Option<Box<[u8]>> {
        let key = value.key();
        self.step(key.len() as u64 / 16).then_some(key)
    }
}
