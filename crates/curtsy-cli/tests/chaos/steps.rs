//! Death at each step.

use crate::clients::{BOUND, Load, check};
use crate::processes::{Service, await_descriptors, await_end, descriptors, zombies_of};
use std::time::{Duration, Instant};

const CLIENTS: usize = 12;
const SLOW: usize = 4;
const SLOW_MS: u32 = 300;

/// What may be missing afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Nothing: whoever it belongs to lives.
    Nothing,
    /// The requests that the dead process was answering, and connections it owned; but not all.
    Some,
    /// All that it owned, which is everything.
    All,
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
    ("heir-sent-TAKEN", Left::Donor, Loss::All),
    ("heir-heard-Bake", Left::Donor, Loss::All),
    // From here on it is the service.
    ("heir-sent-BAKED", Left::Nobody, Loss::All),
    ("heir-heard-Bye", Left::Nobody, Loss::All),
    // Before the heir has everything it does not serve.
    ("donor-sent-HELLO", Left::Nobody, Loss::All),
    ("donor-heard-Hello", Left::Nobody, Loss::All),
    ("donor-sent-LISTENER", Left::Nobody, Loss::All),
    ("donor-heard-Got", Left::Nobody, Loss::All),
    ("donor-sent-COMPLETE", Left::Heir, Loss::All),
    ("donor-heard-Ready", Left::Heir, Loss::All),
    ("donor-heard-Offer", Left::Heir, Loss::All),
    // What was offered and not answered goes over with the death.
    ("donor-sent-OFFER", Left::Heir, Loss::Some),
    ("donor-heard-Taken", Left::Heir, Loss::Some),
    ("donor-heard-Baked", Left::Heir, Loss::Some),
    // Everything was the heir's by then.
    ("donor-heard-Finish", Left::Heir, Loss::Nothing),
    ("donor-sent-BYE", Left::Heir, Loss::Nothing),
];

/// Kills one process at each of them.
pub(crate) fn every_step() {
    let began = Instant::now();
    let mut worst = Duration::ZERO;
    for (step, left, loss) in STEPS {
        let took = at_step(step, left, loss);
        println!("killed at {step}: answered after {took:?}");
        worst = worst.max(took);
    }
    let count = STEPS.len();
    println!(
        "{count} steps in {:?}, answered again after {worst:?} at worst",
        began.elapsed()
    );
}

/// The same where a supervisor brings old and new together; what may be lost is not more.
const BROKERED: [(&str, Loss); 8] = [
    ("heir-heard-Hello", Loss::Nothing),
    ("heir-sent-READY", Loss::Nothing),
    ("heir-heard-Offer", Loss::Nothing),
    ("heir-sent-TAKEN", Loss::All),
    ("donor-sent-LISTENER", Loss::All),
    ("donor-sent-COMPLETE", Loss::All),
    ("donor-sent-OFFER", Loss::Some),
    ("donor-heard-Finish", Loss::Nothing),
];

/// Kills one process at each of them.
pub(crate) fn brokered_steps() {
    let began = Instant::now();
    let mut worst = Duration::ZERO;
    for (step, loss) in BROKERED {
        let service = Service::start(true, Some(step));
        let load = Load::start(service.address, CLIENTS, 0, 0);
        load.go_on(60);
        service.reload();
        await_death(&service, step);
        worst = worst.max(load.answers_again());
        // A reload that comes now succeeds, with whoever is left.
        let decided = ["generation 1 serves", "the old one was kept"];
        service.any_line(&decided);
        service.reload();
        service.line("generation 2 serves");
        load.go_on(60);
        let (account, _) = load.end();
        check(&service.log, &account, step);
        let lost = account.lost.len();
        match loss {
            Loss::Nothing => assert_eq!(lost, 0, "{step}: {:#?}", service.said()),
            Loss::Some => assert!(lost < CLIENTS, "{step}: {lost} lost"),
            Loss::All => assert!(
                lost <= CLIENTS,
                "{step}: {lost} lost: {:#?}",
                service.said()
            ),
        }
        let until = Instant::now() + BOUND;
        while service.zombies() > 0 {
            assert!(Instant::now() < until, "{step}: a zombie stays");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        service.end(step);
    }
    let count = BROKERED.len();
    println!(
        "{count} steps under a supervisor in {:?}, answered again after {worst:?} at worst",
        began.elapsed()
    );
}

/// Waits until the process that is to die has.
fn await_death(service: &Service, step: &str) {
    let until = Instant::now() + BOUND;
    while service.flag.exists() {
        assert!(
            Instant::now() < until,
            "{step} is not reached: {:#?}",
            service.said()
        );
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn at_step(step: &str, left: Left, loss: Loss) -> Duration {
    let service = Service::start(left == Left::Nobody, Some(step));
    // So many connections from the start, and none after: a lost one is one that was somebody's.
    let load = Load::start(service.address, CLIENTS, SLOW, SLOW_MS);
    load.go_on(60);
    let before = descriptors(service.donor);
    service.restart();
    await_death(&service, step);
    let took = load.answers_again();
    load.go_on(60);
    match left {
        Left::Donor => {
            let line = service.line("kept the old process: ");
            assert!(line.contains("ended with signal 9"), "{step}: {line}");
            load.go_on(60);
            assert_eq!(zombies_of(service.donor), 0, "{step}");
        }
        Left::Heir => {
            await_end(service.donor, step);
            service.line("generation 1 at ");
        }
        Left::Nobody => {}
    }
    let (account, slow) = load.end();
    check(&service.log, &account, step);
    check(&service.log, &slow, step);
    let lost = account.lost.len();
    match loss {
        Loss::Nothing => assert_eq!(lost, 0, "{step}: {:#?}", service.said()),
        Loss::Some => assert!(lost < CLIENTS, "{step}: {lost} lost"),
        // Each client at most the request it had under way.
        Loss::All => assert!(lost <= CLIENTS, "{step}: {lost} lost"),
    }
    if left == Left::Donor {
        // Busy all the time, so never the heir's.
        assert_eq!(slow.lost, [0; 0], "{step}");
        assert_eq!(slow.answered.len(), SLOW, "{step}");
        await_descriptors(service.donor, before, step);
    }
    service.end(step);
    took
}
