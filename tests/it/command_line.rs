//! The commands as people meet them: in a terminal, with the id that the page shows, without a hub, from a file.

use std::process::{Command, Output};

use serde_json::json;

use crate::kit::{HubProcess, PATIENCE, Program, Terminal, TestHub, eventually, id, lines, millis, program};

fn taskhub(hub: &TestHub, words: &[&str]) -> Output {
    program().args(words).env("TASKHUB_URL", &hub.url).output().expect("the program runs")
}

/// Exit code, standard output, standard error.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_fits_its_terminal_and_its_counts_move() {
    let hub = TestHub::start().await;
    let title = "A title that people wrote a whole sentence into, which no small terminal has room for";
    let first = id(&hub.submit(json!({"task_type": "t", "title": title})).await);
    hub.claim("w").await;
    let tick = json!({"progress": {"current": 3, "total": 20, "step": "embedding", "message": "of the third page"}});
    hub.attempt(&first, 1, "progress", tick).await.expect(200);
    let mut next = Vec::new();
    for (title, priority) in [("Comes later", 0), ("Comes next", 5)] {
        next.push(id(&hub.submit(json!({"task_type": "t", "title": title, "priority": priority})).await));
    }
    hub.submit(json!({"task_type": "t", "title": "Comes tomorrow", "delay_ms": 86_400_000})).await;
    for (columns, cut) in [(60, "A title that people"), (120, "A title that people wrote a whole sentence into")] {
        let mut command = program();
        command.arg("watch").env("TASKHUB_URL", &hub.url);
        let terminal = Terminal::start(command, columns, 24);
        let seen = terminal.until(0, "next: Comes next · Comes later");
        assert!(seen.contains("1 running · 2 pending · 1 scheduled"), "{seen}");
        assert!(seen.contains(cut) && seen.contains("15%") && seen.contains("Comes tomorrow"), "{seen}");
        // Resized, it draws for the new size.
        let from = terminal.written().len();
        terminal.resize(40, 24);
        terminal.until(from, "1 running");
        let from = terminal.written().len();
        let after = terminal.until(from, "next: Comes");
        for (written, columns) in [(&seen, usize::from(columns)), (&after, 40)] {
            let widest = lines(written).into_iter().max_by_key(|line| line.chars().count()).unwrap();
            assert!(widest.chars().count() < columns, "{widest}");
        }
        // The counts move with the tasks.
        let from = terminal.written().len();
        let more = id(&hub.submit(json!({"task_type": "t"})).await);
        terminal.until(from, "1 running · 3 pending");
        hub.post(&format!("/api/v1/tasks/{more}/cancel"), json!({})).await.expect(200);
        terminal.until(from, "1 running · 2 pending · 1 scheduled · ");
    }
    hub.attempt(&first, 1, "complete", json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_task_says_why_in_the_list() {
    let hub = TestHub::start().await;
    let task_id = id(&hub.submit(json!({"task_type": "t", "title": "Report"})).await);
    hub.claim("w").await;
    let error = json!({"kind": "database", "message": "Traceback\ndeadlock detected"});
    hub.attempt(&task_id, 1, "fail", json!({"error": error})).await.expect(200);
    let (code, list, _) = told(&taskhub(&hub, &["list", "-s", "failed"]));
    assert_eq!(code, 0);
    assert!(list.contains("ERROR") && list.contains("database deadlock detected"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_named_by_the_part_of_its_id_that_the_page_shows() {
    let hub = TestHub::start().await;
    let ids = [hub.submit_any().await, hub.submit_any().await];
    let [first, second] = &ids;
    let short = &first[first.len() - 8..];
    for words in [&["get", short][..], &["logs", short], &["get", &format!("{}/#/task/{first}", hub.url)]] {
        assert_eq!(told(&taskhub(&hub, words)).0, 0, "{words:?}");
    }
    let (code, printed, _) = told(&taskhub(&hub, &["open", "--no-open", &short.to_uppercase()]));
    assert_eq!((code, printed.trim()), (0, format!("{}/#/task/{first}", hub.url).as_str()));
    let (code, _, said) = told(&taskhub(&hub, &["get", "00000000"]));
    assert!(code == 4 && said.contains("begins or ends with 00000000"), "{said}");
    // Made in the same moments, both begin alike.
    let (code, _, said) = told(&taskhub(&hub, &["get", &first[..4]]));
    assert!(code == 2 && said.contains(first.as_str()) && said.contains(second.as_str()), "{said}");
    let (code, printed, said) = told(&taskhub(&hub, &["cancel", short, "00000000"]));
    assert!(code == 4 && printed.contains(first.as_str()) && said.contains("00000000"), "{printed}{said}");
    assert_eq!(hub.task(first).await["status"], "cancelled");
    assert_eq!(told(&taskhub(&hub, &["retry", short])).0, 0);
    assert_eq!(told(&taskhub(&hub, &["get", "nope"])).0, 2);
}

/// What opens addresses on a desktop is called with the page's, and nothing is where there is no desktop.
#[tokio::test(flavor = "multi_thread")]
async fn open_hands_the_address_to_the_desktop() {
    use std::os::unix::fs::PermissionsExt as _;
    let hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (opener, opened) = (folder.path().join("xdg-open"), folder.path().join("opened"));
    std::fs::write(&opener, format!("#!/bin/sh\necho \"$1\" >> '{}'\n", opened.display())).unwrap();
    std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = program();
    command.arg("open").env("TASKHUB_URL", &hub.url).env("PATH", folder.path());
    for name in ["WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "DISPLAY"] {
        command.env_remove(name);
    }
    assert_eq!(told(&command.output().unwrap()).1, format!("{}/\n", hub.url));
    command.env("DISPLAY", ":99");
    assert_eq!(told(&command.output().unwrap()).1, format!("{}/\n", hub.url));
    let address = eventually("the address is handed on", async || {
        std::fs::read_to_string(&opened).ok().filter(|text| text.ends_with('\n'))
    });
    assert_eq!(address.await, format!("{}/\n", hub.url), "once, with a desktop");
}

/// Regression: typed at human speed, the first example of the README ended in `lease_lost`.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_example_can_be_typed_slowly() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, after) = readme.split_once("**With curl.**").expect("the example");
    let (_, block) = after.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    // As many leases of this hub pass between two lines as a person would let pass.
    let hub = TestHub::builder().set(|config| config.lease = millis(100)).start().await;
    let block = block.replace("localhost:8080", hub.address()).replace("\ncurl", "\nsleep 0.5\ncurl");
    let output = Command::new("sh").args(["-ec", &block]).output().unwrap();
    let (code, printed, said) = told(&output);
    assert!(code == 0 && printed.ends_with("\"result\":\"Hello, Ada\"}"), "{printed}{said}");
}

#[test]
fn without_a_hub_each_command_says_how_to_start_one() {
    let nobody = "http://127.0.0.1:9";
    for words in
        [&["list"][..], &["stats"], &["workers"], &["watch"], &["get", "3a4b5c01"], &["open"], &["submit", "t"]]
    {
        let output = program().args(words).args(["--hub", nobody]).output().unwrap();
        let (code, printed, said) = told(&output);
        assert_eq!((code, printed.as_str()), (3, ""), "{words:?}: {said}");
        assert!(said.contains(nobody) && said.contains("`taskhub serve`") && said.contains("--hub"), "{said}");
    }
}

#[tokio::test]
async fn a_file_sets_what_neither_words_nor_environment_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.toml");
    std::fs::write(&path, "listen = \"127.0.0.1:0\"\ndata = \"kept\"\nlease = \"20s\"\ngrace = \"7s\"\nmax-hz = 5\n")
        .unwrap();
    let mut command = program();
    command.arg("serve").env("TASKHUB_CONFIG", &path).env("TASKHUB_GRACE", "8s").args(["--lease", "30s"]);
    let hub = HubProcess::from(command);
    assert!(folder.path().join("kept").is_dir(), "a path is seen from the folder of the file");
    let claimed = reqwest::Client::new().post(format!("{}/api/v1/worker/claim", hub.url));
    let claimed =
        claimed.json(&json!({"worker_id": "w"})).send().await.unwrap().json::<serde_json::Value>().await.unwrap();
    assert_eq!(claimed["lease_ms"], 30_000);
    let printed = program()
        .args(["serve", "--print-config", "--lease", "30s", "--config"])
        .arg(&path)
        .env("TASKHUB_GRACE", "8s")
        .output()
        .unwrap();
    let (code, printed, _) = told(&printed);
    assert_eq!(code, 0);
    for line in ["lease = \"30s\"", "grace = \"8s\"", "max-hz = 5.0", "retain = \"24h\""] {
        assert!(printed.contains(&format!("\n{line}\n")), "{line}: {printed}");
    }
    for (text, why) in
        [("leese = \"1s\"", "\"leese\""), ("lease = \"soon\"", "such as 500ms"), ("lease = 3", "lease must be")]
    {
        std::fs::write(&path, text).unwrap();
        let mut hub = Program::start({
            let mut command = program();
            command.args(["serve", "--config"]).arg(&path);
            command
        });
        assert_eq!(hub.wait(PATIENCE).code(), Some(2), "{text}");
        assert!(hub.said().contains(why) && hub.said().contains("hub.toml"), "{text}: {}", hub.said());
    }
}

/// `make install` with a program that is there already, so that nothing is built.
#[test]
fn make_install_puts_it_where_systems_look() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["install", "PREFIX=/usr", &format!("PROGRAM={}", env!("CARGO_BIN_EXE_taskhub"))])
        .arg(format!("DESTDIR={}", folder.path().display()))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let usr = folder.path().join("usr");
    let version = Command::new(usr.join("bin/taskhub")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("taskhub "));
    for (file, words) in [
        ("share/man/man1/taskhub.1", "taskhub\\-serve(1)"),
        ("share/man/man1/taskhub-serve.1", "print\\-config"),
        ("share/bash-completion/completions/taskhub", "--print-config"),
        ("share/zsh/site-functions/_taskhub", "#compdef taskhub"),
        ("share/fish/vendor_completions.d/taskhub.fish", "print-config"),
    ] {
        let text = std::fs::read_to_string(usr.join(file)).unwrap_or_else(|why| panic!("{file}: {why}"));
        assert!(text.contains(words), "{file} has no {words}");
    }
}
