//! Any bytes as mosquitto's ACL file, as a password file, and as a client and topics: each file is read or refused with words; the matcher of many filters says what each filter
//! by itself says.

#![no_main]

use std::path::Path;

use evermq_access::filters::{self, Filters, Grant};
use evermq_access::passwords::{check_name, with_user, without_user};
use evermq_access::substitution::Subject;
use evermq_access::{AclFile, Effort, PasswordFile, Rules};
use evermq_mqtt::{Text, TopicFilter, TopicName};
use libfuzzer_sys::fuzz_target;

const GRANTS: [Grant; 3] = [Grant::PUBLISH, Grant::RECEIVE, Grant::DENY];
// `mosquitto_passwd -U` of "x", of one round.
const HASH: &str =
    "$7$1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.split(|byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (file, passwords, user, client, topics) = (next(), next(), next(), next(), next());
    let lines: Vec<&str> =
        topics.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let names: Vec<TopicName> = lines.iter().filter_map(|line| TopicName::new(Text::new(line).ok()?).ok()).collect();
    acl(file, std::str::from_utf8(user).ok(), std::str::from_utf8(client).unwrap_or("c"), &names);
    tree(&lines, &names);
    password_file(passwords, std::str::from_utf8(user).unwrap_or("u"));
});

fn acl(file: &[u8], user: Option<&str>, client_id: &str, names: &[TopicName]) {
    match AclFile::parse(Path::new("acl"), file) {
        Err(report) => assert!(report.has_errors() && !format!("{report:?}").is_empty()),
        Ok((file, _)) => {
            let permits = Rules::File(file).of(Subject { user, client_id });
            for name in names {
                let _ = (permits.may_publish(name), permits.may_receive(name));
            }
        }
    }
}

fn tree(lines: &[&str], names: &[TopicName]) {
    let mut tree = Filters::default();
    let mut plain = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Ok(filter) = Text::new(line).map_err(drop).and_then(|text| TopicFilter::new(text).map_err(drop)) else {
            continue;
        };
        if filters::check(line).is_err() || filter.share().is_some() {
            continue;
        }
        let grant = GRANTS[index % 3];
        tree.add(line, grant);
        plain.push((filter, grant));
    }
    tree.shrink();
    for name in names.iter().filter(|name| !name.as_str().is_empty()) {
        let found = tree.of_topic(name.as_str());
        for grant in GRANTS {
            let expected = plain.iter().any(|(filter, held)| *held == grant && filter.matches(name));
            assert_eq!(found.has(grant), expected, "{name} {grant:?}");
            for (filter, _) in &plain {
                if !filter.matches(name) {
                    continue;
                }
                // What holds for a topic holds for some topic of the filter; what holds for every one holds for this one.
                assert!(!expected || tree.of_some(filter.as_str()).has(grant), "{filter} {name} {grant:?}");
                assert!(expected || !tree.of_every(filter.as_str()).has(grant), "{filter} {name} {grant:?}");
            }
        }
    }
}

fn password_file(bytes: &[u8], user: &str) {
    let parsed = PasswordFile::parse(Path::new("passwords"), bytes, Effort::None);
    if let Err(report) = &parsed {
        assert!(report.has_errors() && !format!("{report:?}").is_empty());
    }
    let (Ok((file, _)), Ok(text)) = (parsed, std::str::from_utf8(bytes)) else { return };
    if check_name(user).is_err() {
        return;
    }
    let with = with_user(text, user, HASH);
    let (more, _) =
        PasswordFile::parse(Path::new("passwords"), with.as_bytes(), Effort::None).expect("a file that was good");
    assert!(more.get(user).is_some());
    assert_eq!(more.len(), file.len() + usize::from(file.get(user).is_none()));
    let without = without_user(&with, user).expect("a user that is there");
    let (less, _) =
        PasswordFile::parse(Path::new("passwords"), without.as_bytes(), Effort::None).expect("a file that was good");
    assert!(less.get(user).is_none());
    assert_eq!(less.len() + 1, more.len());
}
