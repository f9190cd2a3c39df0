//! A process that is measured: what it costs the kernel knows, and what it says comes line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Outcome;

/// A child that is killed when this goes.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    pub fn start(command: &mut Command) -> Outcome<Process> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().ok_or("the child has no stdout")?);
        Ok(Process { child, stdin, stdout })
    }

    /// This program in another role.
    pub fn role(role: &str, arguments: &[&str]) -> Outcome<Process> {
        Process::start(Command::new(std::env::current_exe()?).args(["--as", role]).args(arguments))
    }

    /// The next line it writes.
    pub fn hear(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err("a process ended before it said what it should".into());
        }
        Ok(line.trim_end().to_owned())
    }

    pub fn say(&mut self, line: &str) -> Outcome {
        let stdin = self.stdin.as_mut().ok_or("the child has no stdin")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// CPU so far, see [`cpu`].
    pub fn cpu(&self) -> Outcome<Duration> {
        cpu(&self.child.id().to_string())
    }

    /// Bytes in memory.
    pub fn memory(&self) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has nothing more to do: less than one part in fifty of a core for a second and a half, in which
    /// what the hub puts off for a second has begun.
    pub async fn until_quiet(&self) -> Outcome {
        const STEP: Duration = Duration::from_millis(1_500);
        for _ in 0..80 {
            let before = self.cpu()?;
            tokio::time::sleep(STEP).await;
            if self.cpu()? - before <= STEP / 50 {
                return Ok(());
            }
        }
        Err("a process never came to rest".into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU a process has used so far, of all its threads, those that ended included; in steps of 10 ms. `self` is a process
/// too.
pub fn cpu(process: &str) -> Outcome<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the program, in parentheses, may hold anything; what follows may not.
    let (_, fields) = stat.rsplit_once(") ").ok_or("an odd /proc/PID/stat")?;
    let ticks = |at: usize| fields.split(' ').nth(at).and_then(|ticks| ticks.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else { return Err("an odd /proc/PID/stat".into()) };
    Ok(Duration::from_millis((user + system) * 10))
}

/// CPU of this process's first thread so far, to the nanosecond.
pub fn cpu_of_this_thread() -> Outcome<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(stat.split(' ').next().ok_or("an odd schedstat")?.parse()?))
}
