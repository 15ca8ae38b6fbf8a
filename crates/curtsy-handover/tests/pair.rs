//! Both machines against each other, on virtual time, in every order in which messages, deaths, time limits and the
//! servers' own steps can come. In each state no connection has two living owners; in each end each has exactly one,
//! unless its owner died; and whoever lives accepts.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

use curtsy_handover::wire::{Frame, Hello, Kind, Listener, Message, Offered};
use curtsy_handover::{Record, donor, heir};
use curtsy_sys::pidfd::Exit;

/// Two connections and a window of one: an offer under way, one waiting, and both orders of everything.
const CONNECTIONS: [u64; 2] = [1, 2];

#[derive(Clone)]
struct Pair {
    start: Instant,
    donor: donor::Donor,
    heir: heir::Heir,
    donor_lives: bool,
    heir_lives: bool,
    /// Killed by the donor's machine; dies at the next step.
    heir_condemned: bool,
    donor_closed: bool,
    to_heir: VecDeque<(u32, Message)>,
    to_donor: VecDeque<Message>,
    donor_sequence: u32,
    donor_knows: Knows,
    heir_knows: Knows,
    donor_has: BTreeSet<u64>,
    heir_has: BTreeSet<u64>,
    to_offer: Vec<u64>,
    donor_accepts: bool,
    donor_listens: bool,
    heir_started: bool,
    timers_left: u8,
    kills_left: u8,
    died_owning: BTreeSet<u64>,
    forgotten: BTreeSet<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
enum Knows {
    Nothing,
    End,
    Death,
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    ToHeir,
    ToDonor,
    DonorSeesEnd,
    DonorSeesExit,
    HeirSeesEnd,
    HeirSeesDeath,
    Offer,
    Flush,
    Finish,
    Cancel,
    Ready,
    Bake,
    DonorTimer,
    HeirTimer,
    Condemned,
    KillDonor,
    KillHeir,
}

const CHOICES: [Choice; 17] = [
    Choice::ToHeir,
    Choice::ToDonor,
    Choice::DonorSeesEnd,
    Choice::DonorSeesExit,
    Choice::HeirSeesEnd,
    Choice::HeirSeesDeath,
    Choice::Offer,
    Choice::Flush,
    Choice::Finish,
    Choice::Cancel,
    Choice::Ready,
    Choice::Bake,
    Choice::DonorTimer,
    Choice::HeirTimer,
    Choice::Condemned,
    Choice::KillDonor,
    Choice::KillHeir,
];

impl Pair {
    fn new(timers: u8, kills: u8) -> Self {
        let start = Instant::now();
        let hello = Message::Hello(Hello {
            room: 9,
            window: 1,
            ..Hello::default()
        });
        Self {
            start,
            donor: donor::Donor::new(start, 1, donor::Limits::default()),
            heir: heir::Heir::new(start, heir::Limits::default()),
            donor_lives: true,
            heir_lives: true,
            heir_condemned: false,
            donor_closed: false,
            to_heir: VecDeque::from([(1, hello.clone())]),
            to_donor: VecDeque::from([hello]),
            donor_sequence: 1,
            donor_knows: Knows::Nothing,
            heir_knows: Knows::Nothing,
            donor_has: CONNECTIONS.into(),
            heir_has: BTreeSet::new(),
            to_offer: CONNECTIONS.to_vec(),
            donor_accepts: true,
            donor_listens: true,
            heir_started: false,
            timers_left: timers,
            kills_left: kills,
            died_owning: BTreeSet::new(),
            forgotten: BTreeSet::new(),
        }
    }

