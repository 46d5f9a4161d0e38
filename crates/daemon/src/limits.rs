//! Open files: each connection is one, so the limit is raised as far as the system allows.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises this process's limit of open files to its hard limit, and warns where `needed` would not fit.
pub fn raise_open_files(needed: usize) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let now = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    if now < needed {
        tracing::warn!(
            open_files = now,
            needed,
            "the limit of open files is too low for max_connections; set LimitNOFILE= in the unit, or lower max_connections"
        );
    }
}
