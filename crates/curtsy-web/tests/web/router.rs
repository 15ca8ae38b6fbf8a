//! Which route a path has: tables, refusals, and a naive matcher as a model.

use crate::{echo, engine};
use curtsy_web::test::Client;
use curtsy_web::{Context, Engine};
use proptest::prelude::*;

/// Registers patterns for GET and expects of each path its pattern and parameters, or a status.
async fn table(patterns: &[&str], expected: &[(&str, &str)]) {
    let mut r = engine();
    r.settings_mut().redirect_trailing_slash = false;
    for pattern in patterns {
        r.get(pattern, echo);
    }
    let client = Client::new(r);
    for (path, answer) in expected {
        let got = client.get(path).send().await;
        let got = if got.status() == 200 {
            got.text()
        } else {
            got.status().to_string()
        };
        assert_eq!(&got, answer, "{path} of {patterns:?}");
    }
}

#[tokio::test]
async fn static_beats_param_beats_catch_all() {
    let patterns = [
        "/",
        "/users",
        "/users/new",
        "/users/:id",
        "/users/:id/posts",
        "/users/*rest",
        "/file.:ext",
        "/user_:name",
        "/src/*filepath",
    ];
    table(
        &patterns,
        &[
            ("/", "/"),
            ("/users", "/users"),
            ("/users/new", "/users/new"),
            ("/users/newer", "/users/:id id=newer"),
            ("/users/ne", "/users/:id id=ne"),
            ("/users/7/posts", "/users/:id/posts id=7"),
            ("/users/7/likes", "/users/*rest rest=/7/likes"),
            ("/users/new/likes", "/users/*rest rest=/new/likes"),
            ("/users/new/posts", "/users/:id/posts id=new"),
            ("/users/", "/users/*rest rest=/"),
            ("/file.txt", "/file.:ext ext=txt"),
            ("/user_ann", "/user_:name name=ann"),
            ("/user_", "404"),
            ("/src/", "/src/*filepath filepath=/"),
            ("/src/a/b.c", "/src/*filepath filepath=/a/b.c"),
            ("/src", "404"),
            ("/user_ann/x", "404"),
            ("/nothing", "404"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_turns_out_wrong_is_undone() {
    table(
        &["/a/b/c", "/a/:x/d", "/:y/b/e", "/*all"],
        &[
            ("/a/b/c", "/a/b/c"),
            ("/a/b/d", "/a/:x/d x=b"),
            ("/a/b/e", "/:y/b/e y=a"),
            ("/a/b/f", "/*all all=/a/b/f"),
            ("/", "/*all all=/"),
        ],
    )
    .await;
}

#[tokio::test]
async fn empty_segments_match_no_parameter() {
    table(
        &["/a/:x/b", "/c/:x"],
        &[("/a//b", "404"), ("/c/", "404"), ("//a/1/b", "404")],
    )
    .await;
}

#[tokio::test]
async fn a_colon_can_be_meant() {
    table(
        &["/v1/users\\:undelete", "/v1/:name"],
        &[
            ("/v1/users:undelete", "/v1/users\\:undelete"),
            ("/v1/users:delete", "/v1/:name name=users:delete"),
        ],
    )
    .await;
}

#[tokio::test]
async fn escaped_paths() {
    let patterns = ["/a/:x", "/ü/:y"];
    table(
        &patterns,
        &[
            ("/a/b%20c", "/a/:x x=b c"),
            ("/a/b%2Fc", "404"),
            ("/%61/b", "/a/:x x=b"),
            ("/%C3%BC/%F0%9F%98%80", "/ü/:y y=😀"),
            ("/a/%ff", "400"),
            ("/a/%zz", "400"),
            ("/a/%", "400"),
        ],
    )
    .await;

    let raw = |unescape: bool| {
        let mut r = engine();
        r.settings_mut().use_raw_path = true;
        r.settings_mut().unescape_path_values = unescape;
        r.get("/a/:x/:z", echo);
        Client::new(r)
    };
    let answer = raw(true).get("/a/b%2Fc/%20d").send().await;
    assert_eq!(answer.text(), "/a/:x/:z x=b/c z= d");
    let answer = raw(false).get("/a/b%2Fc/%20d").send().await;
    assert_eq!(answer.text(), "/a/:x/:z x=b%2Fc z=%20d");
    let answer = raw(true).get("/a/b%2/%41").send().await;
    assert_eq!(answer.text(), "/a/:x/:z x=b%2 z=A");
}

#[tokio::test]
async fn repeated_slashes() {
    let mut r = engine();
    r.settings_mut().remove_extra_slash = true;
    r.get("/a/:x", echo);
    let client = Client::new(r);
    assert_eq!(client.get("//a///b").send().await.text(), "/a/:x x=b");
}

#[test]
fn conflicts_are_refused_and_both_patterns_named() {
    for (old, new) in [
        ("/users/:id", "/users/:name"),
        ("/users/:id", "/users/:name/posts"),
        ("/users/:id/a", "/users/:id/a"),
        ("/files/*path", "/files/*rest"),
        ("/files/*path", "/files/*path"),
        ("/x_:a", "/x_:b"),
    ] {
        let mut r = engine();
        r.get(old, echo);
        let error = r.try_handle("GET", new, echo).unwrap_err();
        assert!(error.is_route());
        let text = error.to_string();
        assert!(text.contains(&format!("\"{old}\"")), "{text}");
        assert!(text.contains(&format!("\"{new}\"")), "{text}");
        assert_eq!(r.routes().len(), 1, "{new} must not be there");
        r.try_handle("POST", new, echo).unwrap();
    }
}

#[test]
#[should_panic(expected = "\"/a/:y\" conflicts with \"/a/:x\"")]
fn a_conflict_panics_at_registration() {
    engine().get("/a/:x", echo).get("/a/:y", echo);
}

#[test]
fn methods_are_capital_letters() {
    for method in ["", "get", "GeT", "GET ", "G1", "M-SEARCH"] {
        let error = engine()
            .try_handle(method, "/", echo)
            .map(drop)
            .unwrap_err();
        assert!(error.is_route(), "{method}");
    }
    engine().handle("PURGE", "/", echo);
}

#[tokio::test]
async fn any_and_match_register_their_methods() {
    let mut r = engine();
    r.any("/any", echo);
    r.match_methods(&[http::Method::GET, http::Method::PUT], "/some", echo);
    r.handle("PURGE", "/own", echo);
    assert_eq!(r.routes().len(), 12);
    let client = Client::new(r);
    for method in [
        "GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "DELETE", "CONNECT", "TRACE",
    ] {
        assert_eq!(client.request(method, "/any").send().await.status(), 200);
    }
    assert_eq!(client.put("/some").send().await.status(), 200);
    assert_eq!(client.post("/some").send().await.status(), 404);
    assert_eq!(client.request("PURGE", "/own").send().await.status(), 200);
    assert_eq!(client.head("/some").send().await.status(), 404);
}

#[test]
fn the_routes_are_listed() {
    let mut r = engine();
    async fn middleware(c: &mut Context) {
        c.next().await;
    }
    r.use_middleware(middleware);
    r.group("v1").group("/users/").get("/:id", echo);
    let routes = r.routes();
    assert_eq!(routes[0].path, "/v1/users/:id");
    assert_eq!(routes[0].method, "GET");
    assert_eq!(routes[0].handlers, 2);
    assert!(routes[0].handler.ends_with("echo"));
}

#[tokio::test]
async fn a_clone_keeps_the_routes_that_it_had() {
    let mut r = engine();
    r.get("/a", echo);
    let before = r.clone();
    r.get("/b", echo);
    assert_eq!(Client::new(before).get("/b").send().await.status(), 404);
    assert_eq!(Client::new(r).get("/b").send().await.status(), 200);
}

// ---- the model: compares a path with every pattern, byte by byte

/// What stands in the pattern for a byte of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Static,
    Param,
    CatchAll,
}

/// How a pattern matches: what each byte is, and the values.
type Match = (Vec<Rank>, Vec<(String, String)>);

fn matches(pattern: &str, path: &str) -> Option<Match> {
    let (mut ranks, mut values) = (Vec::new(), Vec::new());
    let (mut pattern, mut at) = (pattern, 0);
    while let Some(first) = pattern.chars().next() {
        let end = pattern.find('/').unwrap_or(pattern.len());
        let rest = &path[at..];
        let name = pattern.get(1..end).unwrap_or("").to_owned();
        match first {
            '*' => {
                // One more: it loses to what ends here.
                ranks.resize(ranks.len() + rest.len() + 1, Rank::CatchAll);
                values.push((name, path[at - 1..].to_owned()));
                return Some((ranks, values));
            }
            ':' => {
                let len = rest.find('/').unwrap_or(rest.len());
                if len == 0 {
                    return None;
                }
                ranks.resize(ranks.len() + len, Rank::Param);
                values.push((name, rest[..len].to_owned()));
                pattern = &pattern[end..];
                at += len;
            }
            fixed => {
                if !rest.starts_with(fixed) {
                    return None;
                }
                ranks.push(Rank::Static);
                pattern = &pattern[1..];
                at += 1;
            }
        }
    }
    (at == path.len()).then_some((ranks, values))
}

/// The first in gin's order: at the first byte where two patterns differ in kind, static beats
/// param beats catch-all.
fn model(patterns: &[String], path: &str) -> Option<String> {
    let mut found: Vec<_> = patterns
        .iter()
        .filter_map(|pattern| Some((matches(pattern, path)?, pattern)))
        .collect();
    found.sort();
    let ((_, values), pattern) = found.into_iter().next()?;
    let mut text = pattern.clone();
    for (name, value) in values {
        text.push_str(&format!(" {name}={value}"));
    }
    Some(text)
}

/// Whether two patterns cannot both be there: they are the same, or where they part one place has
/// two names.
fn collide(one: &str, other: &str) -> bool {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b);
    let same = same.count();
    if same == one.len() && same == other.len() {
        return true;
    }
    // They part within a wildcard's name, or at its end.
    let segment = one[..same].rfind('/').unwrap_or(0);
    let Some(wildcard) = one[segment..same].find([':', '*']) else {
        return false;
    };
    let name = |pattern: &str| {
        let from = &pattern[segment + wildcard..];
        from[..from.find('/').unwrap_or(from.len())].to_owned()
    };
    name(one) != name(other)
}

/// Patterns of few letters, so that they collide and overlap; few differ in a wildcard's name only.
fn patterns() -> impl Strategy<Value = Vec<String>> {
    let part = prop_oneof![
        8 => "[ab]{1,2}",
        6 => Just(":p".to_owned()),
        3 => "[ab]:p",
        1 => Just(":q".to_owned()),
    ];
    let pattern = (proptest::collection::vec(part, 1..5), 0..12).prop_map(|(parts, end)| {
        let mut text = String::new();
        for (depth, part) in parts.iter().enumerate() {
            text.push('/');
            text.push_str(part);
            if part.contains(':') {
                text.push_str(&depth.to_string());
            }
        }
        match end {
            0..4 => text.push_str(&format!("/*r{}", parts.len())),
            4 => text.push_str("/*s"),
            5..9 => text.push('/'),
            _ => {}
        }
        text
    });
    proptest::collection::vec(pattern, 1..12)
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("(/(a|b|ab|ba|c)?){1,5}", 1..12)
}

/// Registers what does not collide, and expects a refusal of the rest.
fn register(r: &mut Engine, method: &str, patterns: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for pattern in patterns {
        let refused = r.try_handle(method, &pattern, echo).err();
        let other = kept.iter().find(|other| collide(&pattern, other));
        assert_eq!(refused.is_some(), other.is_some(), "{pattern} and {kept:?}");
        match (refused, other) {
            (Some(refused), Some(_)) => {
                let text = refused.to_string();
                let named = |other: &String| text.contains(&format!("\"{other}\""));
                assert!(text.contains(&format!("\"{pattern}\"")), "{text}");
                assert!(
                    kept.iter()
                        .any(|other| named(other) && collide(&pattern, other)),
                    "{text}"
                );
            }
            _ => kept.push(pattern),
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_router_agrees_with_the_model(patterns in patterns(), paths in paths()) {
        let mut r = engine();
        r.settings_mut().redirect_trailing_slash = false;
        let kept = register(&mut r, "GET", patterns);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let client = Client::new(r);
        for path in paths {
            let answer = runtime.block_on(client.get(&path).send());
            let got = (answer.status() != 404).then(|| answer.text());
            prop_assert_eq!(got, model(&kept, &path), "{} of {:?}", path, kept);
        }
    }

    #[test]
    fn so_do_redirects_and_refused_methods(
        of_get in patterns(),
        of_post in patterns(),
        of_put in patterns(),
        method in prop_oneof![Just("GET"), Just("POST"), Just("DELETE")],
        paths in paths(),
    ) {
        let mut r = engine();
        r.settings_mut().handle_method_not_allowed = true;
        let mut kept = Vec::new();
        for (method, patterns) in [("POST", of_post), ("GET", of_get), ("PUT", of_put)] {
            kept.push((method, register(&mut r, method, patterns)));
        }
        let none = Vec::new();
        let own = kept.iter().find(|(of, _)| *of == method).map_or(&none, |(_, own)| own);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let client = Client::new(r);
        for path in paths {
            let toggled = match path.strip_suffix('/') {
                Some(without) => without.to_owned(),
                None => format!("{path}/"),
            };
            let others = kept.iter().filter(|(of, _)| *of != method);
            let allowed = others.filter(|(_, of)| model(of, &path).is_some());
            let allowed: Vec<_> = allowed.map(|(of, _)| *of).collect();
            let expected = if let Some(text) = model(own, &path) {
                (200, text)
            } else if path != "/" && model(own, &toggled).is_some() {
                let status = if method == "GET" { 301 } else { 307 };
                (status, format!("/{}", toggled.trim_start_matches('/')))
            } else if !allowed.is_empty() {
                (405, allowed.join(", "))
            } else {
                (404, "404 page not found".to_owned())
            };
            let answer = runtime.block_on(client.request(method, &path).send());
            let said = match answer.status() {
                301 | 307 => answer.header("location").to_owned(),
                405 => answer.header("allow").to_owned(),
                _ => answer.text(),
            };
            prop_assert_eq!((answer.status(), said), expected, "{} {} of {:?}", method, path, kept);
        }
    }

    #[test]
    fn no_path_and_no_pattern_panics(
        pattern in "/[a:*\\\\/b]{0,10}",
        path in "/[a:*%2/b.]{0,12}",
    ) {
        let mut r = Engine::new();
        r.settings_mut().redirect_fixed_path = true;
        let _ = r.try_handle("GET", &pattern, echo).is_ok();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let status = runtime.block_on(Client::new(r).get(&path).send()).status();
        prop_assert!([200, 301, 400, 404].contains(&status));
    }
}
