//! What encryption and HTTP/2 cost: handshakes, requests, and connections that idle. TLS 1.3 throughout, one
//! certificate with an ECDSA key for all.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Bench,
    load::{self, Ask, Load},
    server::{self, Running, Start},
    table::{Better, Column, Table},
};

/// Connections of a load of requests.
const CONNECTIONS: usize = 32;

/// Idle connections held; their client keeps a session for each, too.
const IDLE: usize = 2_000;

/// Connections before memory is first read, so that code and tables are there already. They stay.
const WARM: usize = 100;

/// How long after the last request the memory is read.
const SETTLED: Duration = Duration::from_secs(5);

/// What an idle encrypted connection may take in the process, in bytes.
const IDLE_MAX: f64 = 8192.0;

/// The three tables.
pub(super) fn tls(bench: &Bench, root: &Path, work: &Path) -> Result<Vec<Table>> {
    let peers = root.join("bench/peers");
    server::cargo(&["build", "--release", "--package", "tls-load"], &peers)?;
    let tools = Tools {
        client: peers.join("target/release/tls-load"),
        certificate: certificate(work)?,
    };
    ensure!(
        Command::new("h2load").arg("--version").output().is_ok(),
        "h2load is not installed (Debian: apt-get install nghttp2-client)"
    );
    let names: Vec<_> = (bench.servers.iter())
        .filter(|server| server.speaks_tls())
        .map(|server| server.name)
        .collect();
    let bench = bench.with(&names);
    let tables: [(&str, Measure); 3] = [
        ("tls-handshakes", handshakes),
        ("tls-requests", requests),
        ("tls-idle", idle),
    ];
    let wanted = tables.into_iter().filter(|(id, _)| bench.wants(id));
    Ok(wanted.map(|(_, measure)| measure(&bench, &tools)).collect())
}

type Measure = fn(&Bench, &Tools) -> Table;

/// What is measured with.
struct Tools {
    client: PathBuf,
    /// Where `cert.pem` and `key.pem` are.
    certificate: PathBuf,
}

fn certificate(work: &Path) -> Result<PathBuf> {
    let directory = work.join("tls");
    fs::create_dir_all(&directory).context("creating a directory for the certificate")?;
    let status = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "30", "-subj", "/CN=localhost", "-addext"])
        .args([
            "subjectAltName=DNS:localhost",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ])
        .current_dir(&directory)
        .stderr(Stdio::null())
        .status()
        .context("openssl is not installed")?;
    ensure!(status.success(), "openssl made no certificate");
    Ok(directory)
}

/// A rate and what each of it cost the server, as two columns.
fn columns(names: &[&str], unit: &str) -> Vec<Column> {
    let pair = |name: &&str| {
        [
            Column::new(
                &format!("{name}: CPU"),
                &format!("us/{unit}"),
                Better::Lower,
                true,
            ),
            Column::new(&format!("{name}: rate"), "1/s", Better::Higher, false),
        ]
    };
    names.iter().flat_map(pair).collect()
}

fn handshakes(bench: &Bench, tools: &Tools) -> Table {
    let how = format!(
        "One client that connects, shakes hands, makes one request and closes, again and again for {} s; the processor \
         time is that of all of it. Resumed: with the ticket of the connection before. {} {} rounds.",
        bench.seconds,
        bench.pinning(),
        bench.rounds
    );
    let kinds = ["full", "resumed"];
    let title = "TLS 1.3 handshakes";
    let mut table = Table::new("tls-handshakes", title, how, columns(&kinds, "handshake"));
    let failures = bench.alternate(bench.rounds, "tls-handshakes", |server, round| {
        let running = server.start_tls(alone(bench), &tools.certificate)?;
        let mut samples = Vec::new();
        for kind in kinds {
            let mut command = bench.load.pinned(&tools.client);
            let seconds = bench.seconds.to_string();
            command.args(["handshakes", &running.address.to_string(), &seconds, kind]);
            let (said, cpu) = timed(&running, || {
                load::run(command, Duration::from_secs(bench.seconds))
            })?;
            let mut counts = said.split_whitespace().map(str::parse::<f64>);
            let (Some(Ok(made)), Some(Ok(resumed))) = (counts.next(), counts.next()) else {
                bail!("the client said {said:?}");
            };
            // All but the first can be.
            let as_asked = match kind {
                "resumed" => resumed >= made - 1.0,
                _ => resumed == 0.0,
            };
            if !as_asked {
                let name = server.name;
                let note = format!("{name}: {resumed} of {made} {kind} handshakes were resumed");
                table.notes.push(note);
            }
            samples.extend(cost(made, cpu, bench.seconds).map(|value| value.filter(|_| as_asked)));
        }
        table.push(server.name, round, &samples);
        Ok(())
    });
    table.notes.extend(failures);
    table.goal_first("first, or within 3% of the first, in every column");
    table
}

