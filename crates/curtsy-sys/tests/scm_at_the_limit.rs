//! Near `RLIMIT_NOFILE` only some of the descriptors arrive, and the receiver is told. In a process of its own, because
//! the limit is the whole process's.

use std::os::fd::AsFd;

use curtsy_sys::{descriptors, scm, seqpacket};
use rustix::process::{Resource, getrlimit, setrlimit};

#[test]
fn a_receiver_near_its_limit_gets_a_prefix_and_is_told() {
    let (a, b) = seqpacket::pair().unwrap();
    scm::send(&a, b"twenty", &[a.as_fd(); 20]).unwrap();

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(descriptors::open_count().unwrap() as u64 + 7);
    setrlimit(Resource::Nofile, limit).unwrap();
    let got = scm::recv(&b, &mut [0; 16]).unwrap();
    assert!(got.fds_truncated);
    assert!(!got.bytes_truncated);
    assert!(
        !got.fds.is_empty() && got.fds.len() < 20,
        "{}",
        got.fds.len()
    );
    assert_eq!(descriptors::room().unwrap_or(0), 0);

    // What did not arrive was closed here and nowhere else: the next packet is whole again once there is room.
    drop(got);
    scm::send(&a, b"five", &[a.as_fd(); 5]).unwrap();
    let got = scm::recv(&b, &mut [0; 16]).unwrap();
    assert_eq!((got.fds.len(), got.fds_truncated), (5, false));
}
