//! Every phase and every event of both machines, one line each: what comes of it. The tables are the specification; a
//! change of behaviour is a change of a table.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fmt::Write;
use std::time::{Duration, Instant};

use curtsy_handover::wire::Refusal;
use curtsy_handover::{Failure, donor, heir};
use curtsy_sys::pidfd::Exit;

const LATE: Duration = Duration::from_secs(3600);

fn donor_in(phase: donor::Phase, now: Instant) -> donor::Donor {
    use donor::{Event as E, Phase as P};
    let mut machine = donor::Donor::new(now, 1, donor::Limits::default());
    let hello = E::Hello { room: 9, window: 9 };
    let got = E::Got {
        sequence: donor::FIRST_SET,
    };
    // In every phase that can have one, connection 1 is under way and connection 2 waits to be sent.
    let offers = [
        E::Offer { id: 1, size: 100 },
        E::Flush,
        E::Offer { id: 2, size: 100 },
    ];
    let to_waiting = vec![hello.clone(), got];
    let to_baking: Vec<_> = to_waiting
        .iter()
        .cloned()
        .chain([E::Ready])
        .chain(offers)
        .collect();
    let baked_and = |last: &[E]| {
        to_baking
            .iter()
            .chain(&[E::Baked])
            .chain(last)
            .cloned()
            .collect()
    };
    let path: Vec<E> = match phase {
        P::Greeting => vec![],
        P::Giving => vec![hello],
        P::Waiting => to_waiting,
        P::Baking => to_baking,
        P::Baked => baked_and(&[]),
        P::Ending => to_baking.iter().cloned().chain([E::Cancel]).collect(),
        P::Kept => to_baking
            .iter()
            .cloned()
            .chain([E::Exited(Exit::Status(1))])
            .collect(),
        P::Lost => baked_and(&[E::End]),
        P::Left => baked_and(&[E::Flush, E::Taken(vec![1, 2]), E::Finish]),
    };
    for event in path {
        machine.step(now, event);
    }
    assert_eq!(machine.phase(), phase);
    machine
}

fn donor_table() -> String {
    use donor::{Event as E, Phase as P};
    let now = Instant::now();
    let mut table = String::new();
    let phases = [
        P::Greeting,
        P::Giving,
        P::Waiting,
        P::Baking,
        P::Baked,
        P::Ending,
        P::Left,
        P::Kept,
        P::Lost,
    ];
    let events = [
        ("Hello", E::Hello { room: 9, window: 9 }),
        (
            "Got",
            E::Got {
                sequence: donor::FIRST_SET,
            },
        ),
        ("Ready", E::Ready),
        ("Taken", E::Taken(vec![1])),
        ("Taken-stranger", E::Taken(vec![7])),
        ("Refuse", E::Refuse(vec![1], Refusal::Unwanted)),
        ("Refuse-no-room", E::Refuse(vec![1], Refusal::NoRoom)),
        ("Refuse-stranger", E::Refuse(vec![7], Refusal::Unwanted)),
        ("Baked", E::Baked),
        ("Abort", E::Abort("why".into())),
        ("Alien", E::Alien(Failure::Version { theirs: 2 })),
        ("End", E::End),
        ("Exited", E::Exited(Exit::Signal(9))),
        ("Timer-early", E::Timer),
        ("Timer-late", E::Timer),
        ("Offer", E::Offer { id: 3, size: 100 }),
        (
            "Offer-large",
            E::Offer {
                id: 3,
                size: 100_000,
            },
        ),
        ("Flush", E::Flush),
        ("Finish", E::Finish),
        ("Cancel", E::Cancel),
    ];
    for phase in phases {
        for (name, event) in &events {
            let mut machine = donor_in(phase, now);
            let at = if *name == "Timer-late" {
                now + LATE
            } else {
                now
            };
            let actions = machine.step(at, event.clone());
            writeln!(
                table,
                "{phase:?} {name} -> {:?} {actions:?}",
                machine.phase()
            )
            .unwrap();
        }
    }
    table
}

fn heir_in(phase: heir::Phase, now: Instant) -> heir::Heir {
    use heir::{Event as E, Phase as P};
    let mut machine = heir::Heir::new(now, heir::Limits::default());
    let complete = vec![E::Hello, E::Set { sequence: 2 }, E::Complete];
    let serving = || {
        complete.iter().cloned().chain([E::Ready {
            bake_after: Some(Duration::from_secs(1)),
        }])
    };
    let path: Vec<E> = match phase {
        P::Greeting => vec![],
        P::Receiving => vec![E::Hello],
        P::Complete => complete,
        P::Serving => serving().collect(),
        P::Baked => serving().chain([E::Bake]).collect(),
        P::Doubting => complete.iter().cloned().chain([E::End]).collect(),
        P::Parting => serving().chain([E::Unsent(vec![5])]).collect(),
        P::Alone => serving().chain([E::DonorDied]).collect(),
        P::GivenUp => vec![E::End],
    };
    for event in path {
        machine.step(now, event);
    }
    assert_eq!(machine.phase(), phase);
    machine
}

fn heir_table() -> String {
    use heir::{Event as E, Phase as P};
    let now = Instant::now();
    let mut table = String::new();
    let phases = [
        P::Greeting,
        P::Receiving,
        P::Complete,
        P::Serving,
        P::Baked,
        P::Doubting,
        P::Parting,
        P::Alone,
        P::GivenUp,
    ];
    let events = [
        ("Hello", E::Hello),
        ("Set", E::Set { sequence: 2 }),
        ("Complete", E::Complete),
        (
            "Offer",
            E::Offer {
                arrived: vec![1],
                missing: vec![],
            },
        ),
        (
            "Offer-cut",
            E::Offer {
                arrived: vec![1],
                missing: vec![2],
            },
        ),
        ("Unwanted", E::Unwanted(vec![1])),
        ("Restart", E::Restart),
        ("Bye", E::Bye),
        ("Abort", E::Abort("why".into())),
        ("Alien", E::Alien(Failure::Version { theirs: 2 })),
        ("End", E::End),
        ("DonorDied", E::DonorDied),
        ("Unsent", E::Unsent(vec![1])),
        ("Timer-early", E::Timer),
        ("Timer-late", E::Timer),
        ("Ready", E::Ready { bake_after: None }),
        ("Bake", E::Bake),
    ];
    for phase in phases {
        for (name, event) in &events {
            let mut machine = heir_in(phase, now);
            let at = if *name == "Timer-late" {
                now + LATE
            } else {
                now
            };
            let actions = machine.step(at, event.clone());
            writeln!(
                table,
                "{phase:?} {name} -> {:?} {actions:?}",
                machine.phase()
            )
            .unwrap();
        }
    }
    table
}

fn same(found: &str, written: &str) {
    let differing: Vec<_> = found
        .lines()
        .filter(|line| !written.lines().any(|other| other == *line))
        .collect();
    assert!(
        differing.is_empty(),
        "not in the table:\n{}",
        differing.join("\n")
    );
    assert_eq!(
        found.lines().count(),
        written.lines().count(),
        "the table has lines that nothing comes to"
    );
}

#[test]
fn every_phase_and_event_of_the_donor() {
    same(&donor_table(), include_str!("tables/donor.txt"));
}

#[test]
fn every_phase_and_event_of_the_heir() {
    same(&heir_table(), include_str!("tables/heir.txt"));
}
