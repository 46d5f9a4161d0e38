//! A file of user names and hashes: `NAME:HASH` lines, as `mosquitto_passwd` writes them; `#` begins a comment.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;

use evermq_config::{Problem, Report};
use hashbrown::HashMap;

use crate::hash::{Hash, Memory};
use crate::lines::{self, Line};

mod blank;

pub use blank::Effort;

/// The users.
#[derive(Debug, Clone, Default)]
pub struct PasswordFile {
    users: HashMap<Box<str>, Arc<Hash>>,
    /// The same hashes in the file's order.
    all: Vec<Arc<Hash>>,
    /// Chooses whose hash stands in for that of an unknown user.
    random: RandomState,
}

/// Why a text cannot be a user name in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// There is nothing.
    Empty,
    /// A colon ends a name, a `#` at its beginning makes it a comment.
    Colon,
    /// A line's end or another control character.
    Control,
    /// Longer than a CONNECT can carry.
    TooLong,
    /// It begins or ends with a space, which nobody would see.
    Space,
}

impl NameError {
    /// What is wrong with it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Empty => "a user name is not empty",
            Self::Colon => "a user name has no colon and does not begin with #: the file could not say it",
            Self::Control => "a user name has no control characters",
            Self::TooLong => "a user name has at most 65535 bytes",
            Self::Space => "a user name neither begins nor ends with a space",
        }
    }
}

/// Whether a file can have a user of that name.
///
/// # Errors
/// Why not.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        Err(NameError::Empty)
    } else if name.contains(':') || name.starts_with('#') {
        Err(NameError::Colon)
    } else if name.chars().any(char::is_control) {
        Err(NameError::Control)
    } else if name.len() > usize::from(u16::MAX) {
        Err(NameError::TooLong)
    } else if name.trim() != name {
        Err(NameError::Space)
    } else {
        Ok(())
    }
}

impl PasswordFile {
    /// Reads the file. An entry that is a hash of the empty password is a mistake; so much `effort` is spent on finding them.
    ///
    /// # Errors
    /// It cannot be read, or every mistake in it.
    pub fn load(path: &Path, effort: Effort) -> Result<(Self, Report), Report> {
        let help =
            "make it with `evermq passwd FILE USER`, and let the broker's user read it (chown root:evermq, chmod 0640)";
        let bytes = std::fs::read(path).map_err(|error| lines::unreadable(path, "the password file", &error, help))?;
        Self::parse(path, &bytes, effort)
    }

    /// Reads `bytes` as the file at `path`; what it says and should perhaps not comes back with it.
    ///
    /// # Errors
    /// Every mistake.
    pub fn parse(path: &Path, bytes: &[u8], effort: Effort) -> Result<(Self, Report), Report> {
        let mut file = Self::default();
        let mut lines: HashMap<Box<str>, usize> = HashMap::new();
        let mut problems = Vec::new();
        let mut entries = Vec::new();
        for line in Line::all(path, bytes) {
            let line = match line {
                Ok(line) if line.text.trim().is_empty() || line.text.starts_with('#') => continue,
                Ok(line) => line,
                Err(problem) => {
                    problems.push(*problem);
                    continue;
                }
            };
            match entry(&line) {
                Ok((name, hash)) => {
                    if let Some(first) = lines.insert(name.into(), line.number) {
                        let help = format!("remove one of them; line {first} has the other");
                        problems.push(line.error(name, format!("user \"{name}\" is here twice"), help));
                    }
                    if hash.is_weak() {
                        let help = "set it again with `evermq passwd FILE USER`; it works all the same";
                        problems.push(line.warning(
                            name,
                            "this user's hash is of the old kind, quick to try out",
                            help,
                        ));
                    }
                    let hash = Arc::new(hash);
                    file.all.push(Arc::clone(&hash));
                    entries.push((line, name, Arc::clone(&hash)));
                    file.users.insert(name.into(), hash);
                }
                Err(problem) => problems.push(*problem),
            }
        }
        problems.extend(blank::problems(&entries, effort));
        let report = Report { problems };
        if report.has_errors() { Err(report) } else { Ok((file, report)) }
    }

