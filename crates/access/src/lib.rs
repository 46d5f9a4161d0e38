//! Who may do what: the files that say it, and what follows for one client. Pure, but for the randomness of a new salt.
//!
//! | module | subject |
//! |---|---|
//! | [`passwords`] | ◆ a file of user names and hashes: read, checked against, edited |
//! | [`hash`] | ◆ one hash: argon2id, and what `mosquitto_passwd` writes |
//! | [`filters`] | ◆ many topic filters as one matcher |
//! | [`mosquitto`] | ◆ mosquitto's `acl_file` |
//! | [`rules`] | ◆ `[[broker.acl]]` and `acl_file`, and what of them concerns one client |
//! | [`substitution`] | ◆ `%u` and `%c` |

pub mod filters;
pub mod hash;
pub mod mosquitto;
pub mod passwords;
pub mod rules;
pub mod substitution;

mod lines;

pub use hash::{Hash, Memory};
pub use mosquitto::AclFile;
pub use passwords::{Effort, PasswordFile};
pub use rules::{Permits, Rules};
