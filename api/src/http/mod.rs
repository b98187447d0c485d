//! What surrounds every request, whatever it asks for: connections, limits, the guard against foreign pages,
//! what is read of a body, problems and pages, the router.

pub(crate) mod connection;
pub(crate) mod extract;
pub(crate) mod guard;
pub(crate) mod host;
pub(crate) mod limits;
pub(crate) mod linger;
pub(crate) mod listen;
pub(crate) mod misread;
pub(crate) mod multipart;
pub(crate) mod observe;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod server;
