//! Server processes for tests and measurements: started, watched, signalled, waited for, and never left behind.
//!
//! Every wait has a bound and ends by an event (a line, an exit), not by a poll; the time in which this process was stopped
//! does not count. A signal goes only to the process that was started
//! here and was not yet waited for, so that its number cannot belong to somebody else. Each process leads a group of its own:
//! what it starts in turn (workers, a successor) is killed with it, even if it has ended before them. The price is that Ctrl-C at
//! a terminal does not reach it; whoever ends a program that way ends its servers too.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process;
use tokio::sync::watch;

use crate::bound::within;
use crate::error::{Error, Kind};

pub use rustix::process::Signal as ChildSignal;

/// A server process; dropped, it is killed with everything it started.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), curtsy_prove::Error> {
/// use std::time::Duration;
/// use curtsy_prove::child::{Child, ChildSignal};
///
/// let bound = Duration::from_secs(10);
/// let mut child = Child::start("sh", ["-c", "echo ready; exec sleep 60"])?;
/// child.wait_for_line(|line| line == "ready", bound).await?;
/// child.signal(ChildSignal::TERM)?;
/// let exit = child.wait_exit(bound).await?;
/// assert!(!exit.status.success());
/// # Ok(())
/// # }
/// ```
pub struct Child {
    process: process::Child,
    name: String,
    group: Option<Pid>,
    output: Arc<Output>,
    changed: watch::Receiver<u64>,
    exit: Option<Exit>,
}

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// When that was noticed, which is when the kernel told, not when it was asked for, if a wait was under way.
    pub at: Instant,
}

/// A line that a process wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whether it came on stderr.
    pub is_stderr: bool,
    /// The text without its line end.
    pub text: String,
    /// When it was read.
    pub at: Instant,
}

/// What a process uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads; the kernel's resolution is 10 ms.
    pub cpu: Duration,
    /// Memory in bytes, shared pages counted in proportion.
    pub pss_bytes: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<VecDeque<Line>>,
}

impl Output {
    fn lines(&self) -> MutexGuard<'_, VecDeque<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Child {
    /// Starts `program` with `arguments`, its stdin empty, its stdout and stderr read line by line.
    ///
    /// # Errors
    /// The program cannot be started.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start<I, S>(program: impl AsRef<OsStr>, arguments: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = process::Command::new(program);
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts a command made by the caller: environment, directory, inherited descriptors. Its three standard streams are set here.
    ///
    /// # Errors
    /// The program cannot be started.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(mut command: process::Command) -> Result<Self, Error> {
        let name = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::with_source(Kind::Child, format!("{name}: {e}"), e))?;
        let output = Arc::new(Output::default());
        let (change, changed) = watch::channel(0);
        let change = Arc::new(change);
        if let Some(stdout) = process.stdout.take() {
            tokio::spawn(collect(
                stdout,
                false,
                Arc::clone(&output),
                Arc::clone(&change),
            ));
        }
        if let Some(stderr) = process.stderr.take() {
            tokio::spawn(collect(stderr, true, Arc::clone(&output), change));
        }
        let group = process.id().and_then(pid_from);
        Ok(Self {
            process,
            name,
            group,
            output,
            changed,
            exit: None,
        })
    }

    /// The process's number; `None` once its exit was waited for.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits for a line, on stdout or stderr, that `matches`, and gives its text. Lines that came before the call count.
    ///
    /// # Errors
    /// [`is_timed_out`](Error::is_timed_out), or [`is_exited`](Error::is_exited) if both streams ended without such a
    /// line; either tells the last lines.
    ///
    /// # Cancel safety
    /// A cancelled wait loses nothing.
    pub async fn wait_for_line(
        &mut self,
        mut matches: impl FnMut(&str) -> bool,
        bound: Duration,
    ) -> Result<String, Error> {
        let output = Arc::clone(&self.output);
        let mut find = move || {
            let lines = output.lines();
            lines
                .iter()
                .find(|l| matches(&l.text))
                .map(|l| l.text.clone())
        };
        let wait = async {
            loop {
                if let Some(text) = find() {
                    return Some(text);
                }
                if self.changed.changed().await.is_err() {
                    // Both readers are gone; what they read last is there now.
                    return find();
                }
            }
        };
        match within(bound, wait).await {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(self.error(Kind::Exited, "its output ended before the line")),
            Err(_) => Err(self.error(Kind::TimedOut, &format!("no such line in {bound:?}"))),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`is_exited`](Error::is_exited): its exit was already waited for.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = self
            .pid()
            .and_then(pid_from)
            .ok_or_else(|| self.error(Kind::Exited, "it is no longer there"))?;
        kill_process(pid, signal)
            .map_err(|e| Error::with_source(Kind::Child, format!("{}: {e}", self.name), e.into()))
    }

    /// Waits for the end of the process. Asked again, it tells the same.
    ///
    /// # Errors
    /// [`is_timed_out`](Error::is_timed_out), with the last lines; the process goes on.
    ///
    /// # Cancel safety
    /// A cancelled wait loses nothing.
    pub async fn wait_exit(&mut self, bound: Duration) -> Result<Exit, Error> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        match within(bound, self.process.wait()).await {
            Ok(Ok(status)) => {
                let at = Instant::now();
                Ok(*self.exit.insert(Exit { status, at }))
            }
            Ok(Err(e)) => Err(Error::with_source(
                Kind::Child,
                format!("{}: {e}", self.name),
                e,
            )),
            Err(_) => Err(self.error(Kind::TimedOut, &format!("still there after {bound:?}"))),
        }
    }

    /// Waits until everything the process wrote was read: both of its streams ended.
    ///
    /// # Errors
    /// [`is_timed_out`](Error::is_timed_out): somebody, it or a child of it, still holds one of them.
    ///
    /// # Cancel safety
    /// A cancelled wait loses nothing.
    pub async fn wait_output_end(&mut self, bound: Duration) -> Result<(), Error> {
        let end = async { while self.changed.changed().await.is_ok() {} };
        within(bound, end)
            .await
            .map_err(|_| self.error(Kind::TimedOut, &format!("output goes on after {bound:?}")))
    }

    /// The lines so far, the last 10,000 at most.
    pub fn lines(&self) -> Vec<Line> {
        self.output.lines().iter().cloned().collect()
    }

    /// The lines on stderr so far, as one text.
    pub fn stderr(&self) -> String {
        self.text(true)
    }

    /// The lines on stdout so far, as one text.
    pub fn stdout(&self) -> String {
        self.text(false)
    }

    /// What the process uses now.
    ///
    /// # Errors
    /// It ended, or `/proc` cannot be read.
    pub fn usage(&self) -> Result<Usage, Error> {
        let pid = self
            .pid()
            .ok_or_else(|| self.error(Kind::Exited, "it is no longer there"))?;
        usage_of(pid)
    }

    fn text(&self, is_stderr: bool) -> String {
        let lines = self.output.lines();
        let texts = lines.iter().filter(|l| l.is_stderr == is_stderr);
        texts.flat_map(|l| [l.text.as_str(), "\n"]).collect()
    }

    fn error(&self, kind: Kind, what: &str) -> Error {
        let lines = self.output.lines();
        let first = lines.len().saturating_sub(LINES_TOLD);
        let mut message = format!("{}: {what}", self.name);
        for line in lines.iter().skip(first) {
            message += "\n  | ";
            message += &line.text;
        }
        Error::new(kind, message)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // While it was not waited for, its number is its own. Afterwards the number is free once its group is empty, and might
        // be that of a stranger's group.
        if let Some(group) = self.group
            && (self.pid().is_some() || is_group_of_our_session(group))
        {
            // An error means that there is nobody left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name)
            .field("pid", &self.pid())
            .field("exit", &self.exit)
            .finish_non_exhaustive()
    }
}

