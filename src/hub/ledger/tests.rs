//! What is kept about access and the audit, through the writer.

use std::sync::atomic::Ordering;

use super::*;
use crate::access::{AccessKey, ApiToken, AuditEntry, Role};
use crate::engine::Refusal;
use crate::hub::HubOptions;
use crate::store::gated::{Gate, Gated};
use crate::store::{SqliteOptions, SqliteStore, in_memory};
use crate::task::{Name, NewTask, Submission, TaskId};

fn token(name: &str) -> AccessChange {
    AccessChange::Put(AccessRecord::ApiToken(ApiToken::sample(name)))
}

fn key(name: &str) -> AccessKey {
    AccessKey::ApiToken { name: Name::new(name) }
}

fn row(action: &str, target: Option<&str>, outcome: &str) -> AuditRow {
    AuditRow {
        who: Some(Name::new("ann")),
        role: Role::User,
        token: "api:ann".into(),
        address: None,
        action: action.into(),
        target: target.map(str::to_owned),
        outcome: outcome.into(),
    }
}

fn hub() -> Hub {
    Hub::start(Box::new(in_memory().unwrap()), HubOptions::default()).unwrap()
}

async fn entries(hub: &Hub) -> Vec<AuditEntry> {
    let mut entries = hub.audit(AuditQuery { limit: 1_000, ..AuditQuery::default() }).await.unwrap().entries;
    entries.reverse();
    entries
}

