//! Waiting for an address or a path that another process of the same service has.
//!
//! Where a supervisor keeps several processes of one program, side by side or the next before the last has ended, all of
//! them are told the same admin address and the same control path, and one can have it. The others serve without it, and
//! try again: the system tells nobody that an address is free.
//!
//! Deliberately absent: sharing. Who asked would be answered by one of them, and not know by which.

use crate::error::Error;
use std::time::Duration;
use tokio::time::sleep;

/// The first pause between two tries; each is twice as long as the one before it.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest: how long an address may be nobody's.
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// Tries again and again, on a thread that may block, until it succeeds. Whatever is wrong beside the other process is
/// logged once for each reason.
///
/// Cancel safety: what a try that is under way then gets is dropped.
pub(crate) async fn taken<T, F>(what: &'static str, take: F) -> T
where
    T: Send + 'static,
    F: Fn() -> Result<T, Error> + Clone + Send + 'static,
{
    let mut pause = PAUSE_FIRST;
    let mut last = String::new();
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LONGEST);
        let take = take.clone();
        match tokio::task::spawn_blocking(take).await {
            Ok(Ok(taken)) => return taken,
            Ok(Err(error)) if error.is_in_use() => {}
            Ok(Err(error)) => {
                let why = error.to_string();
                if why != last {
                    tracing::warn!(error = why, "the {what} cannot be had; trying again");
                    last = why;
                }
            }
            Err(error) => tracing::error!(%error, "the {what} cannot be tried for"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::taken;
    use crate::error::{Error, Kind};
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_less_and_less_often_until_it_is_free() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let waiting = taken("thing", move || {
            match counted.fetch_add(1, Ordering::Relaxed) {
                // 50 ms and twice as much again and again, up to 2 s: the tenth is after 11.15 s.
                0..9 => Err(Error::because(
                    Kind::Bind,
                    "not yet",
                    io::Error::from(io::ErrorKind::AddrInUse),
                )),
                n => Ok(n),
            }
        });
        let begun = tokio::time::Instant::now();
        assert_eq!(waiting.await, 9);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(11_150), "{took:?}");
        assert!(took < Duration::from_millis(11_500), "{took:?}");
    }

    #[test]
    fn in_use_is_told_from_other_reasons_however_deep() {
        let because = |kind: io::ErrorKind| Error::because(Kind::Bind, "x", io::Error::from(kind));
        assert!(because(io::ErrorKind::AddrInUse).is_in_use());
        assert!(because(io::ErrorKind::AddrInUse).within("y").is_in_use());
        assert!(!because(io::ErrorKind::PermissionDenied).is_in_use());
        assert!(!Error::new(Kind::Bind, "x").is_in_use());
    }
}
