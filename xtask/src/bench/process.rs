//! What the kernel says of a process and its children: processor time and memory.
//!
//! Everything comes from `/proc`; a process that is gone contributes nothing.

use std::fs;

use anyhow::{Context as _, Result, ensure};

/// The kernel's unit of time in `/proc/PID/stat`: 100 a second on every Linux that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

/// One tick, in seconds: what two readings of [`cpu_seconds`] may differ by without meaning anything.
pub(super) const TICK_SECONDS: f64 = 1.0 / TICKS_PER_SECOND;

/// User and system seconds of `pid` and its children.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let ticks: u64 = family(pid)
        .iter()
        .filter_map(|&pid| stat(pid))
        .map(|stat| stat.ticks)
        .sum();
    ensure!(ticks > 0 || stat(pid).is_some(), "process {pid} is gone");
    #[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^52")]
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Bytes of memory that `pid` and its children stand for, shared pages divided among those who share them (PSS).
pub(super) fn pss_bytes(pid: u32) -> Result<f64> {
    let rollups = family(pid)
        .into_iter()
        .map(|one| (one, fs::read_to_string(format!("/proc/{one}/smaps_rollup"))));
    let mut kib = 0;
    for (one, rollup) in rollups {
        let rollup = match rollup {
            Ok(rollup) => rollup,
            // A child may have ended since it was listed.
            Err(_) if one != pid => continue,
            Err(error) => return Err(error).context("reading smaps_rollup"),
        };
        kib += parse_pss(&rollup).context("smaps_rollup without Pss")?;
    }
    Ok(f64::from(kib) * 1024.0)
}

fn parse_pss(rollup: &str) -> Option<u32> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// `pid` and its children, not theirs: the deepest a server here has is a master and its workers.
pub(super) fn family(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter(|&other| stat(other).is_some_and(|stat| stat.parent == pid));
    std::iter::once(pid).chain(children).collect()
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may hold anything, so fields are counted from the last one.
fn parse(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks(11)? + ticks(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_its_name() {
        let stat = parse("7 (a) b (c)) S 3 7 7 0 -1 4 5 6 7 8 40 2 9 9 20 0 1").unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 42));
        assert!(parse("7 (a) S 3").is_none());
    }

    #[test]
    fn a_rollup_is_read() {
        let rollup = "55b8-7ffc ---p 0 00:00 0 [rollup]\nRss:   1708 kB\nPss:    350 kB\nPss_Dirty: 112 kB\n";
        assert_eq!(parse_pss(rollup), Some(350));
        assert_eq!(parse_pss("Rss: 1 kB\n"), None);
    }

    #[test]
    fn this_process_has_memory_and_no_time_runs_backward() {
        let pid = std::process::id();
        assert!(pss_bytes(pid).unwrap() > 100.0 * 1024.0);
        let before = cpu_seconds(pid).unwrap();
        assert!(cpu_seconds(pid).unwrap() >= before);
    }
}
