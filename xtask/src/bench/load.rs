//! The load: wrk for what it can do, our own client for what it cannot. Both end by themselves, and are ended if not.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::server;

/// What a load may take beyond the time it was given.
const GRACE: Duration = Duration::from_secs(60);

/// Requests in a batch.
pub(super) const PIPELINED: usize = 16;

/// What became of the strict client's requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) sent: f64,
    pub(super) answered: f64,
    pub(super) lost: f64,
}

/// The strict client at work.
#[derive(Debug)]
pub(super) struct Strict {
    child: Child,
    seconds: u64,
}

impl Strict {
    /// Waits for its account, which comes when it is refused or its time is over.
    pub(super) fn finish(mut self) -> Result<Account> {
        let said = finish(&mut self.child, Duration::from_secs(self.seconds))?;
        let said: Value =
            serde_json::from_str(&said).context("the strict client gave no account")?;
        let field = |name: &str| said[name].as_f64().with_context(|| format!("no {name}"));
        Ok(Account {
            sent: field("sent")?,
            answered: field("answered")?,
            lost: field("lost")?,
        })
    }
}

impl Strict {
    /// Waits for its account of a server that was restarted.
    pub(super) fn finish_restarts(mut self) -> Result<Restarts> {
        let said = finish(&mut self.child, Duration::from_secs(self.seconds))?;
        let said: Value =
            serde_json::from_str(&said).context("the strict client gave no account")?;
        let field = |name: &str| said[name].as_f64().with_context(|| format!("no {name}"));
        Ok(Restarts {
            answered: field("answered")?,
            lost: field("lost")?,
            refused: field("refused")?,
            opened: field("opened")?,
            max_us: field("max_us")?,
        })
    }
}

/// The strict client's account of restarts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restarts {
    pub(super) answered: f64,
    /// Refused connects are not among them.
    pub(super) lost: f64,
    pub(super) refused: f64,
    pub(super) opened: f64,
    pub(super) max_us: f64,
}

impl Drop for Strict {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The programs that make load, and where they may run.
#[derive(Debug)]
pub(super) struct Load {
    client: PathBuf,
    strict: PathBuf,
    work: PathBuf,
    core: Option<usize>,
}

/// What a load of requests found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) requests: f64,
    pub(super) seconds: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) errors: f64,
}

/// What is asked for at an even pace, as our own client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paced {
    Hello,
    Post,
    Big,
    /// [`PIPELINED`] requests in one write.
    Batch,
    /// A new connection for every request.
    New,
}

/// What wrk asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Hello,
    Post,
    Big,
    /// A route with a parameter, answered with text.
    User,
    /// The same, answered with JSON.
    Json,
    /// JSON that is read, validated and answered with JSON.
    Signup,
}

impl Load {
    /// Builds the client and looks for wrk.
    pub(super) fn build(root: &Path, work: &Path, core: Option<usize>) -> Result<Self> {
        let peers = root.join("bench/peers");
        server::cargo(
            &[
                "build",
                "--release",
                "--package",
                "load",
                "--package",
                "strict",
            ],
            &peers,
        )?;
        ensure!(
            Command::new("wrk").arg("-v").output().is_ok(),
            "wrk is not installed (Debian: apt-get install wrk)"
        );
        for (ask, script) in [
            (Ask::Hello, String::new()),
            (Ask::Big, String::new()),
            (
                Ask::Post,
                "wrk.method = 'POST'\nwrk.body = string.rep('x', 1024)\n".to_owned(),
            ),
            (Ask::User, String::new()),
            (Ask::Json, String::new()),
            (
                Ask::Signup,
                format!(
                    "wrk.method = 'POST'\nwrk.body = '{}'\nwrk.headers['Content-Type'] = 'application/json'\n",
                    super::web::SIGNUP
                ),
            ),
        ] {
            fs::write(work.join(ask.script()), script + DONE)
                .context("writing a script for wrk")?;
        }
        Ok(Self {
            client: peers.join("target/release/load"),
            strict: peers.join("target/release/strict"),
            work: work.to_owned(),
            core,
        })
    }

    /// Keep-alive connections that ask as fast as they are answered.
    pub(super) fn wrk(
        &self,
        target: SocketAddr,
        ask: Ask,
        conns: usize,
        seconds: u64,
    ) -> Result<Found> {
        self.wrk_over("http", target, ask, conns, seconds)
    }

