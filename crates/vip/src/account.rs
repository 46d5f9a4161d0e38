//! Whom scripts and notify programs run as. Never as root, unless the cluster file says so.
//!
//! | evermq-vip runs as | user in the file | they run as |
//! |---|---|---|
//! | root | none | `nobody` |
//! | root | `root` | root |
//! | root | another | that user, with that user's groups |
//! | another user | none, or that user | that user |
//! | another user | a different one | refused at start |

use std::ffi::CString;
use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

/// Where no user is given and evermq-vip is root.
pub const NOBODY: &str = "nobody";

/// Whom a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// Whom evermq-vip itself runs as.
    Own,
    /// Another user.
    Other {
        /// User.
        uid: Uid,
        /// Group.
        gid: Gid,
        /// All groups.
        groups: Vec<Gid>,
    },
}

/// Why a program cannot be run as the cluster file says.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No user is given, and the default is missing.
    #[error(
        "{what} would run as user \"nobody\", which this machine does not have: create it, or name another user \
         (`{key} = \"...\"`; \"root\" only if it must be)"
    )]
    NoNobody {
        /// The track or the notify programs.
        what: String,
        /// The key to set.
        key: &'static str,
    },
    /// The user is missing.
    #[error("{what} has to run as user \"{user}\", which this machine does not have: create it, or correct `{key}`")]
    Unknown {
        /// The track or the notify programs.
        what: String,
        /// The user.
        user: String,
        /// The key to correct.
        key: &'static str,
    },
    /// Only root can be someone else.
    #[error(
        "{what} has to run as user \"{user}\", but evermq-vip is not root and cannot become another user: leave `{key}` \
         out to run it as evermq-vip's own user, or run evermq-vip as root"
    )]
    NotRoot {
        /// The track or the notify programs.
        what: String,
        /// The user.
        user: String,
        /// The key to leave out.
        key: &'static str,
    },
    /// The system does not tell.
    #[error("cannot look up user \"{user}\": {source}")]
    Lookup {
        /// The user.
        user: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Account {
    /// Whom `what` runs as if the file says `user` at `key`.
    ///
    /// # Errors
    /// There is no such user, or evermq-vip may not become that user.
    pub fn of(user: Option<&str>, what: &str, key: &'static str) -> Result<Self, AccountError> {
        resolve(user, geteuid(), User::from_name, what, key)
    }

    /// Whether running such a program needs CAP_SETUID, CAP_SETGID, and CAP_KILL to end it.
    #[must_use]
    pub fn switches(&self) -> bool {
        match self {
            Self::Own => false,
            Self::Other { .. } => true,
        }
    }

    /// Makes the calling process, a child before its exec, this user for good. Async-signal-safe: it does not allocate.
    pub(crate) fn assume(&self) -> io::Result<()> {
        let Self::Other { uid, gid, groups } = self else { return Ok(()) };
        // SAFETY: `Gid` is a transparent `gid_t`, and the list lives for the call.
        let grouped = unsafe { libc::setgroups(groups.len(), groups.as_ptr().cast()) };
        Errno::result(grouped)?;
        // SAFETY: plain numbers; the user comes last, as only root may do the other two.
        Errno::result(unsafe { libc::setgid(gid.as_raw()) })?;
        // SAFETY: as above.
        Errno::result(unsafe { libc::setuid(uid.as_raw()) })?;
        Ok(())
    }
}

fn resolve(
    user: Option<&str>,
    own: Uid,
    find: impl FnOnce(&str) -> nix::Result<Option<User>>,
    what: &str,
    key: &'static str,
) -> Result<Account, AccountError> {
    let (name, what) = (user.unwrap_or(NOBODY), what.to_owned());
    if user.is_none() && !own.is_root() {
        return Ok(Account::Own);
    }
    let failed = |error: Errno| AccountError::Lookup { user: name.to_owned(), source: error.into() };
    let Some(found) = find(name).map_err(failed)? else {
        return Err(match user {
            None => AccountError::NoNobody { what, key },
            Some(_) => AccountError::Unknown { what, user: name.to_owned(), key },
        });
    };
    if found.uid == own {
        return Ok(Account::Own);
    }
    if !own.is_root() {
        return Err(AccountError::NotRoot { what, user: name.to_owned(), key });
    }
    let c_name = CString::new(name).map_err(|_| failed(Errno::EINVAL))?;
    let groups = getgrouplist(&c_name, found.gid).map_err(failed)?;
    Ok(Account::Other { uid: found.uid, gid: found.gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, id: u32) -> User {
        User {
            name: name.to_owned(),
            passwd: CString::default(),
            uid: Uid::from_raw(id),
            gid: Gid::from_raw(id),
            gecos: CString::default(),
            dir: "/".into(),
            shell: "/bin/sh".into(),
        }
    }

    /// Machine with root, nobody and evermq.
    fn of(own: u32, wanted: Option<&str>) -> Result<Account, String> {
        let find = |name: &str| {
            let known = [("root", 0), ("nobody", 65534), ("evermq", 990)];
            Ok(known.iter().find(|known| known.0 == name).map(|(name, id)| user(name, *id)))
        };
        resolve(wanted, Uid::from_raw(own), find, "track \"x\"", "user").map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_runs_as_root_unless_root_was_written() {
        let uid = |account: &Account| match account {
            Account::Own => None,
            Account::Other { uid, gid, groups } => {
                assert!(groups.contains(gid) && !groups.contains(&Gid::from_raw(0)), "{groups:?}");
                Some(uid.as_raw())
            }
        };
        for (own, wanted, expected) in [
            (0, None, Some(65534)),
            (0, Some("evermq"), Some(990)),
            (0, Some("root"), None),
            (990, None, None),
            (990, Some("evermq"), None),
        ] {
            let account = of(own, wanted).unwrap();
            assert_eq!(uid(&account), expected, "{own} {wanted:?}");
            assert_eq!(account.switches(), expected.is_some());
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        for (own, wanted, expected) in [
            (0, Some("ghost"), "user \"ghost\", which this machine does not have"),
            (990, Some("ghost"), "user \"ghost\", which this machine does not have"),
            (990, Some("root"), "leave `user` out"),
            (990, Some("nobody"), "leave `user` out"),
        ] {
            let error = of(own, wanted).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = resolve(None, Uid::from_raw(0), |_| Ok(None), "track \"x\"", "user").unwrap_err().to_string();
        assert!(error.contains("create it, or name another user (`user = "), "{error}");
    }
}
