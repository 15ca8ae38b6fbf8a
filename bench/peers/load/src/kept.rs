//! A keep-alive connection that asks one or several at once, and knows when all of it is answered.
//!
//! All answers of a connection have to be as long as its first one, and every one of them a 200.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    answer::{self, Progress},
    socket::Sources,
};

/// What is asked where nothing else is said.
pub const HELLO: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// An answer of 64 KiB with its head fits, so that what is there is read at once.
pub const BUFFER_BYTES: usize = 128 * 1024;

const OK: &[u8] = b"HTTP/1.1 200";

/// Until the first answer has to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub struct Kept {
    stream: TcpStream,
    lengths: Lengths,
}

/// Where each answer begins, and whether it begins as it should.
#[derive(Debug)]
struct Lengths {
    answer_bytes: usize,
    filled: usize,
}

impl Kept {
    /// Connects and asks `request` once, to learn how long an answer is.
    pub fn open(sources: &mut Sources, target: SocketAddr, request: &[u8]) -> Result<Self> {
        let mut stream = sources.connect(target).context("connecting")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let (mut buffer, mut filled) = (vec![0; BUFFER_BYTES], 0);
        let answer_bytes = loop {
            let read = stream
                .read(&mut buffer[filled..])
                .context("reading an answer")?;
            ensure!(read > 0, "closed before the answer was whole");
            filled += read;
            if let Progress::Whole(bytes) = answer::progress(&buffer[..filled])? {
                break bytes;
            }
        };
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            lengths: Lengths {
                answer_bytes,
                filled: 0,
            },
        })
    }

    /// Asks for all of `requests`. They fit the socket's buffer, which is empty: everything before was answered.
    pub fn ask(&mut self, requests: &[u8]) -> Result<()> {
        self.lengths.filled = 0;
        ensure!(
            self.stream.write(requests)? == requests.len(),
            "the socket took only part of a batch"
        );
        Ok(())
    }

    /// Breaks off; reading fails from now on.
    pub fn end(&self) {
        // An error says that it has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Reads what is there; whether that was the end of the last of `answers`.
    pub fn is_answered(&mut self, buffer: &mut [u8], answers: usize) -> Result<bool> {
        match self.stream.read(buffer) {
            Ok(0) => bail!("closed before everything was answered"),
            Ok(read) => self.lengths.take(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("reading answers"),
        }
        let expected = answers * self.lengths.answer_bytes;
        ensure!(
            self.lengths.filled <= expected,
            "more bytes than the answers have"
        );
        Ok(self.lengths.filled == expected)
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Lengths {
    /// Looks at the beginnings of answers in `bytes`, which may be cut anywhere.
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let place = self.filled % self.answer_bytes;
            let due = OK.get(place..).unwrap_or_default();
            ensure!(
                rest.iter().zip(due).all(|(byte, due)| byte == due),
                "an answer is not a 200 of the usual length"
            );
            let step = rest.len().min(self.answer_bytes - place);
            self.filled += step;
            rest = &rest[step..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    fn lengths() -> Lengths {
        Lengths {
            answer_bytes: ANSWER.len(),
            filled: 0,
        }
    }

    #[test]
    fn answers_may_be_cut_anywhere() {
        let answers = ANSWER.repeat(3);
        for size in 1..=answers.len() {
            let mut lengths = lengths();
            for piece in answers.chunks(size) {
                lengths.take(piece).unwrap();
            }
            assert_eq!(lengths.filled, answers.len(), "{size}");
        }
    }

    #[test]
    fn an_answer_that_is_no_200_is_seen_wherever_it_is_cut() {
        let mut answers = ANSWER.repeat(3);
        answers[2 * ANSWER.len() + OK.len() - 1] = b'4';
        for size in 1..=answers.len() {
            let mut lengths = lengths();
            let taken = answers
                .chunks(size)
                .try_for_each(|piece| lengths.take(piece));
            assert!(taken.is_err(), "{size}");
        }
    }

    #[test]
    fn an_answer_of_another_length_is_seen_at_the_next_one() {
        let mut lengths = lengths();
        lengths
            .take(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok!")
            .unwrap_err();
    }
}
