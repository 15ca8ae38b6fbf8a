//! What a connection remembers while it rests without an engine, so that a new engine goes on where the old one
//! was, and the client notices nothing.
//!
//! The new engine is introduced by a client of our making: it says the client's settings, and what the client's
//! window is; asks for nothing on the last stream that the client used, so that those before it are over; and shows
//! the header fields that the client refers to by number. What the engine answers to all of it is thrown away.
//!
//! Two things need care:
//! - The engine must not send more than the client's window takes. A window that is smaller than a new
//!   connection's is brought about by an answer of so many bytes to the request for nothing.
//! - The header fields may be anything in any order. They come as a malformed block on a stream of even
//!   number: an engine decodes it to its end, as the fields are the connection's, and resets the stream.
//!
//! What the engine's own encoder had entered is forgotten without harm: the client's table is numbered from its
//! newest entry, and what a new encoder enters comes before everything old.
//!
//! Invariant: what was not understood wholly is not remembered; such a connection keeps its engine.

use crate::http2::blame::Blame;
use crate::http2::flood::Budget;
use crate::http2::frames::{self, Frame};
use crate::http2::payloads::{Payload, Payloads};
use crate::http2::table::Table;

pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The windows that connections and streams begin with, in bytes.
pub(crate) const WINDOW: u32 = 65_535;

/// The stream on which header fields are shown.
pub(crate) const SHOWN_ON: u32 = 2;

/// The settings that are known, by number; `settings[0]` is none.
const SETTINGS: usize = 9;
const HEADER_TABLE_SIZE: usize = 1;
const INITIAL_WINDOW_SIZE: usize = 4;
const TABLE_SIZE: u32 = 4096;

/// The longest frame that every engine takes, in bytes.
const FRAME_MOST: usize = 16 << 10;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
/// `:method: GET`, `:scheme: https`, `:path: /`, by their numbers.
const NOTHING: &[u8] = &[0x82, 0x87, 0x84];
/// `accept-encoding: gzip, deflate` and then a pseudo field, which makes it malformed.
const MALFORMED: &[u8] = &[0x90, 0x82];

#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) budget: Budget,
    /// Whether it is to be told to go once it is awake.
    pub(crate) goodbye: bool,
    payloads: Payloads,
    settings: [Option<u32>; SETTINGS],
    /// How much we may send on the connection, and the client may, in bytes.
    may_send: i64,
    may_receive: i64,
    /// The client has accepted our settings.
    agreed: bool,
    /// Our encoder has to tell of a smaller table with the next header block.
    owes_size: bool,
    newest: u32,
    table: Table,
    /// Everything so far was understood.
    understood: bool,
}

