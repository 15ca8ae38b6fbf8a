//! Restarts under load: what is lost, refused and closed, beside those who reload; and what ten thousand idle connections
//! cost the busy ones.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Bench,
    load::Restarts,
    process::family,
    server::{ask, free_address, go},
    table::{Better, Column, OURS, Table},
};

/// Connections that ask all the time, or with a pause.
const CONNECTIONS: usize = 200;

/// Pauses between an answer and the next request, in milliseconds.
const PAUSES_MS: [u64; 3] = [0, 2, 50];

/// Restarts in a run, and the time from one to the next.
const RESTARTS: u64 = 7;
const EVERY: Duration = Duration::from_secs(1);

/// How long a restart may take until it has happened, and a server to answer after its start.
const WITHIN: Duration = Duration::from_secs(15);

/// The connections of the second table.
const IDLE: usize = 10_000;

/// Runs of the second table, at least: its goals are medians of so many.
const IDLE_RUNS: usize = 5;
const BUSY: usize = 50;
const BUSY_PAUSE_MS: u64 = 5;

/// Those who can take a new program, or a new configuration, in while they serve.
const NAMES: [&str; 6] = [
    OURS,
    "curtsy run",
    "nginx -s reload",
    "Go, inherited listener",
    "HAProxy reload",
    "gunicorn HUP",
];

/// One that is running, as it is restarted. What is left of it ends with this.
struct Subject {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    how: How,
    /// Whom to tell.
    pid: u32,
    restarts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// A line says when the new process serves, and which it is.
    Ours,
    /// A line says when the new generation serves.
    Run,
    Go,
    /// The master gets this signal, and other children.
    Master(Signal),
}

/// Lost requests, refused connects and connections that had to be opened anew.
pub(super) fn restart(bench: &Bench) -> Result<Vec<Table>> {
    let runs = if bench.quick { 1 } else { bench.rounds };
    let restarts = if bench.quick { 2 } else { RESTARTS };
    let how = format!(
        "The strict client asks on {CONNECTIONS} keep-alive connections with a pause of 0, 2 or 50 ms while the server is \
         restarted, or reloads, {restarts} times, every {} ms. Lost: sent and not answered whole. Refused: connects. Opened \
         anew: connections beyond the first {CONNECTIONS}, because the server closed some. Whole runs, {} threads or \
         workers, not pinned, {runs} alternating runs.",
        EVERY.as_millis(),
        bench.cores
    );
    let mut columns = Vec::new();
    for pause in PAUSES_MS {
        for (what, charted) in [("lost", true), ("refused", false), ("opened anew", false)] {
            let name = format!("pause {pause} ms, {what}");
            columns.push(Column::new(&name, "count", Better::Lower, charted));
        }
    }
    let mut table = Table::new("restart", "Seven restarts under load", how, columns);
    let work = bench.work();
    let mut missing = Vec::new();
    for round in 0..runs {
        let (later, first) = NAMES.split_at(round % NAMES.len());
        for name in first.iter().chain(later) {
            if missing.contains(name) {
                continue;
            }
            eprintln!("restart: round {}/{runs}, {name}", round + 1);
            match all_pauses(bench, name, &work, restarts) {
                Ok(samples) => table.push(name, round, &samples),
                Err(error) => {
                    eprintln!("\n!!! SKIPPED {name}: {error:#}\n");
                    table.notes.push(format!("{name} was skipped: {error:#}"));
                    missing.push(name);
                }
            }
        }
    }
    table.goal_never(runs, "ours loses, refuses and closes nothing");
    Ok(vec![table, idle(bench, &work)?])
}

fn all_pauses(bench: &Bench, name: &str, work: &Path, restarts: u64) -> Result<Vec<Option<f64>>> {
    let mut samples = Vec::new();
    for pause in PAUSES_MS {
        let mut subject = Subject::start(bench, name, work)?;
        let seconds = (EVERY * u32::try_from(restarts + 1)?).as_secs() + 1;
        let strict = bench
            .load
            .restarts(subject.address, CONNECTIONS, pause, seconds)?;
        for _ in 0..restarts {
            thread::sleep(EVERY);
            subject.restart()?;
        }
        let account: Restarts = strict.finish_restarts()?;
        ensure!(account.answered > 0.0, "not one request was answered");
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        let anew = account.opened - CONNECTIONS as f64;
        samples.extend([account.lost, account.refused, anew].map(Some));
    }
    Ok(samples)
}