    /// The same, with or without TLS.
    pub(super) fn wrk_over(
        &self,
        scheme: &str,
        target: SocketAddr,
        ask: Ask,
        conns: usize,
        seconds: u64,
    ) -> Result<Found> {
        let mut command = self.pinned("wrk");
        command.args([
            "-t1",
            &format!("-c{conns}"),
            &format!("-d{seconds}s"),
            "--timeout",
            "10s",
            "-s",
        ]);
        command
            .arg(self.work.join(ask.script()))
            .arg(format!("{scheme}://{target}{}", ask.path()));
        let said = run(command, Duration::from_secs(seconds))?;
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("RESULT "))
            .context("wrk said no result")?;
        found(&serde_json::from_str(line)?)
    }

    /// Batches of [`PIPELINED`] requests; the latencies are those of a batch.
    pub(super) fn pipeline(&self, target: SocketAddr, conns: usize, seconds: u64) -> Result<Found> {
        let mut command = self.client("pipeline", target, conns);
        command.args([
            "--depth",
            &PIPELINED.to_string(),
            "--seconds",
            &seconds.to_string(),
        ]);
        found(&serde_json::from_str(&run(
            command,
            Duration::from_secs(seconds),
        )?)?)
    }

    /// A new connection for every request.
    pub(super) fn churn(&self, target: SocketAddr, conns: usize, seconds: u64) -> Result<Found> {
        let mut command = self.client("churn", target, conns);
        command.args(["--seconds", &seconds.to_string()]);
        found(&serde_json::from_str(&run(
            command,
            Duration::from_secs(seconds),
        )?)?)
    }

    /// So many requests, batches or connections a second, whether they are answered or not; the latencies count from
    /// when each was due.
    pub(super) fn pace(
        &self,
        target: SocketAddr,
        asked: Paced,
        conns: usize,
        rate: u32,
        seconds: u64,
    ) -> Result<Found> {
        let mut command = self.client("pace", target, conns);
        command.args(["--ask", asked.name(), "--rate", &rate.to_string()]);
        command.args(["--seconds", &seconds.to_string()]);
        found(&serde_json::from_str(&run(
            command,
            Duration::from_secs(seconds),
        )?)?)
    }

    /// One request at a time, on connections at rest and on one in use: median and 99th percentile of each, in
    /// microseconds, those at rest first.
    pub(super) fn wake(&self, target: SocketAddr, conns: usize, turns: usize) -> Result<[f64; 4]> {
        let mut command = self.client("wake", target, conns);
        command.args(["--turns", &turns.to_string(), "--idle-seconds", "1"]);
        let said: Value = serde_json::from_str(&run(command, Duration::from_secs(turns as u64))?)?;
        let field = |name: &str| said[name].as_f64().with_context(|| format!("no {name}"));
        Ok([
            field("idle_p50_us")?,
            field("idle_p99_us")?,
            field("hot_p50_us")?,
            field("hot_p99_us")?,
        ])
    }

    /// Starts the strict client; not pinned, as the servers it watches are not.
    pub(super) fn strict(
        &self,
        target: SocketAddr,
        conns: usize,
        think_ms: u64,
        seconds: u64,
    ) -> Result<Strict> {
        let mut command = Command::new(&self.strict);
        command.args([
            "--target",
            &target.to_string(),
            "--conns",
            &conns.to_string(),
        ]);
        command.args([
            "--think-ms",
            &think_ms.to_string(),
            "--seconds",
            &seconds.to_string(),
        ]);
        Ok(Strict {
            child: spawn(command)?,
            seconds,
        })
    }

    /// The strict client at a server that is restarted: a refused connection is a loss, and it goes on.
    pub(super) fn restarts(
        &self,
        target: SocketAddr,
        conns: usize,
        think_ms: u64,
        seconds: u64,
    ) -> Result<Strict> {
        let mut command = Command::new(&self.strict);
        command.args(["--restarts", "--target", &target.to_string()]);
        command.args(["--conns", &conns.to_string()]);
        command.args(["--think-ms", &think_ms.to_string()]);
        command.args(["--seconds", &seconds.to_string()]);
        Ok(Strict {
            child: spawn(command)?,
            seconds,
        })
    }

    /// Opens connections that stay, and waits until they all do.
    pub(super) fn hold(&self, target: SocketAddr, conns: usize, how: &str) -> Result<Held> {
        let mut command = self.client("hold", target, conns);
        command
            .args(["--how", how])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().context("starting the load")?;
        let (Some(asks), Some(says)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("no pipes")
        };
        // The client ends by itself after four minutes, so that no read of ours lasts longer.
        let mut held = Held {
            child,
            asks,
            says: BufReader::new(says),
        };
        held.open()
            .with_context(|| format!("opening {conns} connections"))?;
        Ok(held)
    }

    fn client(&self, kind: &str, target: SocketAddr, conns: usize) -> Command {
        let mut command = self.pinned(&self.client);
        command.args([
            kind,
            "--target",
            &target.to_string(),
            "--conns",
            &conns.to_string(),
        ]);
        command
    }

    /// A program where the load may run.
    pub(super) fn pinned(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self.core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(program);
                command
            }
            None => Command::new(program),
        }
    }
}

