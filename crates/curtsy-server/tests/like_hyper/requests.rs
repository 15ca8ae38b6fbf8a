//! Requests that both servers take, in all their variety.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select, subsequence};
use std::fmt;

use super::both::{LAST, Manner};

/// A request as it goes over the wire.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_head: bool,
    /// The connection may close behind its answer.
    may_close: bool,
    /// How large its answer is at least, in bytes.
    weight: usize,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(2_000)];
        write!(f, "b\"{}\"", shown.escape_ascii())?;
        match self.bytes.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} bytes"),
        }
    }
}

/// What one connection is asked.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) requests: Vec<Asked>,
    pub(crate) manner: Manner,
    /// The last request comes with the others.
    pub(crate) together: bool,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    None,
    Length,
    Chunked { extension: bool, trailers: bool },
}

/// Fields whose names have a meaning to somebody.
const KNOWN: [&str; 12] = [
    "Upgrade: websocket",
    "Accept: */*",
    "accept-ENCODING: gzip, br",
    "uSeR-aGeNt: curl/8.5.0",
    "Cookie: a=1; b=2",
    "TE: trailers",
    "Content-Type: application/json",
    "If-None-Match: \"x\"",
    "Content-Length-Hint: 3",
    "Transfer-Encodings: many",
    "Date: Mon, 01 Jan 2001 00:00:00 GMT",
    "x!#$%&'*+-.^_`|~1: every sign of a name",
];

const TARGETS: [&str; 12] = [
    "/",
    "/a/b?c=d&e=%20f",
    "/%C3%A9%2F",
    "/a//b/./../c",
    "/?",
    "/?a?b=/;:@,",
    "/frag#ment",
    "/~user/!$&'()+,;=:@",
    "/a%zz",
    "http://example.com/abs?x=1",
    "http://example.com",
    "HTTP://EXAMPLE.com:8080/Upper",
];

/// A line without its end.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        6 => select(vec!["x-a", "X-B", "x-C-d", "X-a", "x-"]).prop_map(str::to_owned),
        2 => "[xX]-[A-Za-z0-9_.-]{1,20}",
    ];
    let value = prop_oneof![
        4 => "[!-~]{1,12}( [!-~]{1,8}){0,3}".prop_map(String::into_bytes),
        1 => Just(Vec::new()),
        1 => vec(select(vec![b'a', b'"', b',', b'\t', b' ', 0x80, 0xe9, 0xff, b':']), 1..12),
        1 => Just(vec![b'v'; 3 << 10]),
    ];
    let blanks = || select(vec!["", " ", "  ", "\t", " \t "]);
    let own = (name, blanks(), value, blanks()).prop_map(|(name, before, value, behind)| {
        let head = format!("{name}:{before}");
        [head.as_bytes(), &value, behind.as_bytes()].concat()
    });
    prop_oneof![
        3 => own,
        1 => select(KNOWN.to_vec()).prop_map(|line| line.as_bytes().to_vec()),
    ]
}

