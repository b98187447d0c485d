//! When a process has no file descriptor left: "not now" rather than "no", because others end and give theirs
//! back.

use std::{error::Error, io};

use rustix::io::Errno;

/// Whether that is why something failed, itself or any of its causes.
pub fn ran_out(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            // This process has none left, or the whole machine.
            if [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).map(Some).contains(&error.raw_os_error()) {
                return true;
            }
            // Its `source` passes over the error inside.
            if error.get_ref().is_some_and(|inner| ran_out(inner)) {
                return true;
            }
        }
        next = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn it_is_found_behind_other_errors() {
        let os = |errno: Errno| io::Error::from(errno);
        for errno in [Errno::MFILE, Errno::NFILE] {
            assert!(ran_out(&os(errno)));
            assert!(ran_out(&io::Error::other(Outer(io::Error::other(os(errno))))));
        }
        assert!(!ran_out(&Outer(os(Errno::NOENT))) && !ran_out(&io::Error::other("Too many open files")));
    }
}
