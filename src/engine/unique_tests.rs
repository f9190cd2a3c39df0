//! Tasks of which there is one at a time: who holds a key, for how long, and what becomes of those that come meanwhile.

use crate::task::{Event, HeldUntil, Json, NewTask, NewUnique, OnHeld, Status, TaskId};

use super::keys::SubmitKey;
use super::rig::{EngineRig, submit};
use super::{Answer, Command, Options, Refusal, Report};

fn unique(on_conflict: OnHeld) -> NewUnique {
    NewUnique { on_conflict: Some(on_conflict), ..NewUnique::key("k") }
}

fn task(unique: NewUnique) -> NewTask {
    NewTask { unique: Some(Box::new(unique)), ..NewTask::new("t") }
}

fn until_started(on_conflict: OnHeld) -> NewTask {
    task(NewUnique { until: Some(HeldUntil::Started), ..unique(on_conflict) })
}

fn within(within_ms: u64) -> NewTask {
    task(NewUnique { within_ms: Some(within_ms), ..NewUnique::key("k") })
}

/// A debounced task: half a second after the last, two seconds after the first.
fn debounced(payload: &'static str) -> NewTask {
    let mut new = until_started(OnHeld::Replace);
    new.unique.as_mut().unwrap().max_wait_ms = Some(2_000);
    NewTask { delay_ms: Some(500), payload: Some(Json::trusted(payload)), ..new }
}

/// The tasks of an answer, and which of them were there.
fn met(rig: &mut EngineRig, tasks: Vec<NewTask>) -> (Vec<TaskId>, Vec<u32>) {
    match rig.decide(submit(tasks)) {
        Ok(Answer::Submitted { tasks, existing }) => (tasks.iter().map(|task| task.task_id).collect(), existing),
        other => panic!("{other:?}"),
    }
}

fn held(rig: &mut EngineRig, new: NewTask) -> Option<TaskId> {
    let (ids, existing) = met(rig, vec![new]);
    (!existing.is_empty()).then_some(ids[0])
}

fn complete(rig: &mut EngineRig, task_id: TaskId) {
    let attempt = rig.task(task_id).attempt;
    rig.report(task_id, attempt, Report::Complete { result: Json::null() }).expect("it runs");
}

fn cancel(rig: &mut EngineRig, task_id: TaskId) {
    rig.decide(Command::Cancel { task_id, reason: None }).expect("it may be cancelled");
}

#[test]
fn one_holds_its_key_until_it_is_final() {
    let mut rig = EngineRig::new();
    let first = rig.submit(task(unique(OnHeld::Return)));
    assert_eq!(held(&mut rig, task(unique(OnHeld::Return))), Some(first));
    // Another key, another type, another user, or none.
    for other in [
        task(NewUnique::key("l")),
        NewTask { task_type: "u".into(), ..task(unique(OnHeld::Return)) },
        NewTask { user_id: Some("u".into()), ..task(unique(OnHeld::Return)) },
        NewTask::new("t"),
    ] {
        assert_eq!(held(&mut rig, other), None);
    }
    rig.hello("w", 10, &[]);
    rig.round();
    assert_eq!(held(&mut rig, task(unique(OnHeld::Replace))), Some(first), "one that runs is left as it is");
    assert_eq!(rig.changes().len(), 0);
    rig.restart();
    rig.hello("w", 10, &[(first, 1)]);
    assert_eq!(held(&mut rig, task(unique(OnHeld::Return))), Some(first));
    complete(&mut rig, first);
    let second = rig.submit(task(unique(OnHeld::Return)));
    assert_ne!(second, first);
    // The end was not written down after all.
    rig.take_back();
    assert_eq!(held(&mut rig, task(unique(OnHeld::Return))), Some(first));
}

#[test]
fn one_holds_its_key_until_it_is_handed_out_for_the_first_time() {
    let mut rig = EngineRig::new();
    let first = rig.submit(until_started(OnHeld::Return));
    assert_eq!(held(&mut rig, until_started(OnHeld::Return)), Some(first));
    rig.hello("w", 1, &[]);
    rig.go();
    let second = rig.submit(until_started(OnHeld::Return));
    assert_ne!(second, first);
    rig.commit();
    // Given back it has started all the same.
    rig.report(first, 1, Report::Release).unwrap();
    assert_eq!(held(&mut rig, until_started(OnHeld::Return)), Some(second));
    cancel(&mut rig, second);
    assert_eq!(held(&mut rig, until_started(OnHeld::Return)), None);
}

