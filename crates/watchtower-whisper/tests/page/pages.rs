//! The page as somebody sees it, in a browser.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use watchtower_whisper::page::Limits;

use super::browser::Tab;
use super::{Node, next_shown, two};

fn open(node: &Node) -> Tab {
    let tab = Tab::open(&node.page.url());
    tab.until("document.querySelector('#state').dataset.is === 'open'");
    tab
}

/// Where another site is, which has no policy.
async fn stranger() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let page = "<!doctype html><title>Elsewhere</title><body></body>";
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
            let answer = format!("{head}Content-Length: {}\r\n\r\n{page}", page.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{addr}/")
}

/// That a message with this text is there; as JavaScript.
fn has(text: &str) -> String {
    format!(
        "[...document.querySelectorAll('.text')].some((text) => text.textContent.trim() === {})",
        json!(text)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_have_the_page_open_talk_to_each_other() {
    let (goldy, bambam) = two().await;
    let (first, second) = (open(&goldy), open(&bambam));
    first.enter("#text", "hello from here");
    second.until(&has("hello from here"));
    second.enter("#text", "and from there");
    first.until(&has("and from there"));
    first.until("document.querySelector('#text').value === ''");
    // Each knows which are its own, and who the other is.
    second.until("document.querySelector('.message.own .text').textContent === 'and from there'");
    second.until("document.querySelector('.message:not(.own) .nick').textContent === 'goldy'");
    second.until("document.querySelector('.message:not(.own) .mark') !== null");
    // Who comes later sees it too.
    let third = open(&goldy);
    third.until(&has("and from there"));
    for tab in [first, second, third] {
        assert_eq!(tab.complaints(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_peers_send_stays_text() {
    let (goldy, bambam) = two().await;
    let page = open(&goldy);
    page.eval("window.hurt = () => { document.title = 'hurt'; }");
    let texts = [
        "<img src=x onerror=\"document.title='hurt'\">",
        "<script>document.title='hurt'</script>",
        "</p></li><iframe srcdoc='<script>parent.document.title=1</script>'>",
        "javascript:alert(1)",
        "&lt;b&gt;",
    ];
    for text in texts {
        bambam.peer.say_as(Some("<b>bold</b>"), text).await.unwrap();
        page.until(&has(text));
    }
    assert_eq!(page.eval("document.querySelector('.nick').textContent"), "<b>bold</b>");
    let made = "document.querySelectorAll('#transcript img, #transcript script, #transcript iframe, #transcript b').length";
    assert_eq!(page.eval(made), 0);
    assert_eq!(page.eval("document.title"), "Whispernet");
    // A name as long as a book, and text that turns round what stands beside it.
    bambam.peer.say_as(Some(&"x".repeat(100_000)), "\u{202e}evil\u{202c}\0").await.unwrap();
    page.until(&has("evil\u{fffd}"));
    assert_eq!(page.eval("[...document.querySelectorAll('.nick')].at(-1).textContent.length <= 32"), true);
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_connected_to_and_disconnected_on_the_page() {
    let goldy = Node::start("goldy", &[]).await;
    let bambam = Node::start("bambam", &[]).await;
    let page = open(&goldy);
    page.enter("#peer", &bambam.peer.address().to_string());
    page.until("document.querySelector('.peers [data-connected=true]') !== null");
    page.until("document.querySelector('#state').textContent === '1 peer'");
    let listed = page.eval("document.querySelector('.peers .address').textContent");
    assert!(listed.as_str().unwrap().starts_with(&bambam.peer.address().to_string()), "{listed}");
    page.click(".peers button");
    page.until("document.querySelector('.peers li') === null");
    assert!(goldy.peer.peers().await.is_empty());
    page.enter("#peer", "nowhere");
    page.until("document.querySelector('#problem').textContent.includes('HOST:PORT')");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_the_nick_work_on_the_page() {
    let (goldy, bambam) = two().await;
    let mut events = bambam.peer.events();
    let page = open(&goldy);
    page.enter("#text", "/nick pebbles");
    page.until("document.querySelector('#nick').value === 'pebbles'");
    page.enter("#text", "/me waves");
    let shown = next_shown(&mut events).await;
    assert_eq!((shown.nick.as_deref(), &*shown.body), (Some("pebbles"), "/me waves"));
    page.until("document.querySelector('.message.action .text').textContent.trim() === 'pebbles waves'");
    page.enter("#text", "/frobnicate");
    page.until("document.querySelector('#problem').textContent.includes('/frobnicate')");
    page.until("document.querySelector('#text').value === '/frobnicate'");
    page.enter("#nick", "fred");
    page.until("document.activeElement.id === 'text'");
    page.enter("#text", "hello");
    assert_eq!(next_shown(&mut events).await.nick.as_deref(), Some("fred"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nick_with_another_key_is_warned_of() {
    let (goldy, bambam) = two().await;
    let page = open(&goldy);
    bambam.peer.say("it is me").await.unwrap();
    page.until(&has("it is me"));
    let thief = Node::start("bambam", &[&goldy]).await;
    thief.connected(1).await;
    thief.peer.say("no, me").await.unwrap();
    page.until(&has("no, me"));
    assert_eq!(page.eval("document.querySelectorAll('.message.changed .warning').length"), 1);
    assert_eq!(page.eval("document.querySelectorAll('.message .mark').length"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_can_neither_post_nor_listen() {
    let goldy = Node::start("goldy", &[]).await;
    // Even if it knows it.
    let token = goldy.token().await;
    let page = Tab::open(&stranger().await);
    let address = goldy.addr();
    let attempts = [
        format!("fetch('http://{address}/say', {{ method: 'POST', body: '{{\"body\": \"x\"}}' }})"),
        format!(
            "fetch('http://{address}/say', {{ method: 'POST', mode: 'no-cors', body: '{{\"body\": \"x\"}}' }})"
        ),
        format!(
            "fetch('http://{address}/say', {{ method: 'POST', body: '{{\"body\": \"x\"}}',
                headers: {{ 'content-type': 'application/json', 'x-page-token': '{token}' }} }})"
        ),
        format!("fetch('http://{address}/peers').then((answer) => answer.text())"),
        format!(
            "fetch('http://{address}/', {{ mode: 'no-cors' }}).then((answer) => answer.text()).then((text) => text.includes('token') || Promise.reject())"
        ),
        format!(
            "new Promise((done, fail) => {{
                const socket = new WebSocket('ws://{address}/events', ['whisper-page', '{token}']);
                socket.onopen = done;
                socket.onerror = fail;
            }})"
        ),
        format!(
            "new Promise((done, fail) => {{
                const image = new Image();
                image.onload = done;
                image.onerror = fail;
                image.src = 'http://{address}/icon.svg';
            }})"
        ),
    ];
    for attempt in attempts {
        // What is answered to `no-cors` nobody can read: that it was said would show below.
        let came = page.eval(&format!("({attempt}).then((it) => it?.type ?? 'open', () => 'refused')"));
        assert!(["refused", "opaque"].contains(&came.as_str().unwrap()), "{attempt}: {came}");
    }
    page.eval(&format!(
        "new Promise((done) => {{
            const frame = document.createElement('iframe');
            frame.onload = done;
            frame.src = 'http://{address}/';
            document.body.append(frame);
        }})"
    ));
    page.complains_of("frame-ancestors");
    assert!(goldy.peer.recent().await.is_empty());
    // The same from the page itself does what it says.
    let own = open(&goldy);
    let said = own.eval(&format!(
        "fetch('/say', {{ method: 'POST', body: '{{\"body\": \"x\"}}',
            headers: {{ 'content-type': 'application/json', 'x-page-token': '{token}' }} }}).then((it) => it.status)"
    ));
    assert_eq!(said, 200);
    assert_eq!(goldy.peer.recent().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_fits_a_telephone_and_forgets_what_is_old() {
    let (goldy, bambam) = two().await;
    let page = open(&goldy);
    for number in 0..304 {
        bambam.peer.say(&format!("{number} {}", "long".repeat(30))).await.unwrap();
    }
    page.until(&has(&format!("303 {}", "long".repeat(30))));
    assert_eq!(page.eval("document.querySelectorAll('#transcript > li').length <= 300"), true);
    // The last is what is seen.
    page.until("((list) => list.scrollHeight - list.scrollTop - list.clientHeight < 80)(document.querySelector('#transcript'))");
    for (width, height, scheme) in [(1200, 800, "light"), (360, 640, "dark"), (320, 480, "light")] {
        page.look_like(width, height, scheme);
        page.until(&format!("innerWidth === {width} && document.documentElement.scrollWidth <= {width}"));
        page.until("document.querySelector('#composer').getBoundingClientRect().bottom <= innerHeight");
    }
    page.click("#panel-button");
    page.until("document.querySelector('#panel-button').getAttribute('aria-expanded') === 'true'");
    page.until("document.querySelector('#panel').getBoundingClientRect().width === 320");
    page.press("Escape", "");
    page.until("document.activeElement.id === 'panel-button' && getComputedStyle(document.querySelector('#panel')).display === 'none'");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_used_has_a_name_for_those_who_hear_the_page() {
    let (goldy, _bambam) = two().await;
    let page = open(&goldy);
    page.until("document.querySelector('.peers button') !== null");
    let unnamed = page.eval(
        "[...document.querySelectorAll('button, input, textarea, progress, img, [role=log]')].filter((element) =>
            !(element.ariaLabel || element.textContent.trim() || element.alt || element.labels?.length)
        ).map((element) => element.outerHTML)",
    );
    assert_eq!(unnamed, json!([]));
    page.until("document.activeElement.id === 'text'");
    assert_eq!(page.eval("document.documentElement.lang"), "en");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_comes_back_by_itself_when_the_node_does() {
    let goldy = Node::start("goldy", &[]).await;
    let page = open(&goldy);
    page.enter("#text", "before");
    page.until(&has("before"));
    let addr = goldy.addr();
    drop(goldy);
    page.until("document.querySelector('#state').dataset.is === 'waiting'");
    page.eval("document.querySelector('#text').value = 'unsaid'; document.querySelector('#text').dispatchEvent(new Event('input'))");
    let again = Node::at(addr, "goldy", &[], Limits::default()).await;
    page.until("document.querySelector('#state').dataset.is === 'open'");
    page.until("document.querySelector('#text').value === 'unsaid'");
    page.enter("#text", "after");
    page.until(&has("after"));
    assert_eq!(again.peer.recent().await.len(), 1);
}

/// One pixel.
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_is_handed_over_on_one_page_is_seen_on_the_other() {
    let (goldy, bambam) = two().await;
    let (first, second) = (open(&goldy), open(&bambam));
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("my pixel.png");
    let content = BASE64.decode(PICTURE).unwrap();
    fs::write(&picture, &content).unwrap();
    first.choose("#file", &picture);
    for tab in [&first, &second] {
        tab.until("document.querySelector('.message .picture img')?.naturalWidth === 1");
        tab.until("document.querySelector('.message .picture img').alt === 'my pixel.png'");
    }
    assert_eq!(fs::read(bambam.downloads.path().join("my pixel.png")).unwrap(), content);
    second.until("document.querySelector('#files a').download === 'my pixel.png'");
    // What only says that it is one is no picture, and a script in it is never run.
    let script = "<svg xmlns='http://www.w3.org/2000/svg'><script>document.title='hurt'</script></svg>";
    first.eval(&format!(
        "{{
            const data = new DataTransfer();
            data.items.add(new File([{}], 'evil.png', {{ type: 'image/png' }}));
            document.dispatchEvent(new DragEvent('drop', {{ dataTransfer: data }}));
        }}",
        json!(script)
    ));
    second.until("document.querySelector('.attachment a')?.download === 'evil.png'");
    assert_eq!(second.eval("document.querySelectorAll('.picture').length"), 1);
    let heads = "fetch(document.querySelector('.attachment a').href).then((file) =>
        ['content-type', 'content-disposition', 'content-security-policy'].map((name) => file.headers.get(name)))";
    assert_eq!(
        second.eval(heads),
        json!([
            "application/octet-stream",
            "attachment; filename=\"evil.png\"; filename*=UTF-8''evil.png",
            "default-src 'none'; frame-ancestors 'none'; sandbox",
        ])
    );
    first.until("document.querySelector('#uploads li') === null");
    assert_eq!(second.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_too_long_is_not_handed_over() {
    let goldy = Node::with("goldy", &[], Limits { upload_bytes_max: 4, ..Limits::default() }).await;
    let page = open(&goldy);
    page.eval(
        "{
            const data = new DataTransfer();
            data.items.add(new File(['12345'], 'a.txt'));
            document.querySelector('#text').dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }));
        }",
    );
    page.until(
        "document.querySelector('#problem').textContent === 'a.txt has 5 bytes, and may have 4 bytes.'",
    );
    assert!(goldy.peer.recent().await.is_empty());
}
