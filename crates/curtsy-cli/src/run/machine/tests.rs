//! The state machine on virtual time: every phase with every event, and the ways that matter through them.

use super::{Action, End, Event, Generation, Id, Machine, Moment, Phase, Policy};
use rustix::process::Signal;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(20);
const TERM: Signal = Signal::TERM;

/// A machine, and the time as the test has it.
struct Desk {
    machine: Machine,
    now: Moment,
}

impl Desk {
    fn new(processes: usize) -> Self {
        let policy = Policy {
            ready_timeout: TIMEOUT,
            grace: GRACE,
            processes,
        };
        Self {
            machine: Machine::new(policy),
            now: Duration::ZERO,
        }
    }

    /// One whose first generation serves: its processes are 1, 2, ...
    fn serving(processes: usize) -> Self {
        let mut desk = Self::new(processes);
        desk.sees(Event::Start);
        for id in 1..=processes as u64 {
            desk.sees(Event::Ready(Id(id)));
        }
        assert_eq!(desk.machine.phase, Phase::Serving);
        desk
    }

    /// One in the middle of a reload, process 2 of generation 1 under way.
    fn reloading() -> Self {
        let mut desk = Self::serving(1);
        desk.sees(Event::Reload);
        assert_eq!(
            desk.machine.phase,
            Phase::Reloading {
                candidate: generation(1)
            }
        );
        desk
    }

    fn stopping() -> Self {
        let mut desk = Self::serving(1);
        desk.sees(Event::Stop(TERM));
        desk
    }

    /// What it does, without the words for people.
    fn sees(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.machine.handle(self.now, event);
        actions.retain(|action| !matches!(action, Action::Tell(_)));
        actions
    }

    /// Goes to the next moment that something waits for.
    fn waits(&mut self) -> Vec<Action> {
        self.now = self.machine.wakes_at().unwrap();
        self.sees(Event::Tick)
    }
}

/// A generation before which none failed.
fn generation(number: u32) -> Generation {
    Generation {
        number,
        attempt: number,
    }
}

fn start(process: u64, number: u32) -> Action {
    start_of(process, generation(number))
}

fn start_of(process: u64, generation: Generation) -> Action {
    Action::Start {
        process: Id(process),
        generation,
    }
}

fn ended(process: u64, status: u8) -> Event {
    Event::Ended(Id(process), End::Status(status))
}

fn failed(number: u32, why: &str) -> Action {
    Action::Reloaded(generation(number), Err(why.to_owned()))
}

