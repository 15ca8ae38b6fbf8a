//! Clients of other languages, and a browser: over TLS and over HTTP/2.

use crate::support::*;
use crate::tools::{find, run};
use curtsy_server::State;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const PYTHON_TLS: &str = r#"
import http.client, socket, ssl, sys
port = int(sys.argv[1])
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context.minimum_version = context.maximum_version = version
    c = http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
    for n in range(20):
        c.request("GET", "/x")
        r = c.getresponse()
        assert r.status == 200 and r.read() == b"HTTP/1.1 /x", n
    body = b"z" * 300000
    c.request("POST", "/echo", body=body)
    assert c.getresponse().read() == body
    c.request("POST", "/echo", body=iter([b"a" * 1000] * 300), encode_chunked=True)
    assert len(c.getresponse().read()) == 300000
    session = c.sock.session
    c.close()
    raw = socket.create_connection(("localhost", port))
    again = context.wrap_socket(raw, server_hostname="localhost", session=session)
    assert again.session_reused, version
    again.close()
print("all answered")
"#;

const PYTHON_HTTP2: &str = r#"
import asyncio, sys
try:
    import httpx, h2
except ImportError:
    print("SKIPPED: the packages httpx and h2 are not installed")
    sys.exit(0)
port = sys.argv[1]
async def all_on(base, **options):
    async with httpx.AsyncClient(verify=False, timeout=60, http2=True, **options) as client:
        first = await client.get(base + "/x")
        assert first.http_version == "HTTP/2" and first.text == "HTTP/2.0 /x", first.text
        many = await asyncio.gather(*(client.get(base + "/x?n=%d" % n) for n in range(100)))
        assert all(r.status_code == 200 and r.text == "HTTP/2.0 /x" for r in many)
        body = b"z" * 1000000
        echo = await client.post(base + "/echo", content=body)
        assert echo.content == body
        big = await client.get(base + "/big")
        assert len(big.content) == 1 << 20
asyncio.run(all_on("https://localhost:" + port))
# With prior knowledge.
asyncio.run(all_on("http://localhost:" + port, http1=False))
print("all answered")
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_over_tls_and_over_http2() {
    let Some(python) = find("python3") else {
        return;
    };
    let server = serve(any_port().both(config()), |b| b).await;
    let port = server.address.port().to_string();
    for script in [PYTHON_TLS, PYTHON_HTTP2] {
        let said = run(python, &["-c", script, &port], "").await;
        match said.contains("SKIPPED") {
            true => println!("{said}"),
            false => assert!(said.ends_with("all answered\n"), "{said}"),
        }
    }
    server.stop().await;
}

const NODE_TLS: &str = r#"
const https = require("https");
const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
const ask = (method, path, body) => new Promise((done, failed) => {
    const request = https.request({ port: process.argv[1], method, path, agent }, response => {
        const parts = [];
        response.on("data", part => parts.push(part));
        response.on("end", () => done(Buffer.concat(parts).toString()));
    });
    request.on("error", failed);
    request.end(body);
});
(async () => {
    for (let n = 0; n < 20; n++) {
        if (await ask("GET", "/x") !== "HTTP/1.1 /x") throw new Error("answer " + n);
    }
    const body = "z".repeat(300000);
    if (await ask("POST", "/echo", body) !== body) throw new Error("echo");
    agent.destroy();
    console.log("all answered");
})().catch(error => { console.error(error); process.exit(1); });
"#;

