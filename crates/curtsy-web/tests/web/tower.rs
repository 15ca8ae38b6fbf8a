//! Tower layers and services inside, and the engine as a tower service.

use crate::{echo, engine};
use curtsy_web::test::Client;
use curtsy_web::{Body, Context};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;
use std::time::Duration;
use tower::{ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

#[tokio::test]
async fn the_engine_is_a_service_for_any_body() {
    let mut r = engine();
    r.post("/:x", async |c: &mut Context| -> curtsy_web::Result {
        let body = c.raw_data().await?;
        let text = format!("{} {}", c.param("x"), body.len());
        c.string(200, text);
        Ok(())
    });
    let request = Request::post("/a").body(Full::from("12345")).unwrap();
    let response = r.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "a 5");
}

#[tokio::test]
async fn a_layer_wraps_what_follows() {
    let mut r = engine();
    r.get("/before", async |c: &mut Context| {
        c.string(200, "x".repeat(5000))
    });
    r.use_middleware(async |c: &mut Context| {
        c.set("kept", 1_u8);
        c.next().await;
        let size = format!("{:?} {:?}", c.response_status().as_u16(), c.get::<u8>("in"));
        c.header("X-Seen", size);
    });
    r.layer(CompressionLayer::new());
    r.get("/after", async |c: &mut Context| {
        assert_eq!(c.get::<u8>("kept"), Some(&1));
        c.set("in", 2_u8);
        c.string(203, "x".repeat(5000));
    });
    let client = Client::new(r);
    let get = |path: &str| client.get(path).header("Accept-Encoding", "gzip").send();
    let before = get("/before").await;
    assert_eq!(before.header("content-encoding"), "");
    let after = get("/after").await;
    assert_eq!(
        (after.status(), after.header("content-encoding")),
        (203, "gzip")
    );
    assert_eq!(after.header("x-seen"), "203 Some(2)");
    assert_eq!(after.header("content-type"), "text/plain; charset=utf-8");
    assert!(after.bytes().len() < 1000);
    let none = get("/none").await;
    assert_eq!(
        (none.status(), none.text().as_str()),
        (404, "404 page not found")
    );
}

#[tokio::test(start_paused = true)]
async fn ready_made_layers() {
    let mut r = engine();
    let status = http::StatusCode::REQUEST_TIMEOUT;
    r.layer(TimeoutLayer::with_status_code(
        status,
        Duration::from_secs(1),
    ));
    r.layer(CorsLayer::permissive());
    r.layer(RequestBodyLimitLayer::new(10));
    r.get("/slow", async |_: &mut Context| {
        std::future::pending::<()>().await
    });
    r.post(
        "/body",
        async |c: &mut Context| -> Result<(), curtsy_web::Error> {
            let text = c.bind_plain().await?;
            c.string(200, text);
            Ok(())
        },
    );
    let client = Client::new(r);
    assert_eq!(client.get("/slow").send().await.status(), 408);
    let small = client
        .post("/body")
        .header("Origin", "http://x")
        .body("small")
        .send()
        .await;
    assert_eq!((small.status(), small.text().as_str()), (200, "small"));
    assert_eq!(small.header("access-control-allow-origin"), "*");
    let announced = client
        .post("/body")
        .header("Content-Length", "11")
        .body("x".repeat(11));
    assert_eq!(announced.send().await.status(), 413);
    let chunks = futures_util::stream::iter([Ok::<_, Infallible>("x".repeat(11))]);
    let streamed = client
        .post("/body")
        .body(Body::from_stream(chunks))
        .send()
        .await;
    assert_eq!(streamed.status(), 413);
}

#[tokio::test]
async fn services_mount_under_a_prefix() {
    let show = service_fn(async |request: Request<Body>| {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = format!("{} {} {}", parts.method, parts.uri, body.len());
        Ok::<_, curtsy_web::BoxError>(Response::new(Full::from(text)))
    });
    let mut r = engine();
    r.use_middleware(async |c: &mut Context| {
        c.next().await;
        let path = c.path().to_owned();
        c.header("X-Path", path);
    });
    r.mount("/api", show);
    r.group("/t/:tenant").mount("/svc/", show);
    let client = Client::new(r);
    for (method, path, body, seen) in [
        ("GET", "/api", "", "GET / 0"),
        ("GET", "/api/", "", "GET / 0"),
        ("POST", "/api/a/b?q=1", "123", "POST /a/b?q=1 3"),
        ("DELETE", "/api/a%2Fb%20c", "", "DELETE /a%2Fb%20c 0"),
        ("GET", "/t/x%20y/svc/z", "", "GET /z 0"),
    ] {
        let answer = client.request(method, path).body(body).send().await;
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (200, seen),
            "{path}"
        );
        assert_eq!(answer.header("x-path"), path.split('?').next().unwrap());
    }
    assert_eq!(client.get("/apix").send().await.status(), 404);
}

