//! A real browser, driven over its own protocol (CDP): open a page, look, click, and hear what it complains of.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{PATIENCE, TestSocket, eventually};

/// Chromium without a window, until it is dropped.
pub struct Browser {
    process: std::process::Child,
    /// Where it listens, `HOST:PORT`, and the path of its socket.
    address: String,
    path: String,
    _profile: tempfile::TempDir,
}

/// A tab.
pub struct Page {
    socket: TestSocket,
    session: Value,
    calls: u64,
    /// What stands in the console as an error, and what was thrown and not caught.
    pub errors: Vec<String>,
    browser: Browser,
}

fn chromium() -> &'static str {
    let paths = std::env::var("PATH").unwrap_or_default();
    let is_there = |name: &&str| std::env::split_paths(&paths).any(|folder| folder.join(name).is_file());
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(is_there)
        .expect("Chromium is needed to test the page: run tests/deps.sh")
}

impl Browser {
    pub async fn start() -> Browser {
        Browser::start_with(&[]).await
    }

    /// One that is started with these arguments.
    pub async fn start_with(arguments: &[&str]) -> Browser {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let process = Command::new(chromium())
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(arguments)
            .args(["--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Chromium starts");
        let told = profile.path().join("DevToolsActivePort");
        let (port, path) = eventually("Chromium listens", async || read_port(&told)).await;
        Browser { process, address: format!("127.0.0.1:{port}"), path, _profile: profile }
    }

    /// A tab that shows this address.
    pub async fn open(self, url: &str) -> Page {
        let socket = TestSocket::dial(&self.address, &self.path, &[]).await;
        let mut page = Page { socket, session: Value::Null, calls: 0, errors: Vec::new(), browser: self };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        page.session = page.call("Target.attachToTarget", attach).await["sessionId"].clone();
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            page.call(domain, json!({})).await;
        }
        let size = json!({"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        page.call("Emulation.setDeviceMetricsOverride", size).await;
        let opened = page.call("Page.navigate", json!({"url": url})).await;
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
        page
    }
}

/// The file is written in one go, but not before it is made.
fn read_port(file: &Path) -> Option<(u16, String)> {
    let text = std::fs::read_to_string(file).ok()?;
    let (port, path) = text.split_once('\n')?;
    Some((port.parse().ok()?, path.trim().to_owned()))
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Page {
    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_null() {
            call["sessionId"] = self.session.clone();
        }
        self.socket.say(call).await;
        loop {
            let mut said = self.socket.next().await;
            if said["id"] == self.calls {
                // A page that loads itself anew while it is asked has no answer, and is asked again by those who wait.
                if said["error"]["message"].as_str().is_some_and(|why| why.contains("navigated")) {
                    return Value::Null;
                }
                assert!(said.get("error").is_none(), "{method}: {said}");
                return said["result"].take();
            }
            self.errors.extend(complaint(&said));
        }
    }

    /// Lets scripts do what the page's own policy forbids them, and loads the page again.
    pub async fn without_policy(mut self) -> Page {
        self.call("Page.setBypassCSP", json!({"enabled": true})).await;
        self.look("globalThis.is_before = true").await;
        self.call("Page.reload", json!({})).await;
        self.until("!globalThis.is_before && document.readyState === 'complete'").await;
        self
    }

    /// How large the window is.
    pub async fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Which colours the system prefers: `light` or `dark`.
    pub async fn prefer(&mut self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// What an expression comes to in the page.
    pub async fn look(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", params).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true in the page.
    pub async fn until(&mut self, expression: &str) {
        let begun = std::time::Instant::now();
        while self.look(&format!("Boolean({expression})")).await != true {
            if begun.elapsed() > PATIENCE {
                let text = self.look("document.body.innerText").await;
                panic!("waited in vain for {expression}; errors: {:?}; the page says:\n{text}", self.errors);
            }
            tokio::time::sleep(crate::kit::millis(10)).await;
        }
    }

    /// Clicks what a selector finds, as a mouse does: where it is, and whatever lies on top of it.
    pub async fn click(&mut self, selector: &str) {
        self.until(&format!("document.querySelector({selector:?})?.checkVisibility()")).await;
        let place = format!(
            "(() => {{ const element = document.querySelector({selector:?}); element.scrollIntoView({{block: 'center'}});
                const box = element.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.look(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// The text of what a selector finds.
    pub async fn text(&mut self, selector: &str) -> String {
        let text = self.look(&format!("document.querySelector({selector:?})?.innerText ?? ''")).await;
        text.as_str().expect("a text").to_owned()
    }

    /// Ends the browser, and checks that the page never complained.
    pub async fn close(mut self) {
        self.look("1").await;
        assert!(self.errors.is_empty(), "the page complained: {:#?}", self.errors);
        drop(self.browser);
    }
}

/// What an event of the browser complains of.
fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
        "Runtime.consoleAPICalled" if params["type"] == "error" || params["type"] == "assert" => {
            Some(params["args"].to_string())
        }
        "Log.entryAdded" if params["entry"]["level"] == "error" => Some(params["entry"].to_string()),
        _ => None,
    }
}
