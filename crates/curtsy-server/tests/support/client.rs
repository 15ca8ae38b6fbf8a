//! A client that sends bytes as they are and reads answers strictly.

use super::PATIENCE;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// A request without a body.
pub fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

pub struct Client {
    socket: Box<dyn Socket>,
    /// Read, and not yet part of an answer.
    unread: Vec<u8>,
    pub local: Option<SocketAddr>,
}

/// An answer as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Every byte of the head.
    pub head: String,
}

impl Client {
    /// Over a socket that the test has made.
    pub fn over(socket: impl Socket + 'static) -> Self {
        Self {
            socket: Box::new(socket),
            unread: Vec::new(),
            local: None,
        }
    }

    pub async fn connect(address: SocketAddr) -> Self {
        let socket = timeout(PATIENCE, TcpStream::connect(address)).await;
        let socket = socket.expect("cannot connect in time").unwrap();
        socket.set_nodelay(true).unwrap();
        let local = socket.local_addr().ok();
        Self {
            socket: Box::new(socket),
            unread: Vec::new(),
            local,
        }
    }

    pub async fn connect_unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap())
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("cannot send");
    }

    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sending = self.socket.write_all(bytes.as_ref());
        timeout(PATIENCE, sending)
            .await
            .expect("cannot send in time")
    }

    /// Closes the sending side.
    pub async fn finish_sending(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    pub async fn get(&mut self, target: &str) -> Answer {
        self.send(request("GET", target)).await;
        self.answer().await
    }

    /// Reads some more; `Ok(0)` is the end.
    pub async fn read_some(&mut self) -> io::Result<usize> {
        let reading = self.socket.read_buf(&mut self.unread);
        match timeout(PATIENCE, reading).await {
            Ok(read) => read,
            Err(_) => panic!(
                "nothing more came; so far {:?}",
                String::from_utf8_lossy(&self.unread)
            ),
        }
    }

    /// The next answer, to a request whose answer may have a body.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        let bodiless = method == "HEAD" || matches!(answer.status, 100..200 | 204 | 304);
        if bodiless {
            return answer;
        }
        answer.body = if answer.header("transfer-encoding") == Some("chunked") {
            self.chunks().await
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().unwrap();
            self.take(length).await
        } else {
            self.read_to_end().await.expect("the answer was reset")
        };
        answer
    }

    /// The head of the next answer.
    pub async fn head(&mut self) -> Answer {
        let end = self.find(b"\r\n\r\n").await;
        let head = String::from_utf8(self.take(end + 4).await).unwrap();
        Answer::parse(head)
    }

    /// So many bytes.
    pub async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            let read = self.read_some().await.expect("the answer was reset");
            assert!(read > 0, "the answer ended early, after {:?}", self.seen());
        }
        self.unread.drain(..length).collect()
    }

    async fn find(&mut self, needle: &[u8]) -> usize {
        loop {
            let mut windows = self.unread.windows(needle.len());
            if let Some(at) = windows.position(|window| window == needle) {
                return at;
            }
            let read = self.read_some().await.expect("the connection was reset");
            assert!(
                read > 0,
                "closed instead of an answer, after {:?}",
                self.seen()
            );
        }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let end = self.find(b"\r\n").await;
            let line = String::from_utf8(self.take(end + 2).await).unwrap();
            let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
            body.extend(self.take(length).await);
            assert_eq!(self.take(2).await, b"\r\n");
            if length == 0 {
                return body;
            }
        }
    }

    /// Everything to the end of the connection; an error if it was reset.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.read_some().await? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// The connection ends here: orderly, and without another byte.
    pub async fn ends(&mut self) {
        let rest = self.read_to_end().await.expect("reset instead of closed");
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(rest.is_empty(), "more came before the end: {rest:?}");
    }

    /// The connection ends here without another byte; it may be reset.
    pub async fn is_cut(&mut self) {
        if let Ok(rest) = self.read_to_end().await {
            let rest = String::from_utf8_lossy(&rest).into_owned();
            assert!(rest.is_empty(), "more came before the cut: {rest:?}");
        }
    }

    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.unread).into_owned()
    }
}

impl Answer {
    fn parse(head: String) -> Self {
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap();
        let rest = first.strip_prefix("HTTP/1.").expect("no status line");
        let status = rest[2..5].parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").expect("no header line"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self {
            status,
            headers,
            body: Vec::new(),
            head,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(found, _)| found == name);
        let value = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// It has that status and that body.
    #[track_caller]
    pub fn is(&self, status: u16, body: &str) -> &Self {
        assert_eq!(
            (self.status, self.text().as_str()),
            (status, body),
            "{self:?}"
        );
        self
    }

    /// It says that it is the last on its connection.
    #[track_caller]
    pub fn and_closes(&self) -> &Self {
        assert!(self.closes(), "{self:?}");
        self
    }

    #[track_caller]
    pub fn and_keeps_alive(&self) -> &Self {
        assert!(!self.closes(), "{self:?}");
        self
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.text();
        let shown: String = body.chars().take(200).collect();
        write!(f, "{}{shown:?} ({} B)", self.head, self.body.len())
    }
}