/// What its answer is to be, its weight, and whether it may close.
fn script() -> impl Strategy<Value = (String, usize, bool)> {
    let frame = || {
        prop_oneof![
            4 => select(vec![1, 13, 1_000]),
            1 => select(vec![0, 20_000]),
            1 => Just(100_000_usize),
        ]
    };
    let whole = frame().prop_map(|length| (format!(" frames={length}"), length));
    let several = vec(
        prop_oneof![4 => frame().prop_map(Ok), 1 => select(vec!["p", "l"]).prop_map(Err)],
        1..5,
    )
    .prop_map(|frames| {
        let text = |frame: &Result<usize, &str>| match frame {
            Ok(length) => length.to_string(),
            Err(step) => (*step).to_owned(),
        };
        let weight = frames.iter().filter_map(|frame| frame.ok()).sum();
        let frames: Vec<String> = frames.iter().map(text).collect();
        (format!(" frames={}", frames.join(",")), weight)
    });
    let body = prop_oneof![
        3 => Just((String::new(), 0)),
        1 => Just((" empty".to_owned(), 0)),
        3 => whole,
        2 => several,
    ];
    let kind = (
        prop_oneof![
            3 => Just(None),
            2 => select(vec!["200", "201", "204", "205", "299", "301", "304", "400", "404", "500"])
                .prop_map(Some),
        ],
        prop_oneof![4 => Just(""), 1 => Just(" size=unknown")],
        prop_oneof![4 => Just(""), 1 => Just(" ends-late")],
        prop_oneof![9 => Just(""), 1 => Just(" trailers")],
        prop_oneof![9 => Just(""), 1 => Just(" version=1.0")],
        prop_oneof![5 => Just(""), 1 => select(vec![" handler=late", " handler=yield", " handler=sleep"])],
    );
    let with = (
        subsequence(
            vec![
                "type",
                "location",
                "cookies",
                "nothing",
                "obs-text",
                "case",
                "date",
                "reason",
                "extension",
                "upgrade",
                "trailer",
                "long",
                "many",
            ],
            0..4,
        ),
        prop_oneof![5 => Just(None), 2 => select(vec!["keep-alive", "hops", "close", "Close", "close-hops"]).prop_map(Some)],
        prop_oneof![5 => Just(None), 2 => select(vec!["length", "chunked", "gzip"]).prop_map(Some)],
    );
    (body, kind, with).prop_map(|(body, kind, with)| {
        let (status, size, ends, trailers, version, handler) = kind;
        // Trailers behind a length that was promised are nothing that a service may do.
        let trailers = if with.2 == Some("length") {
            ""
        } else {
            trailers
        };
        let mut all = with.0;
        all.extend(with.1);
        all.extend(with.2);
        let mut script = body.0;
        if let Some(status) = status {
            script += &format!(" status={status}");
        }
        script += &[size, ends, trailers, version, handler].concat();
        if !all.is_empty() {
            script += &format!(" with={}", all.join(","));
        }
        let may_close =
            !version.is_empty() || all.iter().any(|with| with.to_lowercase().contains("close"));
        let weight = body.1 + if all.contains(&"long") { 9_000 } else { 0 };
        (script.trim().to_owned(), weight, may_close)
    })
}