/// Every event that needs no process, with what each phase makes of it.
#[test]
fn every_phase_with_every_order() {
    use Event::{Cut, Fewer, More, Pass, Reload, Start, Stop, Tick};
    let usr1 = Signal::USR1;
    let int = Signal::INT;
    let one = |id: u64, signal| Action::Signal(Id(id), signal);
    let stopped = "the supervisor was stopped";
    let cut = |id: u64| vec![Action::Close, one(id, TERM), Action::Kill(Id(id))];
    let refused = || vec![Action::Refused("it is stopping")];
    let starting = || {
        let mut desk = Desk::new(1);
        desk.sees(Start);
        desk
    };
    let serving = || Desk::serving(1);
    let fresh = || Desk::new(1);
    type Make<'a> = &'a dyn Fn() -> Desk;
    let rows: Vec<(&str, Make<'_>, Event, Vec<Action>)> = vec![
        ("fresh", &fresh, Start, vec![start(1, 0)]),
        ("starting", &starting, Start, vec![]),
        ("starting", &starting, Reload, vec![]),
        (
            "starting",
            &starting,
            Stop(int),
            vec![Action::Close, one(1, int)],
        ),
        ("starting", &starting, Cut, cut(1)),
        ("starting", &starting, Pass(usr1), vec![]),
        ("starting", &starting, More, vec![start(2, 0)]),
        ("starting", &starting, Fewer, vec![]),
        ("starting", &starting, Tick, vec![]),
        ("serving", &serving, Start, vec![]),
        (
            "serving",
            &serving,
            Reload,
            vec![Action::Reloading(generation(1)), start(2, 1)],
        ),
        (
            "serving",
            &serving,
            Stop(int),
            vec![Action::Close, one(1, int)],
        ),
        ("serving", &serving, Cut, cut(1)),
        ("serving", &serving, Pass(usr1), vec![one(1, usr1)]),
        ("serving", &serving, More, vec![start(2, 0)]),
        ("serving", &serving, Fewer, vec![]),
        ("serving", &serving, Tick, vec![]),
        ("reloading", &Desk::reloading, Start, vec![]),
        ("reloading", &Desk::reloading, Reload, vec![]),
        (
            "reloading",
            &Desk::reloading,
            Stop(int),
            vec![failed(1, stopped), Action::Close, one(1, int), one(2, int)],
        ),
        (
            "reloading",
            &Desk::reloading,
            Cut,
            vec![
                failed(1, stopped),
                Action::Close,
                one(1, TERM),
                one(2, TERM),
                Action::Kill(Id(1)),
                Action::Kill(Id(2)),
            ],
        ),
        (
            "reloading",
            &Desk::reloading,
            Pass(usr1),
            vec![one(1, usr1)],
        ),
        (
            "reloading",
            &Desk::reloading,
            More,
            vec![start(3, 0), start(4, 1)],
        ),
        ("reloading", &Desk::reloading, Fewer, vec![]),
        ("reloading", &Desk::reloading, Tick, vec![]),
        ("stopping", &Desk::stopping, Start, vec![]),
        ("stopping", &Desk::stopping, Reload, refused()),
        ("stopping", &Desk::stopping, Stop(int), vec![one(1, int)]),
        ("stopping", &Desk::stopping, Cut, vec![Action::Kill(Id(1))]),
        ("stopping", &Desk::stopping, Pass(usr1), vec![]),
        ("stopping", &Desk::stopping, More, vec![]),
        ("stopping", &Desk::stopping, Fewer, vec![]),
        ("stopping", &Desk::stopping, Tick, vec![]),
    ];
    for (phase, make, event, expected) in rows {
        let label = format!("{phase} sees {event:?}");
        assert_eq!(make().sees(event), expected, "{label}");
    }
}

/// Every phase with what processes do; number 9 never was.
#[test]
fn every_phase_with_what_processes_do() {
    let starting = || {
        let mut desk = Desk::new(1);
        desk.sees(Event::Start);
        desk
    };
    assert_eq!(starting().sees(Event::Ready(Id(1))), [Action::Serving]);
    assert_eq!(
        starting().sees(ended(1, 5)),
        [Action::Close, Action::Exit(5)]
    );
    // A success before it served is none.
    assert_eq!(
        starting().sees(ended(1, 0)),
        [Action::Close, Action::Exit(1)]
    );

    let mut desk = Desk::serving(1);
    assert_eq!(desk.sees(Event::Ready(Id(1))), []);
    assert_eq!(desk.sees(ended(1, 0)), []);
    assert_eq!(desk.waits(), [start(2, 0)]);

    let done = [
        Action::Signal(Id(1), TERM),
        Action::Reloaded(generation(1), Ok(())),
    ];
    assert_eq!(Desk::reloading().sees(Event::Ready(Id(2))), done);
    let mut desk = Desk::reloading();
    assert_eq!(desk.sees(ended(2, 7)), [failed(1, "exited with status 7")]);
    assert_eq!(desk.machine.phase, Phase::Serving);
    let mut desk = Desk::reloading();
    // The old one dies meanwhile, and comes back: the reload may yet fail.
    assert_eq!(desk.sees(ended(1, 1)), []);
    assert_eq!(desk.waits(), [start(3, 0)]);
    assert_eq!(
        desk.machine.phase,
        Phase::Reloading {
            candidate: generation(1)
        }
    );

    assert_eq!(Desk::stopping().sees(Event::Ready(Id(1))), []);
    assert_eq!(Desk::stopping().sees(ended(1, 4)), [Action::Exit(4)]);

    for make in [
        &starting as &dyn Fn() -> Desk,
        &|| Desk::serving(1),
        &Desk::reloading,
        &Desk::stopping,
    ] {
        assert_eq!(make().sees(ended(9, 1)), []);
        assert_eq!(make().sees(Event::Ready(Id(9))), []);
    }
}

