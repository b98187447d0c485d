//! What went wrong in the database, as the store's callers need to know it.

use sqlx::error::DatabaseError;

use crate::store::StoreError;

// Primary result codes of SQLite, <https://www.sqlite.org/rescode.html>.
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_READONLY: i32 = 8;
const SQLITE_INTERRUPT: i32 = 9;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_PROTOCOL: i32 = 15;

/// The primary code is the low byte of the extended one.
const PRIMARY: i32 = 0xff;

/// The file that the readers and the writer share could not grow: also a full disk.
const SQLITE_IOERR_SHMSIZE: i32 = SQLITE_IOERR | (19 << 8);

pub(crate) fn from_code(error: &dyn DatabaseError, message: String) -> StoreError {
    of(error.code().and_then(|code| code.parse().ok()).unwrap_or_default(), message)
}

fn of(code: i32, message: String) -> StoreError {
    match code & PRIMARY {
        _ if code == SQLITE_IOERR_SHMSIZE => StoreError::Full(message),
        SQLITE_FULL => StoreError::Full(message),
        SQLITE_BUSY | SQLITE_LOCKED | SQLITE_READONLY | SQLITE_INTERRUPT | SQLITE_IOERR | SQLITE_CANTOPEN
        | SQLITE_PROTOCOL => StoreError::Unavailable(message),
        _ => StoreError::Corrupt(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_codes_keep_their_meaning() {
        let kind = |code| of(code, String::new());
        // SQLITE_FULL, SQLITE_IOERR_SHMSIZE
        for code in [13, 4874] {
            assert!(matches!(kind(code), StoreError::Full(_)), "{code}");
        }
        // SQLITE_BUSY_SNAPSHOT, SQLITE_IOERR_WRITE, SQLITE_READONLY_DBMOVED
        for code in [5, 517, 778, 1032] {
            assert!(matches!(kind(code), StoreError::Unavailable(_)), "{code}");
        }
        // SQLITE_CORRUPT, SQLITE_CONSTRAINT_CHECK
        for code in [11, 275] {
            assert!(matches!(kind(code), StoreError::Corrupt(_)), "{code}");
        }
    }
}
