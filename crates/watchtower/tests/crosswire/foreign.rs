//! What the page of another site can do to a server that its visitor reaches, in a real browser:
//! send what it knows, read nothing, run nothing.

use super::server::{SECRET, Server};
use super::websockets::{By, Page};

/// Shows what came of each attempt, one after the other.
const PAGE: &str = r#"<!doctype html>
<ul id="seen"></ul>
<script>
  const show = (text) => {
    const item = document.createElement("li");
    item.textContent = text;
    document.getElementById("seen").append(item);
  };
  const ask = async (name, path, options) => {
    try {
      const response = await fetch("http://SERVER" + path, options);
      show(`${name}: ${response.type} ${response.status} ${(await response.text()).length > 0}`);
    } catch (error) {
      show(`${name}: ${error.name}`);
    }
  };
  const load = (name, tag, field, path) =>
    new Promise((done) => {
      const element = document.createElement(tag);
      const told = (what) => () => { show(`${name}: ${what}`); done(); };
      Object.assign(element, { onload: told("taken"), onerror: told("refused"), [field]: "http://SERVER" + path });
      if (tag === "link") element.rel = "stylesheet";
      document.head.append(element);
    });
  const body = JSON.stringify({ secret_key: "SECRET" });
  const headers = { "Content-Type": "application/json" };
  (async () => {
    await ask("read", "/health");
    await ask("register in JSON", "/register", { method: "POST", headers, body });
    await ask("register", "/register", { method: "POST", body });
    await ask("register blindly", "/register", { method: "POST", mode: "no-cors", body });
    await load("script", "script", "src", "/metrics");
    await load("style", "link", "href", "/metrics");
  })();
</script>"#;

fn open(server: &Server) -> Page {
    Page::open(&PAGE.replace("SERVER", &server.tcp.to_string()).replace("SECRET", SECRET))
}

#[test]
fn a_page_of_another_site_reads_no_answer_and_runs_none_as_a_script() {
    let server = Server::start(&[]);
    let page = open(&server);
    page.shows("read: TypeError");
    // It asks first whether it may, and is not told so: nothing is carried out.
    page.shows("register in JSON: TypeError");
    // Who knows the secret has registered, and does not learn the id.
    page.shows("register: TypeError");
    page.shows("register blindly: opaque 0 false");
    page.shows("script: refused");
    page.shows("style: refused");
    assert_eq!(server.metric("watchtower_senders"), Some(2.0));
}

#[test]
fn a_page_of_a_site_that_is_listed_reads_answers() {
    let origin = By::Browser.origin().unwrap();
    let server = Server::start(&["--set", &format!(r#"http.cors_origins=["{origin}"]"#)]);
    let page = open(&server);
    page.shows("read: cors 200 true");
    page.shows("register in JSON: cors 200 true");
    page.shows("register: cors 200 true");
    page.shows("register blindly: opaque 0 false");
    page.shows("script: refused");
    page.shows("style: refused");
}
