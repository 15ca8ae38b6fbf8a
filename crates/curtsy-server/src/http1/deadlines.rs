//! When a connection's patience ends, and over what: pure, from what its link knows.

use crate::limits::Limits;
use crate::link::Stage;
use curtsy_lifecycle::{Moment, State};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It has rested long enough to be parked.
    Park,
    /// The head took too long.
    Head,
    /// The body stood still or took too long.
    Body,
    /// The client does not take the answer, or the answer took too long.
    Answer,
    /// Nobody closes.
    Close,
}

/// What is known of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) state: State,
    pub(crate) stage: Stage,
    pub(crate) since: Moment,
    pub(crate) accepted: Moment,
    /// No request was ever read on it.
    pub(crate) is_first: bool,
    pub(crate) head_since: Option<Moment>,
    pub(crate) called_at: Option<Moment>,
    pub(crate) last_read: Option<Moment>,
    pub(crate) body_open: bool,
    pub(crate) body_failed: bool,
    pub(crate) body_waits_since: Option<Moment>,
    pub(crate) write_blocked_since: Option<Moment>,
    pub(crate) shutdown_since: Option<Moment>,
}

/// The nearest deadline.
pub(crate) fn next(limits: &Limits, now: &Situation) -> Option<(Moment, Due)> {
    if let Some(since) = now.shutdown_since {
        return Some((since + limits.close_linger, Due::Close));
    }
    match now.state {
        // The lot ends their patience: they go there before that.
        State::New => {
            let patience = now.accepted + limits.header_timeout;
            Some(((now.since + limits.park_after).min(patience), Due::Park))
        }
        State::Idle => Some((park_at(limits, now.since), Due::Park)),
        State::Handshake => Some((now.accepted + limits.handshake_timeout, Due::Close)),
        State::Upgraded | State::Closed => None,
        State::Active => active(limits, now),
    }
}

/// When a connection that is idle since then has rested long enough.
#[inline]
pub(crate) fn park_at(limits: &Limits, since: Moment) -> Moment {
    since + limits.park_after.min(limits.idle_timeout)
}

