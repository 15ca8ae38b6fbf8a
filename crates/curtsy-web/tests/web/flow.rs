//! The chain: order, next, abort, the store, errors, state, return values.

use crate::engine;
use curtsy_web::test::Client;
use curtsy_web::{
    BoxError, BoxFuture, Call, Context, Engine, Error, Json, StatusCode, basic_auth,
    basic_auth_for_proxy, error_logger,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn trace(c: &mut Context, mark: &str) {
    let mut text = c.get::<String>("trace").cloned().unwrap_or_default();
    text.push_str(mark);
    c.set("trace", text);
}

async fn outer(c: &mut Context) {
    trace(c, "(");
    c.next().await;
    trace(c, ")");
    let text = c.must_get::<String>("trace").clone();
    c.header("X-Trace", text);
}

/// Does not call `next`: the chain goes on all the same.
async fn silent(c: &mut Context) {
    trace(c, "s");
}

async fn leaf(c: &mut Context) {
    tokio::task::yield_now().await;
    trace(c, "L");
    c.string(200, "leaf");
}

#[tokio::test]
async fn middleware_runs_in_order_around_the_handler() {
    let mut r = engine();
    r.use_middleware(outer);
    let mut group = r.group("/g");
    group.use_middleware((silent, silent));
    group.get("/", (silent, leaf));
    r.get("/plain", leaf);
    let client = Client::new(r);
    assert_eq!(client.get("/g/").send().await.header("x-trace"), "(sssL)");
    assert_eq!(client.get("/plain").send().await.header("x-trace"), "(L)");
}

#[tokio::test]
async fn abort_stops_what_has_not_begun() {
    let mut r = engine();
    r.use_middleware(outer);
    async fn gate(c: &mut Context) {
        if c.query("key") != "1" {
            c.abort_with_status_json(401, &json!({ "error": "key" }));
            assert!(c.is_aborted());
        }
    }
    r.get("/", (gate, leaf));
    let client = Client::new(r);
    let refused = client.get("/").send().await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.text(), r#"{"error":"key"}"#);
    assert_eq!(refused.header("x-trace"), "()");
    assert_eq!(client.get("/?key=1").send().await.text(), "leaf");
}

#[tokio::test]
async fn what_handlers_return_is_the_answer() {
    async fn io(_: &mut Context) -> curtsy_web::Result {
        Err(std::io::Error::other("secret path"))?;
        Ok(())
    }
    async fn boxed(_: &mut Context) -> Result<&'static str, BoxError> {
        Err(Error::new(StatusCode::CONFLICT, "taken").into())
    }
    async fn pair(_: &mut Context) -> (StatusCode, Json<[u8; 2]>) {
        (StatusCode::CREATED, Json([1, 2]))
    }
    async fn borrowed(c: &mut Context) -> Json<Vec<&str>> {
        tokio::task::yield_now().await;
        Json(vec![c.query("q")])
    }
    async fn written_first(c: &mut Context) -> &'static str {
        c.string(202, "first");
        "second"
    }
    let mut r = engine();
    r.get("/io", io).get("/boxed", boxed).get("/pair", pair);
    r.get("/borrowed", borrowed).get("/written", written_first);
    r.get("/status", async |_: &mut Context| StatusCode::IM_A_TEAPOT);
    r.get("/text", async |_: &mut Context| "text");
    let client = Client::new(r);
    for (path, status, body) in [
        ("/io", 500, r#"{"error":"internal server error"}"#),
        ("/boxed", 409, r#"{"error":"taken"}"#),
        ("/pair", 201, "[1,2]"),
        ("/borrowed?q=x", 200, r#"["x"]"#),
        ("/written", 202, "first"),
        ("/status", 418, ""),
        ("/text", 200, "text"),
    ] {
        let answer = client.get(path).send().await;
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (status, body),
            "{path}"
        );
    }
}

#[tokio::test]
async fn errors_are_collected_with_their_causes() {
    async fn look(c: &mut Context) {
        c.next().await;
        let errors: Vec<String> = c.errors().iter().map(|e| format!("{e:?}")).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].contains("noted"));
        assert!(errors[1].contains("the disk is full"));
        assert!(c.errors()[1].is_private());
    }
    async fn fail(c: &mut Context) -> curtsy_web::Result {
        c.error(Error::new(StatusCode::BAD_REQUEST, "noted"));
        Err(std::io::Error::other("the disk is full"))?;
        Ok(())
    }
    let mut r = engine();
    r.get("/", (look, fail));
    assert_eq!(Client::new(r).get("/").send().await.status(), 500);
}

