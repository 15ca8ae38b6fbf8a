//! Bytes in memory of the kernel's that a file names (`memfd_create(2)`), and that can be read like any others.
//!
//! What is in such a file the kernel sends to a socket from where it is (`sendfile(2)`); what is in a program's own memory
//! it copies.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

/// Bytes that nobody changes any more, in a file and in memory at once.
///
/// ```
/// use curtsy_sys::resident::Resident;
///
/// let resident = Resident::new(b"text")?;
/// assert_eq!(resident.as_ref(), b"text");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Resident {
    file: File,
    place: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is only read, and the file is sealed against writing: any thread may have it, and many at once.
unsafe impl Send for Resident {}
// SAFETY: as above.
unsafe impl Sync for Resident {}

impl Resident {
    /// Copies the bytes there.
    ///
    /// # Errors
    /// When there are no bytes, when the process has no descriptor left, or the system no memory.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"curtsy-resident", flags)?);
        file.write_all(bytes)?;
        // With nobody able to change it, what is read below is as constant as any shared reference must be.
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, seals)?;
        let length = bytes.len();
        // SAFETY: the kernel chooses a place where nothing is.
        let place = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::PRIVATE,
                &file,
                0,
            )
        }?;
        let place = NonNull::new(place.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            file,
            place,
            length,
        })
    }

    /// The file that they are in, from its beginning.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRef<[u8]> for Resident {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: so much is mapped there until this is dropped, it is in a file of that size that cannot shrink, and
        // nobody writes it.
        unsafe { std::slice::from_raw_parts(self.place.as_ptr(), self.length) }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody refers to it any more.
        let unmapped = unsafe { munmap(self.place.as_ptr().cast::<c_void>(), self.length) };
        // It fails for what was never mapped only.
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::Resident;
    use std::io::Write as _;

    #[test]
    fn they_are_in_memory_and_in_a_file_that_nobody_changes() {
        let bytes: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
        let resident = Resident::new(&bytes).unwrap();
        assert!(resident.as_ref() == bytes);
        let mut read = vec![0; bytes.len() + 1];
        let count = rustix::io::pread(resident.file(), &mut read, 0).unwrap();
        assert!(read[..count] == bytes);
        let mut file = resident.file.try_clone().unwrap();
        assert!(file.write(b"other").is_err());
        assert!(file.set_len(1).is_err());
    }

    #[test]
    fn nothing_is_not_kept() {
        assert!(Resident::new(b"").is_err());
    }
}