fn active(limits: &Limits, now: &Situation) -> Option<(Moment, Due)> {
    let begun = if now.is_first {
        Some(now.accepted)
    } else {
        now.head_since
    };
    if now.stage == Stage::Waiting {
        return begun.map(|at| (at + limits.header_timeout, Due::Head));
    }
    let stall = now
        .body_waits_since
        // Left over by the handler: it is us who wait.
        .or_else(|| {
            let left_over = now.stage == Stage::Answered && now.body_open;
            now.last_read.filter(|_| left_over)
        })
        .map(|since| now.last_read.map_or(since, |read| since.max(read)) + limits.body_stall);
    let whole = limits
        .read_timeout
        .filter(|_| now.body_open)
        .and_then(|limit| begun.map(|at| at + limit));
    let body = [stall, whole].into_iter().flatten().min();
    let stuck = now.write_blocked_since.map(|at| at + limits.write_stall);
    let late = limits
        .write_timeout
        .and_then(|limit| now.called_at.map(|at| at + limit));
    let answer = [stuck, late].into_iter().flatten().min();
    [
        body.filter(|_| !now.body_failed).map(|at| (at, Due::Body)),
        answer.map(|at| (at, Due::Answer)),
    ]
    .into_iter()
    .flatten()
    .min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::{Due, Situation, next};
    use crate::limits::Limits;
    use crate::link::Stage;
    use curtsy_lifecycle::{Moment, State};
    use std::time::Duration;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    const ACCEPTED: u64 = 1_000;

    fn situation(state: State, stage: Stage) -> Situation {
        Situation {
            state,
            stage,
            since: at(5_000),
            accepted: at(ACCEPTED),
            is_first: false,
            head_since: Some(at(5_000)),
            called_at: Some(at(5_100)),
            last_read: Some(at(5_200)),
            body_open: false,
            body_failed: false,
            body_waits_since: None,
            write_blocked_since: None,
            shutdown_since: None,
        }
    }

    fn due(
        limits: &Limits,
        change: impl FnOnce(&mut Situation),
        stage: Stage,
    ) -> Option<(u64, Due)> {
        let mut now = situation(State::Active, stage);
        change(&mut now);
        next(limits, &now).map(|(at, due)| (at.as_millis(), due))
    }

    #[test]
    fn waiting_connections_are_parked() {
        let limits = Limits::default();
        for state in [State::New, State::Idle] {
            let now = situation(state, Stage::Waiting);
            assert_eq!(next(&limits, &now), Some((at(5_100), Due::Park)));
        }
        let impatient = Limits {
            park_after: Duration::from_secs(60),
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(7),
            ..Limits::default()
        };
        for (state, due) in [(State::New, 6_000), (State::Idle, 12_000)] {
            let now = situation(state, Stage::Waiting);
            assert_eq!(next(&impatient, &now), Some((at(due), Due::Park)));
        }
        for state in [State::Upgraded, State::Closed] {
            assert_eq!(next(&limits, &situation(state, Stage::Waiting)), None);
        }
        let now = situation(State::Handshake, Stage::Waiting);
        assert_eq!(next(&limits, &now), Some((at(11_000), Due::Close)));
    }

    #[test]
    fn a_head_counts_from_the_accept_first_and_from_its_first_byte_later() {
        let limits = Limits::default();
        let later = due(&limits, |_| {}, Stage::Waiting);
        assert_eq!(later, Some((15_000, Due::Head)));
        let first = due(&limits, |now| now.is_first = true, Stage::Waiting);
        assert_eq!(first, Some((11_000, Due::Head)));
    }

    #[test]
    fn a_handler_has_all_the_time_it_wants() {
        for stage in [Stage::Called, Stage::Answering, Stage::Answered] {
            assert_eq!(due(&Limits::default(), |_| {}, stage), None);
        }
    }

    #[test]
    fn a_body_stalls_only_while_somebody_waits_for_it() {
        let limits = Limits::default();
        let unread = due(&limits, |now| now.body_open = true, Stage::Called);
        assert_eq!(unread, None);
        let waiting = |now: &mut Situation| {
            now.body_open = true;
            now.body_waits_since = Some(at(5_150));
        };
        // The last byte came after the wait began.
        assert_eq!(
            due(&limits, waiting, Stage::Called),
            Some((35_200, Due::Body))
        );
        let failed = |now: &mut Situation| {
            waiting(now);
            now.body_failed = true;
        };
        assert_eq!(due(&limits, failed, Stage::Called), None);
        let left_over = due(&limits, |now| now.body_open = true, Stage::Answered);
        assert_eq!(left_over, Some((35_200, Due::Body)));
    }

    #[test]
    fn whole_request_and_whole_answer_have_limits_if_asked_for() {
        let limits = Limits {
            read_timeout: Some(Duration::from_secs(2)),
            write_timeout: Some(Duration::from_secs(3)),
            ..Limits::default()
        };
        let reading = due(&limits, |now| now.body_open = true, Stage::Called);
        assert_eq!(reading, Some((7_000, Due::Body)));
        let writing = due(&limits, |_| {}, Stage::Answering);
        assert_eq!(writing, Some((8_100, Due::Answer)));
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut() {
        let stuck = due(
            &Limits::default(),
            |now| now.write_blocked_since = Some(at(6_000)),
            Stage::Answering,
        );
        assert_eq!(stuck, Some((36_000, Due::Answer)));
    }

    #[test]
    fn a_gentle_close_is_bounded() {
        let closing = due(
            &Limits::default(),
            |now| now.shutdown_since = Some(at(7_000)),
            Stage::Waiting,
        );
        assert_eq!(closing, Some((7_500, Due::Close)));
    }
}
