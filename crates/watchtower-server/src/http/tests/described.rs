//! The description of the requests, and the page for users, say what is so.

use super::*;
use crate::http::ErrorCode;

#[tokio::test]
async fn the_description_lists_the_routes_that_there_are() {
    let server = server().await;
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    let api: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let mut routes = Vec::new();
    for (path, item) in api["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let method = method.to_ascii_uppercase();
            assert!(operation["summary"].is_string(), "{method} {path} says what it is for");
            let responses = operation["responses"].as_object().expect("responses");
            for (status, response) in responses {
                let described = response["description"].as_str().is_some_and(|text| !text.is_empty());
                assert!(described, "{method} {path} {status}");
            }
            routes.push(format!("{method} {path}"));
        }
    }
    routes.sort_unstable();
    let expected = [
        "GET /",
        "GET /channels",
        "GET /channels/join",
        "GET /channels/{channel}/history",
        "GET /channels/{channel}/presence",
        "GET /health",
        "GET /metrics",
        "GET /openapi.json",
        "GET /ready",
        "POST /broadcast",
        "POST /channels/join",
        "POST /channels/join/async",
        "POST /channels/leave",
        "POST /register",
        "POST /send",
    ];
    assert_eq!(routes, expected);
    // What is listed is there, and nothing else at these paths is.
    for path in api["paths"].as_object().expect("paths").keys() {
        let target = path.replace("{channel}", "5");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let listed = routes.contains(&format!("{method} {path}"));
            let answer = server.ask(method, &target, "", b"").await;
            assert_eq!(answer.status != 405, listed, "{method} {path}: {}", answer.status);
            let responses = &api["paths"][path][method.to_ascii_lowercase()]["responses"];
            assert!(
                !listed || responses[answer.status.to_string()].is_object(),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    // Every part that is referred to is there.
    let parts =
        answer.body.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
    for part in parts {
        assert!(api["components"]["schemas"][part].is_object(), "{part}");
    }
}

#[test]
fn the_page_for_users_lists_every_code() {
    let page = include_str!("../../../../../docs/http.md");
    for code in ErrorCode::ALL {
        let row = format!("| {} | `{}` | {} |", code.status().as_u16(), code.name(), code.meaning());
        assert!(page.contains(&row), "docs/http.md lacks: {row}");
    }
}