#[test]
fn the_old_generation_ends_only_when_every_new_process_is_ready() {
    let mut desk = Desk::serving(2);
    assert_eq!(
        desk.sees(Event::Reload),
        [Action::Reloading(generation(1)), start(3, 1), start(4, 1)]
    );
    assert_eq!(desk.sees(Event::Ready(Id(4))), []);
    assert_eq!(
        desk.sees(Event::Ready(Id(3))),
        [
            Action::Signal(Id(1), TERM),
            Action::Signal(Id(2), TERM),
            Action::Reloaded(generation(1), Ok(())),
        ]
    );
    assert_eq!(desk.sees(ended(1, 0)), []);
    // The other does not end by itself.
    assert_eq!(desk.waits(), [Action::Kill(Id(2))]);
    assert_eq!(desk.now, GRACE);
    assert_eq!(desk.machine.wakes_at(), None);
    assert_eq!(desk.sees(Event::Ended(Id(2), End::Signal(9))), []);
}

#[test]
fn a_generation_that_is_not_ready_in_time_is_killed_and_the_old_one_kept() {
    let mut desk = Desk::serving(2);
    desk.sees(Event::Reload);
    desk.sees(Event::Ready(Id(3)));
    assert_eq!(
        desk.waits(),
        [
            Action::Kill(Id(4)),
            Action::Signal(Id(3), TERM),
            failed(1, "was not ready within 30s"),
        ]
    );
    assert_eq!(desk.now, TIMEOUT);
    // Nothing of it comes back.
    assert_eq!(desk.sees(Event::Ended(Id(4), End::Signal(9))), []);
    assert_eq!(desk.sees(ended(3, 0)), []);
    assert_eq!(desk.machine.wakes_at(), None);
    // The next has the same number, and is not taken for it.
    let again = Generation {
        number: 1,
        attempt: 2,
    };
    assert_eq!(
        desk.sees(Event::Reload),
        [
            Action::Reloading(again),
            start_of(5, again),
            start_of(6, again)
        ]
    );
    assert_eq!(desk.sees(Event::Ready(Id(5))), []);
    let actions = desk.sees(Event::Ready(Id(6)));
    assert_eq!(actions.last(), Some(&Action::Reloaded(again, Ok(()))));
    assert_eq!(desk.machine.current(), again);
    // And what comes after it is one more than what serves.
    let third = Generation {
        number: 2,
        attempt: 3,
    };
    let actions = desk.sees(Event::Reload);
    assert_eq!(actions.first(), Some(&Action::Reloading(third)));
}

#[test]
fn what_has_never_served_is_not_started_again() {
    let mut desk = Desk::new(2);
    assert_eq!(desk.sees(Event::Start), [start(1, 0), start(2, 0)]);
    let end = End::NotExecuted {
        why: "no such file".to_owned(),
        status: 127,
    };
    assert_eq!(
        desk.sees(Event::Ended(Id(1), end)),
        [Action::Close, Action::Signal(Id(2), TERM)]
    );
    assert_eq!(
        desk.sees(Event::Ended(Id(2), End::Signal(15))),
        [Action::Exit(127)]
    );

    let mut desk = Desk::new(1);
    desk.sees(Event::Start);
    assert_eq!(desk.waits(), [Action::Kill(Id(1)), Action::Close]);
    assert_eq!(
        desk.sees(Event::Ended(Id(1), End::Signal(9))),
        [Action::Exit(1)]
    );
}