#[test]
fn one_holds_its_key_for_a_time_whatever_becomes_of_it() {
    let mut rig = EngineRig::new();
    rig.hello("w", 1, &[]);
    let first = rig.submit(within(1_000));
    rig.round();
    complete(&mut rig, first);
    rig.commit();
    // So many keys and tasks later neither is at hand.
    for n in 0..5_000 {
        let key = NewUnique { within_ms: Some(1_000_000), ..NewUnique::key(format!("{n}")) };
        let other = rig.submit(task(key));
        cancel(&mut rig, other);
        rig.commit();
    }
    assert!(rig.engine.task(first).is_none(), "the test is too small");
    rig.pass(999);
    assert_eq!(held(&mut rig, within(5)), Some(first), "its own time counts");
    rig.restart();
    // A second has passed.
    let second = rig.submit(within(1_000));
    assert_ne!(second, first);
    assert_eq!(held(&mut rig, within(5)), Some(second));
    // Who deletes it frees the key.
    cancel(&mut rig, second);
    rig.decide(Command::Delete { task_id: second }).unwrap();
    assert_eq!(held(&mut rig, within(5)), None);
}

/// What a round brought forth is in no store yet: however much that is, it must be at hand.
#[test]
fn a_time_is_held_from_the_first_moment_on() {
    let mut rig = EngineRig::new();
    let key = |n: usize| task(NewUnique { within_ms: Some(1_000), ..NewUnique::key(format!("{n}")) });
    let (ids, _) = met(&mut rig, (0..9_000).map(key).collect());
    cancel(&mut rig, ids[0]);
    assert_eq!(held(&mut rig, key(0)), Some(ids[0]));
    rig.take_back();
    assert_eq!(held(&mut rig, key(0)), None, "it never was");
}

#[test]
fn within_one_call_the_first_holds_the_key() {
    let mut rig = EngineRig::new();
    for new in [task(unique(OnHeld::Return)), within(1_000)] {
        let (ids, existing) = met(&mut rig, vec![new.clone(), NewTask::new("t"), new.clone(), new]);
        assert_eq!((ids[0], ids[0], existing), (ids[2], ids[3], vec![2, 3]));
        assert_eq!(rig.changes().len(), 2);
        cancel(&mut rig, ids[0]);
        rig.decide(Command::Delete { task_id: ids[0] }).unwrap();
        rig.commit();
    }
    // One that does not want to be there refuses all, and leaves nothing of the others.
    let reject = task(unique(OnHeld::Reject));
    for first in [task(unique(OnHeld::Return)), within(1_000)] {
        let refused = rig.decide(submit(vec![first, reject.clone()])).unwrap_err();
        assert_eq!(refused, Refusal::KeyHeld(None));
        assert!(rig.changes().is_empty() && rig.batch.keys.is_empty());
    }
    let first = rig.submit(reject.clone());
    assert_eq!(rig.decide(submit(vec![reject])).unwrap_err(), Refusal::KeyHeld(Some(first)));
}

#[test]
fn a_task_that_waits_becomes_the_newer_one() {
    let mut rig = EngineRig::new();
    let labels = |value: &str| [("k".to_owned(), value.to_owned())].into();
    let old = NewTask {
        title: Some("old".into()),
        labels: labels("old"),
        payload: Some(Json::trusted("1")),
        ..task(unique(OnHeld::Replace))
    };
    let first = rig.submit(old);
    rig.commit();
    let new = NewTask {
        title: Some("new".into()),
        labels: labels("new"),
        priority: Some(7),
        payload: Some(Json::trusted("2")),
        ..task(unique(OnHeld::Replace))
    };
    assert_eq!(held(&mut rig, new), Some(first));
    let [change] = rig.changes() else { panic!() };
    assert_eq!(change.payload, Some(Json::trusted("2")));
    assert_eq!(change.transition().map(|line| line.event), Some(Event::Updated));
    let task_now = rig.task(first);
    assert_eq!(task_now.detail().and_then(|detail| detail.title.as_deref()), Some("new"));
    assert_eq!((task_now.labels(), task_now.priority), (Some(&labels("new")), 7));
    rig.take_back();
    assert_eq!(rig.task(first).priority, 0);
    // What it leaves out stays.
    assert_eq!(held(&mut rig, task(unique(OnHeld::Replace))), Some(first));
    assert_eq!(rig.task(first).labels(), Some(&labels("old")));
    assert_eq!(rig.changes()[0].payload, None);
}

