//! `curtsy demo`: a server to try everything on.

mod routes;
mod security;
mod websocket;

use crate::{duration, log, number, progress, voice};
use clap::Args;
use curtsy::{
    AccessLog, AdminAddress, DrainPolicy, Error, ListenAddress, ListenOn, Outcome, Phase,
    RestartStep, Server, SignalKind, Succession, control_path,
};
use routes::Demo;
use security::Security;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Run a server to try everything on.
///
/// Routes: / · /slow?ms=N · /pid · POST /echo · POST /upload · /big?bytes=N ·
/// /events (server-sent events) · /ws (WebSocket echo) · /panic
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    curtsy demo --tls self-signed --mode both         HTTP and HTTPS on one port\n  \
    curtsy demo --admin 9001 --access-log combined    a page and metrics, and a line for each request\n  \
    curtsy demo --listen 'unix:/run/demo.sock?mode=660' --lame-duck 5s --deadline 1m\n\
    \n\
    A TIME has its unit: 500ms, 30s, 1m 30s; or it is 0.\n\
    Signals: INT, TERM and QUIT drain; the same again cuts. HUP restarts: the\n\
    program at the same path takes over, with every connection.\n\
    Exit codes: 0 drained · 1 could not start or serve · 2 usage · 3 stragglers were cut")]
pub(crate) struct Arguments {
    /// Where to listen: HOST:PORT, :PORT, or unix:/PATH[?mode=660]. May be given again
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADDRESS)]
    listen: Vec<ListenAddress>,
    /// Take the sockets of the service manager (LISTEN_FDS) instead of binding an address
    #[arg(long, conflicts_with = "listen")]
    inherit: bool,
    /// Threads that accept and serve, each by itself [default: one for each core]
    #[arg(long, value_name = "N", value_parser = number::at_least_one)]
    workers: Option<NonZeroUsize>,
    /// How long an idle connection is still listened to once the drain began
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    linger: Duration,
    /// How long a drain may take; then whatever is left is cut
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    deadline: Duration,
    /// How long to go on serving before the drain, while not being ready
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration::parse)]
    lame_duck: Duration,
    /// How long a new process lives, after a restart, until the old one lets go of the listeners
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    bake_after: Duration,
    /// How long a new process may take to be ready; then the old one goes on
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    ready_timeout: Duration,
    /// A file for the number of the process that serves
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    #[command(flatten)]
    security: Security,
    /// Where the control socket is, for `curtsy status` and the others
    /// [default: $XDG_RUNTIME_DIR/curtsy-PID.sock, or /tmp/curtsy-UID-PID.sock without that directory]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Where operators look: a page, /metrics, /livez, /readyz, /status, /events. PORT alone is on
    /// loopback [default: nowhere]
    #[arg(long, value_name = "[HOST:]PORT", value_parser = str::parse::<AdminAddress>)]
    admin: Option<AdminAddress>,
    /// Write a line for each request: common, combined or json, to standard output or to a file
    /// (json:/var/log/demo.log) [default: none]
    #[arg(long, value_name = "FORMAT[:FILE]")]
    access_log: Option<AccessLog>,
}

/// What a process leaves to the next: the certificate that was made for the run.
const CERTIFICATE: &str = "self-signed certificate";
const DEFAULT_ADDRESS: &str = "127.0.0.1:9000";

impl Default for Arguments {
    fn default() -> Self {
        let policy = DrainPolicy::default();
        Self {
            listen: DEFAULT_ADDRESS.parse().into_iter().collect(),
            inherit: false,
            workers: None,
            linger: policy.linger,
            deadline: policy.deadline,
            lame_duck: policy.lame_duck,
            bake_after: Succession::BAKE_AFTER,
            ready_timeout: Succession::READY_TIMEOUT,
            pidfile: None,
            security: Security::default(),
            control: None,
            admin: None,
            access_log: None,
        }
    }
}