/// What was done to what, and what came of it, oldest first; once there are so many.
async fn said(hub: &Hub, len: usize) -> Vec<String> {
    for _ in 0..500 {
        let entries = entries(hub).await;
        if entries.len() >= len {
            let line = |entry: &AuditEntry| {
                let AuditRow { action, target, outcome, .. } = &entry.row;
                format!("{} {action} {} {outcome}", entry.seq, target.as_deref().unwrap_or("-"))
            };
            return entries.iter().map(line).collect();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("there are not {len} entries: {:?}", entries(hub).await);
}

/// What a listener heard, each with what the hub had at that moment.
#[derive(Default)]
struct Heard(Mutex<Vec<AccessChange>>);

impl AccessListener for Heard {
    fn changed(&self, change: &AccessChange) {
        self.0.lock().push(change.clone());
    }
}

#[tokio::test]
async fn a_step_about_access_holds_for_everybody_when_it_is_answered() {
    let hub = hub();
    let heard = hub.listen_to_access(|records| {
        assert_eq!(records, []);
        Ok::<_, ()>(Arc::new(Heard::default()))
    });
    let heard = heard.unwrap();
    hub.change_access(vec![token("a")], Some(row("api_token.create", Some("a"), AuditRow::OK))).await.unwrap();
    let steps = heard.0.lock().clone();
    assert!(matches!(steps[0], AccessChange::Put(AccessRecord::Closed { .. })), "{steps:?}");
    assert_eq!(steps[1..], [token("a")]);
    assert_eq!(hub.access_records().len(), 2);
    // A refused step does nothing, and its row is not that of something that was done.
    let taken = hub.change_access(vec![token("b"), token("a")], Some(row("api_token.create", Some("b"), "ok"))).await;
    assert_eq!(taken, Err(AccessError::Refused(AccessRefusal::Taken)));
    let gone =
        hub.change_access(vec![AccessChange::Remove(key("b"))], Some(row("api_token.revoke", Some("b"), "ok"))).await;
    assert_eq!(gone, Err(AccessError::Refused(AccessRefusal::NotThere)));
    hub.change_access(vec![AccessChange::Remove(key("a"))], None).await.unwrap();
    assert_eq!(heard.0.lock()[2..], [AccessChange::Remove(key("a"))]);
    assert_eq!(said(&hub, 1).await, ["1 api_token.create a ok"]);
    // Who comes later hears what there is.
    let late =
        hub.listen_to_access(|records| if records.len() == 1 { Ok(Arc::new(Heard::default())) } else { Err(()) });
    assert!(late.is_ok());
    hub.stop().await;
}

#[tokio::test]
async fn the_row_of_a_command_is_there_once_it_is_answered_and_only_if_it_was_taken() {
    let hub = hub();
    let asked = async |command, row| hub.ask_noted(command, Bound::Held, Some(Box::new(row))).await;
    let submit = |tasks: usize| {
        let submission = Submission::check(vec![NewTask::new("t"); tasks], 1 << 20).unwrap();
        Command::Submit { submission, key: None }
    };
    let Answer::Submitted { tasks, .. } = asked(submit(1), row("submit", None, "ok")).await.unwrap() else { panic!() };
    let task_id = tasks[0].task_id;
    asked(submit(3), row("submit", None, "ok")).await.unwrap();
    let cancel = |task_id| Command::Cancel { task_id, reason: None };
    asked(cancel(task_id), row("cancel", Some(&task_id.to_string()), "ok")).await.unwrap();
    let unknown = TaskId::from_bytes([9; 16]);
    let refused = asked(cancel(unknown), row("cancel", Some(&unknown.to_string()), "ok")).await;
    assert_eq!(refused.unwrap_err(), HubError::Refused(Refusal::TaskNotFound));
    let expected = [format!("1 submit {task_id} ok"), "2 submit 3 ok".into(), format!("3 cancel {task_id} ok")];
    assert_eq!(said(&hub, 3).await, expected);
    // What comes without a row leaves none.
    hub.cancel_task(tasks[0].task_id, None).await.unwrap_err();
    hub.submit_all(vec![NewTask::new("t")], None).await.unwrap();
    assert_eq!(said(&hub, 3).await, expected);
    hub.stop().await;
}

#[tokio::test]
async fn refusals_are_written_by_themselves_up_to_a_bound_and_the_rest_is_counted() {
    let hub = hub();
    let long = "x".repeat(10_000);
    hub.note_refused(row("cancel", Some(&long), "forbidden"));
    let only = said(&hub, 1).await;
    assert_eq!(only, [format!("1 cancel {} forbidden", &long[..REFUSAL_TEXT_BYTES_MAX])]);
    // None of these is written before the lock is free again.
    {
        let mut waiting = hub.shared().ledger.refusals.lock();
        waiting.extend(vec![row("retry", None, "forbidden"); REFUSALS_MAX]);
    }
    hub.note_refused(row("delete", None, "forbidden"));
    hub.change_access(vec![token("a")], None).await.unwrap();
    let said = said(&hub, 1 + REFUSALS_MAX).await;
    assert!(said.len() == 1 + REFUSALS_MAX && !said.iter().any(|line| line.contains("delete")));
    let metrics = hub.metrics().render();
    assert!(metrics.contains("taskhub_audit_dropped_total 1\n"), "{metrics}");
    assert!(metrics.contains("taskhub_audit_entries 201\n"), "{metrics}");
    // What waits when a hub ends is written.
    hub.note_refused(row("purge", None, "forbidden"));
    hub.stop().await;
    assert_eq!(entries(&hub).await.last().unwrap().row.action, "purge");
}

#[tokio::test]
async fn a_commit_that_fails_leaves_no_token_and_no_row_and_refusals_wait_for_the_next() {
    let gate = Arc::new(Gate::default());
    let hub = Hub::start(Box::new(Gated(in_memory().unwrap(), gate.clone())), HubOptions::default()).unwrap();
    let heard = hub.listen_to_access(|_| Ok::<_, ()>(Arc::new(Heard::default()))).unwrap();
    gate.broken.store(true, Ordering::SeqCst);
    let made = hub.change_access(vec![token("a")], Some(row("api_token.create", Some("a"), "ok"))).await;
    assert_eq!(made, Err(AccessError::Failed(HubError::StorageUnavailable)));
    let submission = Submission::check(vec![NewTask::new("t")], 1 << 20).unwrap();
    let command = Command::Submit { submission, key: None };
    let submitted = hub.ask_noted(command, Bound::Held, Some(Box::new(row("submit", None, "ok")))).await;
    assert_eq!(submitted.unwrap_err(), HubError::StorageUnavailable);
    hub.note_refused(row("cancel", None, "forbidden"));
    assert_eq!((hub.access_records(), entries(&hub).await), (vec![], vec![]));
    assert!(heard.0.lock().is_empty());
    gate.broken.store(false, Ordering::SeqCst);
    assert_eq!(said(&hub, 1).await, ["1 cancel - forbidden"]);
    hub.change_access(vec![token("a")], Some(row("api_token.create", Some("a"), "ok"))).await.unwrap();
    assert_eq!(said(&hub, 2).await, ["1 cancel - forbidden", "2 api_token.create a ok"]);
    hub.stop().await;
}

#[tokio::test]
async fn all_of_it_is_there_after_a_restart_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
        Hub::start(Box::new(store), HubOptions::default()).unwrap()
    };
    let hub = open();
    hub.change_access(vec![token("a"), token("b")], Some(row("api_token.create", Some("2"), "ok"))).await.unwrap();
    hub.change_access(vec![AccessChange::Remove(key("a"))], Some(row("api_token.revoke", Some("a"), "ok")))
        .await
        .unwrap();
    let (records, before) = (hub.access_records(), entries(&hub).await);
    assert_eq!((records.len(), before.len()), (2, 2));
    hub.stop().await;
    drop(hub);
    let hub = open();
    assert_eq!((hub.access_records(), entries(&hub).await), (records, before));
    hub.change_access(vec![token("a")], Some(row("api_token.create", Some("a"), "ok"))).await.unwrap();
    assert_eq!(said(&hub, 3).await[2], "3 api_token.create a ok");
    hub.stop().await;
}

/// What the writer is asked most is no larger for what it may carry beside.
#[test]
fn the_room_of_a_request_is_that_of_its_command() {
    assert_eq!((size_of::<Request>(), size_of::<Reply>()), (size_of::<(Command, Reply)>(), 48));
}