/// What the process with this number uses now; it need not be a child (a successor that a server started, say).
///
/// # Errors
/// There is no such process, or `/proc` cannot be read.
pub fn usage_of(pid: u32) -> Result<Usage, Error> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path)
            .map_err(|e| Error::with_source(Kind::Child, format!("{path}: {e}"), e))
    };
    let odd = |file: &str| {
        Error::new(
            Kind::Child,
            format!("/proc/{pid}/{file} is not as expected"),
        )
    };
    let stat = read("stat")?;
    // The name, in parentheses, may itself hold blanks and parentheses.
    let (_, after_name) = stat.rsplit_once(") ").ok_or_else(|| odd("stat"))?;
    let field =
        |number: usize| -> Option<u64> { after_name.split(' ').nth(number - 3)?.parse().ok() };
    let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
    let ticks = ticks.ok_or_else(|| odd("stat"))?;
    let threads = field(20).and_then(|n| usize::try_from(n).ok());
    let rollup = read("smaps_rollup")?;
    let pss_kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .ok_or_else(|| odd("smaps_rollup"))?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
        .map_err(|e| Error::with_source(Kind::Child, format!("/proc/{pid}/fd: {e}"), e))?
        .count();
    let ticks_per_second = curtsy_sys::clock::ticks_per_second();
    Ok(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64),
        pss_bytes: pss_kib * 1024,
        descriptors,
        threads: threads.ok_or_else(|| odd("stat"))?,
    })
}

/// Whether the group has a member, in the session that this process is in as well.
fn is_group_of_our_session(group: Pid) -> bool {
    // Not `getsid`: in a container the session may be one from outside, whose number is 0 there.
    let Some((_, session)) = group_and_session("self") else {
        return false;
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_str().and_then(group_and_session) == Some((group.as_raw_pid(), session))
    })
}

/// The group and the session of a process, by its name in `/proc`.
fn group_and_session(process: &str) -> Option<(i32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    // After the name come the state, the parent, the group and the session.
    let mut ids = after_name.split(' ').skip(2).map(str::parse);
    Some((ids.next()?.ok()?, ids.next()?.ok()?))
}

fn pid_from(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// An address on 127.0.0.1 whose port is free now. Another process may take it before it is used; where a server can
/// choose its port and tell it, let it.
///
/// # Errors
/// No port is free.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

async fn collect(
    stream: impl AsyncRead + Unpin,
    is_stderr: bool,
    output: Arc<Output>,
    change: Arc<watch::Sender<u64>>,
) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    // A stream that cannot be read any more is at its end.
    while reader
        .read_until(b'\n', &mut bytes)
        .await
        .is_ok_and(|n| n > 0)
    {
        let text = String::from_utf8_lossy(&bytes)
            .trim_end_matches(['\n', '\r'])
            .to_owned();
        bytes.clear();
        let mut lines = output.lines();
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        let at = Instant::now();
        lines.push_back(Line {
            is_stderr,
            text,
            at,
        });
        drop(lines);
        change.send_modify(|n| *n += 1);
    }
}

const LINES_MAX: usize = 10_000;
/// How many of the last lines an error repeats.
const LINES_TOLD: usize = 20;
