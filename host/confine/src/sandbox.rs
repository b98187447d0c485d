//! The parent's side: a command whose child begins with nothing but what it is given.

use std::{fs::File, io, os::unix::process::CommandExt as _, path::Path, process::Command};

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, umask},
    thread::set_no_new_privs,
};

use crate::{
    cgroup::{self, Cgroups},
    descriptors, directory, environment,
    limits::{self, Limits},
    user::{DEFAULT_USER, User},
};

/// How a process starts its children.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Or why there is none.
    pub(crate) user: Result<User, String>,
    pub(crate) cgroups: Result<Cgroups, String>,
    taken_away: Vec<Piece>,
}

/// What a child is confined by from its first instruction on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Environment,
    Descriptors,
    WorkingDirectory,
    Limits,
    NoNewPrivileges,
    User,
}

impl Default for Sandbox {
    /// Everything that this process can.
    fn default() -> Self {
        Self::with_user(DEFAULT_USER)
    }
}

impl Sandbox {
    /// Everything that this process can; children are of the user `id`, if this process is root.
    #[must_use]
    pub fn with_user(id: u32) -> Self {
        let nowhere = "nobody asked for groups".to_owned();
        Self { user: User::new(id), cgroups: Err(nowhere), taken_away: Vec::new() }
    }

    /// With a control group for each child, where this process may make some. It may move to another group
    /// itself.
    #[must_use]
    pub fn in_cgroups(self) -> Self {
        Self { cgroups: Cgroups::of_this_process(), ..self }
    }

    /// For tests, which show by it what a piece is there for.
    #[must_use]
    pub fn without(mut self, piece: Piece) -> Self {
        self.taken_away.push(piece);
        self
    }

    /// A command in a process group of its own, so that a Ctrl-C in a terminal is for its parent alone.
    #[must_use]
    pub fn command(&self, program: &Path, limits: Limits) -> Command {
        let has = |piece| !self.taken_away.contains(&piece);
        let mut command = Command::new(program);
        command.process_group(0);
        if has(Piece::Environment) {
            command.env_clear().envs(environment::environment());
        }
        let start = Start {
            directory: directory::empty().filter(|_| has(Piece::WorkingDirectory)),
            limits: has(Piece::Limits).then(|| limits.prepare()),
            // What is wrong with a group was said at the start; the other limits hold without.
            group: self.cgroups.as_ref().ok().and_then(|groups| groups.group(limits.memory).ok()),
            user: self.user.as_ref().ok().copied().filter(|_| has(Piece::User)),
            no_new_privileges: has(Piece::NoNewPrivileges),
            closes_others: has(Piece::Descriptors),
        };
        // SAFETY: what runs between fork and exec makes system calls with what was prepared, and nothing
        // else.
        unsafe { command.pre_exec(move || start.carry_out()) };
        command
    }
}

/// What happens between fork and exec.
struct Start {
    directory: Option<&'static File>,
    limits: Option<[(Resource, Rlimit); 5]>,
    group: Option<File>,
    user: Option<User>,
    no_new_privileges: bool,
    closes_others: bool,
}

impl Start {
    /// The user comes behind what only root may do.
    fn carry_out(&self) -> io::Result<()> {
        if let Some(directory) = self.directory {
            directory::enter(directory)?;
        }
        if let Some(limits) = &self.limits {
            limits::set(limits)?;
            limits::die_first();
        }
        if let Some(group) = &self.group {
            cgroup::enter(group)?;
        }
        // What it writes, should it write anything, is for nobody else.
        umask(Mode::RWXG | Mode::RWXO);
        if let Some(user) = self.user {
            user.become_it()?;
        }
        if self.no_new_privileges {
            set_no_new_privs(true)?;
        }
        if self.closes_others {
            descriptors::close_others();
        }
        Ok(())
    }
}
