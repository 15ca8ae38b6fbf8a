//! The frames: what is written is read back, and nothing that is read can harm.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::time::Duration;

use curtsy_handover::Record;
use curtsy_handover::wire::{
    FDS_MAX, FRAME_MAX, Frame, Hello, Kind, Listener, Message, Offered, Refusal, WireError,
};
use proptest::prelude::*;

fn record() -> impl Strategy<Value = Record> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..600);
    (
        "[a-z]{0,12}",
        any::<u64>(),
        any::<u32>(),
        bytes.clone(),
        bytes,
    )
        .prop_map(|(listener, served, idle, unread, extra)| Record {
            listener,
            served,
            idle: Duration::from_millis(u64::from(idle)),
            unread,
            extra,
        })
}

fn message() -> impl Strategy<Value = Message> {
    let ids = || proptest::collection::vec(any::<u64>(), 0..100);
    let hello = (
        any::<u32>(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        proptest::collection::vec(any::<u8>(), 0..64),
        0_u16..65,
    );
    let listener = ("[a-z0-9]{0,40}", any::<bool>(), "[a-z]{0,8}", 0_u16..65);
    let offered = (any::<u64>(), record()).prop_map(|(id, record)| Offered { id, record });
    prop_oneof![
        hello.prop_map(|(pid, features, room, window, config, pidfds)| {
            Message::Hello(Hello {
                pid,
                features,
                room,
                window,
                config,
                pidfds,
            })
        }),
        listener.prop_map(|(name, tcp, mode, sockets)| {
            let kind = if tcp { Kind::Tcp } else { Kind::Unix };
            Message::Listener(Listener {
                name,
                kind,
                mode,
                sockets,
            })
        }),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Message::Tickets),
        Just(Message::Complete),
        any::<u32>().prop_map(|sequence| Message::Got { sequence }),
        Just(Message::Ready),
        proptest::collection::vec(offered, 0..FDS_MAX / 2).prop_map(Message::Offer),
        ids().prop_map(Message::Taken),
        (ids(), any::<bool>()).prop_map(|(ids, room)| Message::Refuse {
            ids,
            reason: if room {
                Refusal::NoRoom
            } else {
                Refusal::Unwanted
            },
        }),
        Just(Message::Baked),
        Just(Message::Restart),
        ".{0,80}".prop_map(|report| Message::Bye { report }),
        ".{0,80}".prop_map(|reason| Message::Abort { reason }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    (any::<u32>(), any::<u32>(), message()).prop_map(|(generation, sequence, message)| Frame {
        generation,
        sequence,
        message,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_is_written_is_read_back(frame in frame()) {
        let bytes = frame.encode().unwrap();
        prop_assert!(bytes.len() <= FRAME_MAX);
        prop_assert_eq!(Frame::decode(&bytes).unwrap(), frame);
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        // Twice: as they are, and behind a right header, so that the body is reached.
        prop_assert!(Frame::decode(&bytes).is_err());
        let mut framed = Frame { generation: 1, sequence: 1, message: Message::Ready }.encode().unwrap();
        framed[7] = bytes.first().map_or(1, |byte| byte % 16);
        framed.extend_from_slice(&bytes);
        if let Ok(frame) = Frame::decode(&framed) {
            prop_assert_eq!(Frame::decode(&frame.encode().unwrap()).unwrap(), frame);
        }
    }

    #[test]
    fn a_damaged_frame_never_panics(frame in frame(), at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<prop::sample::Index>()) {
        let mut bytes = frame.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = Frame::decode(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = Frame::decode(&bytes);
    }
}

fn with_body(message: Message, body: &[u8]) -> Result<Frame, WireError> {
    let mut bytes = Frame {
        generation: 0,
        sequence: 1,
        message,
    }
    .encode()
    .unwrap();
    bytes.extend_from_slice(body);
    Frame::decode(&bytes)
}

#[test]
fn an_unknown_value_is_skipped_unless_it_is_critical() {
    let skipped = with_body(Message::Ready, &[0x00, 0x77, 0, 2, 1, 2]).unwrap();
    assert_eq!(skipped.message, Message::Ready);
    assert_eq!(
        with_body(Message::Ready, &[0x80, 0x77, 0, 0]).unwrap_err(),
        WireError::Critical { tag: 0x8077 }
    );
    assert!(matches!(
        with_body(Message::Ready, &[0x00, 0x77, 0]).unwrap_err(),
        WireError::Malformed(_)
    ));
}

#[test]
fn another_version_is_refused_before_its_content() {
    let mut bytes = Frame {
        generation: 0,
        sequence: 1,
        message: Message::Ready,
    }
    .encode()
    .unwrap();
    bytes[5] = 9;
    bytes[7] = 200;
    let error = Frame::decode(&bytes).unwrap_err();
    assert_eq!(error, WireError::Version { theirs: 9 });
    assert_eq!(
        error.to_string(),
        "protocol version 9, and this is version 1"
    );
    bytes[5] = 1;
    assert_eq!(
        Frame::decode(&bytes).unwrap_err(),
        WireError::Type { found: 200 }
    );
    bytes[0] = b'X';
    assert_eq!(Frame::decode(&bytes).unwrap_err(), WireError::Magic);
}

#[test]
fn limits_hold_on_both_sides() {
    let many = vec![
        Offered {
            id: 0,
            record: Record::default()
        };
        FDS_MAX + 1
    ];
    let frame = |message| Frame {
        generation: 0,
        sequence: 0,
        message,
    };
    assert_eq!(
        frame(Message::Offer(many)).encode().unwrap_err(),
        WireError::TooLong
    );
    let big = Offered {
        id: 0,
        record: Record {
            unread: vec![7; 40_000],
            ..Record::default()
        },
    };
    assert!(frame(Message::Offer(vec![big.clone()])).encode().is_ok());
    assert_eq!(
        frame(Message::Offer(vec![big.clone(), big]))
            .encode()
            .unwrap_err(),
        WireError::TooLong
    );
    assert_eq!(
        Frame::decode(&vec![0; FRAME_MAX + 1]).unwrap_err(),
        WireError::TooLong
    );
    // A frame that says it has descriptors where its type has none.
    let mut bytes = frame(Message::Ready).encode().unwrap();
    bytes[17] = 1;
    assert!(matches!(
        Frame::decode(&bytes).unwrap_err(),
        WireError::Malformed(_)
    ));
    // A long reason is cut, between two characters.
    let long = frame(Message::Abort {
        reason: "ü".repeat(20_000),
    })
    .encode()
    .unwrap();
    let Message::Abort { reason } = Frame::decode(&long).unwrap().message else {
        panic!("another message")
    };
    assert_eq!(reason.len(), 16 * 1024);
}