    /// The user's hash.
    #[must_use]
    pub fn get(&self, user: &str) -> Option<&Arc<Hash>> {
        self.users.get(user)
    }

    /// Users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The user's hash if the password is right. Takes as long for a user that is not there: then one of the others' hashes
    /// is tried, always the same one for the same name, so that the time tells nobody who is there.
    #[must_use]
    pub fn check(&self, user: &str, password: &[u8], memory: &mut Memory) -> Option<&Arc<Hash>> {
        if let Some(hash) = self.users.get(user) {
            return hash.is_of(password, memory).then_some(hash);
        }
        let count = u64::try_from(self.all.len()).ok().filter(|count| *count > 0)?;
        let index = usize::try_from(self.random.hash_one(user) % count).unwrap_or(0);
        let _ = std::hint::black_box(self.all[index].is_of(password, memory));
        None
    }
}

/// The text of the file with this user's line, in the place of the one that is there. Everything else stays as it is.
#[must_use]
pub fn with_user(text: &str, name: &str, hash: &str) -> String {
    let new = format!("{name}:{hash}\n");
    let mut is_there = false;
    let mut result: String = text
        .split_inclusive('\n')
        .filter_map(|line| {
            if !is_of(line, name) {
                return Some(line);
            }
            (!std::mem::replace(&mut is_there, true)).then_some(new.as_str())
        })
        .collect();
    if !is_there {
        if !result.is_empty() && !result.ends_with('\n') {
            result.push('\n');
        }
        result.push_str(&new);
    }
    result
}

/// The text of the file without this user; none where there is no such user.
#[must_use]
pub fn without_user(text: &str, name: &str) -> Option<String> {
    let result: String = text.split_inclusive('\n').filter(|line| !is_of(line, name)).collect();
    (result.len() < text.len()).then_some(result)
}

fn is_of(line: &str, name: &str) -> bool {
    !line.starts_with('#') && line.split_once(':').is_some_and(|(user, _)| user == name)
}

