//! The processes that end as children of this one: those it started and waits for, and orphans that were handed to it.
//!
//! The kernel hands the orphans of its descendants to a process that is the first of a container (PID 1), or was made a
//! subreaper. Each stays in the table of processes as a zombie until it is waited for, and when that table is full nothing
//! can be started any more. So here they are waited for. What was started here has its own waiter, which must find the
//! exit status: it is known by its id from before it can end until it was waited for, and left alone.
//!
//! The kernel tells one child that has ended at a time, without saying which others have. One of our own stands in the
//! way only until its waiter, which runs whenever it can, has been there.
//!
//! The table is the process's: that is why this is the one thing here that is global.

use std::collections::HashSet;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

/// How long a waiter of our own is given before the kernel is asked again.
const OWN_PAUSE: Duration = Duration::from_millis(20);

/// The ids of what was started here and was not waited for.
static OWN: LazyLock<Mutex<HashSet<i32>>> = LazyLock::new(Mutex::default);

/// A child with a waiter of its own. Dropped once it was waited for.
#[derive(Debug)]
pub struct Own(i32);

impl Drop for Own {
    fn drop(&mut self) {
        OWN.lock().remove(&self.0);
    }
}

/// Starts a child that has a waiter of its own; `id` names it. Nothing is reaped meanwhile: a child that cannot become its
/// program ends at once, and whoever starts it waits for it first.
pub fn start<T>(start: impl FnOnce() -> io::Result<T>, id: impl FnOnce(&T) -> i32) -> io::Result<(T, Own)> {
    let mut own = OWN.lock();
    let child = start()?;
    let id = id(&child);
    own.insert(id);
    Ok((child, Own(id)))
}

/// Waits for orphans for as long as it is polled, where any can come. Called once, at the edge of a program.
pub async fn reap_orphans() {
    if !keep_statuses() {
        tracing::warn!("how commands end may not be seen: the handling of SIGCHLD could not be set");
    }
    if !is_handed_orphans() {
        return;
    }
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            tracing::warn!(%error, "orphans that are handed to this process will stay as zombies");
            return;
        }
    };
    loop {
        match reap() {
            Left::Nothing => drop(ended.recv().await),
            Left::Own => tokio::time::sleep(OWN_PAUSE).await,
        }
    }
}

/// A program that was started with `SIGCHLD` ignored would never learn how its children ended: the kernel forgets them.
fn keep_statuses() -> bool {
    // SAFETY: an action of zeroes is a valid value to be overwritten, and the default action runs no code of ours.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGCHLD, std::ptr::null(), &mut action) != 0 {
            return false;
        }
        action.sa_sigaction != libc::SIG_IGN || libc::signal(libc::SIGCHLD, libc::SIG_DFL) != libc::SIG_ERR
    }
}

/// Whether orphans of descendants come to this process.
fn is_handed_orphans() -> bool {
    #[cfg(target_os = "linux")]
    {
        let mut subreaper: libc::c_int = 0;
        // SAFETY: writes one number of this frame.
        let asked = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &mut subreaper) } == 0;
        if asked && subreaper != 0 {
            return true;
        }
    }
    std::process::id() == 1
}

/// What has ended and is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// One whose waiter has not been there, and perhaps orphans behind it.
    Own,
}

/// Waits for the orphans that have ended.
fn reap() -> Left {
    let own = OWN.lock();
    loop {
        // SAFETY: information of zeroes is a valid value, and the call writes nothing else.
        let id = unsafe {
            let mut ended: libc::siginfo_t = std::mem::zeroed();
            let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            if libc::waitid(libc::P_ALL, 0, &mut ended, look) != 0 {
                return Left::Nothing;
            }
            ended.si_pid()
        };
        if id == 0 {
            return Left::Nothing;
        }
        if own.contains(&id) {
            return Left::Own;
        }
        // SAFETY: no status is asked for. The child has ended and nobody else waits for it, so this does not block.
        unsafe { libc::waitpid(id, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn ending_with(code: i32) -> Child {
        Command::new("/bin/sh").args(["-c", &format!("exit {code}")]).spawn().unwrap()
    }

    /// Waits until the child has ended, and leaves it. An error where somebody has waited for it.
    fn ended(child: &Child) -> io::Result<()> {
        // SAFETY: information of zeroes is a valid value, and the call writes nothing else.
        let outcome = unsafe {
            let mut ended: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, child.id(), &mut ended, libc::WEXITED | libc::WNOWAIT)
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    #[test]
    fn orphans_are_waited_for_and_the_status_of_ones_own_is_left() {
        let (mut child, own) = start(|| Ok(ending_with(7)), |child| child.id() as i32).unwrap();
        ended(&child).unwrap();
        assert_eq!(reap(), Left::Own);
        assert_eq!(child.wait().unwrap().code(), Some(7));
        drop(own);
        // One that nobody has named is as an orphan.
        let mut orphan = ending_with(0);
        ended(&orphan).unwrap();
        // Children that other tests have named stand in the way until they are waited for.
        let begun = std::time::Instant::now();
        while ended(&orphan).is_ok() && begun.elapsed() < Duration::from_secs(20) {
            reap();
        }
        assert_eq!(orphan.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
}