    /// Takes a step, or says that it is not possible here.
    fn take(&mut self, choice: Choice) -> bool {
        let donor_open = self.donor_lives && !self.donor_closed;
        let heir_open = self.heir_lives;
        match choice {
            Choice::ToHeir => {
                if !self.heir_lives {
                    return false;
                }
                let Some((sequence, message)) = self.to_heir.pop_front() else {
                    return false;
                };
                let fds = message.fds();
                let frame = Frame {
                    generation: 0,
                    sequence,
                    message,
                };
                self.heir_step(heir::Event::from_frame(&frame, fds));
            }
            Choice::ToDonor => {
                if !self.donor_lives || self.donor_closed {
                    return false;
                }
                let Some(message) = self.to_donor.pop_front() else {
                    return false;
                };
                self.donor_step(donor::Event::from_message(message));
            }
            Choice::DonorSeesEnd => {
                if !self.donor_lives
                    || heir_open
                    || !self.to_donor.is_empty()
                    || self.donor_knows != Knows::Nothing
                {
                    return false;
                }
                self.donor_knows = Knows::End;
                self.donor_step(donor::Event::End);
            }
            Choice::DonorSeesExit => {
                if !self.donor_lives || self.heir_lives || self.donor_knows != Knows::End {
                    return false;
                }
                self.donor_knows = Knows::Death;
                self.donor_step(donor::Event::Exited(Exit::Signal(9)));
            }
            Choice::HeirSeesEnd => {
                if !self.heir_lives
                    || donor_open
                    || !self.to_heir.is_empty()
                    || self.heir_knows != Knows::Nothing
                {
                    return false;
                }
                self.heir_knows = Knows::End;
                self.heir_step(heir::Event::End);
            }
            Choice::HeirSeesDeath => {
                if !self.heir_lives || self.donor_lives || self.heir_knows != Knows::End {
                    return false;
                }
                self.heir_knows = Knows::Death;
                self.heir_step(heir::Event::DonorDied);
            }
            Choice::Offer => {
                let baking = matches!(
                    self.donor.phase(),
                    donor::Phase::Baking | donor::Phase::Baked
                );
                if !self.donor_lives || !baking || self.to_offer.is_empty() {
                    return false;
                }
                let id = self.to_offer.remove(0);
                assert!(self.donor_has.remove(&id));
                self.donor_step(donor::Event::Offer { id, size: 100 });
            }
            Choice::Flush => {
                if !self.donor_lives || !self.donor.wants_to_send() {
                    return false;
                }
                self.donor_step(donor::Event::Flush);
            }
            Choice::Finish => {
                // A server is drained when it has nothing left: all offered, and nothing came back.
                if !self.donor_lives || !self.to_offer.is_empty() || !self.donor_has.is_empty() {
                    return false;
                }
                let before = self.key();
                self.donor_step(donor::Event::Finish);
                return self.key() != before;
            }
            Choice::Cancel => {
                if !self.donor_lives || self.timers_left == 0 {
                    return false;
                }
                self.timers_left -= 1;
                self.donor_step(donor::Event::Cancel);
            }
            Choice::Ready => {
                if !self.heir_lives || self.heir.phase() != heir::Phase::Complete {
                    return false;
                }
                self.heir_step(heir::Event::Ready {
                    bake_after: Some(Duration::from_secs(1)),
                });
            }
            Choice::Bake => {
                if !self.heir_lives || self.heir.phase() != heir::Phase::Serving {
                    return false;
                }
                self.heir_step(heir::Event::Bake);
            }
            Choice::DonorTimer => {
                if !self.donor_lives || self.timers_left == 0 || self.donor.deadline().is_none() {
                    return false;
                }
                self.timers_left -= 1;
                let actions = self.donor.step(self.start + LATE, donor::Event::Timer);
                self.donor_acts(actions);
            }
            Choice::HeirTimer => {
                // The driver looks for the donor's death before it says that time is up.
                let unseen = !self.donor_lives && self.heir_knows != Knows::Death;
                if !self.heir_lives
                    || unseen
                    || self.timers_left == 0
                    || self.heir.deadline().is_none()
                {
                    return false;
                }
                self.timers_left -= 1;
                let actions = self.heir.step(self.start + LATE, heir::Event::Timer);
                self.heir_acts(actions);
            }
            Choice::Condemned => {
                if !self.heir_lives || !self.heir_condemned {
                    return false;
                }
                self.heir_dies();
            }
            Choice::KillDonor => {
                if !self.donor_lives || self.kills_left == 0 {
                    return false;
                }
                self.kills_left -= 1;
                self.donor_lives = false;
                self.to_donor.clear();
                self.died_owning.append(&mut self.donor_has);
                // What the server had given to the machine and the machine not to the channel dies with it; what is in
                // the channel, or frozen, is for the heir to take.
                let sent: BTreeSet<u64> = self.in_channel();
                for id in CONNECTIONS {
                    if !sent.contains(&id)
                        && !self.heir_has.contains(&id)
                        && !self.heir.held().contains(&id)
                    {
                        self.died_owning.insert(id);
                    }
                }
            }
            Choice::KillHeir => {
                if !self.heir_lives || self.kills_left == 0 {
                    return false;
                }
                self.kills_left -= 1;
                self.heir_dies();
            }
        }
        true
    }

