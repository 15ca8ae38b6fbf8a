//! Who the client is, with and without proxies.

use crate::engine;
use curtsy_web::test::Client;
use curtsy_web::{Address, Context, Engine, platform};

async fn who(c: &mut Context) {
    let ip = c.client_ip().map_or("none".to_owned(), |ip| ip.to_string());
    c.string(200, ip);
}

fn trusting(proxies: &[&str]) -> Engine {
    let mut r = engine();
    r.get("/", who);
    r.set_trusted_proxies(proxies.iter().copied()).unwrap();
    r
}

async fn ask(r: &Engine, peer: &str, headers: &[(&str, &str)]) -> String {
    let peer = if peer == "unix" {
        Address::Unix(None)
    } else {
        Address::Tcp(peer.parse().unwrap())
    };
    let mut request = Client::new(r.clone()).with_peer(peer).get("/");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.send().await.text()
}

#[tokio::test]
async fn the_table() {
    let xff = "x-forwarded-for";
    for (proxies, peer, headers, client) in [
        // Nobody is trusted: the peer it is.
        (vec![], "10.0.0.1:1", vec![(xff, "1.2.3.4")], "10.0.0.1"),
        (
            vec!["10.0.0.0/8"],
            "11.0.0.1:1",
            vec![(xff, "1.2.3.4")],
            "11.0.0.1",
        ),
        // From the right, past trusted ones.
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, "1.2.3.4")],
            "1.2.3.4",
        ),
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, "6.6.6.6, 1.2.3.4, 10.9.9.9")],
            "1.2.3.4",
        ),
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, "10.1.1.1,10.2.2.2")],
            "10.1.1.1",
        ),
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, " 1.2.3.4 ")],
            "1.2.3.4",
        ),
        // Several lines are one list.
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, "6.6.6.6"), (xff, "1.2.3.4")],
            "1.2.3.4",
        ),
        // Hostile values end the walk.
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, "1.2.3.4, nonsense")],
            "10.0.0.1",
        ),
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, "1.2.3.4,, 10.1.1.1")],
            "10.0.0.1",
        ),
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, "")],
            "10.0.0.1",
        ),
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, "1.2.3.4:80")],
            "10.0.0.1",
        ),
        (
            vec!["10.0.0.0/8"],
            "10.0.0.1:1",
            vec![(xff, "<script>")],
            "10.0.0.1",
        ),
        // The second header is asked if the first says nothing.
        (
            vec!["10.0.0.1"],
            "10.0.0.1:1",
            vec![("x-real-ip", "1.2.3.4")],
            "1.2.3.4",
        ),
        (
            vec!["10.0.0.1"],
            "10.0.0.1:1",
            vec![(xff, "x"), ("x-real-ip", "1.2.3.4")],
            "1.2.3.4",
        ),
        (
            vec!["10.0.0.1"],
            "10.0.0.1:1",
            vec![(xff, "5.5.5.5"), ("x-real-ip", "1.2.3.4")],
            "5.5.5.5",
        ),
        // IPv6, and IPv4 in its clothes.
        (
            vec!["fd00::/8"],
            "[fd00::1]:1",
            vec![(xff, "2001:db8::7")],
            "2001:db8::7",
        ),
        (
            vec!["10.0.0.0/8"],
            "[::ffff:10.0.0.1]:1",
            vec![(xff, "::ffff:1.2.3.4")],
            "1.2.3.4",
        ),
        (vec![], "[::ffff:10.0.0.1]:1", vec![], "10.0.0.1"),
        (
            vec!["::ffff:10.0.0.1"],
            "10.0.0.1:1",
            vec![(xff, "1.2.3.4")],
            "1.2.3.4",
        ),
        // A Unix socket's peer is trusted.
        (vec![], "unix", vec![(xff, "1.2.3.4")], "1.2.3.4"),
        (vec![], "unix", vec![], "none"),
    ] {
        let got = ask(&trusting(&proxies), peer, &headers).await;
        assert_eq!(got, client, "{proxies:?} {peer} {headers:?}");
    }
}

#[tokio::test]
async fn everybody_is_trusted_until_told_otherwise() {
    let mut r = engine();
    r.get("/", who);
    let headers = [("x-forwarded-for", "1.2.3.4")];
    assert_eq!(ask(&r, "8.8.8.8:1", &headers).await, "1.2.3.4");
    assert!(r.is_trusted_proxy("8.8.8.8".parse().unwrap()));

    r.settings_mut().forwarded_by_client_ip = false;
    assert_eq!(ask(&r, "8.8.8.8:1", &headers).await, "8.8.8.8");
}

#[tokio::test]
async fn platforms_are_always_believed() {
    for header in [platform::CLOUDFLARE, platform::FLY, platform::APP_ENGINE] {
        let mut r = trusting(&[]);
        r.settings_mut().trusted_platform = Some(header.clone());
        let told = [(header.as_str(), "1.2.3.4"), ("x-forwarded-for", "6.6.6.6")];
        assert_eq!(ask(&r, "8.8.8.8:1", &told).await, "1.2.3.4");
        assert_eq!(
            ask(&r, "8.8.8.8:1", &[(header.as_str(), "?")]).await,
            "8.8.8.8"
        );
    }
}

#[test]
fn a_wrong_proxy_changes_nothing() {
    let mut r = trusting(&["10.0.0.1"]);
    assert!(r.set_trusted_proxies(["10.0.0.2", "nonsense"]).is_err());
    assert!(r.is_trusted_proxy("10.0.0.1".parse().unwrap()));
    assert!(!r.is_trusted_proxy("10.0.0.2".parse().unwrap()));
}

#[tokio::test]
async fn the_scheme() {
    let mut r = trusting(&["192.0.2.1"]);
    r.get("/scheme", async |c: &mut Context| c.string(200, c.scheme()));
    let client = Client::new(r);
    let forwarded = client.get("/scheme").header("X-Forwarded-Proto", "https");
    assert_eq!(forwarded.send().await.text(), "https");
    assert_eq!(client.get("/scheme").send().await.text(), "http");
    let stranger = client
        .clone()
        .with_peer(Address::Tcp("8.8.8.8:1".parse().unwrap()));
    let forwarded = stranger.get("/scheme").header("X-Forwarded-Proto", "https");
    assert_eq!(forwarded.send().await.text(), "http");
    assert_eq!(
        client.with_tls().get("/scheme").send().await.text(),
        "https"
    );
}
