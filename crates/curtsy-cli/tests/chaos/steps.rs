//! Death at each step.

use crate::clients::{BOUND, Lateness, Load, Victim, answers_in_time, check};
use crate::processes::{
    Above, Service, await_descriptors, await_end, await_no_zombies, descriptors,
};
use std::time::{Duration, Instant};

const CLIENTS: usize = 12;
const SLOW: usize = 4;
const SLOW_MS: u32 = 300;
/// An heir holds its donor by a descriptor, until it is replaced itself.
const OF_THE_DONOR: usize = 2;

/// What may be missing afterwards, beside what the exact account allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Nothing: the one that died owned nothing by then.
    Nothing,
    /// What the dead process owned.
    ItsOwn,
}

/// Who is there afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Donor,
    Heir,
    /// What the supervisor starts.
    Nobody,
}

const STEPS: [(&str, Left, Loss); 25] = [
    ("heir-begun-inherit", Left::Donor, Loss::Nothing),
    ("heir-sent-HELLO", Left::Donor, Loss::Nothing),
    ("heir-heard-Hello", Left::Donor, Loss::Nothing),
    ("heir-heard-Set", Left::Donor, Loss::Nothing),
    ("heir-sent-GOT", Left::Donor, Loss::Nothing),
    ("heir-heard-Complete", Left::Donor, Loss::Nothing),
    ("heir-heard-Ready", Left::Donor, Loss::Nothing),
    ("heir-sent-READY", Left::Donor, Loss::Nothing),
    ("heir-heard-Offer", Left::Donor, Loss::Nothing),
    // What it took is its own.
    ("heir-sent-TAKEN", Left::Donor, Loss::ItsOwn),
    ("heir-heard-Bake", Left::Donor, Loss::ItsOwn),
    // From here on it is the service.
    ("heir-sent-BAKED", Left::Nobody, Loss::ItsOwn),
    ("heir-heard-Bye", Left::Nobody, Loss::ItsOwn),
    // Before the heir has everything it does not serve.
    ("donor-sent-HELLO", Left::Nobody, Loss::ItsOwn),
    ("donor-heard-Hello", Left::Nobody, Loss::ItsOwn),
    ("donor-sent-LISTENER", Left::Nobody, Loss::ItsOwn),
    ("donor-heard-Got", Left::Nobody, Loss::ItsOwn),
    ("donor-sent-COMPLETE", Left::Heir, Loss::ItsOwn),
    ("donor-heard-Ready", Left::Heir, Loss::ItsOwn),
    ("donor-heard-Offer", Left::Heir, Loss::ItsOwn),
    // What was offered and not answered goes over with the death.
    ("donor-sent-OFFER", Left::Heir, Loss::ItsOwn),
    ("donor-heard-Taken", Left::Heir, Loss::ItsOwn),
    ("donor-heard-Baked", Left::Heir, Loss::ItsOwn),
    // Everything was the heir's by then.
    ("donor-heard-Finish", Left::Heir, Loss::Nothing),
    ("donor-sent-BYE", Left::Heir, Loss::Nothing),
];

/// Kills one process at each of them.
pub(crate) fn every_step(lateness: &Lateness) {
    let began = Instant::now();
    let (mut worst, mut lost) = (Duration::ZERO, 0);
    for (step, left, loss) in STEPS {
        let (took, missing) = at_step(step, left, loss, lateness);
        println!("killed at {step}: answered after {took:?}, {missing} lost with it");
        worst = worst.max(took);
        lost += missing;
    }
    let count = STEPS.len();
    println!(
        "{count} steps in {:?}, {lost} requests lost with their processes, answered again after {worst:?} at worst",
        began.elapsed()
    );
}

/// The same where a supervisor brings old and new together.
const BROKERED: [(&str, Loss); 8] = [
    ("heir-heard-Hello", Loss::Nothing),
    ("heir-sent-READY", Loss::Nothing),
    ("heir-heard-Offer", Loss::Nothing),
    ("heir-sent-TAKEN", Loss::ItsOwn),
    ("donor-sent-LISTENER", Loss::ItsOwn),
    ("donor-sent-COMPLETE", Loss::ItsOwn),
    ("donor-sent-OFFER", Loss::ItsOwn),
    ("donor-heard-Finish", Loss::Nothing),
];

