//! One client's conversation.
//!
//! Invariants:
//! - Every line is answered by exactly one line with `ok`, in order; lines with `event` may come
//!   before it.
//! - A client that is silent, or does not take what is said to it, is left.
//! - What is queued for it is bounded; who falls behind is cut.

use super::event::{Crier, News};
use super::message::{Command, LINE_MOST, Reply, parse};
use super::socket::Subject;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// How long a client may be silent that does not listen to events.
const SILENCE_MOST: Duration = Duration::from_secs(60);
/// How long it may take to take a line.
const WRITE_MOST: Duration = Duration::from_secs(2);

type Obeying = Pin<Box<dyn Future<Output = Reply> + Send>>;

pub(super) struct Session {
    subject: Arc<dyn Subject>,
    listeners: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

/// Whether events go to the client.
enum Ear {
    Closed,
    /// Steps of a restart, for as long as the one it asked for is under way.
    Restart(broadcast::Receiver<News>),
    Open {
        news: broadcast::Receiver<News>,
        _place: OwnedSemaphorePermit,
    },
}

/// What happens next.
enum Next {
    News(Result<News, RecvError>),
    Obeyed(Reply),
    Line(io::Result<usize>),
    Silence,
    Closing,
}

impl Session {
    pub(super) fn new(
        subject: Arc<dyn Subject>,
        listeners: Arc<Semaphore>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            subject,
            listeners,
            closing,
        }
    }

    pub(super) async fn run(mut self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let mut line = Vec::new();
        let mut ear = Ear::Closed;
        let mut obeying: Option<Obeying> = None;
        let mut heard_at = Instant::now();
        loop {
            let is_obeying = obeying.is_some();
            let is_patient = matches!(ear, Ear::Open { .. }) || is_obeying;
            let next = tokio::select! {
                biased;
                news = ear.next() => Next::News(news),
                reply = finish(&mut obeying) => Next::Obeyed(reply),
                _ = self.closing.wait_for(|closing| *closing) => Next::Closing,
                read = more(&mut read, &mut line), if !is_obeying => Next::Line(read),
                () = sleep_until(heard_at + SILENCE_MOST), if !is_patient => Next::Silence,
            };
            match next {
                Next::News(Ok(news)) => {
                    if ear.wants(&news) {
                        say(&mut write, &news.line).await?;
                    }
                }
                Next::News(Err(_)) => return Err(fell_behind()),
                Next::Obeyed(reply) => {
                    obeying = None;
                    heard_at = Instant::now();
                    // What happened on the way to it comes before it.
                    while let Some(news) = ear.told() {
                        say(&mut write, &news?.line).await?;
                    }
                    if matches!(ear, Ear::Restart(_)) {
                        ear = Ear::Closed;
                    }
                    say(&mut write, &reply.line()).await?;
                }
                Next::Closing => return Ok(()),
                Next::Silence => return Err(io::ErrorKind::TimedOut.into()),
                Next::Line(read) => {
                    heard_at = Instant::now();
                    let is_end = read? == 0;
                    let is_whole = line.last() == Some(&b'\n');
                    if !is_whole && !is_end && line.len() <= LINE_MOST {
                        continue;
                    }
                    let text = std::mem::take(&mut line);
                    let text = text.trim_ascii_end();
                    if !text.is_empty() {
                        match self.hear(text, &mut ear) {
                            Ok(begun) => obeying = Some(begun),
                            Err(why) => say(&mut write, &Reply::failed(why).line()).await?,
                        }
                    }
                    if is_end || !is_whole {
                        // The client has hung up, or the rest of an endless line would follow.
                        if let Some(last) = obeying.take() {
                            say(&mut write, &last.await.line()).await?;
                        }
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Begins to obey; or why not.
    fn hear(&self, text: &[u8], ear: &mut Ear) -> Result<Obeying, String> {
        let command = parse(text)?;
        // Before the status is made, so that nothing happens between the two.
        ear.prick(&command, self.subject.crier(), &self.listeners)?;
        let subject = self.subject.clone();
        Ok(Box::pin(async move {
            match subject.obey(command).await {
                Ok(answer) => Reply::done(answer),
                Err(why) => Reply::failed(why),
            }
        }))
    }
}

impl Ear {
    fn prick(
        &mut self,
        command: &Command,
        crier: &Crier,
        listeners: &Arc<Semaphore>,
    ) -> Result<(), String> {
        match (command, &*self) {
            (Command::Events {}, Self::Closed | Self::Restart(_)) => {
                let Ok(place) = listeners.clone().try_acquire_owned() else {
                    return Err("too many clients listen to events already".to_owned());
                };
                *self = Self::Open {
                    news: crier.listen(),
                    _place: place,
                };
            }
            (Command::Reload {}, Self::Closed) => *self = Self::Restart(crier.listen()),
            _ => {}
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<News, RecvError> {
        match self {
            Self::Closed => std::future::pending().await,
            Self::Restart(news) | Self::Open { news, .. } => news.recv().await,
        }
    }

    /// What has been told and not been passed on.
    fn told(&mut self) -> Option<io::Result<News>> {
        loop {
            let (Self::Restart(news) | Self::Open { news, .. }) = self else {
                return None;
            };
            match news.try_recv() {
                Ok(news) if self.wants(&news) => return Some(Ok(news)),
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => return Some(Err(fell_behind())),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    fn wants(&self, news: &News) -> bool {
        match self {
            Self::Closed => false,
            Self::Restart(_) => news.is_restart,
            Self::Open { .. } => true,
        }
    }
}

fn fell_behind() -> io::Error {
    io::Error::other("the client fell behind")
}

async fn finish(obeying: &mut Option<Obeying>) -> Reply {
    match obeying {
        Some(obeying) => obeying.await,
        None => std::future::pending().await,
    }
}

/// Reads on until the end of the line, or a little more than is taken. Cancel safe: what was read
/// stays in `line`.
async fn more(read: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<usize> {
    // One byte more than is taken, and the end.
    let most = (LINE_MOST + 2).saturating_sub(line.len());
    read.take(most as u64).read_until(b'\n', line).await
}

async fn say(write: &mut OwnedWriteHalf, line: &str) -> io::Result<()> {
    timeout(WRITE_MOST, write.write_all(line.as_bytes())).await?
}
