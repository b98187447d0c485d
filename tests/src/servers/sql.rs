//! A session with a PostgreSQL server, through `psql`: tests look at tables, and hold locks to stop a process
//! at a chosen statement.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::spawn;

/// No row of ours is this.
const END: &str = "-- end of the answer --";

/// One connection. What it locked is free when it is dropped.
pub struct Session {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// # Panics
    /// When `psql` is not there.
    #[must_use]
    pub fn open(url: &str) -> Self {
        let mut command = Command::new("psql");
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]);
        command.args(["--field-separator=\t", url]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = spawn(command).expect("psql is installed with PostgreSQL");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, input, output }
    }

    /// The rows of a statement, columns apart by tabs; `None` when it failed or the connection is gone, which
    /// ends the session.
    pub fn try_query(&mut self, statement: &str) -> Option<Vec<String>> {
        writeln!(self.input, "{statement};\n\\echo {END}").and_then(|()| self.input.flush()).ok()?;
        let mut rows = Vec::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end_matches('\n') {
                END => return Some(rows),
                row => rows.push(row.to_owned()),
            }
        }
    }

    /// # Panics
    /// When the statement fails.
    pub fn query(&mut self, statement: &str) -> Vec<String> {
        self.try_query(statement).unwrap_or_else(|| panic!("psql failed at: {statement}"))
    }

    /// A statement that gives one number.
    ///
    /// # Panics
    /// When it gives something else.
    pub fn number(&mut self, statement: &str) -> i64 {
        let rows = self.query(statement);
        rows.first().and_then(|row| row.parse().ok()).unwrap_or_else(|| panic!("{statement}: {rows:?}"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
