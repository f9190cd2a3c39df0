//! The page in a browser, where there is one.

use std::env;
use std::process::{Command, Stdio};

/// Opens an address in the browser of whoever sits there. Answers false where there is none: no desktop, or nothing that
/// opens addresses. The browser is on its own then; it neither holds us up nor ends with us.
pub(super) fn open(url: &str) -> bool {
    let Some(program) = opener(|name| env::var_os(name).is_some_and(|value| !value.is_empty())) else { return false };
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let Ok(mut child) = command.spawn() else { return false };
    // It hands the address on and ends; some wait for the browser, and that is theirs.
    std::thread::spawn(move || child.wait());
    true
}

/// What opens addresses here. Without a desktop `xdg-open` would start a text browser in the midst of our own words.
fn opener(is_set: impl Fn(&str) -> bool) -> Option<&'static str> {
    if cfg!(target_os = "macos") {
        // Somebody who came by ssh sits elsewhere.
        return (!is_set("SSH_CONNECTION")).then_some("open");
    }
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"].into_iter().any(is_set);
    desktop.then_some("xdg-open")
}

#[cfg(all(test, not(target_os = "macos")))]
mod tests {
    use super::*;

    #[test]
    fn without_a_desktop_nothing_is_started() {
        assert_eq!(opener(|_| false), None);
        assert_eq!(opener(|name| name == "SSH_CONNECTION"), None);
        for desktop in ["DISPLAY", "WAYLAND_DISPLAY"] {
            assert_eq!(opener(|name| name == desktop), Some("xdg-open"));
        }
    }
}
