//! This process's descriptors: how many are open, and how many more it may open.

use std::io;

use rustix::process::{Resource, getrlimit};

/// How many descriptors this process has open, this count's own not included.
///
/// # Errors
/// When `/proc` is not there.
pub fn open_count() -> io::Result<usize> {
    // The directory that is being read is itself one of them.
    Ok(std::fs::read_dir("/proc/self/fd")?
        .count()
        .saturating_sub(1))
}

/// How many more this process may open before `RLIMIT_NOFILE`.
///
/// # Errors
/// As [`open_count`].
pub fn room() -> io::Result<usize> {
    let limit = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
    Ok(limit.saturating_sub(open_count()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_follows_what_is_opened_and_leaves_the_same_room() {
        // Other tests of this binary open and close theirs meanwhile, so only a large step shows.
        let before = open_count().unwrap();
        let held: Vec<_> = (0..200).map(|_| rustix::pipe::pipe().unwrap()).collect();
        let during = open_count().unwrap();
        assert!(during >= before + 300, "{before} -> {during}");
        assert!(room().unwrap() > 0);
        drop(held);
        assert!(open_count().unwrap() < during - 300);
    }
}
