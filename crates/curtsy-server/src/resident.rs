//! Bytes that are sent often, kept where the kernel can send them without a copy.
//!
//! - They are [`Bytes`] like any others, and go through bodies and middleware as such. Whoever writes a large piece to a
//!   plain socket looks where it lies: in such a place, the kernel is told to send it from there. Whatever changed it on
//!   the way put it elsewhere.
//! - A place is known as long as somebody has some of its bytes.

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use curtsy_sys::resident::Resident;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, LazyLock};

/// All places, by nothing in particular: there are few.
static PLACES: LazyLock<ArcSwap<Vec<Arc<Resident>>>> = LazyLock::new(ArcSwap::default);

/// What the bytes own.
struct Owner(Arc<Resident>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        PLACES.rcu(|places| {
            let others = places.iter().filter(|place| !Arc::ptr_eq(place, &self.0));
            others.cloned().collect::<Vec<_>>()
        });
    }
}

/// Copies bytes to where the kernel can send them from without a copy: for what is sent often and is large, a picture or
/// a script that is part of the program.
///
/// A piece of at least 16 KiB that is the whole body of an answer is then sent from there over TCP without TLS; anywhere
/// else they are bytes like others. They take memory of the system's (`memfd_create(2)`) and one descriptor, until the
/// last piece of them is dropped.
///
/// ```
/// use curtsy_server::resident;
/// use http::Response;
/// use http_body_util::Full;
///
/// let picture = resident(&[7; 40_000])?;
/// let answer = Response::new(Full::new(picture.clone()));
/// # drop(answer);
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
/// When the process has no descriptor left, or the system no memory.
pub fn resident(bytes: &[u8]) -> io::Result<Bytes> {
    if bytes.is_empty() {
        return Ok(Bytes::new());
    }
    let place = Arc::new(Resident::new(bytes)?);
    PLACES.rcu(|places| [places.as_slice(), std::slice::from_ref(&place)].concat());
    Ok(Bytes::from_owner(Owner(place)))
}

/// Where in a file of the kernel's such bytes are.
pub(crate) struct Place {
    // Not the place itself: to count who has it would be counted by all workers in one place.
    places: Guard<Arc<Vec<Arc<Resident>>>>,
    index: usize,
    pub(crate) offset: u64,
}

impl Place {
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.places[self.index].file()
    }
}

/// Where these bytes are, if they are in such a place.
pub(crate) fn find(bytes: &[u8]) -> Option<Place> {
    let wanted = bytes.as_ptr_range();
    let places = PLACES.load();
    let range = |place: &Arc<Resident>| (**place).as_ref().as_ptr_range();
    let index = places.iter().position(|place| {
        let place = range(place);
        place.start <= wanted.start && wanted.end <= place.end
    })?;
    let offset = wanted.start.addr() - range(&places[index]).start.addr();
    Some(Place {
        places,
        index,
        offset: offset as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::{find, resident};

    #[test]
    fn a_piece_is_found_as_long_as_there_is_one() {
        let letters: Vec<u8> = (0..50_000_u32).map(|n| (n % 251) as u8).collect();
        let whole = resident(&letters).unwrap();
        let other = resident(b"other").unwrap();
        assert!(whole == letters && other == "other");
        let piece = whole.slice(300..40_000);
        assert_eq!(find(&piece).unwrap().offset, 300);
        assert_eq!(find(&other[5..]).unwrap().offset, 5);
        assert!(find(&letters).is_none());
        let range = piece.as_ptr_range();
        drop(whole);
        assert_eq!(find(&piece).unwrap().offset, 300);
        drop(piece);
        let is_gone = !super::PLACES.load().iter().any(|place| {
            let place = (**place).as_ref().as_ptr_range();
            place.start <= range.start && range.end <= place.end
        });
        assert!(is_gone);
        assert!(resident(b"").unwrap().is_empty());
    }
}
