//! The servers: how each is built, started, asked whether it answers, and ended.
//!
//! Every process is started here and ended by its own id when its [`Running`] is dropped. Ports are free ones of
//! 127.0.0.1, taken anew for every start.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{process, table::OURS};

/// How long a server has to answer after its start.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How long a server has to end after it was told to.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// What is asked of nginx, of Go and of everybody else about `/upload`, `/echo` and `/big`.
const ECHO: &str = "curtsy and peers";

/// A server that can be started.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) name: &'static str,
    kind: Kind,
    binary: PathBuf,
    work: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Peer,
    Nginx { echo: bool },
}

/// How to start a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) threads: usize,
    /// The only core it may use.
    pub(super) core: Option<usize>,
    /// For ours: end without lingering.
    pub(super) linger_none: bool,
}

/// A server that is running; ended when dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pub(super) address: SocketAddr,
    kind: Kind,
    tls: bool,
    log: PathBuf,
}

/// Those that speak TLS, with HTTP/2 by ALPN.
const TLS: [&str; 5] = [OURS, "axum", "actix", "nginx", "go-nethttp"];

/// Every server there is, in the order of tables.
pub(super) const NAMES: [&str; 9] = [
    OURS,
    "floor",
    "hyper-tpc",
    "axum",
    "actix",
    "ntex",
    "nginx",
    "go-nethttp",
    "go-gin",
];

impl Server {
    /// Builds `name`.
    ///
    /// # Errors
    /// When it cannot be built or is not installed: it is then to be skipped, loudly.
    pub(super) fn build(name: &'static str, root: &Path, work: &Path) -> Result<Self> {
        let (kind, binary) = match name {
            OURS => {
                cargo(&["build", "--release", "--package", "curtsy-cli"], root)?;
                (Kind::Ours, root.join("target/release/curtsy"))
            }
            "nginx" => {
                let binary = ["/usr/sbin/nginx", "/usr/bin/nginx"]
                    .into_iter()
                    .find(|path| Path::new(path).exists());
                let echo = Path::new(NGINX_ECHO).exists();
                (
                    Kind::Nginx { echo },
                    PathBuf::from(binary.context("nginx is not installed")?),
                )
            }
            "go-nethttp" | "go-gin" => (Kind::Peer, go(name, root, work)?),
            _ => (Kind::Peer, peer(name, root)?),
        };
        ensure!(binary.exists(), "{} is not there", binary.display());
        Ok(Self {
            name,
            kind,
            binary,
            work: work.to_owned(),
        })
    }

    /// Whether it knows how to answer late and then end in order.
    pub(super) fn stops_in_order(&self) -> bool {
        match self.kind {
            Kind::Ours => true,
            Kind::Nginx { echo } => echo,
            Kind::Peer => !matches!(self.name, "floor" | "hyper-tpc"),
        }
    }

    /// Whether `POST /echo` is there.
    pub(super) fn echoes(&self) -> bool {
        self.kind != Kind::Nginx { echo: false }
    }