#[test]
fn a_task_that_is_submitted_again_and_again_waits_for_the_last_but_not_for_ever() {
    let mut rig = EngineRig::new();
    let first = rig.submit(debounced("0"));
    rig.round();
    let mut ready = Vec::new();
    for at in 1..=10 {
        rig.pass(400);
        rig.go();
        ready.push(rig.status(first) == Status::Pending);
        assert_eq!(held(&mut rig, debounced("1")), Some(first), "{at}");
        rig.commit();
    }
    // Two seconds after the first its time is over, and no submission brings it back.
    assert_eq!(ready, [false, false, false, false, true, true, true, true, true, true]);
    assert_eq!(rig.status(first), Status::Pending);
    rig.hello("w", 1, &[]);
    rig.round();
    assert_eq!(held(&mut rig, debounced("2")), None, "it has started: a new one begins");
}

#[test]
fn a_wait_that_is_put_off_is_a_wait_whatever_the_clock_does() {
    let mut rig = EngineRig::new();
    let first = rig.submit(debounced("0"));
    rig.commit();
    rig.pass(300);
    held(&mut rig, debounced("1"));
    rig.commit();
    rig.set_wall(-7_200_000);
    rig.pass(499);
    rig.go();
    assert_eq!(rig.status(first), Status::Scheduled);
    rig.pass(1);
    rig.go();
    assert_eq!(rig.status(first), Status::Pending);
    rig.take_back();
    // The commit failed: it is due again at once.
    assert_eq!(rig.engine.next_in(rig.now), Some(0));
}

#[test]
fn nothing_is_put_off_beyond_its_deadline() {
    let mut rig = EngineRig::new();
    let new = || NewTask { deadline_ms: Some(1_000), ..debounced("0") };
    let first = rig.submit(new());
    rig.pass(400);
    held(&mut rig, new());
    let run_at = rig.task(first).run_at;
    rig.pass(300);
    assert_eq!(held(&mut rig, new()), Some(first));
    assert_eq!(rig.task(first).run_at, run_at);
    rig.pass(200);
    rig.go();
    assert_eq!(rig.status(first), Status::Pending);
}

#[test]
fn a_retry_by_hand_needs_its_key() {
    let mut rig = EngineRig::new();
    for new in [task(unique(OnHeld::Return)), within(60_000)] {
        let first = rig.submit(task(unique(OnHeld::Return)));
        cancel(&mut rig, first);
        let second = rig.submit(new);
        rig.commit();
        let retry = Command::Retry { task_id: first, payload: None };
        assert_eq!(rig.decide(retry.clone()).unwrap_err(), Refusal::KeyHeld(Some(second)));
        cancel(&mut rig, second);
        rig.decide(Command::Retry { task_id: second, payload: None }).expect("it holds its own");
        cancel(&mut rig, second);
        rig.decide(Command::Delete { task_id: second }).unwrap();
        rig.decide(retry).expect("it is free");
        assert_eq!(held(&mut rig, task(unique(OnHeld::Return))), Some(first), "and held again");
        cancel(&mut rig, first);
        rig.commit();
    }
}

#[test]
fn an_idempotency_key_is_answered_as_the_first_time() {
    let mut rig = EngineRig::new();
    let first = rig.submit(until_started(OnHeld::Return));
    let key = Some(SubmitKey { key: 1, body: 2 });
    let again = || match submit(vec![NewTask::new("t"), until_started(OnHeld::Replace)]) {
        Command::Submit { submission, .. } => Command::Submit { submission, key },
        _ => unreachable!(),
    };
    let Ok(Answer::Submitted { tasks, existing }) = rig.decide(again()) else { panic!() };
    assert_eq!((tasks[1].task_id, &existing), (first, &vec![1]));
    rig.commit();
    // By now it would make a task of its own.
    cancel(&mut rig, first);
    rig.restart();
    let Ok(Answer::Replayed { task_ids, existing }) = rig.decide(again()) else { panic!() };
    assert_eq!((task_ids, existing), (vec![tasks[0].task_id, first], vec![1]));
    assert!(rig.changes().is_empty());
}

#[test]
fn what_is_there_takes_no_room() {
    let mut rig = EngineRig::with(Options { tasks_max: 2, ..Options::default() });
    let first = rig.submit(task(unique(OnHeld::Return)));
    let (_, existing) = met(&mut rig, vec![task(unique(OnHeld::Return)), NewTask::new("t")]);
    assert_eq!(existing, [0]);
    assert_eq!(held(&mut rig, task(unique(OnHeld::Return))), Some(first));
    rig.commit();
    let refused = rig.decide(submit(vec![task(unique(OnHeld::Replace)), NewTask::new("t")]));
    assert_eq!(refused.unwrap_err(), Refusal::Full);
    assert!(rig.changes().is_empty());
}
