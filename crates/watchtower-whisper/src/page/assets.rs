//! What the page is made of, as it is in `assets/`: it needs nothing from
//! elsewhere, and nothing is built.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

use super::guard::Token;

const INDEX: &str = include_str!("assets/index.html");

/// Where the index has the token.
const TOKEN_PLACE: &str = "{token}";

/// Everything but the index: path, type, content.
pub(super) const ASSETS: [(&str, &str, &str); 9] = [
    ("/style.css", CSS, include_str!("assets/style.css")),
    ("/transcript.css", CSS, include_str!("assets/transcript.css")),
    ("/panel.css", CSS, include_str!("assets/panel.css")),
    ("/narrow.css", CSS, include_str!("assets/narrow.css")),
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/page.js", JAVASCRIPT, include_str!("assets/page.js")),
    ("/node.js", JAVASCRIPT, include_str!("assets/node.js")),
    ("/panel.js", JAVASCRIPT, include_str!("assets/panel.js")),
    ("/transcript.js", JAVASCRIPT, include_str!("assets/transcript.js")),
];

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The page itself, which alone is given the token.
pub(super) fn index(token: &Token) -> Response {
    Html(INDEX.replace(TOKEN_PLACE, token.as_str())).into_response()
}

/// One of the [`ASSETS`].
pub(super) fn asset(mime_type: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, mime_type)], content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_that_is_not_here() {
        for (path, ..) in ASSETS {
            let is_named = |text: &str| text.contains(&format!("\"{path}\""));
            assert!(is_named(INDEX) || ASSETS.iter().any(|(.., text)| is_named(text)), "{path}");
        }
        let elsewhere = ["http://", "https://", "//cdn"];
        for (path, _, text) in ASSETS.into_iter().chain([("/", "", INDEX)]) {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(elsewhere.iter().all(|address| !text.contains(address)), "{path}");
        }
    }

    #[test]
    fn nothing_in_the_page_makes_markup_of_text() {
        for (path, _, text) in ASSETS {
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"]
            {
                assert!(!text.contains(sink), "{path} has {sink}");
            }
        }
    }

    #[test]
    fn the_index_has_one_place_for_the_token_and_no_script_of_its_own() {
        assert_eq!(INDEX.matches(TOKEN_PLACE).count(), 1);
        assert_eq!(INDEX.matches("<script").count(), 1);
        assert!(!INDEX.contains("style=") && !INDEX.contains("onclick"));
    }
}