    /// Whether it can be started to speak TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        TLS.contains(&self.name)
    }

    /// Starts it and waits until it answers.
    pub(super) fn start(&self, start: Start) -> Result<Running> {
        self.launch(start, None)
    }

    /// The same, speaking TLS with the `cert.pem` and `key.pem` of a directory.
    pub(super) fn start_tls(&self, start: Start, tls: &Path) -> Result<Running> {
        self.launch(start, Some(tls))
    }

    fn launch(&self, start: Start, tls: Option<&Path>) -> Result<Running> {
        let address = free_address()?;
        let mut command = match start.core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        let (listen, threads) = (address.to_string(), start.threads.to_string());
        match self.kind {
            Kind::Ours => {
                command.args(["demo", "--listen", &listen, "--workers", &threads]);
                if start.linger_none {
                    command.args(["--linger", "0"]);
                }
                if let Some(tls) = tls {
                    let file = |name: &str| tls.join(name).into_os_string();
                    command.args(["--cert".into(), file("cert.pem")]);
                    command.args(["--key".into(), file("key.pem")]);
                }
            }
            Kind::Peer => {
                command.args(["--listen", &listen, "--threads", &threads]);
                if let Some(tls) = tls {
                    command.arg("--tls").arg(tls);
                }
            }
            Kind::Nginx { echo } => {
                let directory = self.work.join("nginx");
                nginx_config(&directory, &listen, start.threads, echo, tls)?;
                command
                    .arg("-p")
                    .arg(directory)
                    .args(["-c", "nginx.conf", "-e", "error.log"]);
            }
        }
        let log = self.work.join(format!("{}.log", self.name));
        let said = File::create(&log).context("creating a log")?;
        command
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        let mut running = Running {
            child,
            address,
            kind: self.kind,
            tls: tls.is_some(),
            log,
        };
        running.wait_until_ready()?;
        Ok(running)
    }

    /// Asks a running server for every route that is measured.
    pub(super) fn check(&self, running: &Running) -> Result<()> {
        let address = running.address;
        expect(address, "GET", "/", "", "Hello, World!")?;
        let big = ask(address, "GET", "/big?bytes=65536", "")?;
        let body = big.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        ensure!(body >= 65536, "/big?bytes=65536 is only {body} bytes long");
        expect(
            address,
            "POST",
            "/upload",
            &"x".repeat(100_000),
            "received=100000",
        )?;
        if self.echoes() {
            expect(address, "POST", "/echo", ECHO, ECHO)?;
        }
        if self.stops_in_order() {
            expect(address, "GET", "/slow?ms=1", "", "")?;
        }
        Ok(())
    }
}

impl Running {
    fn wait_until_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "it ended before it answered ({status}): {}",
                    self.last_words()
                );
            }
            let answer = match self.tls {
                true => ask_tls(self.address),
                false => ask(self.address, "GET", "/", ""),
            };
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > READY_WITHIN => {
                    return Err(error.context(format!(
                        "no answer in {READY_WITHIN:?}: {}",
                        self.last_words()
                    )));
                }
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        said.lines().last().unwrap_or("it said nothing").to_owned()
    }

    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        process::cpu_seconds(self.child.id())
    }

    pub(super) fn pss_bytes(&self) -> Result<f64> {
        process::pss_bytes(self.child.id())
    }

    /// Tells it to end in order.
    pub(super) fn tell_to_stop(&self) -> Result<()> {
        let signal = if matches!(self.kind, Kind::Nginx { .. }) {
            Signal::QUIT
        } else {
            Signal::TERM
        };
        kill_process(pid(self.child.id())?, signal).context("signalling")
    }

    /// Waits for its end and says when that was.
    ///
    /// # Errors
    /// When it is not over in time, and is killed; when it ends otherwise than well.
    pub(super) fn wait(&mut self, within: Duration) -> Result<Instant> {
        // A thread ends it after the time, so that waiting itself is a single call and as exact as the kernel is.
        let id = self.child.id();
        let (over, told) = std::sync::mpsc::channel::<()>();
        let guard = thread::spawn(move || {
            if told.recv_timeout(within) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                end(id);
            }
        });
        let status = self.child.wait()?;
        let gone = Instant::now();
        drop(over);
        guard.join().ok();
        ensure!(
            status.signal() != Some(Signal::KILL.as_raw()),
            "it did not stop in {within:?}"
        );
        ensure!(
            status.success(),
            "it stopped with {status}: {}",
            self.last_words()
        );
        Ok(gone)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // A master that is killed leaves its workers behind; told to, it takes them along.
        if matches!(self.kind, Kind::Nginx { .. })
            && let Ok(pid) = pid(self.child.id())
        {
            let _ = kill_process(pid, Signal::TERM);
            let begun = Instant::now();
            while begun.elapsed() < GONE_WITHIN {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        end(self.child.id());
        let _ = self.child.wait();
    }
}