impl Memory {
    /// Of a connection of which nothing was read.
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            goodbye: false,
            payloads: Payloads::after(PREFACE.len()),
            settings: [None; SETTINGS],
            may_send: WINDOW.into(),
            may_receive: WINDOW.into(),
            agreed: false,
            owes_size: false,
            newest: 0,
            table: Table::default(),
            understood: true,
        }
    }

    /// The client sent bytes.
    pub(crate) fn read(&mut self, bytes: &[u8], blame: &mut Blame) {
        if !self.understood {
            return;
        }
        let (settings, table) = (&mut self.settings, &mut self.table);
        let (understood, owes_size) = (&mut self.understood, &mut self.owes_size);
        self.payloads.feed(bytes, |payload| {
            *understood &= match payload {
                Payload::Settings(payload) => {
                    for setting in payload.chunks_exact(6) {
                        let &[a, b, c, d, e, f] = setting else {
                            continue;
                        };
                        let number = usize::from(u16::from_be_bytes([a, b]));
                        let value = u32::from_be_bytes([c, d, e, f]);
                        if let Some(known) = settings.get_mut(number) {
                            *known = Some(value);
                        }
                        if number == INITIAL_WINDOW_SIZE && value > u32::MAX >> 1 {
                            blame.window_too_large();
                        }
                        *owes_size |= number == HEADER_TABLE_SIZE && value < TABLE_SIZE;
                    }
                    true
                }
                Payload::Block(block) => {
                    let read = table.read(block);
                    if read.is_none() {
                        blame.coding();
                    }
                    read.is_some()
                }
                Payload::Broken => false,
            };
        });
    }

    /// The client sent a frame.
    pub(crate) fn received(&mut self, frame: Frame) {
        match frame.kind {
            frames::WINDOW_UPDATE if frame.stream == 0 => {
                self.may_send += i64::from(frame.word & (u32::MAX >> 1));
            }
            frames::DATA => self.may_receive -= i64::from(frame.length),
            frames::HEADERS => self.newest = self.newest.max(frame.stream),
            frames::SETTINGS if !frame.is_greeting() => self.agreed = true,
            _ => {}
        }
    }

    /// A frame went to the client.
    pub(crate) fn sent(&mut self, frame: Frame) {
        match frame.kind {
            frames::WINDOW_UPDATE if frame.stream == 0 => {
                self.may_receive += i64::from(frame.word & (u32::MAX >> 1));
            }
            frames::DATA => self.may_send -= i64::from(frame.length),
            frames::HEADERS => self.owes_size = false,
            _ => {}
        }
    }

    pub(crate) fn newest(&self) -> u32 {
        self.newest
    }

    /// Whether a new engine can take it up, one that takes header lists so long and whose window
    /// is `target` bytes.
    pub(crate) fn is_enough(&self, header_bytes: usize, target: u32) -> bool {
        let stream_window = self.settings[INITIAL_WINDOW_SIZE].unwrap_or(WINDOW);
        self.understood
            && self.agreed
            && !self.owes_size
            && self.newest > 0
            // It is told of a window that is this much larger, and not of any that is larger.
            && target >= 2 * WINDOW
            && (0..=i64::from(u32::MAX >> 1)).contains(&self.may_send)
            && self.deficit() <= stream_window
            && (0..=i64::from(target)).contains(&self.may_receive)
            && can_be_shown(&self.table, header_bytes)
    }

    /// How much smaller the client's window is than a new connection's, in bytes.
    pub(crate) fn deficit(&self) -> u32 {
        let missing = i64::from(WINDOW) - self.may_send;
        u32::try_from(missing.max(0)).unwrap_or(WINDOW)
    }

    /// Whether there are header fields to be shown.
    pub(crate) fn shows_fields(&self) -> bool {
        !self.table.written().is_empty()
    }

    /// What a new engine is to be told.
    pub(crate) fn introduction(&self) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (number, value) in (0u16..).zip(&self.settings) {
            if let Some(value) = value {
                settings.extend(number.to_be_bytes());
                settings.extend(value.to_be_bytes());
            }
        }
        write_frame(&mut bytes, (frames::SETTINGS, 0, 0), &settings);
        write_frame(&mut bytes, (frames::SETTINGS, ACK, 0), &[]);
        let more = self.may_send - i64::from(WINDOW);
        if let Ok(more @ 1..) = u32::try_from(more) {
            let update = (frames::WINDOW_UPDATE, 0, 0);
            write_frame(&mut bytes, update, &more.to_be_bytes());
        }
        let flags = END_STREAM | END_HEADERS;
        write_frame(&mut bytes, (frames::HEADERS, flags, self.newest), NOTHING);
        if self.shows_fields() {
            write_frame(
                &mut bytes,
                (frames::HEADERS, flags, SHOWN_ON),
                &block(&self.table),
            );
        }
        bytes
    }

    /// What the client is to be told, whose window a new engine takes for `target` bytes.
    pub(crate) fn open_window(&mut self, target: u32) -> Vec<u8> {
        let missing = i64::from(target) - self.may_receive;
        let mut bytes = Vec::new();
        if let Ok(missing @ 1..) = u32::try_from(missing) {
            let update = (frames::WINDOW_UPDATE, 0, 0);
            write_frame(&mut bytes, update, &missing.to_be_bytes());
            self.may_receive += i64::from(missing);
        }
        bytes
    }

    /// Keeps no more than is needed.
    pub(crate) fn shrink(&mut self) {
        self.table.shrink();
    }
}

/// Whether an engine that takes header lists so long enters all of these fields, and in one frame.
fn can_be_shown(table: &Table, header_bytes: usize) -> bool {
    table.list_most() + MALFORMED.len() * 64 <= header_bytes
        && table.written().len() + MALFORMED.len() <= FRAME_MOST
}

/// The header block by which they are shown.
fn block(table: &Table) -> Vec<u8> {
    [MALFORMED, table.written()].concat()
}

/// For fuzz targets: that block, if it is sent.
#[cfg(fuzzing)]
pub(crate) fn shown(table: &Table, header_bytes: usize) -> Option<Vec<u8>> {
    let is_sent = !table.written().is_empty() && can_be_shown(table, header_bytes);
    is_sent.then(|| block(table))
}

fn write_frame(bytes: &mut Vec<u8>, head: (u8, u8, u32), payload: &[u8]) {
    let (kind, flags, stream) = head;
    // None is longer than `FRAME_MOST`.
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}