/// Kills one process at each of them.
pub(crate) fn brokered_steps(lateness: &Lateness) {
    let began = Instant::now();
    let mut worst = Duration::ZERO;
    for (step, loss) in BROKERED {
        worst = worst.max(at_brokered_step(step, loss, lateness));
    }
    let count = BROKERED.len();
    println!(
        "{count} steps under a supervisor in {:?}, answered again after {worst:?} at worst",
        began.elapsed()
    );
}

fn at_brokered_step(step: &str, loss: Loss, lateness: &Lateness) -> Duration {
    let service = Service::start(Above::Broker, Some(step));
    let load = Load::start(service.address, CLIENTS, 0, 0);
    load.go_on(60);
    let before = descriptors(service.top());
    service.reload();
    let death = await_death(&service, step, lateness);
    let took = answers_in_time(&load, &service, lateness, death, step);
    let started = service.line("generation 1 started ");
    let heir = started.split("(pid ").nth(1).unwrap();
    let heir = heir.trim_end_matches(')').parse().unwrap();
    // A reload that comes now succeeds, with whoever is left.
    let decided = ["generation 1 serves", "the old one was kept"];
    let decided = service.any_line(&decided);
    service.reload();
    // One that failed leaves its number to the next.
    service.line(match decided.contains("serves") {
        true => "generation 2 serves",
        false => "generation 1 serves",
    });
    load.go_on(60);
    let account = load.end();
    let victim = match step.starts_with("heir") {
        true => Victim::Heir(Some(heir)),
        false => Victim::Donor,
    };
    check(&service, &account, victim, step);
    let lost = account.lost.len();
    assert!(loss == Loss::ItsOwn || lost == 0, "{step}: {lost} lost");
    await_no_zombies(service.top(), step);
    await_descriptors(service.top(), before, step);
    service.end(step);
    took
}

/// Waits until the process that is to die has; when that was seen, and how late the machine had been by then.
fn await_death(service: &Service, step: &str, lateness: &Lateness) -> (Instant, Duration) {
    let until = Instant::now() + BOUND;
    let late = lateness.so_far();
    while service.flag.exists() {
        assert!(
            Instant::now() < until,
            "{step} is not reached: {:#?}",
            service.said()
        );
        std::thread::park_timeout(Duration::from_millis(1));
    }
    (Instant::now(), late)
}

fn at_step(step: &str, left: Left, loss: Loss, lateness: &Lateness) -> (Duration, usize) {
    let above = match left {
        Left::Nobody => Above::Starter,
        Left::Donor | Left::Heir => Above::Nobody,
    };
    let service = Service::start(above, Some(step));
    // So many connections from the start, and none after: a lost one is one that was somebody's.
    let load = Load::start(service.address, CLIENTS, SLOW, SLOW_MS);
    load.go_on(60);
    let before = descriptors(service.donor);
    service.restart();
    let death = await_death(&service, step, lateness);
    let took = answers_in_time(&load, &service, lateness, death, step);
    load.go_on(60);
    match left {
        Left::Donor => {
            let line = service.line("kept the old process: ");
            assert!(line.contains("ended with signal 9"), "{step}: {line}");
            load.go_on(60);
        }
        Left::Heir => {
            await_end(service.donor, step);
            service.line("generation 1 at ");
        }
        Left::Nobody => {}
    }
    let account = load.end();
    let victim = match step.starts_with("heir") {
        true => Victim::Heir(None),
        false => Victim::Donor,
    };
    check(&service, &account, victim, step);
    let lost = account.lost.len();
    assert!(loss == Loss::ItsOwn || lost == 0, "{step}: {lost} lost");
    match left {
        Left::Donor => {
            await_no_zombies(service.donor, step);
            await_descriptors(service.donor, before, step);
        }
        Left::Heir => {
            let heir = service.pid_of(1);
            await_no_zombies(heir, step);
            await_descriptors(heir, before + OF_THE_DONOR, step);
        }
        Left::Nobody => await_no_zombies(service.top(), step),
    }
    // Where the two meet in the middle of it, something has gone over, or the account says nothing.
    let must_have_moved = [
        "heir-sent-TAKEN",
        "heir-heard-Bake",
        "donor-sent-OFFER",
        "donor-heard-Taken",
        "donor-sent-BYE",
    ];
    let moved = service.moved(victim).len();
    assert!(
        moved > 0 || !must_have_moved.contains(&step),
        "{step}: nothing has moved"
    );
    service.end(step);
    (took, lost)
}