/// Runs it to its end.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("curtsy: cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(serve(arguments));
    // A handler that blocks its thread must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(Outcome::Drained(report)) => {
            say(&format!("curtsy: {report}"));
            ExitCode::SUCCESS
        }
        Ok(Outcome::DeadlinePassed(report) | Outcome::Closed(report)) => {
            say(&format!("curtsy: {report}"));
            match report.stragglers.is_empty() && report.hooks_unfinished == 0 {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(3),
            }
        }
        Err(error) => {
            say(&format!("curtsy: {error}"));
            ExitCode::from(1)
        }
    }
}

async fn serve(arguments: Arguments) -> Result<Outcome, Error> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let workers = arguments.workers.unwrap_or(cores);
    let mut succession = Succession::begin()
        .await?
        .bake_after(arguments.bake_after)
        .ready_timeout(arguments.ready_timeout);
    let generation = succession.generation();
    if let Some(path) = arguments.pidfile {
        succession = succession.pidfile(path);
    }
    // One certificate for all generations, and none of it on a disk.
    let made = arguments.security.made(succession.keepsake(CERTIFICATE))?;
    if let Some(made) = &made {
        succession = succession.keep(CERTIFICATE, made.clone())?;
    }
    let mut builder = Server::builder()
        .workers(workers)
        .succession(succession)
        .restart_on(SignalKind::hangup())
        .on_restart(tell_restart)
        .connection_in_extensions(false)
        .on_quiet(curtsy_sys::allocator::give_back)
        .drain(DrainPolicy {
            lame_duck: arguments.lame_duck,
            linger: arguments.linger,
            deadline: arguments.deadline,
            ..DrainPolicy::default()
        });
    let pid = std::process::id();
    if let Some(admin) = arguments.admin {
        builder = builder.admin(admin);
    }
    if let Some(log) = arguments.access_log {
        builder = builder.access_log(log);
    }
    builder = builder.on_log_level(log::set);
    builder = match arguments.control {
        Some(path) => builder.control(path),
        None => builder.control_if_possible(control_path(pid)),
    };
    if let Some(every) = arguments.security.watch_certificates {
        builder = builder.watch_certificates(every);
    }
    let speaking = arguments.security.decide(made.as_deref())?;
    if let Some(fingerprint) = speaking.fingerprint() {
        say(&format!("curtsy: certificate sha-256 {fingerprint}"));
    }
    if arguments.inherit {
        builder = builder.listen(speaking.on(ListenOn::inherited()));
    } else {
        for address in arguments.listen {
            builder = builder.listen(speaking.on(address.into()));
        }
    }
    let server = builder.build(Demo::new(generation))?;
    let untaken = curtsy_sys::inherited::untaken();
    if untaken > 0 {
        say(&format!(
            "curtsy: warning: LISTEN_FDS passes sockets ({untaken}), and nothing accepts on them; --inherit does"
        ));
    }
    let mut listening: Vec<String> = server
        .listeners()
        .map(|(name, address)| {
            let url = match address.tcp() {
                Some(address) => format!("{}://{address}", speaking.scheme()),
                None => address.to_string(),
            };
            format!(
                "curtsy: {name} listening on {url}  (pid {pid}, generation {generation}, {workers} workers)"
            )
        })
        .collect();
    if let Some(admin) = server.admin() {
        let scheme = if admin.tcp().is_some() { "http://" } else { "" };
        listening.push(format!("curtsy: admin on {scheme}{admin}"));
    }
    let handle = server.handle();
    let telling = tokio::spawn(async move {
        // Said when it is true of the signals, too.
        if handle.reached(Phase::Serving).await {
            listening.iter().for_each(|line| say(line));
        }
        progress::tell(handle).await;
    });
    let outcome = server.run().await;
    // It ends with the server; a moment for its last line.
    let _ = telling.await;
    outcome
}

/// One line for each step, the new process's last words included.
fn tell_restart(step: &RestartStep<'_>) {
    say(&format!("curtsy: {step}").replace('\n', " / "));
}

/// A line in one write: during a restart two processes write to one terminal.
fn say(text: &str) {
    voice::say(&format!("{text}\n"));
}
