//! One client of a run over WebSocket: messages to a server that echoes them, each one a request of the account.
//!
//! A connection ends well when the server says so: with a Close frame, as 1001 when it goes away. A message that crosses such a Close
//! on the wire is nobody's fault, for after a Close its sender may send no echo: it is counted as `crossed_close`, not as
//! lost. The upgrade belongs to connecting: refused with a status, it is a failed connect.
//!
//! Deliberately absent: telling `eof_inside` from `eof_before`; an echo is seen when it is whole.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, Request};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::book::Entry;
use crate::client::{CONNECT_PAUSE, Client, Opening};
use crate::outcome::{Closed, Loss, Trouble};
use crate::plan::Plan;
use crate::stream::Stream;

type Socket = WebSocketStream<Stream>;

/// What the server has sent, pings and pongs aside.
enum Event {
    Text(String),
    /// A Close frame, with its code.
    Close(u16),
    Ended(Trouble),
}

/// Runs a client to its end.
pub(crate) async fn run(mut client: Client, message_bytes: usize) {
    let pause = client.plan.pause_of(client.index);
    let mut requests_left = client.plan.requests_each.unwrap_or(u64::MAX);
    let mut is_first = true;
    let mut current = None;
    while requests_left > 0 && !client.is_stopped() {
        let mut socket = match current.take() {
            Some(socket) => socket,
            None => match open(&client, &mut is_first).await {
                Ok(socket) => socket,
                Err(Opening::Ended) => return,
                Err(Opening::Later | Opening::Open(_)) => {
                    client.pause_until_stopped(CONNECT_PAUSE).await;
                    continue;
                }
            },
        };
        requests_left -= 1;
        match ask(&client, &mut socket, message_bytes).await {
            Some(how) => {
                end(client.plan.timeout, socket, how).await;
                client.book.closed(how);
            }
            None => current = Some(socket),
        }
        if requests_left > 0 {
            current = think(&mut client, current, pause).await;
        }
    }
    if let Some(mut socket) = current {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        // The run is over; a server that is gone by now has been heard of no later than any other.
        let _ = (*socket).close(Some(frame)).await;
        end(client.plan.timeout, socket, Closed::ByClient).await;
        client.book.closed(Closed::ByClient);
    }
}

async fn open(client: &Client, is_first: &mut bool) -> Result<Box<Socket>, Opening> {
    let stream = match client.open(is_first).await {
        Opening::Open(stream) => stream,
        Opening::Later => return Err(Opening::Later),
        Opening::Ended => return Err(Opening::Ended),
    };
    let failed = |why: String| {
        client.book.closed(Closed::ByLoss);
        client
            .book
            .connect_failed(format!("WebSocket upgrade: {why}"));
        Opening::Later
    };
    let request = head(&client.plan).map_err(failed)?;
    let upgrade = tokio_tungstenite::client_async(request, stream);
    match timeout(client.plan.timeout, Box::pin(upgrade)).await {
        Ok(Ok((socket, _))) => Ok(Box::new(socket)),
        Ok(Err(e)) => Err(failed(e.to_string())),
        Err(_) => Err(failed("timed out".to_owned())),
    }
}

