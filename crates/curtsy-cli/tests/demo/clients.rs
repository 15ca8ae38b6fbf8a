//! Real clients: what is not installed is skipped, loudly.

use crate::server::{BOUND, Demo};
use curtsy_prove::child::{Child, ChildSignal};

/// Runs a client to its end; `None` if it is not installed.
async fn client(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let Ok(mut child) = Child::start(program, arguments) else {
        println!("SKIPPED: {program} is not installed");
        return None;
    };
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    let output = format!("{}{}", child.stdout(), child.stderr());
    Some((exit.status.success(), output))
}

#[tokio::test]
async fn curl() {
    let demo = Demo::start(&[]).await;
    let (echo, hello) = (demo.url("/echo"), demo.url("/"));
    if let Some((ok, output)) = client("curl", &["-sS", "--data", "four", &echo]).await {
        assert!(ok && output.contains("four"), "{output}");
    }
    // Two requests on one connection, and an Expect that must be met for a large body.
    if let Some((ok, output)) = client("curl", &["-sSv", &hello, &hello]).await {
        assert!(
            ok && output.matches("Hello, World!").count() == 2,
            "{output}"
        );
        assert!(
            output.to_lowercase().contains("re-using existing"),
            "{output}"
        );
    }
    let body = format!("data={}", "x".repeat(100_000));
    let upload = demo.url("/upload");
    let expect = [
        "-sS",
        "-H",
        "Expect: 100-continue",
        "--data",
        &body,
        &upload,
    ];
    if let Some((ok, output)) = client("curl", &expect).await {
        assert!(ok && output.contains("received=100005"), "{output}");
    }
    demo.stop().await;
}

#[tokio::test]
async fn wrk() {
    let demo = Demo::start(&[]).await;
    let url = demo.url("/");
    if let Some((ok, output)) = client("wrk", &["-t1", "-c32", "-d1s", &url]).await {
        assert!(ok && output.contains("Requests/sec"), "{output}");
        assert!(
            !output.contains("Socket errors") && !output.contains("Non-2xx"),
            "{output}"
        );
    }
    demo.stop().await;
}

const PYTHON: &str = r#"
import http.client, sys
host, port = sys.argv[1].rsplit(":", 1)
c = http.client.HTTPConnection(host, int(port), timeout=30)
for n in range(50):
    c.request("GET", "/")
    r = c.getresponse()
    assert r.status == 200 and r.read() == b"Hello, World!", n
c.request("POST", "/upload", body=iter([b"a" * 1000] * 300), encode_chunked=True)
r = c.getresponse()
assert r.read() == b"received=300000"
c.request("HEAD", "/big?bytes=1000")
r = c.getresponse()
assert r.getheader("content-length") == "1000" and r.read() == b""
print("all answered")
"#;

#[tokio::test]
async fn python() {
    let demo = Demo::start(&[]).await;
    let address = demo.address.to_string();
    if let Some((ok, output)) = client("python3", &["-c", PYTHON, &address]).await {
        assert!(ok && output.contains("all answered"), "{output}");
    }
    demo.stop().await;
}

const PYTHON_WEBSOCKET: &str = r#"
import asyncio, sys
try:
    import websockets
except ImportError:
    print("SKIPPED: the websockets package is not installed")
    sys.exit(0)
async def main():
    async with websockets.connect("ws://" + sys.argv[1] + "/ws") as ws:
        for n in range(20):
            await ws.send("message %d" % n)
            assert await ws.recv() == "message %d" % n
        print("echoed", flush=True)
        try:
            await asyncio.wait_for(ws.recv(), 30)
        except websockets.ConnectionClosed as closed:
            print("closed", closed.rcvd.code, flush=True)
asyncio.run(main())
"#;

#[tokio::test]
async fn python_websockets_is_told_of_the_drain() {
    let mut demo = Demo::start(&[]).await;
    let address = demo.address.to_string();
    let Ok(mut child) = Child::start("python3", ["-c", PYTHON_WEBSOCKET, &address]) else {
        println!("SKIPPED: python3 is not installed");
        return demo.stop().await;
    };
    let first = child
        .wait_for_line(
            |line| line.contains("echoed") || line.contains("SKIPPED"),
            BOUND,
        )
        .await
        .unwrap();
    println!("{first}");
    demo.signal(ChildSignal::TERM);
    assert_eq!(demo.end().await.status.code(), Some(0));
    if first.contains("echoed") {
        child
            .wait_for_line(|line| line == "closed 1001", BOUND)
            .await
            .unwrap();
    }
    child.wait_exit(BOUND).await.unwrap();
}

const NODE: &str = r#"
(async () => {
    const base = "http://" + process.argv[1];
    for (let n = 0; n < 50; n++) {
        const r = await fetch(base + "/");
        if (r.status !== 200 || await r.text() !== "Hello, World!") throw new Error("answer " + n);
    }
    const r = await fetch(base + "/echo", { method: "POST", body: "x".repeat(200000) });
    if ((await r.text()).length !== 200000) throw new Error("echo");
    console.log("all answered");
})().catch(e => { console.error(e); process.exit(1); });
"#;

#[tokio::test]
async fn node_fetch() {
    let demo = Demo::start(&[]).await;
    let address = demo.address.to_string();
    if let Some((ok, output)) = client("node", &["-e", NODE, &address]).await {
        assert!(ok && output.contains("all answered"), "{output}");
    }
    demo.stop().await;
}