#[test]
fn a_process_that_dies_comes_back_after_a_wait_that_doubles_up_to_ten_seconds() {
    let mut desk = Desk::serving(1);
    let mut waits = Vec::new();
    for process in 1..=10 {
        desk.sees(ended(process, 1));
        let before = desk.now;
        assert_eq!(desk.waits(), [start(process + 1, 0)]);
        waits.push((desk.now - before).as_millis());
        desk.sees(Event::Ready(Id(process + 1)));
    }
    let expected = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000];
    assert_eq!(waits, expected);
    // Ten seconds of life, and it begins again.
    desk.now += Duration::from_secs(10);
    desk.sees(ended(11, 1));
    let before = desk.now;
    desk.waits();
    assert_eq!((desk.now - before).as_millis(), 100);
}

#[test]
fn a_process_that_comes_back_and_is_not_ready_is_killed_and_tried_again() {
    let mut desk = Desk::serving(1);
    desk.sees(ended(1, 1));
    desk.waits();
    assert_eq!(desk.waits(), [Action::Kill(Id(2))]);
    assert_eq!(desk.machine.phase, Phase::Serving);
    assert_eq!(desk.sees(Event::Ended(Id(2), End::Signal(9))), []);
    assert_eq!(desk.waits(), [start(3, 0)]);
}

#[test]
fn a_reload_mends_a_generation_that_does_not_live() {
    let mut desk = Desk::serving(1);
    desk.sees(ended(1, 1));
    assert_eq!(
        desk.sees(Event::Reload),
        [Action::Reloading(generation(1)), start(2, 1)]
    );
    assert_eq!(
        desk.sees(Event::Ready(Id(2))),
        [Action::Reloaded(generation(1), Ok(()))]
    );
    // The old one is not started any more.
    assert_eq!(desk.machine.wakes_at(), None);
}

#[test]
fn reloads_during_a_reload_are_one_more_after_it_whatever_came_of_it() {
    let mut desk = Desk::reloading();
    desk.sees(Event::Reload);
    desk.sees(Event::Reload);
    assert_eq!(
        desk.sees(Event::Ready(Id(2))),
        [
            Action::Signal(Id(1), TERM),
            Action::Reloaded(generation(1), Ok(())),
            Action::Reloading(generation(2)),
            start(3, 2),
        ]
    );
    desk.sees(Event::Reload);
    let again = Generation {
        number: 2,
        attempt: 3,
    };
    assert_eq!(
        desk.sees(ended(3, 9)),
        [
            failed(2, "exited with status 9"),
            Action::Reloading(again),
            start_of(4, again),
        ]
    );
    assert_eq!(
        desk.sees(Event::Ready(Id(4))),
        [Action::Signal(Id(2), TERM), Action::Reloaded(again, Ok(()))]
    );
    // And one that comes before anything serves.
    let mut desk = Desk::new(1);
    desk.sees(Event::Start);
    desk.sees(Event::Reload);
    assert_eq!(
        desk.sees(Event::Ready(Id(1))),
        [
            Action::Serving,
            Action::Reloading(generation(1)),
            start(2, 1)
        ]
    );
}

#[test]
fn a_stop_waits_for_all_of_them_and_exits_as_the_serving_one_did() {
    let mut desk = Desk::serving(1);
    desk.sees(Event::Reload);
    desk.sees(Event::Ready(Id(2)));
    // Process 1 still drains; 2 serves; 3 is on its way.
    desk.sees(Event::Reload);
    assert_eq!(
        desk.sees(Event::Stop(TERM)),
        [
            failed(2, "the supervisor was stopped"),
            Action::Close,
            Action::Signal(Id(2), TERM),
            Action::Signal(Id(3), TERM),
        ]
    );
    assert_eq!(desk.sees(ended(3, 77)), []);
    assert_eq!(desk.sees(ended(2, 3)), []);
    assert_eq!(desk.sees(ended(1, 0)), [Action::Exit(3)]);
}

#[test]
fn a_stop_kills_what_outlives_its_grace() {
    let mut desk = Desk::stopping();
    assert_eq!(desk.waits(), [Action::Kill(Id(1))]);
    assert_eq!(desk.now, GRACE);
    assert_eq!(
        desk.sees(Event::Ended(Id(1), End::Signal(9))),
        [Action::Exit(137)]
    );
}

