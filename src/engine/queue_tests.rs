//! Queues, limits and turns: what runs beside what, and in which order.

use crate::settings::{FairBy, Limits, QueueSettings, SET_QUEUES_MAX, UserLimits};
use crate::task::{Name, NewTask, OnConflict, Status, TaskId, WaitsFor};

use super::rig::{self, EngineRig, runs};
use super::{Answer, Command, Quota, Refusal, Report};

fn of(user: &str, key: &str) -> NewTask {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    NewTask { user_id: some(user), concurrency_key: some(key), ..NewTask::new("t") }
}

fn set(rig: &mut EngineRig, settings: QueueSettings) {
    rig.decide(Command::SetQueue { name: Name::new("default"), settings }).expect("it may be set");
}

fn limit_users(rig: &mut EngineRig, user: UserLimits) {
    rig.decide(Command::SetLimits { limits: Limits { user, ..Limits::default() } }).expect("they may be set");
}

/// What runs now, of a round, in order.
fn started(rig: &mut EngineRig) -> Vec<TaskId> {
    runs(&rig.round()).into_iter().map(|(task_id, _)| task_id).collect()
}

/// The same by several workers, of which the emptiest comes first.
fn started_by_all(rig: &mut EngineRig) -> Vec<TaskId> {
    let mut started = started(rig);
    started.sort();
    started
}

fn complete(rig: &mut EngineRig, task_id: TaskId) {
    let attempt = rig.task(task_id).attempt;
    rig.report(task_id, attempt, Report::Complete { result: crate::task::Json::null() }).expect("it runs");
}

