//! Rendering: every format's type and body, several writes, cookies, redirects, templates.

use crate::engine;
use curtsy_web::cookie::{Cookie, SameSite};
use curtsy_web::test::{Answer, Client};
use curtsy_web::{Context, Handler, Offer};
use serde::Serialize;
use serde_json::json;

#[derive(Serialize)]
struct Item {
    name: &'static str,
    n: u8,
}

const ITEM: Item = Item { name: "<é>", n: 1 };

async fn get(handler: impl Handler, uri: &str, headers: &[(&str, &str)]) -> Answer {
    let mut r = engine();
    r.get("/", handler);
    let mut request = Client::new(r).get(uri);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.send().await
}

/// Sends a GET for `/` to a handler; type and body of the answer.
macro_rules! rendered {
    ($c:ident => $call:expr) => {{
        let answer = get(async |$c: &mut Context| $call, "/", &[]).await;
        assert_eq!(answer.status(), 201);
        (answer.header("content-type").to_owned(), answer.text())
    }};
}

fn pair(kind: &str, body: &str) -> (String, String) {
    (kind.to_owned(), body.to_owned())
}

#[tokio::test]
async fn formats() {
    let json = "application/json; charset=utf-8";
    assert_eq!(
        rendered!(c => c.json(201, &ITEM)),
        pair(json, r#"{"name":"\u003cé\u003e","n":1}"#)
    );
    assert_eq!(
        rendered!(c => c.pure_json(201, &ITEM)),
        pair(json, r#"{"name":"<é>","n":1}"#)
    );
    assert_eq!(
        rendered!(c => c.ascii_json(201, &ITEM)),
        pair("application/json", r#"{"name":"<\u00e9>","n":1}"#)
    );
    assert_eq!(
        rendered!(c => c.indented_json(201, &json!({"a": [1]}))),
        pair(json, "{\n    \"a\": [\n        1\n    ]\n}")
    );
    assert_eq!(
        rendered!(c => c.secure_json(201, &[1, 2])),
        pair(json, "while(1);[1,2]")
    );
    assert_eq!(
        rendered!(c => c.secure_json(201, &ITEM)).1.get(..1),
        Some("{")
    );
    assert_eq!(
        rendered!(c => c.xml(201, &ITEM)),
        pair(
            "application/xml; charset=utf-8",
            "<Item><name>&lt;é&gt;</name><n>1</n></Item>"
        )
    );
    let (kind, body) = rendered!(c => c.yaml(201, &ITEM));
    assert_eq!(kind, "application/yaml; charset=utf-8");
    assert!(body.contains("name: <é>"), "{body}");
    assert_eq!(
        rendered!(c => c.toml(201, &ITEM)),
        pair("application/toml; charset=utf-8", "name = \"<é>\"\nn = 1\n")
    );
    assert_eq!(
        rendered!(c => c.msgpack(201, &ITEM)).0,
        "application/msgpack; charset=utf-8"
    );
    assert_eq!(
        rendered!(c => c.string(201, "x")),
        pair("text/plain; charset=utf-8", "x")
    );
    assert_eq!(
        rendered!(c => c.data(201, "image/png", "x")),
        pair("image/png", "x")
    );
    let reader = &b"from a reader"[..];
    assert_eq!(
        rendered!(c => c.data_from_reader(201, Some(13), "text/x", &b"from a reader"[..])),
        pair("text/x", std::str::from_utf8(reader).unwrap())
    );
}

#[tokio::test]
async fn jsonp_calls_a_harmless_name() {
    let handler = async |c: &mut Context| c.jsonp(200, &[1]);
    let answer = get(handler, "/?callback=a.b", &[]).await;
    assert_eq!(answer.text(), "a.b([1]);");
    assert_eq!(
        answer.header("content-type"),
        "application/javascript; charset=utf-8"
    );
    let answer = get(handler, "/?callback=%3C/script%3E", &[]).await;
    assert_eq!(answer.text(), "\\u003C\\u002Fscript\\u003E([1]);");
    assert_eq!(get(handler, "/", &[]).await.text(), "[1]");
}

#[tokio::test]
async fn the_first_write_decides_and_later_ones_add() {
    let answer = get(
        async |c: &mut Context| {
            c.string(201, "a");
            c.json(500, &[1]);
            c.status(404);
        },
        "/",
        &[],
    )
    .await;
    assert_eq!((answer.status(), answer.text().as_str()), (201, "a[1]"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");

    let own = get(
        async |c: &mut Context| {
            c.header("Content-Type", "text/x");
            c.header("X-A", "1");
            c.header("X-A", "");
            c.header("X-B", "bad\nvalue");
            assert_eq!(c.errors().len(), 1);
            c.string(200, "a");
        },
        "/",
        &[],
    )
    .await;
    assert_eq!(own.header("content-type"), "text/x");
    assert!(!own.headers().contains_key("x-a") && !own.headers().contains_key("x-b"));
    let none = get(async |c: &mut Context| c.string(204, "dropped"), "/", &[]).await;
    assert_eq!((none.status(), none.bytes().len()), (204, 0));
}

#[tokio::test]
async fn the_requests_headers_do_not_come_back() {
    let answer = get(
        async |c: &mut Context| c.status(200),
        "/",
        &[("X-Secret", "s")],
    )
    .await;
    assert!(answer.headers().is_empty(), "{:?}", answer.headers());
}

#[tokio::test]
async fn redirects() {
    let answer = get(
        async |c: &mut Context| c.redirect(302, "/new?a=<b>"),
        "/",
        &[],
    )
    .await;
    assert_eq!(
        (answer.status(), answer.header("location")),
        (302, "/new?a=<b>")
    );
    assert_eq!(answer.text(), "<a href=\"/new?a=&lt;b&gt;\">Found</a>.\n\n");
    let split = get(
        async |c: &mut Context| c.redirect(302, "/a\r\nX: y"),
        "/",
        &[],
    )
    .await;
    assert_eq!((split.status(), split.header("location")), (500, ""));
}

#[tokio::test]
async fn redirects_have_gins_statuses() {
    for status in [200, 201, 202, 299]
        .into_iter()
        .chain(300..=310)
        .chain([404])
    {
        let handler = tokio::spawn(get(
            async |c: &mut Context| {
                let status: u16 = c.query("s").parse().unwrap();
                c.redirect(status, "/ö?q=ü#%20");
            },
            Box::leak(format!("/?s={status}").into_boxed_str()),
            &[],
        ));
        let answer = handler.await;
        let allowed = status == 201 || (300..=308).contains(&status);
        assert_eq!(answer.is_ok(), allowed, "{status}");
        if let Ok(answer) = answer {
            assert_eq!(answer.status(), status);
            assert_eq!(answer.header("location"), "/%C3%B6?q=%C3%BC#%20");
        }
    }
}

#[tokio::test]
async fn what_is_written_last_takes_nothing_back() {
    let bytes = async |c: &mut Context| {
        c.string(201, "a");
        c.body(200, "b");
        c.redirect(302, "/");
    };
    let answer = get(bytes, "/", &[]).await;
    assert_eq!(answer.status(), 201);
    assert!(answer.text().starts_with("ab"), "{}", answer.text());

    let stream = async |c: &mut Context| {
        c.string(201, "a");
        let chunks = ["lost"].map(Ok::<_, std::io::Error>);
        c.stream(200, futures_util::stream::iter(chunks));
        assert_eq!(c.errors().len(), 1, "{:?}", c.errors());
    };
    assert_eq!(get(stream, "/", &[]).await.text(), "a");

    let after = async |c: &mut Context| {
        let chunks = ["kept"].map(Ok::<_, std::io::Error>);
        c.stream(200, futures_util::stream::iter(chunks));
        c.body(200, "lost");
        assert_eq!(c.errors().len(), 1, "{:?}", c.errors());
    };
    assert_eq!(get(after, "/", &[]).await.text(), "kept");

    // A status alone is not a body.
    let status = async |c: &mut Context| {
        c.abort_with_status(403);
        let chunks = ["page"].map(Ok::<_, std::io::Error>);
        c.stream(403, futures_util::stream::iter(chunks));
    };
    let answer = get(status, "/", &[]).await;
    assert_eq!((answer.status(), answer.text().as_str()), (403, "page"));
}

#[tokio::test]
#[should_panic(expected = "cannot redirect with status 200")]
async fn a_redirect_needs_its_status() {
    get(async |c: &mut Context| c.redirect(200, "/"), "/", &[]).await;
}

#[tokio::test]
async fn cookies() {
    let answer = get(
        async |c: &mut Context| {
            let seen = c.cookie("a").unwrap_or_default();
            assert_eq!(c.cookie("none"), None);
            c.set_same_site(SameSite::Strict);
            c.set_cookie(("one", "1"));
            c.set_cookie(
                Cookie::build(("two", "2; x"))
                    .path("/p")
                    .same_site(SameSite::Lax),
            );
            c.string(200, seen);
        },
        "/",
        &[("Cookie", "b=2; a=x%20y"), ("Cookie", "c=3")],
    )
    .await;
    assert_eq!(answer.text(), "x y");
    let set: Vec<_> = answer.headers().get_all("set-cookie").iter().collect();
    assert_eq!(set[0], "one=1; SameSite=Strict; Path=/");
    assert_eq!(set[1], "two=2%3B%20x; SameSite=Lax; Path=/p");
}

#[tokio::test]
async fn negotiation() {
    let handler = async |c: &mut Context| {
        c.negotiate(200, &[Offer::Json, Offer::Xml, Offer::Text], &ITEM);
    };
    for (accept, status, kind) in [
        ("application/json", 200, "application/json; charset=utf-8"),
        ("text/plain", 200, "text/plain; charset=utf-8"),
        (
            "application/xml, */*;q=0.1",
            200,
            "application/xml; charset=utf-8",
        ),
        ("image/png", 406, "application/json; charset=utf-8"),
    ] {
        let answer = get(handler, "/", &[("Accept", accept)]).await;
        assert_eq!(
            (answer.status(), answer.header("content-type")),
            (status, kind),
            "{accept}"
        );
        assert_eq!(answer.header("vary"), "accept");
    }
}

#[tokio::test]
async fn templates() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/index.tmpl"), "<h1>{{ title }}</h1>").unwrap();
    std::fs::write(dir.path().join("mail.txt"), "Dear {{ title }}").unwrap();
    let mut r = engine();
    let pattern = format!("{}/**/*", dir.path().display());
    r.load_html_glob(&pattern).unwrap();
    r.get("/:name", async |c: &mut Context| {
        let name = c.param("name").to_owned();
        c.html(200, &name, &json!({ "title": "a & b" }));
    });
    let client = Client::new(r);
    let page = client.get("/index.tmpl").send().await;
    assert_eq!(page.text(), "<h1>a &amp; b</h1>");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(client.get("/mail.txt").send().await.text(), "Dear a & b");
    assert_eq!(client.get("/none").send().await.status(), 500);

    let mut r = engine();
    assert!(r.load_html_glob("/nowhere/*.html").unwrap_err().is_render());
    std::fs::write(dir.path().join("broken.html"), "{% if %}").unwrap();
    assert!(
        r.load_html_files(&[dir.path().join("broken.html")])
            .is_err()
    );
}