/// One restart with many idle connections and a few busy ones.
fn idle(bench: &Bench, work: &Path) -> Result<Table> {
    let runs = if bench.quick {
        1
    } else {
        bench.rounds.max(IDLE_RUNS)
    };
    let how = format!(
        "{IDLE} idle connections, each after a request, and {BUSY} that ask every {BUSY_PAUSE_MS} ms. The time from READY until \
         the last of the connections that waited then was the new process's, as the server tells it; and the busy ones' \
         worst latency in a run with one restart, beside a run without. {} threads, not pinned, {runs} runs.",
        bench.cores
    );
    let column = |name: &str, charted| Column::new(name, "ms", Better::Lower, charted);
    let columns = vec![
        column("moved", true),
        column("worst, more", true),
        column("worst, quiet", false),
        column("worst, restart", false),
    ];
    let mut table = Table::new(
        "restart-idle",
        "A restart with 10,000 idle connections",
        how,
        columns,
    );
    for round in 0..runs {
        eprintln!("restart-idle: round {}/{runs}", round + 1);
        match one_idle(bench, work) {
            Ok((moved, quiet, worst)) => {
                let samples = [moved, worst - quiet, quiet, worst].map(Some);
                table.push(OURS, round, &samples);
            }
            Err(error) => table
                .notes
                .push(format!("failed in round {}: {error:#}", round + 1)),
        }
    }
    table.goal_at_most(0, 150.0, "all moved within 150 ms");
    table.goal_at_most(
        1,
        25.0,
        "the worst latency at most 25 ms above the quiet run's",
    );
    Ok(table)
}

