//! Programs in other languages that adopt `LISTEN_FDS` and stop in the way of their own, reloaded under load.

use crate::supervisor::{BOUND, Supervisor, answers, finish_after};
use curtsy_prove::child::Child;
use curtsy_prove::{Loss, Losses, Plan};
use std::path::Path;

const RELOADS: usize = 3;
const BETWEEN: u64 = 200;
const CLIENTS: u32 = 20;

const PYTHON: &str = r#"
import http.server, os, signal, socket, threading

assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"pid=%d" % os.getpid()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    def server_bind(self):
        self.socket.close()
        self.socket = socket.socket(fileno=3)
        # Shared with the other generation: whoever comes second must not wait in accept.
        self.socket.setblocking(False)
        self.server_name, self.server_port = "x", 0
    def server_activate(self):
        pass

server = Server(("127.0.0.1", 0), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    address = os.environ["NOTIFY_SOCKET"]
    manager.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
server.serve_forever(poll_interval=0.05)
server.server_close()
"#;

/// An ASGI application with a lifespan, as frameworks have it.
const ASGI: &str = r#"
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b"pid=%d" % os.getpid()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
"#;

/// The same with a protocol that does not close on the spot what has been accepted and not read: it has a request on the way.
const PATIENT: &str = r#"
from uvicorn.protocols.http.h11_impl import H11Protocol

class Patient(H11Protocol):
    def shutdown(self):
        if self.cycle is None:
            self.loop.call_later(1, self.close_if_idle)
        else:
            super().shutdown()

    def close_if_idle(self):
        if not self.transport.is_closing():
            super().shutdown()
"#;

const NODE: &str = r#"
const http = require("http");
const { LISTEN_PID, LISTEN_FDS } = process.env;
if (LISTEN_PID !== String(process.pid) || LISTEN_FDS !== "1") throw new Error("no sockets");
const server = http.createServer((_, response) => response.end(`pid=${process.pid}`));
server.listen({ fd: 3 });
process.on("SIGTERM", () => server.close(() => process.exit(0)));
"#;

const GO: &str = r#"
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		panic("no sockets")
	}
	listener, err := net.FileListener(os.NewFile(3, "main"))
	if err != nil {
		panic(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "pid=%d", os.Getpid())
	})}
	done := make(chan struct{})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		server.Shutdown(context.Background())
		close(done)
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		panic(err)
	}
	<-done
}
"#;

/// Runs a tool to its end; its output, or `None` with a word if it is not there.
async fn tool(program: &str, arguments: &[&str]) -> Option<String> {
    let Ok(mut child) = Child::start(program, arguments) else {
        println!("SKIPPED: {program} is not installed");
        return None;
    };
    let exit = child.wait_exit(BOUND).await.unwrap();
    child.wait_output_end(BOUND).await.unwrap();
    assert!(exit.status.success(), "{program}: {}", child.stderr());
    Some(child.stdout())
}

/// New connections at full speed through reloads: none is refused, none is lost, and every generation answers.
/// The status is the last one's.
async fn reloads_lose_nothing(flags: &[&str], program: &[&str]) -> Option<i32> {
    let (status, losses) = reloads(flags, program).await;
    assert_eq!(losses, Losses::default());
    status
}

/// New connections through reloads: none is refused, and every generation answers. The status, and what was lost.
async fn reloads(flags: &[&str], program: &[&str]) -> (Option<i32>, Losses) {
    let mut supervisor = Supervisor::start(flags, program).await;
    let running = Plan::to_address(supervisor.address, "/")
        .connections(usize::try_from(CLIENTS).unwrap())
        .connection_per_request()
        .refused_is_loss()
        .record_answers()
        .start();
    for _ in 0..RELOADS {
        answers(&running, BETWEEN).await;
        supervisor.reloads().await;
    }
    let report = finish_after(running, BETWEEN).await;
    let stderr = supervisor.child.stderr();
    if report.lost() > 0 {
        println!("{report}\n{stderr}");
    }
    assert_eq!(report.counts.refused, 0, "{report}\n{stderr}");
    assert_eq!(report.answers.len(), RELOADS + 1, "{:?}", report.answers);
    (supervisor.stop().await, report.counts.lost)
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_says_that_it_is_ready() {
    // The interpreter itself: a wrapper on the path may fork.
    let find = ["-c", "import sys; print(sys.executable)"];
    let Some(python) = tool("python3", &find).await else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let script = write(directory.path(), "server.py", PYTHON);
    let status = reloads_lose_nothing(&["--ready", "notify"], &[python.trim(), &script]).await;
    assert_eq!(status, Some(0));
}

/// Reloads uvicorn with these flags of its; `None` if it is not there.
async fn uvicorn(own_flags: &[&str]) -> Option<(Option<i32>, Losses)> {
    let find = ["-c", "import sys; print(sys.executable)"];
    let python = tool("python3", &find).await?;
    let python = python.trim();
    let mut found = Child::start(python, ["-c", "import uvicorn"]).unwrap();
    if !found.wait_exit(BOUND).await.unwrap().status.success() {
        println!("SKIPPED: uvicorn is not installed");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "application.py", ASGI);
    write(directory.path(), "patient.py", PATIENT);
    let place = directory.path().to_str().unwrap();
    let program = [
        python,
        "-m",
        "uvicorn",
        "--app-dir",
        place,
        "--fd",
        "3",
        "--log-level",
        "warning",
    ];
    let program = [&program[..], own_flags, &["application:app"]].concat();
    Some(reloads(&["--ready", "http:/"], &program).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uvicorn_takes_the_socket_by_its_number() {
    let Some((status, losses)) = uvicorn(&[]).await else {
        return;
    };
    // When it stops it closes connections whose request it has not read yet, at most those of all clients. That is its own
    // doing (see below), and no other kind of loss is: nothing half answered, nothing late.
    let most = u64::from(CLIENTS) * RELOADS as u64;
    for cause in Loss::ALL {
        let is_its_own = matches!(cause, Loss::Reset | Loss::EofBefore);
        let most = if is_its_own { most } else { 0 };
        assert!(losses.of(cause) <= most, "{losses:?}");
    }
    // When it has shut down in good order it ends itself by the signal that asked for it.
    assert!(matches!(status, Some(0 | 143)), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uvicorn_that_reads_what_it_has_accepted_loses_nothing() {
    let Some((status, losses)) = uvicorn(&["--http", "patient:Patient"]).await else {
        return;
    };
    assert_eq!(losses, Losses::default());
    assert!(matches!(status, Some(0 | 143)), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_is_asked_over_http() {
    if tool("node", &["--version"]).await.is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = write(directory.path(), "server.js", NODE);
    let status = reloads_lose_nothing(&["--ready", "http:/healthz"], &["node", &script]).await;
    assert_eq!(status, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_is_asked_to_accept() {
    let directory = tempfile::tempdir().unwrap();
    let source = write(directory.path(), "server.go", GO);
    let binary = directory.path().join("server");
    let binary = binary.to_str().unwrap();
    if tool("go", &["build", "-o", binary, &source])
        .await
        .is_none()
    {
        return;
    }
    let status = reloads_lose_nothing(&["--ready", "tcp"], &[binary]).await;
    assert_eq!(status, Some(0));
}
