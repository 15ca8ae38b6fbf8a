//! Death at random moments.

use crate::clients::{Lateness, Load, Victim, answers_in_time, check};
use crate::processes::{
    Above, Service, await_descriptors, await_end, await_no_zombies, descriptors, kill,
};
use std::time::{Duration, Instant};

const CLIENTS: usize = 10;
const SLOW: usize = 3;
const SLOW_MS: u32 = 200;
/// Without an order from the environment.
const MOMENTS: u32 = 40;
/// From the signal to the end of a restart, beside half of what a start takes.
const LONGEST: Duration = Duration::from_millis(50);
/// An heir holds its donor by a descriptor, until it is replaced itself.
const OF_THE_DONOR: usize = 2;

/// A generator of moments: the same from run to run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Kills one process at each of them: the donor and the heir by turns, of a process that restarts itself and of one that its
/// supervisor replaces.
pub(crate) fn random_moments(lateness: &Lateness) {
    let asked = std::env::var("CURTSY_CHAOS").ok();
    let moments = asked.map_or(MOMENTS, |text| text.parse().unwrap());
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    let began = Instant::now();
    let (mut worst, mut lost, mut moved, mut followed) = (Duration::ZERO, 0, 0, 0);
    for round in 0..moments {
        let ended = at_moment(round, &mut chance, lateness);
        worst = worst.max(ended.took);
        lost += ended.lost;
        moved += u32::from(ended.has_moved);
        followed += u32::from(ended.is_followed);
    }
    println!(
        "{moments} random moments in {:?}: {lost} requests lost with their processes; {followed} times the new one \
         served, {moved} times connections had gone over; answered again after {worst:?} at worst",
        began.elapsed()
    );
}

struct Ended {
    took: Duration,
    lost: usize,
    has_moved: bool,
    is_followed: bool,
}

fn at_moment(round: u32, chance: &mut Chance, lateness: &Lateness) -> Ended {
    let kills_donor = round.is_multiple_of(2);
    // With a supervisor above in any case: the service may need one.
    let above = match (round / 2).is_multiple_of(2) {
        true => Above::Starter,
        false => Above::Broker,
    };
    let service = Service::start(above, None);
    let longest = u64::try_from((service.start_took / 2 + LONGEST).as_micros()).unwrap();
    // Rather early than late: most happens at the beginning.
    let after = Duration::from_micros(chance.below(longest) * chance.below(1000) / 1000);
    let what = format!(
        "round {round}, {above:?}, {} after {after:?}",
        if kills_donor { "donor" } else { "heir" }
    );
    let load = Load::start(service.address, CLIENTS, SLOW, SLOW_MS);
    load.go_on(20);
    let (of_the_top, of_the_donor) = (descriptors(service.top()), descriptors(service.donor));
    let late = lateness.so_far();
    let begun = Instant::now();
    let heir = match above {
        Above::Broker => {
            service.reload();
            if kills_donor {
                None
            } else {
                service.next_process()
            }
        }
        Above::Starter | Above::Nobody => {
            service.restart();
            if kills_donor { None } else { service.heir() }
        }
    };
    // A donor from the signal on, an heir from its birth.
    let begun = if kills_donor { begun } else { Instant::now() };
    while begun.elapsed() < after {
        std::hint::spin_loop();
    }
    let (victim, who) = match heir {
        Some(heir) => (heir, Victim::Heir(Some(heir))),
        None => (service.donor, Victim::Donor),
    };
    let death = (Instant::now(), late);
    kill(victim);
    let took = answers_in_time(&load, &service, lateness, death, &what);
    load.go_on(20);
    await_end(victim, &what);
    let account = load.end();
    check(&service, &account, who, &what);
    let said = service.said();
    let has = |part: &str| said.iter().any(|line| line.contains(part));
    // Whoever serves now has no more than it needs, and so has the supervisor.
    await_no_zombies(service.top(), &what);
    await_descriptors(service.top(), of_the_top, &what);
    if who != Victim::Donor && has("kept the old process") {
        await_no_zombies(service.donor, &what);
        await_descriptors(service.donor, of_the_donor, &what);
    }
    if who == Victim::Donor && has("generation 1 at ") {
        let heir = service.pid_of(1);
        await_no_zombies(heir, &what);
        await_descriptors(heir, of_the_donor + OF_THE_DONOR, &what);
    }
    let ended = Ended {
        took,
        lost: account.lost.len(),
        has_moved: !service.moved(who).is_empty(),
        is_followed: has("generation 1 at "),
    };
    service.end(&what);
    ended
}