/// Kills a process we started, and its children.
fn end(id: u32) {
    for id in process::family(id) {
        if let Ok(pid) = pid(id) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn pid(id: u32) -> Result<Pid> {
    i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")
}

pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

pub(super) fn expect(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    expected: &str,
) -> Result<()> {
    let answer = ask(address, method, path, body)?;
    ensure!(
        answer.contains(expected),
        "{method} {path} does not answer {expected:?}"
    );
    Ok(())
}

/// One request on a connection of its own; the whole answer, which has to be a 200.
pub(super) fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = body.len();
    let kind = if body.starts_with('{') {
        "Content-Type: application/json\r\n"
    } else {
        ""
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.lines().next().unwrap_or_default();
    ensure!(
        status.starts_with("HTTP/1.1 200"),
        "{method} {path} answers {status:?}"
    );
    Ok(answer)
}

/// Asks for `/` over TLS, whatever the certificate.
fn ask_tls(address: SocketAddr) -> Result<String> {
    let url = format!("https://{address}/");
    let output = Command::new("curl")
        .args(["-skf", "--max-time", "2", &url])
        .output()
        .context("curl is not installed")?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(answer == "Hello, World!", "it answers {answer:?}");
    Ok(answer)
}

/// Runs cargo and says on standard error what it says.
pub(super) fn cargo(arguments: &[&str], directory: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(arguments)
        .current_dir(directory)
        .status()
        .context("cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

fn peer(name: &str, root: &Path) -> Result<PathBuf> {
    let package = match name {
        "axum" | "actix" | "ntex" => format!("peer-{name}"),
        _ => name.to_owned(),
    };
    let directory = root.join("bench/peers");
    cargo(&["build", "--release", "--bin", &package], &directory)?;
    Ok(directory.join("target/release").join(package))
}

/// Go from the distribution's packages, without its module proxy.
pub(super) fn go(name: &str, root: &Path, work: &Path) -> Result<PathBuf> {
    let binary = work.join(name);
    let status = Command::new("go")
        .args(["build", "-o"])
        .arg(&binary)
        .arg("main.go")
        .current_dir(root.join("bench/peers").join(name))
        .envs([
            ("GO111MODULE", "off"),
            ("GOPATH", "/usr/share/gocode"),
            ("GOFLAGS", ""),
        ])
        .status()
        .context("go is not installed")?;
    ensure!(status.success(), "go build failed");
    Ok(binary)
}

/// Without this module nginx can neither echo nor be slow.
const NGINX_ECHO: &str = "/usr/lib/nginx/modules/ngx_http_echo_module.so";

/// Writes a configuration with the routes of the others. `/big` is a file, as it is with nginx.
fn nginx_config(
    directory: &Path,
    listen: &str,
    workers: usize,
    echo: bool,
    tls: Option<&Path>,
) -> Result<()> {
    let (speaks, certificate) = match tls {
        None => ("", String::new()),
        Some(tls) => (
            " ssl http2",
            format!(
                "    ssl_certificate {0}/cert.pem;\n    ssl_certificate_key {0}/key.pem;\n    \
                 ssl_protocols TLSv1.2 TLSv1.3;\n",
                tls.display()
            ),
        ),
    };
    fs::create_dir_all(directory).context("creating nginx's directory")?;
    fs::write(directory.join("big.txt"), "x".repeat(64 * 1024))?;
    let load_module = if echo {
        format!("load_module {NGINX_ECHO};\n")
    } else {
        String::new()
    };
    let echo_routes = if echo {
        "    location = /echo { echo_read_request_body; echo_request_body; }\n    \
         location = /slow { set $seconds 0.2; if ($arg_ms = 1) { set $seconds 0.001; } echo_sleep $seconds; echo -n 'Hello, World!'; }\n"
    } else {
        ""
    };
    let user = if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    let config = format!(
        "{load_module}{user}daemon off;\nworker_processes {workers};\nworker_rlimit_nofile 20000;\n\
         pid nginx.pid;\nerror_log error.log crit;\nevents {{ worker_connections 19000; }}\nhttp {{\n  \
         access_log off;\n  default_type 'text/plain; charset=utf-8';\n  sendfile on;\n  tcp_nopush on;\n  \
         open_file_cache max=16 inactive=1h;\n  keepalive_timeout 1h;\n  keepalive_requests 1000000000;\n  \
         client_header_timeout 1h;\n  client_max_body_size 4m;\n  client_body_temp_path body;\n  \
         proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  \
         server {{\n    listen {listen}{speaks} backlog=4096 reuseport;\n{certificate}    \
         location = / {{ return 200 'Hello, World!'; }}\n    location = /big {{ alias big.txt; }}\n    \
         location ~ ^/user/(.*)$ {{ return 200 'Hello, $1!'; }}\n    \
         location = /upload {{ return 200 'received=$content_length'; }}\n{echo_routes}  }}\n}}\n"
    );
    fs::write(directory.join("nginx.conf"), config).context("writing nginx.conf")
}
