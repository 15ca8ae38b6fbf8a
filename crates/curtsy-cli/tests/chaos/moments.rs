//! Death at random moments.

use crate::clients::{Load, check};
use crate::processes::{Service, await_end, kill, zombies_of};
use std::time::{Duration, Instant};

const CLIENTS: usize = 10;
const SLOW: usize = 3;
const SLOW_MS: u32 = 200;
/// Without an order from the environment.
const MOMENTS: u32 = 40;
/// From the signal to the end of a restart, on a machine that has time.
const LONGEST: Duration = Duration::from_millis(150);
/// One second is what it should take; a machine that is busy with other things may be slower.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

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

/// Kills one process at each of them: the donor and the heir by turns.
pub(crate) fn random_moments() {
    let asked = std::env::var("CURTSY_CHAOS").ok();
    let moments = asked.map_or(MOMENTS, |text| text.parse().unwrap());
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    let began = Instant::now();
    let (mut worst, mut lost, mut followed) = (Duration::ZERO, 0, 0);
    for round in 0..moments {
        let ended = at_moment(round, &mut chance);
        worst = worst.max(ended.took);
        lost += ended.lost;
        followed += u32::from(ended.is_followed);
    }
    println!(
        "{moments} random moments in {:?}: {lost} requests lost with their processes, {followed} times the new one \
         served; answered again after {worst:?} at worst",
        began.elapsed()
    );
}

struct Ended {
    took: Duration,
    lost: usize,
    is_followed: bool,
}

fn at_moment(round: u32, chance: &mut Chance) -> Ended {
    let kills_donor = round.is_multiple_of(2);
    let longest = u64::try_from(LONGEST.as_micros()).unwrap();
    let after = Duration::from_micros(chance.below(longest));
    let what = format!(
        "round {round}, {} after {after:?}",
        if kills_donor { "donor" } else { "heir" }
    );
    // With a supervisor above: the service may need one.
    let service = Service::start(true, None);
    let load = Load::start(service.address, CLIENTS, SLOW, SLOW_MS);
    load.go_on(20);
    service.restart();
    let begun = Instant::now();
    let heir = service.heir();
    while begun.elapsed() < after {
        std::hint::spin_loop();
    }
    let victim = match (kills_donor, heir) {
        (false, Some(heir)) => heir,
        (true, _) | (false, None) => service.donor,
    };
    kill(victim);
    let took = load.answers_again();
    assert!(took < ANSWERS_WITHIN, "{what}: {took:?}");
    load.go_on(20);
    await_end(victim, &what);
    let said = service.said();
    let is_followed = said.iter().any(|line| line.contains("generation 1 at "));
    let was_kept = said
        .iter()
        .any(|line| line.contains("kept the old process"));
    let (account, slow) = load.end();
    check(&service.log, &account, &what);
    check(&service.log, &slow, &what);
    // Each client may have had one request with the dead, and one with what the supervisor ended with it.
    assert!(
        account.lost.len() <= 2 * CLIENTS,
        "{what}: {}",
        account.lost.len()
    );
    if !kills_donor && was_kept {
        // The donor was busy with these all the time.
        assert_eq!(slow.lost, [0; 0], "{what}: {said:#?}");
        assert_eq!(zombies_of(service.donor), 0, "{what}");
    }
    let lost = account.lost.len() + slow.lost.len();
    service.end(&what);
    Ended {
        took,
        lost,
        is_followed,
    }
}
