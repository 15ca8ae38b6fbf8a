//! An heir that is out of descriptors takes what arrived and refuses the rest. In a process of its own, because the limit
//! is the whole process's.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use curtsy_handover::channel::{Buffer, Channel, Sent};
use curtsy_handover::wire::{Frame, Hello, Message, Offered, Refusal};
use curtsy_handover::{Arrival, Record, Summons, heir, inherit_over};
use curtsy_sys::{descriptors, seqpacket};
use rustix::process::{Resource, getrlimit, setrlimit};

struct Donor {
    channel: Channel,
    buffer: Buffer,
    sequence: u32,
}

impl Donor {
    fn say(&mut self, message: Message, fds: &[OwnedFd]) {
        self.sequence += 1;
        let bytes = Frame {
            generation: 0,
            sequence: self.sequence,
            message,
        }
        .encode()
        .unwrap();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        assert_eq!(self.channel.try_send(&bytes, &fds).unwrap(), Sent::Done);
    }

    async fn hear(&mut self) -> Message {
        let heard =
            tokio::time::timeout(Duration::from_secs(10), self.channel.recv(&mut self.buffer));
        heard
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .frame
            .unwrap()
            .message
    }
}

#[tokio::test]
async fn an_offer_of_which_a_part_arrives_is_taken_in_part() {
    let (ours, theirs) = seqpacket::pair().unwrap();
    let mut donor = Donor {
        channel: Channel::new(ours).unwrap(),
        buffer: Buffer::default(),
        sequence: 0,
    };
    let summons = Summons {
        channel: 3,
        stderr: None,
        parent: 1,
        generation: 1,
    };
    donor.say(Message::Hello(Hello::default()), &[]);
    donor.say(Message::Complete, &[]);
    let inheritance = inherit_over(theirs, None, summons, heir::Limits::default())
        .await
        .unwrap();
    let mut arrivals = inheritance.ready(None).await.unwrap();
    let Message::Hello(hello) = donor.hear().await else {
        panic!("no HELLO")
    };
    assert!(hello.room > 0 && hello.window > 0);
    assert_eq!(donor.hear().await, Message::Ready);

    let fds: Vec<OwnedFd> = (0..10).map(|_| seqpacket::pair().unwrap().0).collect();
    let offered = (1..=10).map(|id| Offered {
        id,
        record: Record {
            served: id,
            ..Record::default()
        },
    });
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(descriptors::open_count().unwrap() as u64 + 4);
    setrlimit(Resource::Nofile, limit).unwrap();
    donor.say(Message::Offer(offered.collect()), &fds);

    let Message::Taken(taken) = donor.hear().await else {
        panic!("nothing was taken")
    };
    let Message::Refuse { ids, reason } = donor.hear().await else {
        panic!("nothing was refused")
    };
    assert_eq!(reason, Refusal::NoRoom);
    assert!(!taken.is_empty() && !ids.is_empty());
    assert_eq!(
        taken.iter().chain(&ids).copied().collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );
    // What came out is what was taken, each with its own record.
    for id in taken {
        let Some(Arrival::Connection(connection)) = arrivals.next().await else {
            panic!("no connection")
        };
        assert_eq!(connection.record.served, id);
    }
}