    fn in_channel(&self) -> BTreeSet<u64> {
        let mut offered = BTreeSet::new();
        for (_, message) in &self.to_heir {
            if let Message::Offer(connections) = message {
                offered.extend(connections.iter().map(|one| one.id));
            }
        }
        offered
    }

    fn heir_dies(&mut self) {
        self.heir_lives = false;
        self.to_heir.clear();
        self.died_owning.append(&mut self.heir_has);
        self.heir_condemned = false;
    }

    fn donor_step(&mut self, event: donor::Event) {
        let actions = self.donor.step(self.start, event);
        self.donor_acts(actions);
    }

    fn donor_sends(&mut self, message: Message) {
        self.donor_sequence += 1;
        if self.heir_lives {
            self.to_heir.push_back((self.donor_sequence, message));
        }
    }

    fn donor_acts(&mut self, actions: Vec<donor::Action>) {
        use donor::Action as A;
        for action in actions {
            match action {
                A::Give => self.donor_sends(Message::Listener(Listener {
                    name: "main".into(),
                    kind: Kind::Tcp,
                    mode: String::new(),
                    sockets: 1,
                })),
                A::Complete => self.donor_sends(Message::Complete),
                A::StopAccepting => self.donor_accepts = false,
                A::ResumeAccepting => {
                    assert!(self.donor_listens, "accepting again without listeners");
                    self.donor_accepts = true;
                }
                A::CloseListeners => self.donor_listens = false,
                A::Offer(ids) => {
                    let record = Record::default;
                    self.donor_sends(Message::Offer(
                        ids.into_iter()
                            .map(|id| Offered {
                                id,
                                record: record(),
                            })
                            .collect(),
                    ));
                }
                A::Taken(_) => {}
                A::Return(ids, _) => self.donor_has.extend(ids),
                A::Forget(ids) => self.forgotten.extend(ids),
                A::Kill => self.heir_condemned = self.heir_lives,
                A::Bye => {
                    self.donor_sends(Message::Bye {
                        report: String::new(),
                    });
                    self.donor_closed = true;
                }
            }
        }
        if matches!(self.donor.phase(), donor::Phase::Kept | donor::Phase::Lost) {
            self.donor_closed = true;
        }
    }

    fn heir_step(&mut self, event: heir::Event) {
        let actions = self.heir.step(self.start, event);
        self.heir_acts(actions);
    }

    fn heir_sends(&mut self, message: Message) -> bool {
        let open = self.donor_lives && !self.donor_closed;
        if open {
            self.to_donor.push_back(message);
        }
        open
    }

    fn heir_acts(&mut self, actions: Vec<heir::Action>) {
        use heir::Action as A;
        for action in actions {
            match action {
                A::Got { sequence } => {
                    self.heir_sends(Message::Got { sequence });
                }
                A::Ready => {
                    self.heir_started = true;
                    self.heir_sends(Message::Ready);
                }
                A::Take(ids) => {
                    if self.heir_sends(Message::Taken(ids.clone())) {
                        self.heir_has.extend(ids);
                    } else {
                        self.heir_step(heir::Event::Unsent(ids));
                    }
                }
                A::Keep(ids) => self.heir_has.extend(ids),
                A::Drop(_) => {}
                A::Refuse(ids, reason) => {
                    self.heir_sends(Message::Refuse { ids, reason });
                }
                A::Baked => {
                    self.heir_sends(Message::Baked);
                }
                A::Abort(why) => {
                    self.heir_sends(Message::Abort {
                        reason: why.to_string(),
                    });
                }
                A::Restart | A::WatchDonor => {}
            }
        }
        if matches!(self.heir.phase(), heir::Phase::Alone) {
            self.heir_started = true;
        }
        if matches!(self.heir.phase(), heir::Phase::GivenUp) {
            // It exits.
            self.heir_dies();
        }
    }