fn head(plan: &Plan) -> Result<Request<()>, String> {
    let scheme = if plan.target.tls_name.is_some() {
        "wss"
    } else {
        "ws"
    };
    let uri = format!("{scheme}://{}{}", plan.target.authority, plan.target.path);
    let mut request = uri.into_client_request().map_err(|e| e.to_string())?;
    for (name, value) in &plan.fields {
        let name = HeaderName::try_from(name).map_err(|e| e.to_string())?;
        let value = HeaderValue::try_from(value).map_err(|e| e.to_string())?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

/// One message, its echo and their entries; `Some` if the connection is at its end.
async fn ask(client: &Client, socket: &mut Socket, bytes: usize) -> Option<Closed> {
    let entry = client.book.sent(client.index, Instant::now().into_std());
    let text = format!("{:.<bytes$}", format!("message {} ", entry.number));
    let exchange = async {
        // What a failed write means is told by what can still be read: a Close may have come first.
        let written = socket.send(Message::text(text.clone())).await;
        (written, next(socket).await)
    };
    match timeout(client.plan.timeout, exchange).await {
        Ok((_, Event::Text(echo))) => {
            echoed(client, entry, &text, &echo);
            None
        }
        Ok((_, Event::Close(code))) => Some(closed(client, Some(entry), code)),
        Ok((written, Event::Ended(trouble))) => {
            let trouble = match written {
                Ok(()) => trouble,
                Err(e) => Trouble::new(Loss::Reset, format!("writing the message: {e}")),
            };
            client.book.lost(entry, trouble);
            Some(Closed::ByLoss)
        }
        Err(_) => {
            client.book.lost(entry, client.out_of_time());
            Some(Closed::ByLoss)
        }
    }
}

fn echoed(client: &Client, entry: Entry, text: &str, echo: &str) {
    if echo == text {
        client.book.answered(entry, echo.len() as u64, None);
    } else {
        let start: String = echo.chars().take(ECHO_SHOWN_CHARS).collect();
        let trouble = Trouble::new(Loss::WrongBody, format!("the echo is {start:?}"));
        client.book.lost(entry, trouble);
    }
}

/// Enters a Close frame, and what it means for the message under way.
fn closed(client: &Client, entry: Option<Entry>, code: u16) -> Closed {
    client.book.close_frame(code);
    let is_orderly = ORDERLY_CODES.contains(&code);
    if let Some(entry) = entry {
        if is_orderly {
            client.book.crossed_close();
        } else {
            let trouble = Trouble::new(Loss::EofBefore, format!("Close {code}"));
            client.book.lost(entry, trouble);
        }
    }
    if is_orderly {
        Closed::ByServerAnnounced
    } else {
        Closed::ByLoss
    }
}

/// Waits for the next thing that the server says.
///
/// Cancel safe: a message that is not whole yet stays in the socket's buffer.
async fn next(socket: &mut Socket) -> Event {
    loop {
        return match socket.next().await {
            Some(Ok(Message::Text(text))) => Event::Text(text.as_str().to_owned()),
            Some(Ok(Message::Close(frame))) => {
                Event::Close(frame.map_or(CODE_NONE, |f| f.code.into()))
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                Event::Ended(Trouble::new(Loss::Garbage, "not a text message"))
            }
            Some(Err(e)) => Event::Ended(trouble(&e)),
            None => Event::Ended(Trouble::new(Loss::EofBefore, "end of stream")),
        };
    }
}

fn trouble(error: &tungstenite::Error) -> Trouble {
    let is_end = matches!(
        error,
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
    );
    let loss = if is_end {
        Loss::EofBefore
    } else if let tungstenite::Error::Io(e) = error {
        if e.kind() == std::io::ErrorKind::UnexpectedEof {
            Loss::EofBefore
        } else {
            Loss::Reset
        }
    } else {
        Loss::Garbage
    };
    Trouble::new(loss, error.to_string())
}

/// Lets the pause pass, with an ear on the connection.
async fn think(
    client: &mut Client,
    current: Option<Box<Socket>>,
    pause: Duration,
) -> Option<Box<Socket>> {
    if pause.is_zero() {
        return current;
    }
    let due = Instant::now() + pause;
    let Some(mut socket) = current else {
        client.pause_until_stopped(pause).await;
        return None;
    };
    let event = tokio::select! {
        biased;
        event = next(&mut socket) => event,
        () = client.pause_until_stopped(pause) => return Some(socket),
    };
    let how = match event {
        Event::Close(code) => closed(client, None, code),
        Event::Ended(trouble) if trouble.loss != Loss::Garbage => {
            client.book.close_frame(CODE_ABNORMAL);
            Closed::WhileIdle
        }
        Event::Ended(_) | Event::Text(_) => {
            client.book.unsolicited();
            Closed::ByLoss
        }
    };
    end(client.plan.timeout, socket, how).await;
    client.book.closed(how);
    client
        .pause_until_stopped(due.saturating_duration_since(Instant::now()))
        .await;
    None
}

/// After a Close of either side, waits for the server to close the connection, as the protocol wants it from a client.
async fn end(bound: Duration, mut socket: Box<Socket>, how: Closed) {
    if how == Closed::ByLoss {
        return;
    }
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    // A server that does not close is left with a closed connection; the account has its entry by now.
    let _ = timeout(bound.min(END_WAIT_MAX), rest).await;
}

/// Normal, going away, service restart, try again later: the server ends the connection in good order.
const ORDERLY_CODES: [u16; 4] = [1000, 1001, 1012, 1013];
/// A Close frame without a code.
const CODE_NONE: u16 = 1005;
/// No Close frame at all.
const CODE_ABNORMAL: u16 = 1006;
const END_WAIT_MAX: Duration = Duration::from_secs(5);
const ECHO_SHOWN_CHARS: usize = 100;