const NODE_HTTP2: &str = r#"
const http2 = require("http2");
const port = process.argv[1];
const ask = (session, path, method, body) => new Promise((done, failed) => {
    const stream = session.request({ ":path": path, ":method": method || "GET" });
    const parts = [];
    let status;
    stream.on("response", headers => status = headers[":status"]);
    stream.on("data", part => parts.push(part));
    stream.on("end", () => done(status + " " + Buffer.concat(parts)));
    stream.on("error", failed);
    stream.end(body);
});
const webSocket = session => new Promise((done, failed) => {
    const open = () => {
        const stream = session.request({
            ":method": "CONNECT", ":protocol": "websocket", ":path": "/ws",
            "sec-websocket-version": "13",
        }, { endStream: false });
        stream.on("response", headers => {
            if (headers[":status"] !== 200) failed(headers[":status"]);
            // "hello", masked with zeroes.
            stream.write(Buffer.from("81850000000068656c6c6f", "hex"));
        });
        stream.on("data", part => { done(part.toString("hex")); stream.end(); });
        stream.on("error", failed);
    };
    session.remoteSettings.enableConnectProtocol ? open() : session.once("remoteSettings", open);
});
const allOn = async base => {
    const session = http2.connect(base, { rejectUnauthorized: false });
    const closed = new Promise(done => session.on("close", done));
    const many = [...Array(100).keys()].map(n => ask(session, "/x?" + n));
    for (const answer of await Promise.all(many)) {
        if (answer !== "200 HTTP/2.0 /x") throw new Error(answer);
    }
    const body = "z".repeat(1000000);
    if (await ask(session, "/echo", "POST", body) !== "200 " + body) throw new Error("echo");
    const echo = await webSocket(session);
    if (echo !== "810568656c6c6f") throw new Error("WebSocket: " + echo);
    await new Promise((done, failed) => session.ping(error => error ? failed(error) : done()));
    session.close();
    await closed;
};
(async () => {
    await allOn("https://localhost:" + port);
    await allOn("http://localhost:" + port);
    // What is in flight when the server drains is answered, and the session told to end.
    const session = http2.connect("https://localhost:" + port, { rejectUnauthorized: false });
    let told = 0;
    session.on("goaway", () => told++);
    const closed = new Promise(done => session.on("close", done));
    const streams = [...Array(20).keys()].map(n => ask(session, "/gate?" + n));
    console.log("waiting");
    for (const answer of await Promise.all(streams)) {
        if (answer !== "200 through") throw new Error(answer);
    }
    await closed;
    if (told === 0) throw new Error("no GOAWAY");
    console.log("all answered");
})().catch(error => { console.error(error); process.exit(1); });
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_over_tls_and_over_http2() {
    let Some(node) = find("node") else { return };
    let server = serve(any_port().both(config()), |b| b).await;
    let port = server.address.port().to_string();
    let said = run(node, &["-e", NODE_TLS, &port], "").await;
    assert_eq!(said, "all answered\n");

    let mut child = Command::new(node)
        .args(["-e", NODE_HTTP2, &port])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = soon(lines.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("waiting"));
    server.until(|now| now.stragglers.len() == 20).await;
    server.handle.wish_shutdown();
    server.handle.reached(curtsy_server::Phase::Draining).await;
    server.gate.add_permits(20);
    let line = soon(lines.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("all answered"));
    assert!(soon(child.wait()).await.unwrap().success());
    assert!(server.stopped().await.is_drained());
}

/// Every stream that is open when the drain begins is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_gets_all_its_answers_from_a_draining_server() {
    const STREAMS: usize = 50;
    let Some(nghttp) = find("nghttp") else { return };
    for scheme in ["https", "http"] {
        let server = serve(any_port().both(config()), |b| b).await;
        let url = format!("{scheme}://127.0.0.1:{}/gate", server.address.port());
        let mut child = Command::new(nghttp)
            .args(["-nvm", &STREAMS.to_string(), &url])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        server.until(|now| now.stragglers.len() == STREAMS).await;
        server.handle.wish_shutdown();
        let (mut answered, mut told) = (0, false);
        while let Some(line) = soon(lines.next_line()).await.unwrap() {
            answered += usize::from(line.contains(":status: 200"));
            if line.contains("recv GOAWAY frame") && !told {
                told = true;
                assert_eq!(answered, 0);
                server.gate.add_permits(STREAMS);
            }
        }
        assert!(told && answered == STREAMS, "{answered} answers");
        soon(child.wait()).await.unwrap();
        assert!(server.stopped().await.is_drained());
    }
}

/// A page, what it fetches, and its WebSocket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_loads_a_page_over_http2() {
    let Some(chromium) = find("chromium") else {
        return;
    };
    let server = serve(any_port().tls(config()), |b| b).await;
    let profile = tempfile::tempdir().unwrap();
    let mut told = server.told.subscribe();
    let mut browser = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--ignore-certificate-errors",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("https://localhost:{}/page", server.address.port()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let said = tokio::time::timeout(PATIENCE * 3, told.changed()).await;
    let said = said.map(|_| told.borrow().clone());
    let now = server.handle.snapshot();
    browser.kill().await.unwrap();
    assert_eq!(
        said.as_deref(),
        Ok("page=h2&fetch=HTTP/2.0_/x&echo=true&socket=hello")
    );
    // A stream of the page's connection, and not a connection of its own.
    let sockets = now.stragglers.iter().filter(|s| s.state == State::Upgraded);
    assert_eq!((sockets.count(), now.counts.upgraded), (1, 0), "{now:?}");
    server.stop().await;
}