fn requests(bench: &Bench, tools: &Tools) -> Table {
    let how = format!(
        "{CONNECTIONS} kept connections for {} s: HTTP/1.1 by wrk, HTTP/2 by h2load with 1 and with 32 streams on each. \
         {} {} rounds.",
        bench.seconds,
        bench.pinning(),
        bench.rounds
    );
    let names = ["HTTP/1.1", "HTTP/2, 1 stream", "HTTP/2, 32 streams"];
    let title = "HTTPS requests";
    let mut table = Table::new("tls-requests", title, how, columns(&names, "request"));
    let failures = bench.alternate(bench.rounds, "tls-requests", |server, round| {
        let running = server.start_tls(alone(bench), &tools.certificate)?;
        let (seconds, address) = (bench.seconds, running.address);
        let wrk = || {
            bench
                .load
                .wrk_over("https", address, Ask::Hello, CONNECTIONS, seconds)
        };
        let (found, cpu) = timed(&running, wrk)?;
        ensure!(found.errors == 0.0, "{} errors of wrk", found.errors);
        let mut samples = cost(found.requests, cpu, seconds).to_vec();
        for streams in [1, 32] {
            let asked = || h2load(&bench.load, address, streams, seconds);
            let (answered, cpu) = timed(&running, asked)?;
            samples.extend(cost(answered, cpu, seconds));
        }
        table.push(server.name, round, &samples);
        Ok(())
    });
    table.notes.extend(failures);
    table.goal_first("first, or within 3% of the first, in every column");
    table
}

fn idle(bench: &Bench, tools: &Tools) -> Table {
    let how = format!(
        "PSS of the server's processes with {IDLE} idle connections more than before, {} s after the last request, per \
         connection; {WARM} are there already. One request was made on each. {} threads, not pinned, {} rounds.",
        SETTLED.as_secs(),
        bench.cores,
        bench.memory_rounds()
    );
    let protocols = ["http1", "http2"];
    let columns = ["TLS, HTTP/1.1", "TLS, HTTP/2"]
        .map(|name| Column::new(name, "B/connection", Better::Lower, true))
        .to_vec();
    let title = "Memory per idle encrypted connection";
    let mut table = Table::new("tls-idle", title, how, columns);
    let failures = bench.alternate(bench.memory_rounds(), "tls-idle", |server, round| {
        let mut samples = Vec::new();
        for protocol in protocols {
            let start = super::memory::everywhere(bench);
            let running = server.start_tls(start, &tools.certificate)?;
            let _warm = Held::open(tools, running.address, WARM, protocol)?;
            thread::sleep(SETTLED);
            let before = running.pss_bytes()?;
            let held = Held::open(tools, running.address, IDLE, protocol)?;
            thread::sleep(SETTLED);
            let each = (running.pss_bytes()? - before) / count(IDLE);
            let open = held.close()?;
            if open < IDLE {
                let name = server.name;
                let note = format!("{name}: only {open} of {IDLE} were still open ({protocol})");
                table.notes.push(note);
            }
            samples.push(Some(each).filter(|_| open == IDLE));
        }
        table.push(server.name, round, &samples);
        Ok(())
    });
    table.notes.extend(failures);
    table.goal_first("first, or within 3% of the first, in every column");
    table.goal_at_most(0, IDLE_MAX, "at most 8 KiB for an idle TLS connection");
    table
}

/// One thread, on the server's own core.
fn alone(bench: &Bench) -> Start {
    Start {
        threads: 1,
        core: bench.server_core(),
        linger_none: false,
    }
}

/// Does it, and how much processor time the server took meanwhile, in seconds.
fn timed<T>(running: &Running, work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let before = running.cpu_seconds()?;
    let done = work()?;
    Ok((done, running.cpu_seconds()? - before))
}

/// Microseconds each, and how many a second.
fn cost(made: f64, cpu: f64, seconds: u64) -> [Option<f64>; 2] {
    let each = Some(cpu * 1e6 / made).filter(|each| each.is_finite());
    let seconds = Duration::from_secs(seconds).as_secs_f64();
    [each, Some(made / seconds)]
}

/// How many streams were answered with 200.
fn h2load(load: &Load, address: SocketAddr, streams: usize, seconds: u64) -> Result<f64> {
    let mut command = load.pinned("h2load");
    let flags = [CONNECTIONS, streams].map(|number| number.to_string());
    command.args([
        "-t1",
        "-c",
        &flags[0],
        "-m",
        &flags[1],
        "-D",
        &seconds.to_string(),
    ]);
    command.arg(format!("https://{address}/"));
    let said = load::run(command, Duration::from_secs(seconds))?;
    ensure!(
        said.contains("Application protocol: h2"),
        "it spoke no HTTP/2: {said}"
    );
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("status codes: "));
    let answered = line.and_then(|line| line.split(' ').next()?.parse().ok());
    answered.with_context(|| format!("h2load said no statuses: {said}"))
}

/// Connections that stay until they are closed or this is dropped.
struct Held {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Held {
    fn open(
        tools: &Tools,
        address: SocketAddr,
        connections: usize,
        protocol: &str,
    ) -> Result<Self> {
        let mut child = Command::new(&tools.client)
            .args([
                "hold",
                &address.to_string(),
                &connections.to_string(),
                protocol,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting tls-load")?;
        let says = child.stdout.take().context("no pipe")?;
        let mut held = Self {
            child,
            says: BufReader::new(says),
        };
        let line = held.line()?;
        ensure!(
            line == "ready",
            "{connections} connections were not opened: {line:?}"
        );
        Ok(held)
    }

    /// Closes them; how many the server had left open.
    fn close(mut self) -> Result<usize> {
        drop(self.child.stdin.take());
        self.line()?.parse().context("no count")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn count(connections: usize) -> f64 {
    connections as f64
}