fn waits(rig: &mut EngineRig, task_id: TaskId) -> Vec<WaitsFor> {
    match rig.decide(Command::WaitsFor { task_id }) {
        Ok(Answer::Waits(waits)) => waits,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queue_runs_as_many_as_it_may_and_nothing_while_it_is_paused() {
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    set(&mut rig, QueueSettings { concurrency: Some(2), ..QueueSettings::default() });
    let ids: Vec<TaskId> = (0..5).map(|_| rig.submit(NewTask::new("t"))).collect();
    assert_eq!(started(&mut rig), ids[..2]);
    assert_eq!(waits(&mut rig, ids[2]), [WaitsFor::QueueLimit { limit: 2, running: 2 }]);
    complete(&mut rig, ids[0]);
    assert_eq!(started(&mut rig), [ids[2]]);

    rig.decide(Command::PauseQueue { name: Name::new("default"), paused: true }).unwrap();
    complete(&mut rig, ids[1]);
    complete(&mut rig, ids[2]);
    assert_eq!(started(&mut rig), []);
    assert_eq!(waits(&mut rig, ids[3]), [WaitsFor::QueuePaused]);
    // Setting a queue does not let it go on, nor does a restart.
    set(&mut rig, QueueSettings::default());
    rig.commit();
    rig.restart();
    rig.hello("w", 10, &[]);
    assert_eq!(started(&mut rig), []);
    rig.decide(Command::PauseQueue { name: Name::new("default"), paused: false }).unwrap();
    assert_eq!(started(&mut rig), ids[3..]);
}

/// Of many queues those with nothing in them are dropped, and their numbers are given to others.
#[test]
fn a_queue_that_was_paused_and_dropped_closes_no_other() {
    let mut rig = EngineRig::new();
    let within = |queue: &str| NewTask { queue: Some(queue.into()), ..NewTask::new("t") };
    let gone = rig.submit(within("paused"));
    rig.decide(Command::PauseQueue { name: Name::new("paused"), paused: true }).unwrap();
    for n in 0..1_100 {
        rig.submit(within(&format!("q{n}")));
    }
    rig.decide(Command::Cancel { task_id: gone, reason: None }).unwrap();
    let other = rig.submit(within("other"));
    rig.hello_for("w", "*", "other", 1, &[]);
    assert_eq!(started(&mut rig), [other]);
    let still = rig.submit(within("paused"));
    rig.hello_for("p", "*", "paused", 1, &[]);
    assert_eq!(started(&mut rig), []);
    assert_eq!(waits(&mut rig, still), [WaitsFor::QueuePaused]);
}

#[test]
fn tasks_with_one_key_run_one_after_the_other() {
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    let first = rig.submit(of("", "k"));
    let second = rig.submit(of("", "k"));
    let other = rig.submit(of("", "other"));
    let elsewhere = rig.submit(NewTask { queue: Some("elsewhere".into()), ..of("", "k") });
    rig.hello_for("e", "*", "elsewhere", 1, &[]);
    assert_eq!(started_by_all(&mut rig), [first, other, elsewhere]);
    assert_eq!(waits(&mut rig, second), [WaitsFor::KeyLimit { limit: 1, running: 1 }]);
    complete(&mut rig, first);
    assert_eq!(started(&mut rig), [second]);
    set(&mut rig, QueueSettings { key_concurrency: 2, ..QueueSettings::default() });
    let third = rig.submit(of("", "k"));
    assert_eq!(started(&mut rig), [third]);
}

#[test]
fn a_user_at_a_limit_keeps_nobody_else_waiting() {
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    limit_users(&mut rig, UserLimits { running: Some(2), ..UserLimits::default() });
    set(&mut rig, QueueSettings { user_concurrency: Some(1), ..QueueSettings::default() });
    let flood: Vec<TaskId> = (0..50).map(|_| rig.submit(NewTask { priority: Some(100), ..of("flood", "") })).collect();
    let other = rig.submit(of("other", ""));
    let elsewhere: Vec<TaskId> =
        (0..3).map(|_| rig.submit(NewTask { queue: Some("elsewhere".into()), ..of("flood", "") })).collect();
    rig.hello_for("e", "*", "elsewhere", 10, &[]);
    assert_eq!(started_by_all(&mut rig), [flood[0], other, elsewhere[0]]);
    let limit = WaitsFor::UserLimit { limit: 2, running: 2 };
    assert_eq!(waits(&mut rig, elsewhere[1]), std::slice::from_ref(&limit));
    assert_eq!(waits(&mut rig, flood[1]), [WaitsFor::UserLimit { limit: 1, running: 1 }, limit]);
    complete(&mut rig, elsewhere[0]);
    assert_eq!(started(&mut rig), [elsewhere[1]]);
    limit_users(&mut rig, UserLimits::default());
    assert_eq!(started(&mut rig), [elsewhere[2]]);
}

/// Two limits that cross: whoever one of them holds back must not hide those that could run.
#[test]
fn nothing_waits_that_could_run() {
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    set(&mut rig, QueueSettings { user_concurrency: Some(1), ..QueueSettings::default() });
    let a1 = rig.submit(of("a", "k"));
    let a2 = rig.submit(of("a", "j"));
    let b1 = rig.submit(of("b", "k"));
    let b2 = rig.submit(of("b", "j"));
    assert_eq!(started(&mut rig), [a1, b2], "a is at its limit, and k is taken");
    complete(&mut rig, b2);
    assert_eq!(started(&mut rig), [], "of what is left, one waits for its user and one for its key");
    complete(&mut rig, a1);
    assert_eq!(started(&mut rig), [a2, b1]);
}

/// What a limit held back comes by rank again once there is room: past what another limit holds back by then, …
#[test]
fn what_is_held_back_twice_does_not_stand_in_the_way() {
    let mut rig = EngineRig::new();
    rig.hello("w", 2, &[]);
    set(&mut rig, QueueSettings { user_concurrency: Some(1), ..QueueSettings::default() });
    let first = rig.submit(of("a", ""));
    rig.round();
    rig.submit(of("a", "k"));
    rig.submit(of("b", "k"));
    let own = rig.submit(of("a", ""));
    rig.round();
    rig.submit(of("c", ""));
    complete(&mut rig, first);
    assert_eq!(started(&mut rig), [own], "the older one of a waits for k");
}

/// … and before those that are behind it by then.
#[test]
fn what_stands_for_others_does_not_hide_them_when_it_falls_back() {
    let mut rig = EngineRig::new();
    rig.hello("w", 1, &[]);
    set(&mut rig, QueueSettings { user_concurrency: Some(1), ..QueueSettings::default() });
    let first = rig.submit(of("a", ""));
    rig.round();
    let gone = rig.submit(of("a", "k"));
    let next = rig.submit(of("a", "j"));
    rig.submit(of("c", ""));
    rig.submit(of("a", "k"));
    complete(&mut rig, first);
    rig.decide(Command::Cancel { task_id: gone, reason: None }).unwrap();
    assert_eq!(started(&mut rig), [next]);
}

#[test]
fn users_of_a_fair_queue_are_served_in_turn() {
    for fair_by in [FairBy::User, FairBy::Key] {
        let mut rig = EngineRig::new();
        let name = |who: &str| match fair_by {
            FairBy::Key => of("", who),
            _ => of(who, ""),
        };
        set(&mut rig, QueueSettings { fair_by, key_concurrency: 100, ..QueueSettings::default() });
        let flood: Vec<TaskId> =
            (0..100).map(|_| rig.submit(NewTask { priority: Some(50), ..name("flood") })).collect();
        let late: Vec<TaskId> = (0..3).map(|_| rig.submit(name("late"))).collect();
        let urgent = rig.submit(NewTask { priority: Some(1), ..name("late") });
        assert_eq!(waits(&mut rig, late[0]), [WaitsFor::NoWorker]);
        rig.hello("w", 4, &[]);
        assert_eq!(waits(&mut rig, late[0]), [WaitsFor::Turn { ahead: Some(3) }]);
        assert_eq!(started(&mut rig), [flood[0], urgent, flood[1], late[0]]);
        // Whoever comes has to wait for no more than one turn of each other.
        let newcomer = rig.submit(name("newcomer"));
        for task_id in [flood[0], urgent, flood[1], late[0]] {
            complete(&mut rig, task_id);
        }
        let next = started(&mut rig);
        assert_eq!(next, [flood[2], late[1], newcomer, flood[3]]);
    }
}

#[test]
fn a_start_that_is_taken_back_was_no_turn() {
    let mut rig = EngineRig::new();
    set(&mut rig, QueueSettings { fair_by: FairBy::User, ..QueueSettings::default() });
    let a: Vec<TaskId> = (0..3).map(|_| rig.submit(of("a", ""))).collect();
    let b = rig.submit(of("b", ""));
    rig.commit();
    rig.hello("w", 1, &[]);
    rig.go();
    assert_eq!(rig.status(a[0]), Status::Running);
    rig.take_back();
    assert_eq!(started(&mut rig), [a[0]]);
    complete(&mut rig, a[0]);
    assert_eq!(started(&mut rig), [b]);
}

#[test]
fn waiting_makes_up_for_priority_where_a_queue_ages() {
    let mut rig = EngineRig::new();
    set(&mut rig, QueueSettings { ageing_ms: Some(1_000), ..QueueSettings::default() });
    let old = rig.submit(NewTask::new("t"));
    rig.pass(2_500);
    let two = rig.submit(NewTask { priority: Some(2), ..NewTask::new("t") });
    let three = rig.submit(NewTask { priority: Some(3), ..NewTask::new("t") });
    rig.hello("w", 10, &[]);
    assert_eq!(started(&mut rig), [three, old, two]);
}

#[test]
fn a_submission_may_be_refused_where_its_key_is_taken() {
    let mut rig = EngineRig::new();
    let reject = |user: &str| NewTask { on_conflict: Some(OnConflict::Reject), ..of(user, "k") };
    let first = rig.submit(reject("a"));
    let submit = |new: NewTask| rig::submit(vec![new]);
    assert_eq!(rig.decide(submit(reject("a"))).unwrap_err(), Refusal::KeyTaken);
    rig.submit(reject("b"));
    rig.submit(of("a", "k"));
    // All or nothing: what came before in the same call is taken back.
    let (rev, waiting) = (rig.engine.rev(), rig.engine.unfinished());
    let replace = NewTask { on_conflict: Some(OnConflict::ReplaceWaiting), ..of("a", "k") };
    let batch = rig::submit(vec![NewTask::new("t"), replace, reject("b")]);
    assert_eq!(rig.decide(batch).unwrap_err(), Refusal::KeyTaken);
    assert_eq!((rig.engine.rev(), rig.engine.unfinished(), rig.status(first)), (rev, waiting, Status::Pending));
}

#[test]
fn a_submission_that_is_refused_stops_nobody() {
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    let running = rig.submit(of("a", "k"));
    rig.round();
    let cancel = NewTask { on_conflict: Some(OnConflict::CancelRunning), ..of("a", "k") };
    let reject = NewTask { on_conflict: Some(OnConflict::Reject), ..of("a", "k") };
    let refused = rig.decide(rig::submit(vec![cancel, reject]));
    assert_eq!(refused.unwrap_err(), Refusal::KeyTaken);
    assert!(!rig.task(running).cancel_requested());
    assert!(rig.commit().is_empty());
}

#[test]
fn a_newer_task_takes_the_place_of_its_users_older_ones() {
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    let running = rig.submit(of("a", "k"));
    rig.round();
    let waiting = rig.submit(of("a", "k"));
    let foreign = rig.submit(of("b", "k"));
    let newer = rig.submit(NewTask { on_conflict: Some(OnConflict::ReplaceWaiting), ..of("a", "k") });
    let statuses = |rig: &EngineRig, ids: &[TaskId]| ids.iter().map(|id| rig.status(*id)).collect::<Vec<_>>();
    let all = [running, waiting, foreign, newer];
    assert_eq!(statuses(&rig, &all), [Status::Running, Status::Cancelled, Status::Pending, Status::Pending]);
    rig.submit(NewTask { on_conflict: Some(OnConflict::CancelRunning), ..of("a", "k") });
    assert!(rig.task(running).cancel_requested());
    assert_eq!(statuses(&rig, &all), [Status::Running, Status::Cancelled, Status::Pending, Status::Cancelled]);
}

/// A user at two limits, of which one and then the other has room: what both hold back is not moved about between them.
#[test]
fn a_user_at_two_limits_costs_no_more_with_many_keys() {
    let placed = |keys: usize| {
        let mut rig = EngineRig::new();
        limit_users(&mut rig, UserLimits { running: Some(2), ..UserLimits::default() });
        set(&mut rig, QueueSettings { user_concurrency: Some(1), ..QueueSettings::default() });
        rig.hello_for("w", "*", "*", 10, &[]);
        let elsewhere = || NewTask { queue: Some("elsewhere".into()), ..of("u", "") };
        let (mut here, mut there) = (rig.submit(of("u", "")), rig.submit(elsewhere()));
        let tasks = (0..keys).map(|n| of("u", &format!("k{n}"))).collect();
        rig.decide(rig::submit(tasks)).unwrap();
        rig.round();
        let before = rig.engine.lanes.placed;
        for _ in 0..4 {
            complete(&mut rig, here);
            here = started(&mut rig)[0];
            complete(&mut rig, there);
            assert_eq!(started(&mut rig), []);
            there = rig.submit(elsewhere());
            assert_eq!(started(&mut rig), [there]);
        }
        rig.engine.lanes.placed - before
    };
    assert_eq!(placed(10_000), placed(10));
}

/// A worker may still be at what was taken from it, and another with its key is not to run beside that.
#[test]
fn an_attempt_keeps_its_key_until_its_worker_has_let_go() {
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    let first = rig.submit(NewTask { timeout_ms: Some(1_000), ..of("", "k") });
    let second = rig.submit(of("", "k"));
    rig.round();
    rig.pass(1_000);
    assert_eq!(started(&mut rig), []);
    assert_eq!(rig.status(first), Status::Failed);
    assert_eq!(waits(&mut rig, second), [WaitsFor::KeyLimit { limit: 1, running: 1 }]);
    rig.report(first, 1, Report::Cancelled).unwrap_err();
    assert_eq!(started(&mut rig), [second]);
    // The end of its connection is as good.
    rig.pass(1);
    let third = rig.submit(NewTask { timeout_ms: Some(1_000), ..of("", "j") });
    rig.round();
    let fourth = rig.submit(of("", "j"));
    rig.pass(1_000);
    assert_eq!(started(&mut rig), []);
    assert_eq!(rig.status(third), Status::Failed);
    rig.hello("w", 10, &[(second, 1)]);
    assert_eq!(started(&mut rig), [fourth]);
}

#[test]
fn a_user_may_have_so_many_waiting_and_submit_so_many_a_minute() {
    let mut rig = EngineRig::new();
    limit_users(&mut rig, UserLimits { waiting: Some(3), submits_per_min: Some(4), ..UserLimits::default() });
    let submit = |users: &[&str]| rig::submit(users.iter().map(|user| of(user, "")).collect());
    rig.decide(submit(&["a", "a"])).unwrap();
    let quota = Refusal::Quota(Quota::Waiting { limit: 3 });
    assert_eq!(rig.decide(submit(&["b", "a", "a"])).unwrap_err(), quota, "all or nothing");
    rig.decide(submit(&["a", "b", "b", "b"])).unwrap();
    assert_eq!(rig.decide(submit(&["a"])).unwrap_err(), quota);
    rig.decide(submit(&["", "", "", "", "", ""])).expect("those without a user are not limited");
    // What runs does not wait.
    rig.hello("w", 100, &[]);
    rig.round();
    rig.decide(submit(&["a"])).unwrap();
    let Refusal::Quota(Quota::SubmitsPerMin { limit: 4, retry_after_ms }) = rig.decide(submit(&["a"])).unwrap_err()
    else {
        panic!("it is the fifth of a minute")
    };
    rig.pass(retry_after_ms - 1);
    assert!(rig.decide(submit(&["a"])).is_err());
    rig.pass(1);
    rig.decide(submit(&["a"])).unwrap();
    rig.commit();
    // What was not written did not count.
    let left = |rig: &mut EngineRig| (0..).take_while(|_| rig.decide(submit(&["d"])).is_ok()).count();
    limit_users(&mut rig, UserLimits { submits_per_min: Some(4), ..UserLimits::default() });
    rig.commit();
    assert_eq!(left(&mut rig), 4);
    rig.take_back();
    assert_eq!(left(&mut rig), 4);
}

/// Whoever comes back when they were told to is let in, whatever was set or taken back meanwhile.
#[test]
fn there_is_room_again_when_it_was_said() {
    let mut rig = EngineRig::new();
    let limit = |rig: &mut EngineRig, limit| {
        limit_users(rig, UserLimits { submits_per_min: Some(limit), ..UserLimits::default() });
    };
    let submit = |count| rig::submit(vec![of("a", ""); count]);
    let told = |rig: &mut EngineRig| match rig.decide(submit(1)) {
        Err(Refusal::Quota(Quota::SubmitsPerMin { retry_after_ms, .. })) => retry_after_ms,
        other => panic!("{other:?}"),
    };
    limit(&mut rig, 4);
    rig.commit();
    rig.decide(submit(1)).unwrap();
    rig.take_back();
    rig.pass(1_000);
    rig.decide(submit(1)).unwrap();
    rig.pass(1_000);
    rig.decide(submit(3)).unwrap();
    rig.commit();
    let wait = told(&mut rig);
    rig.pass(wait);
    rig.decide(submit(1)).expect("the oldest of those that count is a minute old");
    limit(&mut rig, 2);
    let wait = told(&mut rig);
    rig.pass(wait);
    rig.decide(submit(1)).expect("so are those above the lower limit");
}

#[test]
fn so_many_queues_may_be_set() {
    let mut rig = EngineRig::new();
    let set = |n| Command::SetQueue { name: Name::new(&format!("q{n}")), settings: QueueSettings::default() };
    for n in 0..SET_QUEUES_MAX {
        rig.decide(set(n)).unwrap();
    }
    rig.submit(NewTask { queue: Some("more".into()), ..NewTask::new("t") });
    let rev = rig.engine.rev();
    assert!(matches!(rig.decide(set(SET_QUEUES_MAX)), Err(Refusal::Invalid(_))));
    let pause = Command::PauseQueue { name: Name::new("more"), paused: true };
    assert!(matches!(rig.decide(pause.clone()), Err(Refusal::Invalid(_))));
    assert_eq!(rig.engine.rev(), rev);
    rig.decide(Command::PauseQueue { name: Name::new("q1"), paused: true }).expect("it is set");
    limit_users(&mut rig, UserLimits::default());
    rig.decide(Command::UnsetQueue { name: Name::new("q0") }).unwrap();
    rig.decide(pause).expect("there is room again");
}

#[test]
fn what_is_set_is_taken_back_with_the_commit_and_is_there_after_a_restart() {
    let mut rig = EngineRig::new();
    rig.hello("w", 10, &[]);
    let one = || QueueSettings { concurrency: Some(1), fair_by: FairBy::User, ..QueueSettings::default() };
    set(&mut rig, one());
    let ids: Vec<TaskId> = (0..3).map(|_| rig.submit(NewTask::new("t"))).collect();
    rig.commit();
    set(&mut rig, QueueSettings::default());
    rig.take_back();
    assert_eq!(started(&mut rig), ids[..1]);
    rig.restart();
    rig.hello("w", 10, &[(ids[0], 1)]);
    assert_eq!(started(&mut rig), [], "one runs, and one may");
    rig.decide(Command::UnsetQueue { name: Name::new("default") }).unwrap();
    assert_eq!(started(&mut rig), ids[1..]);
    // Nothing changes where nothing is different.
    let rev = rig.engine.rev();
    set(&mut rig, one());
    set(&mut rig, one());
    assert_eq!(rig.engine.rev(), rev + 1);
}
