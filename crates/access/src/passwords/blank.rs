//! Entries that are hashes of the empty password. Nobody gets in with one; whoever made it may believe otherwise.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use evermq_config::Problem;

use crate::hash::{Hash, Memory};
use crate::lines::Line;

/// How much is spent on finding them: each hash has to be tried, and that is dear on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Nothing.
    None,
    /// About a quarter of a second of a processor, the quickest hashes first: for a program that is to start.
    Little,
    /// Whatever it takes: for a person who asks.
    All,
}

impl Effort {
    const fn budget(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Little => Duration::from_millis(250),
            Self::All => Duration::MAX,
        }
    }
}

/// A user's line of the file.
pub(super) type Entry<'a> = (Line<'a>, &'a str, Arc<Hash>);

/// What is wrong, in the order of lines.
pub(super) fn problems(entries: &[Entry<'_>], effort: Effort) -> Vec<Problem> {
    let mut left = effort.budget();
    let mut tried: Vec<&Entry<'_>> = entries.iter().collect();
    tried.sort_by_key(|(.., hash)| hash.cost());
    let affordable = tried.iter().take_while(|(.., hash)| {
        let rest = left.checked_sub(hash.cost());
        left = rest.unwrap_or_default();
        rest.is_some()
    });
    let affordable = affordable.count();
    tried.truncate(affordable);
    let mut blank = blank_of(&tried);
    blank.sort_by_key(|(line, ..)| line.number);
    blank
        .into_iter()
        .map(|(line, name, _)| {
            let message = format!("user \"{name}\" has the empty password, which is no password");
            let help = format!("set one with `evermq passwd FILE {name}`, or remove the line: nobody gets in with it");
            line.error(name, message, help)
        })
        .collect()
}

fn blank_of<'e, 'a>(tried: &[&'e Entry<'a>]) -> Vec<&'e Entry<'a>> {
    let blank = |part: &[&'e Entry<'a>]| {
        let mut memory = Memory::default();
        part.iter().filter(|entry| entry.2.is_of(b"", &mut memory)).copied().collect::<Vec<_>>()
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let each = tried.len().div_ceil(processors).max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = tried.chunks(each).map(|part| scope.spawn(move || blank(part))).collect();
        // A thread that panicked has found nothing; it could not, for what it does cannot fail.
        parts.into_iter().flat_map(|part| part.join().unwrap_or_default()).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::PasswordFile;
    use crate::hash::REFERENCE;

    /// Made by mosquitto_passwd 2.0.11, `-b FILE USER ''`, and with `-H sha512`.
    const BLANK_7: &str = "$7$101$ZWU6u3BuC06/eJ3A$RMsN54MkmIMmZh3bOAD72PksErBINN7JbOBW8wkoRprzaeplNXaLQ9FpBzChdhGt1Yuu23XDEEY+idmHxeimhg==";
    const BLANK_6: &str =
        "$6$vTFW4/LRSUA28tbo$Q3nUCZ74wRNwGMghdpGFWDR5FF631SFHnWlD+v65cRmSYpYwwUGTysALk+/8lWc30JMuTNZRaG1egvLyRVGs3A==";
    const PATH: &str = "/etc/passwords";

    fn parse(text: &str, effort: Effort) -> Vec<String> {
        let parsed = PasswordFile::parse(Path::new(PATH), text.as_bytes(), effort);
        let report = match parsed {
            Ok((_, report)) | Err(report) => report,
        };
        report.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_empty_password_is_found_and_told_with_its_line() {
        let blank = Hash::make(b"");
        let text = format!("# users\nanna:{REFERENCE}\nbob:{blank}\ncarl:{}\n", Hash::make(b" "));
        for effort in [Effort::Little, Effort::All] {
            let problems = parse(&text, effort);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with("/etc/passwords:3:1: error: user \"bob\" has the empty password"));
            assert!(problems[0].contains("evermq passwd FILE bob"), "{}", problems[0]);
        }
        assert!(parse(&text, Effort::None).is_empty());
        let problems = parse(&format!("anna:{BLANK_7}\nbob:{BLANK_6}\n"), Effort::Little);
        let errors = problems.iter().filter(|problem| problem.contains("has the empty password"));
        assert_eq!(errors.count(), 2, "{problems:?}");
    }

    #[test]
    fn a_start_does_not_wait_for_a_large_file() {
        let blank = Hash::make(b"");
        let many: String = (0..200).map(|user| format!("u{user}:{REFERENCE}\n")).collect();
        let more: String = (0..50).map(|user| format!("v{user}:{REFERENCE}\n")).collect();
        // Each of the reference's costs a millisecond, this one twenty: it comes last.
        assert_eq!(parse(&format!("bob:{blank}\n{many}"), Effort::Little).len(), 1);
        assert!(parse(&format!("bob:{blank}\n{many}{more}"), Effort::Little).is_empty());
        assert_eq!(parse(&format!("bob:{blank}\n{many}{more}"), Effort::All).len(), 1);
    }
}