#[tokio::test]
async fn the_error_logger_shows_public_messages() {
    let mut r = engine();
    r.use_middleware(error_logger());
    r.get("/one", async |c: &mut Context| {
        c.status(409);
        c.error(Error::new(StatusCode::CONFLICT, "taken"));
    });
    r.get("/two", async |c: &mut Context| {
        c.error(Error::new(StatusCode::CONFLICT, "a"));
        c.error(std::io::Error::other("secret"));
    });
    let client = Client::new(r);
    let one = client.get("/one").send().await;
    assert_eq!(
        (one.status(), one.text().as_str()),
        (409, r#"{"error":"taken"}"#)
    );
    let two = client.get("/two").send().await.text();
    assert_eq!(two, r#"[{"error":"a"},{"error":"internal server error"}]"#);
}

#[tokio::test]
async fn state_and_store() {
    struct Greeting(&'static str);
    let mut r = Engine::new()
        .with_state(Greeting("old"))
        .with_state(Greeting("hi"));
    async fn check(c: &mut Context) {
        c.set("n", 7_u32);
        c.put(9_u8);
    }
    r.get(
        "/",
        (check, async |c: &mut Context| {
            assert_eq!(c.get::<u32>("n"), Some(&7));
            assert_eq!(c.get::<String>("n"), None);
            assert_eq!(c.get::<u32>("m"), None);
            assert_eq!(c.of_type::<u8>(), Some(&9));
            assert!(c.try_state::<u64>().is_none());
            c.string(200, c.state::<Greeting>().0);
        }),
    );
    assert_eq!(Client::new(r).get("/").send().await.text(), "hi");
}

#[tokio::test]
async fn basic_auth_asks_and_lets_in() {
    let accounts = [("ann", "s3cret"), ("bob", "x:y")];
    let mut r = engine();
    r.group_with("/in", basic_auth(accounts))
        .get("/", async |c: &mut Context| {
            c.get::<String>("user").cloned().unwrap_or_default()
        });
    r.group_with("/proxy", basic_auth_for_proxy(accounts, "a \"realm\""))
        .get("/", async |c: &mut Context| {
            c.get::<String>("proxy_user").cloned().unwrap_or_default()
        });
    let client = Client::new(r);
    for (sent, status, body) in [
        ("Basic YW5uOnMzY3JldA==", 200, "ann"),
        ("Basic Ym9iOng6eQ==", 200, "bob"),
        ("Basic YW5uOnMzY3JldB==", 401, ""),
        ("Basic YW5uOg==", 401, ""),
        ("Bearer YW5uOnMzY3JldA==", 401, ""),
        ("", 401, ""),
    ] {
        let answer = client
            .get("/in/")
            .header("Authorization", sent)
            .send()
            .await;
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (status, body),
            "{sent}"
        );
        let ask = answer.header("www-authenticate");
        let expected = if status == 401 {
            "Basic realm=\"Authorization Required\""
        } else {
            ""
        };
        assert_eq!(ask, expected);
    }
    let refused = client.get("/proxy/").send().await;
    assert_eq!(refused.status(), 407);
    assert_eq!(
        refused.header("proxy-authenticate"),
        "Basic realm=\"a \\\"realm\\\"\""
    );
    let sent = client
        .get("/proxy/")
        .header("Proxy-Authorization", "Basic YW5uOnMzY3JldA==");
    assert_eq!(sent.send().await.text(), "ann");
}

#[tokio::test]
async fn groups_nest() {
    let mut r = engine();
    async fn base(c: &mut Context) {
        c.string(200, c.full_path().to_owned());
    }
    let mut api = r.group("/api/");
    assert_eq!(api.base_path(), "/api/");
    api.get("", base);
    let mut v1 = api.group("v1");
    assert_eq!(v1.base_path(), "/api/v1");
    v1.get("/", base).get("users", base);
    let client = Client::new(r);
    for path in ["/api/", "/api/v1/", "/api/v1/users"] {
        assert_eq!(client.get(path).send().await.text(), path);
    }
}

/// A middleware with settings that counts how often it is copied.
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<'a> Call<'a> for Counted {
    type Future = BoxFuture<'a, ()>;

    fn call(&'a self, c: &'a mut Context) -> Self::Future {
        Box::pin(async move {
            c.next().await;
            let copies = self.0.load(Ordering::Relaxed);
            c.header("X-Copies", copies);
        })
    }
}

#[tokio::test]
async fn a_request_copies_no_middleware() {
    let copies = Arc::new(AtomicUsize::new(0));
    let mut r = engine();
    r.get("/first", (Counted(Arc::clone(&copies)), leaf));
    r.get("/second", (silent, Counted(Arc::clone(&copies)), leaf));
    let client = Client::new(r);
    copies.store(0, Ordering::Relaxed);
    for path in ["/first", "/second", "/first"] {
        let answer = client.get(path).send().await;
        assert_eq!(
            (answer.status(), answer.header("x-copies")),
            (200, "0"),
            "{path}"
        );
    }
}
