//! Redirects, 404 and 405.

use crate::{echo, engine};
use curtsy_web::test::Client;
use curtsy_web::{Context, Settings};

fn client(settings: Settings) -> Client {
    let mut r = engine();
    r.set_settings(settings);
    r.get("/path", echo);
    r.post("/path", echo);
    r.get("/dir/", echo);
    r.get("/Users/:name/Info", echo);
    r.handle("CONNECT", "/tunnel/", echo);
    r.head("/path", echo);
    r.get("/src/*file", echo);
    r.get("/ö/", echo);
    Client::new(r)
}

#[tokio::test]
async fn a_trailing_slash_is_mended() {
    let client = client(Settings::default());
    for (method, path, status, location) in [
        ("GET", "/path/", 301, "/path"),
        ("GET", "/dir", 301, "/dir/"),
        ("GET", "/dir?a=1&b=/", 301, "/dir/?a=1&b=/"),
        ("POST", "/path/", 307, "/path"),
        ("HEAD", "/path/", 307, "/path"),
        ("GET", "/src", 301, "/src/"),
        // The slash that is one too many may be escaped.
        ("GET", "/path%2F", 301, "/path"),
        ("GET", "/path%2f?q", 301, "/path?q"),
        ("GET", "/%C3%B6", 301, "/%C3%B6/"),
        ("GET", "/ö?q=ü&r=%20", 301, "/%C3%B6/?q=%C3%BC&r=%20"),
        ("GET", "/Users/a%2Fb/Info/", 404, ""),
        ("GET", "/Users/a%20b/Info/", 301, "/Users/a%20b/Info"),
        ("GET", "/", 404, ""),
        ("GET", "/PATH/", 404, ""),
        ("GET", "//dir", 404, ""),
        ("CONNECT", "/tunnel", 404, ""),
        ("DELETE", "/path/", 404, ""),
    ] {
        let answer = client.request(method, path).send().await;
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.header("location"), location, "{method} {path}");
    }
    let answer = client.get("/path/").send().await;
    assert_eq!(
        answer.text(),
        "<a href=\"/path\">Moved Permanently</a>.\n\n"
    );
}

#[tokio::test]
async fn a_path_is_fixed_if_that_is_wanted() {
    let fixing = client(Settings {
        redirect_fixed_path: true,
        ..Settings::default()
    });
    for (method, path, status, location) in [
        ("GET", "/PATH", 301, "/path"),
        ("GET", "/PATH/", 301, "/path"),
        ("GET", "//path", 301, "/path"),
        ("GET", "/x/../path", 301, "/path"),
        ("GET", "/users/Ann/INFO", 301, "/Users/Ann/Info"),
        ("GET", "/USERS/%3Cb%3E/info", 301, "/Users/%3Cb%3E/Info"),
        ("POST", "/Path", 307, "/path"),
        ("GET", "/nothing", 404, ""),
        ("CONNECT", "/TUNNEL/", 404, ""),
    ] {
        let answer = fixing.request(method, path).send().await;
        assert_eq!(answer.status(), status, "{method} {path}");
        assert_eq!(answer.header("location"), location, "{method} {path}");
    }
    // As it came: what was not decoded is not encoded.
    let raw = client(Settings {
        redirect_fixed_path: true,
        use_raw_path: true,
        ..Settings::default()
    });
    let answer = raw.get("/users/a%2Fb%20c/info").send().await;
    assert_eq!(answer.header("location"), "/Users/a%2Fb%20c/Info");
    let off = client(Settings::default());
    assert_eq!(off.get("/PATH").send().await.status(), 404);
}

#[tokio::test]
async fn redirects_stay_on_the_host() {
    let mut r = engine();
    r.get("/*all", echo);
    r.post("//evil.example/", echo);
    let client = Client::new(r);
    let answer = client.post("//evil.example").send().await;
    assert_ne!(answer.header("location").get(..2), Some("//"));
}

#[tokio::test]
async fn the_forwarded_prefix_is_made_harmless() {
    let client = client(Settings::default());
    for (prefix, location) in [
        ("/api", "/api/path"),
        ("api", "/api/path"),
        ("/api/", "/api/path"),
        ("//evil.example", "/evilexample/path"),
        ("https://evil.example", "/https/evilexample/path"),
        ("/a/../b", "/a/b/path"),
        ("/a\\b;c", "/abc/path"),
        ("", "/path"),
        ("/", "/path"),
    ] {
        let answer = client
            .get("/path/")
            .header("X-Forwarded-Prefix", prefix)
            .send()
            .await;
        assert_eq!(answer.header("location"), location, "{prefix}");
    }
}

#[tokio::test]
async fn without_a_route() {
    let answer = client(Settings::default()).get("/none").send().await;
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (404, "404 page not found")
    );
    assert_eq!(answer.header("content-type"), "text/plain");

    let mut r = engine();
    r.use_middleware(async |c: &mut Context| c.header("X-Seen", "yes"));
    r.no_route(async |c: &mut Context| c.string(404, "nothing here"));
    let answer = Client::new(r).get("/none").send().await;
    assert_eq!(answer.text(), "nothing here");
    assert_eq!(answer.header("x-seen"), "yes");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let mut r = engine();
    r.settings_mut().handle_method_not_allowed = true;
    r.put("/other", echo);
    r.post("/path", echo);
    r.get("/path", echo);
    r.put("/path", echo);
    let client = Client::new(r.clone());
    let answer = client.delete("/path").send().await;
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (405, "405 method not allowed")
    );
    assert_eq!(answer.header("allow"), "PUT, POST, GET");
    assert_eq!(answer.header("content-type"), "text/plain");
    assert_eq!(client.delete("/none").send().await.status(), 404);

    r.no_method(async |c: &mut Context| c.string(405, "not so"));
    let answer = Client::new(r).delete("/path").send().await;
    assert_eq!(answer.text(), "not so");
    assert_eq!(answer.header("allow"), "PUT, POST, GET");
}
