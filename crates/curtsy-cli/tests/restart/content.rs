//! What spans a restart arrives as it was sent, byte for byte, and its connection goes over when it is done.

use crate::row::{BOUND, Row};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::timeout;

const DOWNLOAD_BYTES: usize = 50 << 20;
const UPLOAD_BYTES: usize = 20 << 20;
/// What is under way before the restart begins; much more than sockets hold must be left then.
const BEFORE_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// An answer's head, and how long its body is if it says so.
async fn head(reader: &mut BufReader<OwnedReadHalf>) -> (String, Option<usize>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let byte = timeout(BOUND, reader.read_u8()).await.unwrap();
        head.push(char::from(byte.unwrap()));
    }
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let length = head.split("content-length: ").nth(1);
    let length = length.map(|rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    (head, length)
}

/// Reads so many bytes more.
async fn grow(reader: &mut BufReader<OwnedReadHalf>, body: &mut Vec<u8>, more: usize) {
    let from = body.len();
    body.resize(from + more, 0);
    let read = timeout(BOUND, reader.read_exact(&mut body[from..])).await;
    read.unwrap().unwrap();
}

/// A body with a length in its head, or in chunks; `begun` is told when the first of it is here.
async fn body(
    reader: &mut BufReader<OwnedReadHalf>,
    length: Option<usize>,
    mut begun: Option<UnboundedSender<()>>,
) -> Vec<u8> {
    let mut body = Vec::new();
    let mut tell = |body: &Vec<u8>| {
        if body.len() >= BEFORE_BYTES
            && let Some(begun) = begun.take()
        {
            begun.send(()).unwrap();
        }
    };
    if let Some(length) = length {
        while body.len() < length {
            let piece = (length - body.len()).min(PIECE_BYTES);
            grow(reader, &mut body, piece).await;
            tell(&body);
        }
        return body;
    }
    loop {
        let mut size = Vec::new();
        while !size.ends_with(b"\r\n") {
            grow(reader, &mut size, 1).await;
        }
        let digits = std::str::from_utf8(&size).unwrap().trim_end();
        let size = usize::from_str_radix(digits, 16).unwrap();
        grow(reader, &mut body, size).await;
        tell(&body);
        let mut end = Vec::new();
        grow(reader, &mut end, 2).await;
        assert_eq!(end, b"\r\n");
        if size == 0 {
            return body;
        }
    }
}

/// A connection's two sides.
struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: tokio::net::tcp::OwnedWriteHalf,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let (reader, writer) = TcpStream::connect(address).await.unwrap().into_split();
        let reader = BufReader::new(reader);
        Self { reader, writer }
    }

    async fn get(&mut self, path: &str) -> Vec<u8> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.writer.write_all(request.as_bytes()).await.unwrap();
        let (_, length) = head(&mut self.reader).await;
        body(&mut self.reader, length, None).await
    }

    /// Who answers on this connection now.
    async fn assert_is_served_by(&mut self, generation: u32) {
        let answer = self.get("/pid").await;
        let answer = String::from_utf8(answer).unwrap();
        let by = format!("generation={generation}");
        assert!(answer.ends_with(&by), "{answer} instead of {by}");
    }
}

/// Where two bodies differ first, for a message that can be read.
fn assert_same(what: &str, got: &[u8], sent: &[u8]) {
    assert_eq!(got.len(), sent.len(), "{what}");
    let differs = got.iter().zip(sent).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{what} differs at this byte");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_that_span_a_restart_are_what_was_sent() {
    const CLIENTS: usize = 3;
    let mut row = Row::start(&["--bake-after", "100ms"]).await;
    let path = format!("/big?bytes={DOWNLOAD_BYTES}");
    let quiet = Client::connect(row.address).await.get(&path).await;
    assert_eq!(quiet.len(), DOWNLOAD_BYTES);
    // Not all the same letter, or nothing would be compared.
    let different: std::collections::HashSet<u8> = quiet[..4096].iter().copied().collect();
    assert!(different.len() > 16);

    let (tell, told) = watch::channel(false);
    let (began, mut all_begun) = unbounded_channel();
    let mut downloads = tokio::task::JoinSet::new();
    for index in 0..CLIENTS {
        let (path, mut told, began) = (path.clone(), told.clone(), began.clone());
        let mut client = Client::connect(row.address).await;
        downloads.spawn(async move {
            let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
            client.writer.write_all(request.as_bytes()).await.unwrap();
            let (_, length) = head(&mut client.reader).await;
            let mut start = vec![0; BEFORE_BYTES];
            let read = timeout(BOUND, client.reader.read_exact(&mut start)).await;
            read.unwrap().unwrap();
            began.send(index).unwrap();
            // The rest is read when the new process serves.
            told.wait_for(|told| *told).await.unwrap();
            let rest = length.unwrap() - BEFORE_BYTES;
            start.extend(body(&mut client.reader, Some(rest), None).await);
            (client, start)
        });
    }
    for _ in 0..CLIENTS {
        timeout(BOUND, all_begun.recv()).await.unwrap().unwrap();
    }
    row.restart().await;
    tell.send_replace(true);
    while let Some(done) = timeout(BOUND, downloads.join_next()).await.unwrap() {
        let (mut client, got) = done.unwrap();
        assert_same("a download", &got, &quiet);
        client.assert_is_served_by(1).await;
    }
    row.alone().await;
    row.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_span_a_restart_are_what_was_sent() {
    const CLIENTS: u64 = 3;
    let mut row = Row::start(&["--bake-after", "100ms"]).await;
    let (tell, told) = watch::channel(false);
    let (began, mut all_begun) = unbounded_channel();
    let mut uploads = tokio::task::JoinSet::new();
    for seed in 1..=CLIENTS {
        let (mut told, began) = (told.clone(), began.clone());
        let Client {
            mut reader,
            mut writer,
        } = Client::connect(row.address).await;
        let sent = std::sync::Arc::new(noise(seed, UPLOAD_BYTES));
        let source = sent.clone();
        let writing = tokio::spawn(async move {
            let head = format!(
                "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n"
            );
            writer.write_all(head.as_bytes()).await.unwrap();
            let (first, rest) = source.split_at(UPLOAD_BYTES / 2);
            writer.write_all(first).await.unwrap();
            told.wait_for(|told| *told).await.unwrap();
            writer.write_all(rest).await.unwrap();
            writer
        });
        uploads.spawn(async move {
            let (_, length) = head(&mut reader).await;
            let got = body(&mut reader, length, Some(began)).await;
            let writer = writing.await.unwrap();
            (Client { reader, writer }, sent, got)
        });
    }
    for _ in 0..CLIENTS {
        timeout(BOUND, all_begun.recv()).await.unwrap().unwrap();
    }
    row.restart().await;
    tell.send_replace(true);
    while let Some(done) = timeout(BOUND, uploads.join_next()).await.unwrap() {
        let (mut client, sent, got) = done.unwrap();
        assert_same("an upload", &got, &sent);
        client.assert_is_served_by(1).await;
    }
    row.alone().await;
    row.stop().await;
}

/// Bytes that repeat nowhere.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes / 8).flat_map(|_| next()).collect()
}