#[test]
fn a_stop_while_nothing_lives_is_the_end() {
    let mut desk = Desk::serving(1);
    desk.sees(ended(1, 1));
    assert_eq!(
        desk.sees(Event::Stop(TERM)),
        [Action::Close, Action::Exit(0)]
    );
}

#[test]
fn more_and_fewer_start_and_end_the_youngest() {
    let mut desk = Desk::serving(1);
    assert_eq!(desk.sees(Event::More), [start(2, 0)]);
    assert_eq!(desk.sees(Event::More), [start(3, 0)]);
    desk.sees(Event::Ready(Id(2)));
    assert_eq!(desk.sees(Event::Fewer), [Action::Signal(Id(3), TERM)]);
    assert_eq!(desk.sees(ended(3, 0)), []);
    assert_eq!(desk.sees(Event::Fewer), [Action::Signal(Id(2), TERM)]);
    // One is the least.
    assert_eq!(desk.sees(Event::Fewer), []);
    // Fewer of a generation that is on its way are enough for it.
    let mut desk = Desk::serving(2);
    desk.sees(Event::Reload);
    desk.sees(Event::Ready(Id(3)));
    assert_eq!(
        desk.sees(Event::Fewer),
        [
            Action::Signal(Id(2), TERM),
            Action::Signal(Id(4), TERM),
            Action::Signal(Id(1), TERM),
            Action::Reloaded(generation(1), Ok(())),
        ]
    );
}

#[test]
fn only_so_many_generations_end_at_a_time() {
    let mut desk = Desk::serving(1);
    let mut killed = Vec::new();
    for process in 2..=12 {
        desk.sees(Event::Reload);
        let actions = desk.sees(Event::Ready(Id(process)));
        for action in actions {
            if let Action::Kill(Id(id)) = action {
                killed.push(id);
            }
        }
    }
    assert_eq!(killed, [1, 2, 3]);
}

/// Whatever comes in whatever order: an order to stop ends it once every process has ended, and no process is forgotten.
#[test]
fn no_order_of_events_loses_a_process() {
    // A small generator of its own: the runs are the same every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for run in 0..2_000 {
        let mut desk = Desk::new(1 + random(3));
        let mut alive: Vec<Id> = Vec::new();
        let mut exited = None;
        let mut event = Event::Start;
        for step in 0..200 {
            for action in desk.sees(event) {
                match action {
                    Action::Start { process, .. } => alive.push(process),
                    Action::Signal(id, _) | Action::Kill(id) => {
                        assert!(alive.contains(&id), "run {run}: {id:?} has ended");
                    }
                    Action::Exit(status) => exited = Some(status),
                    Action::Serving
                    | Action::Reloading(_)
                    | Action::Reloaded(..)
                    | Action::Refused(_)
                    | Action::Close
                    | Action::Tell(_) => {}
                }
            }
            if exited.is_some() {
                break;
            }
            let choice = if step > 100 { 10 } else { random(10) };
            event = match choice {
                0 => Event::Reload,
                1 => Event::More,
                2 => Event::Fewer,
                3 => Event::Pass(Signal::USR1),
                4 | 5 if !alive.is_empty() => Event::Ready(alive[random(alive.len())]),
                6 if !alive.is_empty() => {
                    let id = alive.swap_remove(random(alive.len()));
                    Event::Ended(id, End::Status(1))
                }
                10 if step == 101 && run % 2 == 0 => Event::Stop(TERM),
                10 if step == 101 => Event::Cut,
                10 => match alive.pop() {
                    Some(id) => Event::Ended(id, End::Status(0)),
                    None => panic!(
                        "run {run}: nothing lives, and it goes on: {desk_phase:?}",
                        desk_phase = desk.machine.phase
                    ),
                },
                _ => match desk.machine.wakes_at() {
                    Some(at) => {
                        desk.now = desk.now.max(at);
                        Event::Tick
                    }
                    None => Event::Tick,
                },
            };
        }
        assert!(exited.is_some() && alive.is_empty(), "run {run}: {alive:?}");
    }
}
