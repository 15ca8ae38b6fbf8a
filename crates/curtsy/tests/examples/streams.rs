//! Examples whose answers do not end by themselves: they have to end with the server.

use crate::program::{PATIENCE, Program, send};
use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn next(socket: &mut Socket) -> Message {
    let next = timeout(PATIENCE, socket.next()).await.unwrap();
    next.unwrap().unwrap()
}

async fn text(socket: &mut Socket) -> String {
    next(socket).await.into_text().unwrap().as_str().to_owned()
}

async fn open(program: &Program, path: &str) -> Socket {
    let url = format!("ws://{}{path}", program.address);
    connect_async(url).await.unwrap().0
}

#[tokio::test]
async fn chat() {
    let program = Program::start("chat");
    program.follow_its_documentation();
    let mut ada = open(&program, "/ws?name=ada").await;
    assert_eq!(text(&mut ada).await, "ada is here");
    let mut ben = open(&program, "/ws?name=ben").await;
    assert_eq!(text(&mut ben).await, "ben is here");
    assert_eq!(text(&mut ada).await, "ben is here");
    ada.send(Message::text("tea?")).await.unwrap();
    assert_eq!(text(&mut ada).await, "ada: tea?");
    assert_eq!(text(&mut ben).await, "ada: tea?");

    program.signal(Signal::TERM);
    for socket in [&mut ada, &mut ben] {
        // Whoever is told first leaves the room, which the other may still hear.
        let frame = loop {
            match next(socket).await {
                Message::Close(frame) => break frame.unwrap(),
                Message::Text(text) => assert!(text.ends_with("left"), "{text}"),
                other @ (Message::Binary(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Frame(_)) => panic!("{other:?}"),
            }
        };
        assert_eq!(frame.code, CloseCode::Away);
        // Reading on sends our own Close, which the server waits for.
        while timeout(PATIENCE, socket.next()).await.unwrap().is_some() {}
    }
    program.end();
}

#[test]
fn sse_clock() {
    let program = Program::start("sse_clock");
    program.follow_its_documentation();
    let mut lines = BufReader::new(send(program.address, "GET /clock"));
    let mut ticks = 0;
    while ticks < 2 {
        let mut line = String::new();
        assert!(
            lines.read_line(&mut line).unwrap() > 0,
            "the stream ended by itself"
        );
        ticks += usize::from(line == "event:tick\n");
    }
    program.signal(Signal::TERM);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the stream was cut: {rest:?}");
    program.end();
}

#[tokio::test]
async fn axum_app() {
    let program = Program::with("axum_app", &["127.0.0.1:0"]);
    let hello = program.ask("GET /hello/ada");
    assert!(hello.contains("Hello, ada from 127.0.0.1:"), "{hello}");
    let mut clock = BufReader::new(send(program.address, "GET /clock"));
    let mut line = String::new();
    while !line.starts_with("data: 1") {
        line.clear();
        assert!(
            clock.read_line(&mut line).unwrap() > 0,
            "the stream ended by itself"
        );
    }
    let mut echo = open(&program, "/echo").await;
    echo.send(Message::text("tea?")).await.unwrap();
    assert_eq!(text(&mut echo).await, "tea?");

    program.signal(Signal::TERM);
    let mut rest = String::new();
    clock.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("event: bye") && rest.ends_with("0\r\n\r\n"),
        "{rest:?}"
    );
    let Message::Close(Some(frame)) = next(&mut echo).await else {
        panic!("no Close");
    };
    assert_eq!(frame.code, CloseCode::Away);
    while timeout(PATIENCE, echo.next()).await.unwrap().is_some() {}
    program.end();
}
