//! A terminal of a size, with a program in it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::PATIENCE;

/// A program that has a terminal of its own, until it is dropped. What it writes is kept.
pub struct Terminal {
    master: File,
    child: Child,
    written: Arc<Mutex<String>>,
}

impl Terminal {
    pub fn start(mut command: Command, columns: u16, lines: u16) -> Terminal {
        let (mut master, mut slave) = (0, 0);
        let size = libc::winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both descriptors are written on success only, and are ours from then on.
        let (master, slave) = unsafe {
            assert_eq!(
                libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &raw const size),
                0,
                "a terminal"
            );
            (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
        };
        let end = || slave.try_clone().expect("a descriptor");
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls are allowed between fork and exec; the terminal becomes that of a new session.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, || {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().expect("the program starts");
        // The command holds ends of its own; only the child's are to be left.
        drop((slave, command));
        let master = File::from(master);
        let written = Arc::<Mutex<String>>::default();
        let (mut reader, kept) = (master.try_clone().expect("a descriptor"), written.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut pending = Vec::new();
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                pending.extend_from_slice(&buffer[..read]);
                // A character may be cut in two.
                let whole = match std::str::from_utf8(&pending) {
                    Ok(text) => text.len(),
                    Err(cut) => cut.valid_up_to(),
                };
                let text = String::from_utf8(pending.drain(..whole).collect()).expect("it was looked at");
                kept.lock().expect("no reader panicked").push_str(&text);
            }
        });
        Terminal { master, child, written }
    }

    /// Everything that was written so far, colours and movements too.
    pub fn written(&self) -> String {
        self.written.lock().expect("no reader panicked").clone()
    }

    /// Waits until this was written after the first `from` bytes.
    #[track_caller]
    pub fn until(&self, from: usize, words: &str) -> String {
        let begun = Instant::now();
        loop {
            let written = self.written();
            if written[from..].contains(words) {
                return written[from..].to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {words:?} in\n{}", &written[from..]);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub fn resize(&self, columns: u16, lines: u16) {
        let size = libc::winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the call reads one `winsize`, which `size` is.
        assert_eq!(unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
    }

    /// Closes the terminal, and waits until the program has ended.
    #[track_caller]
    pub fn close(mut self) -> std::process::ExitStatus {
        // The reader holds the other descriptor of this end, so the session is told as the kernel would tell it.
        // SAFETY: the child leads a session of its own and was not waited for.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGHUP) };
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end with its terminal");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of what was written, without what moves and colours.
pub fn lines(written: &str) -> Vec<String> {
    let mut out = String::new();
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
            '\r' => {}
            c => out.push(c),
        }
    }
    out.lines().map(str::to_owned).collect()
}
