//! Programs in processes of their own: the hub and its workers, to be killed.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// The `taskhub` program.
pub fn program() -> Command {
    super::agree_on_tls();
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskhub"));
    command.env_remove("TASKHUB_URL").env_remove("TASKHUB_TOKEN").env("TASKHUB_LOG", "warn");
    // Nor what the developer of this has logged in to.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    // Tests that are run by nohup ignore SIGHUP, in the background of a script SIGINT and SIGQUIT, and what they start
    // would, too.
    // SAFETY: setting signals to their default is allowed between fork and exec.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    command
}

/// A process that does not outlive the test. What it writes is kept.
pub struct Program {
    child: Child,
    said: Arc<Mutex<String>>,
    printed: Arc<Mutex<String>>,
}

impl Program {
    pub fn start(mut command: Command) -> Program {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|why| panic!("could not start {command:?}: {why}"));
        let (said, printed) = (Arc::default(), Arc::default());
        keep(child.stderr.take().expect("a pipe"), &said);
        keep(child.stdout.take().expect("a pipe"), &printed);
        Program { child, said, printed }
    }

    /// The first line of stdout; empty where it ends without one.
    pub fn first_line(&mut self) -> String {
        let begun = Instant::now();
        loop {
            // Asked before, because what is written last is read after the end.
            let is_running = self.is_running();
            if let Some((line, _)) = self.printed().split_once('\n') {
                return line.to_owned();
            }
            if !is_running || begun.elapsed() > PATIENCE {
                return String::new();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it has written to stdout so far.
    pub fn printed(&self) -> String {
        self.printed.lock().expect("no reader panicked").clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("no reader panicked").clone()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the process was started here and not waited for yet, so the id is its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// How it ends, within `bound`.
    #[track_caller]
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(begun.elapsed() < bound, "the process did not end within {bound:?}; it said:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- a process said:\n{}---", self.said());
        }
    }
}

fn keep(mut pipe: impl Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let said = said.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            said.lock().expect("no reader panicked").push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
}

/// `taskhub serve` on a free port.
pub struct HubProcess {
    pub program: Program,
    pub url: String,
}

impl HubProcess {
    /// Starts a hub on this folder and waits until it answers.
    pub fn start<S: AsRef<OsStr>>(folder: &Path, options: impl IntoIterator<Item = S>) -> HubProcess {
        HubProcess::start_at("127.0.0.1:0", folder, options)
    }

    /// The same at this address.
    pub fn start_at<S: AsRef<OsStr>>(listen: &str, folder: &Path, options: impl IntoIterator<Item = S>) -> HubProcess {
        let mut command = program();
        command.args(["serve", "--listen", listen, "--data"]).arg(folder).args(options);
        HubProcess::from(command)
    }

    /// The hub that this command starts.
    pub fn from(command: Command) -> HubProcess {
        super::agree_on_tls();
        let mut program = Program::start(command);
        let begun = Instant::now();
        let line = program.first_line();
        let Some(url) = line.trim().strip_prefix("taskhub listening on ") else {
            panic!("the hub said {line:?}; and on stderr:\n{}", program.said());
        };
        assert!(begun.elapsed() < PATIENCE, "the hub took {:?} to start", begun.elapsed());
        HubProcess { url: url.to_owned(), program }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("an http address")
    }
}

/// Whatever a test does with a hub, the hub logs nobody's token.
impl Drop for HubProcess {
    fn drop(&mut self) {
        let said = self.program.said();
        let told = ["tht_", "ths_", "thk_"].iter().find_map(|kind| {
            let rest = &said[said.find(kind)? + kind.len()..];
            let len = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte)).count();
            (len >= 20).then(|| format!("{kind}{}", &rest[..len]))
        });
        if let Some(token) = told.filter(|_| !std::thread::panicking()) {
            panic!("a hub logged the token {token}:\n{said}");
        }
    }
}
