//! What is kept about access, and who did what: over SIGKILL, and by the socket in the hub's own folder.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use taskhub::Hub;
use taskhub::access::{AccessChange, AccessKey, AccessRecord, ApiToken, AuditRow, Role};
use taskhub::client::Client;
use taskhub::hub::{AuditQuery, HubOptions};
use taskhub::store::{SqliteOptions, SqliteStore};
use taskhub::task::{Name, Timestamp};

use crate::kit::{HubProcess, Program, eventually, program};

/// Tells the process that is to be killed where to write.
const FOLDER: &str = "TASKHUB_TEST_LEDGER_FOLDER";

fn open(folder: &Path) -> Hub {
    let store = SqliteStore::open(folder, SqliteOptions::default()).expect("the folder is nobody else's");
    Hub::start(Box::new(store), HubOptions::default()).expect("a hub")
}

fn row(action: &str, name: &str) -> AuditRow {
    AuditRow {
        who: None,
        role: Role::Admin,
        token: "local".into(),
        address: None,
        action: action.into(),
        target: Some(name.into()),
        outcome: AuditRow::OK.into(),
    }
}

/// Makes tokens and takes each third of them back, and says so once it is acknowledged. It ends when it is killed.
#[tokio::test]
#[ignore = "run in a process of its own by the test below"]
async fn makes_tokens_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let hub = open(Path::new(&folder));
    let from = hub.audit(AuditQuery { limit: 1, ..AuditQuery::default() }).await.unwrap().entries;
    let from = from.first().map_or(0, |entry| entry.seq);
    let mut out = std::io::stderr();
    for n in from.. {
        let text = format!("token-{n}");
        let name = Name::new(&text);
        let token = ApiToken {
            name: name.clone(),
            digest: format!("{n:064x}"),
            role: Role::Viewer,
            user_id: None,
            task_types: None,
            queues: None,
            created_at: Timestamp::now(),
            expires_at: None,
        };
        let put = vec![AccessChange::Put(AccessRecord::ApiToken(token))];
        hub.change_access(put, Some(row("token.create", &text))).await.unwrap();
        writeln!(out, "made {text}").unwrap();
        if n % 3 == 0 {
            let remove = vec![AccessChange::Remove(AccessKey::ApiToken { name })];
            hub.change_access(remove, Some(row("token.revoke", &text))).await.unwrap();
            writeln!(out, "gone {text}").unwrap();
        }
    }
}

#[tokio::test]
async fn a_token_and_the_row_of_it_are_there_together_or_not_at_all_after_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for round in 1..=3 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "ledger::makes_tokens_until_it_is_killed", "--nocapture"]);
        command.env(FOLDER, folder.path());
        let mut process = Program::start(command);
        eventually("some tokens", async || (process.said().lines().count() > 20 * round).then_some(())).await;
        process.kill();
        said += &process.said();

        let hub = open(folder.path());
        let records = hub.access_records();
        assert!(records.iter().any(|record| matches!(record, AccessRecord::Closed { .. })), "{records:?}");
        let names = records.iter().filter_map(|record| match record {
            AccessRecord::ApiToken(token) => Some(token.name.to_string()),
            _ => None,
        });
        let names: BTreeSet<String> = names.collect();
        let mut entries = hub.audit(AuditQuery { limit: 100_000, ..AuditQuery::default() }).await.unwrap().entries;
        entries.reverse();
        assert!(entries.iter().map(|entry| entry.seq).eq(1..=entries.len() as u64), "no number is missing");
        assert!(entries.is_sorted_by_key(|entry| entry.at), "times do not go back");
        let mut by_rows = BTreeSet::new();
        for entry in &entries {
            let name = entry.row.target.clone().unwrap();
            assert!(if entry.row.action == "token.create" { by_rows.insert(name) } else { by_rows.remove(&name) });
        }
        assert_eq!(by_rows, names, "each token by its row");
        let was = |action: &str, name: &str| {
            entries.iter().any(|it| it.row.action == action && it.row.target.as_deref() == Some(name))
        };
        let heard: Vec<(&str, &str)> = said.lines().filter_map(|line| line.split_once(' ')).collect();
        for (word, name) in heard.iter().filter(|(word, _)| matches!(*word, "made" | "gone")) {
            let action = if *word == "made" { "token.create" } else { "token.revoke" };
            assert!(was(action, name), "{word} {name} was acknowledged");
            assert!(*word == "made" || !names.contains(*name), "{name} was taken back");
        }
        hub.stop().await;
    }
}

#[tokio::test]
async fn whoever_may_open_the_folder_reaches_its_hub_by_a_socket_there() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("admin.sock");
    let mut hub = HubProcess::start(folder.path(), ["--base-path", "/tasks"]);
    let mode = || std::fs::metadata(&place).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let client = || Client::new(&format!("unix:{}", place.display())).unwrap();
    client().stats().await.unwrap();
    // One that was killed leaves its file to the next; one that ends takes it along.
    hub.program.kill();
    assert!(place.exists());
    let hub = HubProcess::start(folder.path(), [""; 0]);
    assert_eq!(mode(), 0o600);
    client().stats().await.unwrap();
    hub.program.signal(libc::SIGTERM);
    eventually("the file goes with the hub", async || (!place.exists()).then_some(())).await;

    // A name that is too long for a socket keeps no hub from starting.
    let deep = folder.path().join("x".repeat(120));
    let hub = HubProcess::start(&deep, [""; 0]);
    assert!(hub.program.said().contains("there is no socket for the hub's own commands"), "{}", hub.program.said());
    Client::new(&hub.url).unwrap().stats().await.unwrap();
    let mut check = program();
    assert!(check.args(["check", "--json"]).arg(&deep).output().unwrap().status.success());
}