/// Connections that stay until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    child: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Held {
    /// How many the server has not closed.
    pub(super) fn count(&mut self) -> Result<f64> {
        writeln!(self.asks)?;
        self.open()
    }

    fn open(&mut self) -> Result<f64> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).context("the load has given up")?;
        said["open"].as_f64().context("no count")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Paced {
    fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Post => "post",
            Self::Big => "big",
            Self::Batch => "batch",
            Self::New => "new",
        }
    }
}

impl Ask {
    fn script(self) -> &'static str {
        match self {
            Self::Hello => "hello.lua",
            Self::Post => "post.lua",
            Self::Big => "big.lua",
            Self::User => "user.lua",
            Self::Json => "json.lua",
            Self::Signup => "signup.lua",
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Hello => "/",
            Self::Post => "/echo",
            Self::Big => "/big?bytes=65536",
            Self::User => "/user/ada",
            Self::Json => "/json/ada",
            Self::Signup => "/signup",
        }
    }
}

/// The end of every script: the result as a line that a program can read.
const DONE: &str = "\
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {\"requests\":%d,\"seconds\":%f,\"p50_us\":%f,\"p99_us\":%f,\"p999_us\":%f,\"errors\":%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
";

fn found(said: &Value) -> Result<Found> {
    let field = |name: &str| said[name].as_f64().with_context(|| format!("no {name}"));
    let found = Found {
        requests: field("requests")?,
        seconds: field("seconds")?,
        p50_us: field("p50_us")?,
        p99_us: field("p99_us")?,
        p999_us: field("p999_us")?,
        errors: field("errors")?,
    };
    ensure!(found.requests > 0.0, "not one request was answered");
    Ok(found)
}

/// Runs to the end, or ends it when `time` and the grace are over.
pub(super) fn run(command: Command, time: Duration) -> Result<String> {
    finish(&mut spawn(command)?, time)
}

fn spawn(mut command: Command) -> Result<Child> {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A backtrace would hide what it says.
        .env("RUST_BACKTRACE", "0");
    command.spawn().context("starting the load")
}

fn finish(child: &mut Child, time: Duration) -> Result<String> {
    let Some(mut out) = child.stdout.take() else {
        bail!("no pipe")
    };
    // What it says fits a pipe, so that it can be read after its end.
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > time + GRACE {
            child.kill()?;
            child.wait()?;
            bail!("the load did not end");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    out.read_to_string(&mut said)?;
    let mut complaint = String::new();
    if let Some(mut err) = child.stderr.take() {
        err.read_to_string(&mut complaint)?;
    }
    let complaint = complaint.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(
        status.success(),
        "the load ended with {status}: {complaint}"
    );
    Ok(said)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_is_read_and_an_empty_one_refused() {
        let said = |requests: u32| json!({"requests": requests, "errors": 1, "seconds": 2.0, "p50_us": 3.0, "p99_us": 4.0, "p999_us": 5.0});
        let found = super::found(&said(10)).unwrap();
        assert_eq!(
            (found.requests, found.errors, found.p999_us),
            (10.0, 1.0, 5.0)
        );
        assert!(super::found(&said(0)).is_err());
        assert!(super::found(&json!({})).is_err());
    }

    #[test]
    fn a_load_that_fails_is_an_error() {
        let mut complains = Command::new("sh");
        complains.args(["-c", "echo no >&2; echo luck >&2; exit 1"]);
        let error = run(complains, Duration::ZERO).unwrap_err();
        assert!(error.to_string().ends_with(": no luck"), "{error}");
        assert!(run(Command::new("false"), Duration::ZERO).is_err());
        assert_eq!(run(Command::new("true"), Duration::ZERO).unwrap(), "");
    }
}