    fn key(&self) -> String {
        format!(
            "{:?}{:?}{}{}{}{}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{}{}{}{}{}",
            self.donor,
            self.heir,
            self.donor_lives,
            self.heir_lives,
            self.heir_condemned,
            self.donor_closed,
            self.to_heir,
            self.to_donor,
            self.donor_knows,
            self.heir_knows,
            self.donor_has,
            self.heir_has,
            self.to_offer,
            self.donor_accepts,
            self.donor_listens,
            self.heir_started,
            self.timers_left,
            self.kills_left,
        )
    }

    fn check_always(&self, path: &[Choice]) {
        if self.donor_lives && self.heir_lives {
            let both: Vec<_> = self.donor_has.intersection(&self.heir_has).collect();
            assert!(
                both.is_empty(),
                "{both:?} has two living owners after {path:?}"
            );
        }
        // The queue of new connections never loses its last holder while somebody lives who could serve it.
        if self.donor_lives && !self.heir_lives && self.donor.phase() == donor::Phase::Kept {
            assert!(
                self.donor_accepts && self.donor_listens,
                "nobody accepts after {path:?}"
            );
        }
    }

    fn check_end(&self, path: &[Choice]) {
        for id in CONNECTIONS {
            let donor = self.donor_lives && self.donor_has.contains(&id);
            let heir = self.heir_lives && self.heir_has.contains(&id);
            let owners = u8::from(donor) + u8::from(heir);
            if self.died_owning.contains(&id) || self.forgotten.contains(&id) {
                continue;
            }
            // A donor that died while the heir held the offer in doubt, and the heir's patience ended first.
            let nobody_left = !self.heir_lives && !self.donor_lives;
            assert!(
                owners == 1 || nobody_left,
                "connection {id} has {owners} owners after {path:?}\n{}",
                self.key()
            );
        }
        if self.heir_lives && self.heir.phase() == heir::Phase::Alone {
            assert!(
                self.heir_started,
                "the heir is alone and does not serve after {path:?}"
            );
        }
        if self.donor_lives && !self.heir_lives && self.donor.phase() != donor::Phase::Lost {
            let left = self.donor.phase() == donor::Phase::Left;
            assert!(
                left || (self.donor_accepts && self.donor_listens),
                "nobody accepts after {path:?}\n{}",
                self.key()
            );
        }
        assert!(
            self.forgotten.is_empty(),
            "two honest machines never lose track: {path:?}"
        );
    }
}

const LATE: Duration = Duration::from_secs(100);

/// Walks through every reachable state once; gives back how many there are, and how many of them are ends.
fn explore(timers: u8, kills: u8) -> (usize, usize) {
    let mut seen = HashSet::new();
    let mut ends = 0;
    let mut stack = vec![(Pair::new(timers, kills), Vec::new())];
    while let Some((pair, path)) = stack.pop() {
        pair.check_always(&path);
        let mut stuck = true;
        for choice in CHOICES {
            let mut next = pair.clone();
            if !next.take(choice) {
                continue;
            }
            // Killing is a possibility, not an obligation: a state from which only that leads on is an end as well.
            stuck &= matches!(
                choice,
                Choice::KillDonor | Choice::KillHeir | Choice::Cancel
            );
            if seen.insert(next.key()) {
                let mut path = path.clone();
                path.push(choice);
                stack.push((next, path));
            }
        }
        if stuck {
            ends += 1;
            pair.check_end(&path);
        }
    }
    (seen.len(), ends)
}

#[test]
fn without_trouble_everything_ends_with_the_heir() {
    let (states, ends) = explore(0, 0);
    assert!(states > 50 && ends > 0, "{states} states, {ends} ends");
}

#[test]
fn one_death_at_any_moment() {
    let (states, ends) = explore(0, 1);
    assert!(states > 300 && ends > 20, "{states} states, {ends} ends");
}

#[test]
fn a_time_limit_and_a_death_at_any_moment() {
    let (states, ends) = explore(1, 1);
    assert!(states > 1000 && ends > 50, "{states} states, {ends} ends");
}

#[test]
fn both_die_and_time_runs_out_at_any_moment() {
    let (states, ends) = explore(2, 2);
    assert!(states > 2000 && ends > 100, "{states} states, {ends} ends");
}