/// A mounted service sees the path that was matched: whoever let `/api/x` through let through no
/// other one.
#[tokio::test]
async fn a_mounted_service_sees_what_was_matched() {
    let show = service_fn(async |request: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::from(request.uri().to_string())))
    });
    let mut r = engine();
    r.mount("/api", show);
    r.mount("/t/:tenant/svc", show);
    let mut single = r.clone();
    single.settings_mut().remove_extra_slash = true;
    let mut raw = r.clone();
    raw.settings_mut().use_raw_path = true;
    let (plain, single, raw) = (Client::new(r), Client::new(single), Client::new(raw));
    for (client, path, seen) in [
        (&plain, "/api%2Fx/y?q", "/x/y?q"),
        (&plain, "/api%2fx%2Fy", "/x%2Fy"),
        (&plain, "/t%2Fann/svc/z", "/z"),
        (&plain, "/api//x", "//x"),
        (&plain, "/%61pi/%C3%B6/ö", "/%C3%B6/ö"),
        (&single, "//api//x//y", "/x//y"),
        (&single, "/api/%2Fx", "/x"),
        (&single, "//t///ann//svc", "/"),
        (&raw, "/t/a%2Fb/svc/z", "/z"),
        (&raw, "/api/%2Fx", "/%2Fx"),
    ] {
        assert_eq!(client.get(path).send().await.text(), seen, "{path}");
    }
}

#[tokio::test]
async fn parameters_outlive_a_layer_that_changes_the_path() {
    let shorten = tower::util::MapRequestLayer::new(|mut request: Request<Body>| {
        *request.uri_mut() = "/é/short".parse().unwrap();
        request
    });
    let mut r = engine();
    r.use_middleware(async |c: &mut Context| {
        c.next().await;
        let seen = format!("{} {}", c.path(), c.param("name"));
        c.header("X-Seen", seen);
    });
    r.layer(shorten);
    r.get("/user/:name/*rest", async |c: &mut Context| {
        let text = format!("{} {} {}", c.path(), c.param("name"), c.param("rest"));
        c.string(200, text);
    });
    let client = Client::new(r);
    let answer = client.get("/user/ann/some/where").send().await;
    assert_eq!(answer.text(), "/é/short ann /some/where");
    assert_eq!(answer.header("x-seen"), "/user/ann/some/where ann");
    let escaped = client.get("/user/a%20b/c").send().await;
    assert_eq!(escaped.text(), "/é/short a b /c");
}

#[tokio::test]
async fn engines_nest_and_errors_are_500() {
    let mut inner = engine();
    inner.get("/user/:id", echo);
    let mut r = engine();
    r.mount("/in", inner);
    let failing = service_fn(async |_: Request<Body>| {
        Err::<Response<Body>, _>(std::io::Error::other("secret"))
    });
    r.mount("/fail", failing);
    let client = Client::new(r);
    assert_eq!(
        client.get("/in/user/7").send().await.text(),
        "/user/:id id=7"
    );
    assert_eq!(
        client.get("/in/none").send().await.text(),
        "404 page not found"
    );
    let failed = client.get("/fail").send().await;
    assert_eq!(
        (failed.status(), failed.text().contains("secret")),
        (500, false)
    );
}

#[tokio::test]
async fn axum_inside_and_outside() {
    use axum::extract::Path;
    use axum::routing::get;

    let show = async |Path(id): Path<u32>| format!("axum {id}");
    let mut r = engine();
    r.get("/user/:id", echo);
    r.mount("/", axum::Router::new().route("/old/{id}", get(show)));
    let client = Client::new(r.clone());
    assert_eq!(client.get("/old/7").send().await.text(), "axum 7");
    assert_eq!(client.get("/user/7").send().await.text(), "/user/:id id=7");
    assert_eq!(client.get("/none").send().await.status(), 404);

    let outside = axum::Router::new().fallback_service(r);
    let request = Request::get("/user/8").body(Body::empty()).unwrap();
    let response = outside.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "/user/:id id=8");
}
