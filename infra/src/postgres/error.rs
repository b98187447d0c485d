//! What went wrong in the database, as the store's callers need to know it.

use std::io::ErrorKind;

use crate::store::StoreError;

/// Why the first connection failed, and what to do.
pub(super) fn advice(error: &sqlx::Error) -> String {
    let (why, what) = match error {
        // The server's own sentence; the error's is that and a line of PostgreSQL's source code.
        sqlx::Error::Database(error) => (
            error.message().to_owned(),
            match error.code().as_deref() {
                // invalid_authorization_specification, invalid_password
                Some("28000" | "28P01") => "check user and password of the database URL, and the server's pg_hba.conf",
                // invalid_catalog_name
                Some("3D000") => "create that database, or name another in the database URL",
                _ => "the server's log may say more",
            },
        ),
        sqlx::Error::Tls(error) => (error.to_string(), "check `sslmode` and `sslrootcert` of the database URL"),
        sqlx::Error::PoolTimedOut => {
            ("it does not answer".to_owned(), "check that it runs, and host and port of the database URL")
        }
        error => (error.to_string(), "check that it runs, and host and port of the database URL"),
    };
    format!("{why}; {what}")
}

/// Whether the same may succeed in a moment.
pub(super) fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        // cannot_connect_now; too_many_connections: those of a process that was killed end in a moment
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("57P03" | "53300")),
        _ => false,
    }
}

/// By SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(crate) fn from_code(code: &str, message: String) -> StoreError {
    match code {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => StoreError::Contended(message),
        // disk_full
        "53100" => StoreError::Full(message),
        // lock_not_available, query_canceled (by a timeout), idle_in_transaction_session_timeout,
        // read_only_sql_transaction
        "55P03" | "57014" | "25P03" | "25006" => StoreError::Unavailable(message),
        // connection_exception, insufficient_resources, operator_intervention, system_error
        _ if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => StoreError::Unavailable(message),
        _ => StoreError::Corrupt(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_meaning() {
        let kind = |code| from_code(code, String::new());
        assert!(matches!(kind("40P01"), StoreError::Contended(_)));
        assert!(matches!(kind("53100"), StoreError::Full(_)));
        // admin_shutdown, too_many_connections
        for code in ["57P01", "53300", "55P03"] {
            assert!(matches!(kind(code), StoreError::Unavailable(_)), "{code}");
        }
        // unique_violation, check_violation
        for code in ["23505", "23514"] {
            assert!(matches!(kind(code), StoreError::Corrupt(_)), "{code}");
        }
    }
}