fn request() -> impl Strategy<Value = Asked> {
    let line = (
        prop_oneof![
            4 => Just("GET"),
            3 => select(vec!["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE", "M-SEARCH", "get"]),
        ],
        prop_oneof![2 => Just("/"), 3 => select(TARGETS.to_vec())],
        prop_oneof![7 => Just(true), 1 => Just(false)],
    );
    let framing = prop_oneof![
        4 => Just(Framing::None),
        3 => Just(Framing::Length),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(extension, trailers)| Framing::Chunked { extension, trailers }),
    ];
    let length = prop_oneof![4 => select(vec![0_usize, 1, 1_000]), 1 => Just(9_000)];
    let head = (
        prop_oneof![3 => vec(field(), 0..4), 1 => vec(field(), 0..20)],
        select(vec![
            "Host: a",
            "host:example.com:8080",
            "HOST: \t[::1]:80 ",
            "Host:",
        ]),
        option::weighted(
            0.4,
            select(vec![
                "close",
                "keep-alive",
                "Close",
                "keep-alive, te",
                "close, te",
                "te",
            ]),
        ),
        prop_oneof![1 => Just(None), 1 => script().prop_map(Some)],
        prop_oneof![11 => Just(false), 1 => Just(true)],
        vec(any::<Index>(), 5),
    );
    let wire = (
        prop_oneof![8 => Just(""), 1 => select(vec!["\r\n", "\r\n\r\n", "\n"])],
        prop_oneof![7 => Just("\r\n"), 1 => Just("\n")],
    );
    (line, framing, length, head, wire).prop_map(|(line, framing, length, head, wire)| {
        let (method, target, is_new) = line;
        let (mut fields, host, connection, script, expects, places) = head;
        let (before, end) = wire;
        let framing = match framing {
            // There is no such thing in HTTP/1.0.
            Framing::Chunked { .. } if !is_new => Framing::Length,
            framing @ (Framing::None | Framing::Length | Framing::Chunked { .. }) => framing,
        };
        let mut own = vec![host.to_owned()];
        own.extend(connection.map(|connection| format!("Connection: {connection}")));
        let mut may_close =
            !is_new || connection.is_some_and(|value| value.to_lowercase().contains("close"));
        let mut weight = 0;
        if let Some((script, of_answer, closes)) = script.filter(|(script, ..)| !script.is_empty())
        {
            own.push(format!("Script: {script}"));
            may_close |= closes;
            weight = of_answer;
        }
        let mut body = vec![b'b'; length];
        match framing {
            Framing::None => body.clear(),
            Framing::Length => own.push(format!("content-Length: {length}")),
            Framing::Chunked {
                extension,
                trailers,
            } => {
                own.push("Transfer-Encoding: chunked".to_owned());
                body = chunks(&body, extension, trailers);
            }
        }
        if expects && !body.is_empty() {
            own.push("Expect: 100-continue".to_owned());
        }
        // Within the limit of a head, whatever was drawn.
        let mut room = 20_000;
        fields.retain(|field| {
            room -= field.len().min(room);
            room > 0
        });
        for (line, place) in own.into_iter().zip(places) {
            fields.insert(place.index(fields.len() + 1), line.into_bytes());
        }
        let version = if is_new { "1.1" } else { "1.0" };
        let mut bytes = format!("{before}{method} {target} HTTP/{version}{end}").into_bytes();
        for field in fields {
            bytes.extend(field);
            bytes.extend(end.as_bytes());
        }
        bytes.extend(end.as_bytes());
        weight += bytes.len();
        weight += body.len();
        bytes.extend(body);
        Asked {
            bytes,
            is_head: method == "HEAD",
            may_close,
            weight,
        }
    })
}

fn chunks(body: &[u8], extension: bool, trailers: bool) -> Vec<u8> {
    let extension = if extension { ";a=\"b\"" } else { "" };
    let mut bytes = Vec::new();
    for chunk in body.chunks(700) {
        bytes.extend(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n");
    if trailers {
        bytes.extend(b"X-Trailer: here\r\n");
    }
    bytes.extend(b"\r\n");
    bytes
}

/// Up to so many requests, one after another.
pub(crate) fn conversations(most: usize) -> impl Strategy<Value = Talk> {
    vec(request(), 1..=most).prop_map(|requests| Talk {
        requests,
        manner: Manner::OneByOne,
        together: false,
    })
}

/// Up to so many requests at once, whole or in pieces.
pub(crate) fn pipelines(most: usize) -> impl Strategy<Value = Talk> {
    let length = prop_oneof![1 => Just(2), 1 => Just(6), 1 => Just(most)];
    let requests = length.prop_flat_map(|most| vec(request(), 1..=most));
    let cuts = prop_oneof![1 => Just(Vec::new()), 1 => vec(any::<Index>(), 1..=2)];
    (requests, cuts, any::<bool>()).prop_map(|(mut requests, cuts, together)| {
        // hyper closes over what it has not read, which resets the connection: an answer that fits no socket's
        // buffer would be lost, and not always the same part of it. So nothing comes behind such a one.
        let mut weight = 0;
        let last = requests.iter().position(|request| {
            weight += request.weight;
            request.may_close && weight > 10_000
        });
        let together = together && last.is_none();
        requests.truncate(last.map_or(requests.len(), |last| last + 1));
        let mut length: usize = requests.iter().map(|request| request.bytes.len()).sum();
        if together {
            length += LAST.len();
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(length)).collect();
        cuts.sort_unstable();
        Talk {
            requests,
            manner: Manner::Pipelined(cuts),
            together,
        }
    })
}