fn one_idle(bench: &Bench, work: &Path) -> Result<(f64, f64, f64)> {
    const SECONDS: u64 = 4;
    let mut subject = Subject::start(bench, OURS, work)?;
    let mut held = bench.load.hold(subject.address, IDLE, "one")?;
    let run = |restarts: bool, subject: &mut Subject| {
        let busy = bench
            .load
            .restarts(subject.address, BUSY, BUSY_PAUSE_MS, SECONDS)?;
        thread::sleep(Duration::from_secs(1));
        if restarts {
            subject.restart()?;
        }
        let account = busy.finish_restarts()?;
        ensure!(account.lost == 0.0, "{} requests were lost", account.lost);
        Ok(account.max_us / 1000.0)
    };
    let quiet = run(false, &mut subject)?;
    let worst = run(true, &mut subject)?;
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let all = IDLE as f64;
    ensure!(held.count()? == all, "idle connections were closed");
    let log = fs::read_to_string(&subject.log)?;
    let line = log.lines().find(|line| line.contains("moved "));
    let line = line.context("it does not say how many were moved")?;
    let moved = line
        .split(" in ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    Ok((moved.context("no time")?.parse()?, quiet, worst))
}

impl Subject {
    fn start(bench: &Bench, name: &str, work: &Path) -> Result<Self> {
        let address = free_address()?;
        let (listen, threads) = (address.to_string(), bench.cores.to_string());
        let root = bench.root();
        let ours = root.join("target/release/curtsy");
        let directory = work.join("restart");
        fs::create_dir_all(&directory)?;
        let (mut command, how) = match name {
            OURS => {
                let mut command = Command::new(ours);
                command.args(["demo", "--listen", &listen, "--workers", &threads]);
                (command, How::Ours)
            }
            "curtsy run" => {
                let mut command = Command::new(&ours);
                command.args(["run", "--listen", &listen, "--"]).arg(&ours);
                command.args(["demo", "--inherit", "--workers", &threads]);
                (command, How::Run)
            }
            "nginx -s reload" => {
                let binary = installed(&["/usr/sbin/nginx", "/usr/bin/nginx"])?;
                let config = format!(
                    "daemon off; worker_processes {threads}; pid nginx.pid; error_log stderr;\n\
                     events {{ worker_connections 4096; }}\n\
                     http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 120s;\n\
                     server {{ listen {listen} backlog=4096; location / {{ return 200 'Hello, World!'; }} }} }}\n"
                );
                fs::write(directory.join("nginx.conf"), config)?;
                let mut command = Command::new(binary);
                command.arg("-p").arg(&directory).args(["-c", "nginx.conf"]);
                (command, How::Master(Signal::HUP))
            }
            "Go, inherited listener" => {
                let mut command = Command::new(go("go-inherit", root, work)?);
                command.args(["-listen", &listen]);
                (command, How::Go)
            }
            "HAProxy reload" => {
                let binary = installed(&["/usr/sbin/haproxy", "/usr/bin/haproxy"])?;
                let config = format!(
                    "global\n  maxconn 4096\n  nbthread {threads}\ndefaults\n  mode http\n  timeout client 120s\n  \
                     timeout http-keep-alive 120s\nfrontend main\n  bind {listen}\n  http-request return status 200 \
                     content-type text/plain string \"Hello, World!\"\n"
                );
                fs::write(directory.join("haproxy.cfg"), config)?;
                let mut command = Command::new(binary);
                command
                    .args(["-W", "-f"])
                    .arg(directory.join("haproxy.cfg"));
                (command, How::Master(Signal::USR2))
            }
            _ => {
                let python = "import gunicorn";
                let found = Command::new("python3").args(["-c", python]).output();
                ensure!(
                    found.is_ok_and(|found| found.status.success()),
                    "gunicorn is not installed"
                );
                let application = "def app(environ, start):\n    body = b'Hello, World!'\n    \
                                   start('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])\n    \
                                   return [body]\n";
                fs::write(directory.join("hello.py"), application)?;
                let mut command = Command::new("python3");
                command.args(["-m", "gunicorn", "--bind", &listen, "--workers", &threads]);
                command.args(["--worker-class", "gthread", "--threads", "128"]);
                command
                    .args(["--keep-alive", "120", "--chdir"])
                    .arg(&directory);
                command.arg("hello:app");
                (command, How::Master(Signal::HUP))
            }
        };
        let log = directory.join("log.txt");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| name.to_owned())?;
        let pid = child.id();
        let mut subject = Self {
            child,
            address,
            log,
            how,
            pid,
            restarts: 0,
        };
        subject.until(|subject| Ok(ask(subject.address, "GET", "/", "").is_ok()))?;
        Ok(subject)
    }

    /// Restarts it and waits until that has happened.
    fn restart(&mut self) -> Result<()> {
        let before = family(self.pid);
        let signal = match self.how {
            How::Ours | How::Run | How::Go => Signal::HUP,
            How::Master(signal) => signal,
        };
        kill_process(pid(self.pid)?, signal)?;
        self.restarts += 1;
        self.until(|subject| subject.has_restarted(&before))
    }

    fn has_restarted(&mut self, before: &[u32]) -> Result<bool> {
        let log = fs::read_to_string(&self.log)?;
        match self.how {
            How::Ours => {
                let line = format!("generation {} serves (pid ", self.restarts);
                if let Some(rest) = log.split(&line).nth(1) {
                    self.pid = rest.split(')').next().context("no pid")?.parse()?;
                    return Ok(true);
                }
                ensure!(!log.contains("kept the old process"), "{log}");
                Ok(false)
            }
            How::Run => Ok(log.contains(&format!("generation {} serves", self.restarts))),
            How::Go => {
                let restarts = usize::try_from(self.restarts)?;
                match log.split("serving (pid ").nth(restarts + 1) {
                    Some(rest) => {
                        self.pid = rest.split(')').next().context("no pid")?.parse()?;
                        Ok(true)
                    }
                    None => Ok(false),
                }
            }
            // There is a child that was not there.
            How::Master(_) => Ok(family(self.pid).iter().any(|pid| !before.contains(pid))),
        }
    }

    fn until(&mut self, mut done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !done(self)? {
            if begun.elapsed() > WITHIN {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("nothing happened in {WITHIN:?}: {log}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Its own children before it: a master would start new ones, and an heir has no parent by now.
        for other in family(self.pid).into_iter().chain([self.child.id()]) {
            if let Ok(pid) = pid(other) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

fn pid(number: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(number)?).context("no process")
}

fn installed(places: &[&str]) -> Result<PathBuf> {
    let found = places.iter().map(Path::new).find(|path| path.exists());
    let found = found.with_context(|| format!("{} is not installed", places[0]))?;
    Ok(found.to_owned())
}