fn entry<'a>(line: &Line<'a>) -> Result<(&'a str, Hash), Box<Problem>> {
    let Some((name, hash)) = line.text.split_once(':') else {
        return Err(Box::new(line.error(
            line.text,
            "no colon: this is no user and hash",
            "a line is NAME:HASH; `evermq passwd FILE USER` writes it",
        )));
    };
    if let Err(error) = check_name(name) {
        return Err(Box::new(line.error(name, error.text(), "correct the name, or remove the line")));
    }
    let hash = hash.trim_end();
    let parsed = Hash::parse(hash).map_err(|error| {
        let (message, help) = error.text();
        // The line may hold a password where the hash should be, so it is not repeated.
        let mut problem = line.error(name, format!("user \"{name}\": {message}"), help);
        if let Some(place) = &mut problem.place {
            place.source_line = format!("{name}:...");
        }
        Box::new(problem)
    })?;
    Ok((name, parsed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hash::{MOSQUITTO_6, MOSQUITTO_7, REFERENCE};

    fn path() -> &'static Path {
        Path::new("/etc/passwd-file")
    }

    fn good(text: &str) -> (PasswordFile, usize) {
        let (file, warnings) =
            PasswordFile::parse(path(), text.as_bytes(), Effort::All).unwrap_or_else(|report| panic!("{report}"));
        (file, warnings.problems.len())
    }

    fn right(file: &PasswordFile, user: &str, password: &[u8]) -> bool {
        file.check(user, password, &mut Memory::default()).is_some()
    }

    #[test]
    fn users_of_every_kind() {
        let text = format!("# users\n\nanna:{MOSQUITTO_7}\r\nbob of Bath:{REFERENCE}\nold:{MOSQUITTO_6}");
        let (file, warnings) = good(&text);
        assert_eq!((file.len(), warnings), (3, 1));
        assert!(right(&file, "anna", b"secret") && !right(&file, "anna", b"password"));
        assert!(right(&file, "bob of Bath", b"password") && !right(&file, "bob of Bath", b""));
        assert!(right(&file, "old", b"secret"));
        assert!(!right(&file, "nobody", b"secret"));
        assert!(!right(&good("").0, "nobody", b"secret"));
    }

    #[test]
    fn every_mistake_is_told_and_no_password_repeated() {
        let text = format!("anna:{REFERENCE}\nno colon\nbob:hunter2\nanna:{REFERENCE}\n:{REFERENCE}\ncarl:$7$1$x$y\n");
        let report = PasswordFile::parse(path(), text.as_bytes(), Effort::None).expect_err("the file is wrong");
        let told: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        for (index, begin) in [
            "/etc/passwd-file:2:1: error: no colon",
            "/etc/passwd-file:3:1: error: user \"bob\": this is no hash",
            "/etc/passwd-file:4:1: error: user \"anna\" is here twice",
            "/etc/passwd-file:5:1: error: a user name is not empty",
            "/etc/passwd-file:6:1: error: user \"carl\": the hash is damaged",
        ]
        .iter()
        .enumerate()
        {
            assert!(told[index].starts_with(begin), "{}", told[index]);
        }
        assert_eq!(told.len(), 5);
        assert!(!report.to_string().contains("hunter2"), "{report}");
    }

    #[test]
    fn a_user_is_added_changed_and_removed_and_the_rest_stays() {
        let text = "# users\nanna:x\r\nbob:y";
        assert_eq!(with_user(text, "bob", "z"), "# users\nanna:x\r\nbob:z\n");
        assert_eq!(with_user(text, "anna", "z"), "# users\nanna:z\nbob:y");
        assert_eq!(with_user(text, "carl", "z"), "# users\nanna:x\r\nbob:y\ncarl:z\n");
        assert_eq!(with_user("a:1\nb:2\na:3\n", "a", "z"), "a:z\nb:2\n");
        assert_eq!(with_user("", "a", "z"), "a:z\n");
        assert_eq!(without_user(text, "anna").as_deref(), Some("# users\nbob:y"));
        assert_eq!(without_user(text, "ann"), None);
        assert_eq!(without_user("#a:1\n", "#a"), None);
    }

    #[test]
    fn names() {
        for (name, error) in [
            ("", NameError::Empty),
            ("a:b", NameError::Colon),
            ("#a", NameError::Colon),
            ("a\nb", NameError::Control),
            (" a", NameError::Space),
        ] {
            assert_eq!(check_name(name), Err(error), "{name}");
            assert!(!error.text().is_empty());
        }
        assert_eq!(check_name(&"a".repeat(65_536)), Err(NameError::TooLong));
        assert_eq!(check_name("Anna of Bath"), Ok(()));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PasswordFile::parse(path(), &bytes, Effort::None);
        }

        #[test]
        fn no_line_panics(lines in prop::collection::vec("[a-c]?:?\\$?(argon2id|7|6)?\\$?(v=19)?\\$?.{0,20}", 0..6)) {
            if let Err(report) = PasswordFile::parse(path(), lines.join("\n").as_bytes(), Effort::None) {
                prop_assert!(!report.to_string().is_empty());
            }
        }

        #[test]
        fn a_user_that_was_added_is_there(text in "([a-c]:x\n|# [a-c]:\n){0,5}", name in "[a-d]") {
            let with = with_user(&text, &name, "y");
            let line = format!("{name}:y");
            prop_assert_eq!(with.lines().filter(|other| **other == *line).count(), 1);
            let without = without_user(&with, &name).expect("it is there");
            prop_assert_eq!(without_user(&without, &name), None);
        }
    }
}
