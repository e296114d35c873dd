//! Headless Chromium, told what to do over its debugging pipe, so that it looks at pages from
//! outside: these let no other page frame them, and run no script but their own.
//!
//! Knows nothing of what the pages are.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::PATIENCE;

/// The browser. It starts with the first test that needs it.
static BROWSER: LazyLock<Browser> = LazyLock::new(Browser::start);

/// Runs its arguments with the pipe where Chromium expects it. Chromium ends when that is closed,
/// which it is with this process, however that ends.
const WITH_PIPE: &str = r#"
profile=$(mktemp -d)
"$@" --user-data-dir="$profile" 3<&0 4>&1 </dev/null >/dev/null 2>&1
rm -rf "$profile"
"#;

/// As the superuser, whom its sandbox would refuse; and quiet: it asks nobody else for anything.
const OPTIONS: &[&str] = &[
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
];

struct Browser {
    commands: Mutex<Commands>,
    heard: Arc<Mutex<Heard>>,
    _chromium: Child,
}

struct Commands {
    pipe: ChildStdin,
    count: u64,
}

/// Who waits for what.
#[derive(Default)]
struct Heard {
    answers: HashMap<u64, Sender<Value>>,
    /// By session: what its page complained of.
    complaints: HashMap<String, Vec<String>>,
}

impl Browser {
    fn start() -> Browser {
        let found = Command::new("sh").args(["-c", "command -v chromium"]).output().unwrap();
        assert!(found.status.success(), "chromium is not here: ./test installs it");
        let mut chromium = Command::new("sh")
            .args(["-c", WITH_PIPE, "sh", "chromium"])
            .args(OPTIONS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = Commands { pipe: chromium.stdin.take().unwrap(), count: 0 };
        let heard = Arc::<Mutex<Heard>>::default();
        let answers = chromium.stdout.take().unwrap();
        thread::spawn({
            let heard = heard.clone();
            move || hear(answers, &heard)
        });
        Browser { commands: Mutex::new(commands), heard, _chromium: chromium }
    }

    fn command(&self, session: Option<&str>, method: &str, params: &Value) -> Receiver<Value> {
        let (answer, answered) = mpsc::channel();
        let mut commands = self.commands.lock().unwrap();
        commands.count += 1;
        let id = commands.count;
        self.heard.lock().unwrap().answers.insert(id, answer);
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        write!(commands.pipe, "{command}\0").unwrap();
        answered
    }

    fn ask(&self, session: Option<&str>, method: &str, params: &Value) -> Value {
        let answer = self.command(session, method, params).recv_timeout(PATIENCE);
        let answer = answer.unwrap_or_else(|_| panic!("the browser does not answer: {method} {params}"));
        assert_eq!(answer["error"], Value::Null, "{method} {params}");
        answer["result"].clone()
    }
}

/// Takes what the browser says, until it ends.
fn hear(pipe: ChildStdout, heard: &Mutex<Heard>) {
    for line in BufReader::new(pipe).split(0).map_while(Result::ok) {
        let said: Value = serde_json::from_slice(&line).unwrap();
        let mut heard = heard.lock().unwrap();
        if let Some(answer) = said["id"].as_u64().and_then(|id| heard.answers.remove(&id)) {
            // The test may have given up.
            let _ = answer.send(said);
            continue;
        }
        let complaint = match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => said["params"]["exceptionDetails"].to_string(),
            Some("Log.entryAdded") => said["params"]["entry"].to_string(),
            _ => continue,
        };
        let session = said["sessionId"].as_str().unwrap_or_default().to_owned();
        heard.complaints.entry(session).or_default().push(complaint);
    }
}

/// A page in a tab of its own.
pub(crate) struct Tab {
    target: String,
    session: String,
}

impl Tab {
    /// Opens it, and waits until it is there.
    pub(crate) fn open(url: &str) -> Tab {
        let target = BROWSER.ask(None, "Target.createTarget", &json!({ "url": "about:blank" }));
        let target = target["targetId"].as_str().unwrap().to_owned();
        let params = json!({ "targetId": target, "flatten": true });
        let session = BROWSER.ask(None, "Target.attachToTarget", &params)["sessionId"].clone();
        let tab = Tab { target, session: session.as_str().unwrap().to_owned() };
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            tab.ask(domain, &json!({}));
        }
        tab.ask("Page.navigate", &json!({ "url": url }));
        tab.until("location.href !== 'about:blank' && document.readyState === 'complete'");
        tab
    }

    fn ask(&self, method: &str, params: &Value) -> Value {
        BROWSER.ask(Some(&self.session), method, params)
    }

    /// What an expression is, when its promise is kept.
    #[track_caller]
    pub(crate) fn eval(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", &params);
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn until(&self, expression: &str) {
        let began = Instant::now();
        let look = format!(
            "new Promise((done) => {{
                const began = performance.now();
                const look = () => ({expression}) ? done(true)
                    : performance.now() - began > 1000 ? done(false) : setTimeout(look, 10);
                look();
            }})"
        );
        // Anew each second, since a page that is loaded anew forgets whom it was to tell.
        loop {
            let params = json!({ "expression": look, "awaitPromise": true, "returnByValue": true });
            let answer = BROWSER.command(Some(&self.session), "Runtime.evaluate", &params);
            let answer = answer.recv_timeout(PATIENCE).expect("the browser answers");
            if answer["result"]["result"]["value"] == true {
                return;
            }
            let shown = || self.eval("document.body.innerText");
            assert!(began.elapsed() < PATIENCE, "not: {expression}; there is: {}", shown());
        }
    }

    /// Types into what a selector finds, as somebody would, and presses Enter.
    pub(crate) fn enter(&self, selector: &str, text: &str) {
        self.eval(&format!(
            "{{ const field = document.querySelector({selector:?}); field.focus(); field.select(); }}"
        ));
        self.ask("Input.insertText", &json!({ "text": text }));
        self.press("Enter", "\r");
    }

    pub(crate) fn press(&self, key: &str, text: &str) {
        let code = if key == "Enter" { 13 } else { 0 };
        for (kind, text) in [("keyDown", text), ("keyUp", "")] {
            let params =
                json!({ "type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code });
            self.ask("Input.dispatchKeyEvent", &params);
        }
    }

    pub(crate) fn click(&self, selector: &str) {
        self.eval(&format!("document.querySelector({selector:?}).click()"));
    }

    /// Chooses a file for what a selector finds.
    pub(crate) fn choose(&self, selector: &str, file: &Path) {
        let found = format!("document.querySelector({selector:?})");
        let object =
            self.ask("Runtime.evaluate", &json!({ "expression": found }))["result"]["objectId"].clone();
        self.ask("DOM.setFileInputFiles", &json!({ "objectId": object, "files": [file] }));
    }

    /// What the page complained of: exceptions, and what its policy forbade.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let heard = BROWSER.heard.lock().unwrap();
        heard.complaints.get(&self.session).cloned().unwrap_or_default()
    }

    /// Waits until it complains of something with this in it.
    #[track_caller]
    pub(crate) fn complains_of(&self, what: &str) {
        let began = Instant::now();
        while !self.complaints().iter().any(|complaint| complaint.contains(what)) {
            assert!(began.elapsed() < PATIENCE, "not of {what}: {:?}", self.complaints());
            // What it complained of before comes before the answer.
            self.eval("1");
        }
    }

    /// As if the screen were of that size, and the user liked light or dark.
    pub(crate) fn look_like(&self, width: u32, height: u32, scheme: &str) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", &features);
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        BROWSER.command(None, "Target.closeTarget", &json!({ "targetId": self.target }));
    }
}
