use std::path::Path;

use evermq_mqtt::Text;
use proptest::prelude::*;

use super::*;

fn rule(users: &[&str], publish: &[&str], subscribe: &[&str], deny: &[&str]) -> AclRule {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    AclRule {
        users: own(users),
        clients: Vec::new(),
        publish: own(publish),
        subscribe: own(subscribe),
        deny: own(deny),
    }
}

fn file(text: &str) -> AclFile {
    AclFile::parse(Path::new("acl"), text.as_bytes()).unwrap_or_else(|report| panic!("{report}")).0
}

fn permits(rules: &[AclRule], user: Option<&str>, client_id: &str) -> Permits {
    Rules::of_entries(rules).unwrap().unwrap().of(Subject { user, client_id })
}

fn by_file(text: &str, user: Option<&str>, client_id: &str) -> Permits {
    Rules::File(file(text)).of(Subject { user, client_id })
}

fn topic(text: &str) -> TopicName {
    TopicName::new(Text::new(text).unwrap()).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(Text::new(text).unwrap()).unwrap()
}

/// Which of these may be published to and received from, as "w", "r", "rw" or "-".
fn access(permits: &Permits, text: &str) -> &'static str {
    match (permits.may_publish(&topic(text)), permits.may_receive(&topic(text))) {
        (true, true) => "rw",
        (true, false) => "w",
        (false, true) => "r",
        (false, false) => "-",
    }
}

#[test]
fn no_rules_are_no_permits() {
    assert!(Rules::of_entries(&[]).unwrap().is_none());
    assert_eq!(access(&by_file("", None, "c"), "a"), "-", "an empty file allows nothing");
}

#[test]
fn entries_allow_and_deny() {
    let rules = [
        rule(&[], &[], &["public/#"], &["secret/#"]),
        rule(&["anna", "dev-*"], &["dev/%u/%c"], &["dev/%u/#", "secret/x"], &["dev/%u/locked"]),
        rule(&["*"], &["named"], &[], &[]),
        AclRule { clients: vec!["c*".to_owned()], ..rule(&[], &["by-client"], &[], &[]) },
    ];
    let of = |user, client| permits(&rules, user, client);
    for (user, client, name, expected) in [
        (None, "c1", "public/x", "r"),
        (None, "c1", "named", "-"),
        (None, "c1", "by-client", "w"),
        (None, "d1", "by-client", "-"),
        (Some("anna"), "c1", "dev/anna/c1", "rw"),
        (Some("anna"), "c2", "dev/anna/c1", "r"),
        (Some("anna"), "c1", "dev/dev-7/c1", "-"),
        (Some("anna"), "c1", "dev/anna/locked", "-"),
        (Some("anna"), "locked", "dev/anna/locked", "-"),
        (Some("anna"), "c1", "secret/x", "-"),
        (Some("dev-7"), "c1", "dev/dev-7/x", "r"),
        (Some("devil"), "c1", "dev/devil/x", "-"),
        (Some("devil"), "c1", "named", "w"),
        (Some("anna"), "c1", "$SYS/x", "-"),
    ] {
        assert_eq!(access(&of(user, client), name), expected, "{user:?} {client} {name}");
    }
}

#[test]
fn names_never_reach_beyond_themselves() {
    let rules = [rule(&[], &["w/%c/#"], &["r/%u", "%u/x"], &["w/%c"])];
    for (user, client, name, expected) in [
        ("+", "#", "w/a", "-"),
        ("+", "c", "r/a", "-"),
        ("#", "+", "w/a/b", "-"),
        ("a/b", "c/d", "r/a/b", "-"),
        ("a/b", "c/d", "w/c/d/e", "-"),
        ("$SYS", "c", "$SYS/x", "-"),
        ("$SYS", "c", "r/$SYS", "r"),
        ("a", "c", "w/c/d", "w"),
        ("a", "c", "w/c", "-"),
    ] {
        assert_eq!(access(&permits(&rules, Some(user), client), name), expected, "{user} {client} {name}");
    }
    let filters = permits(&rules, Some("+"), "#");
    for asked in ["r/+", "#", "w/#", "+/x"] {
        assert!(!filters.may_subscribe(&filter(asked)), "{asked}");
    }
}

#[test]
fn what_a_name_denies_it_denies_however_it_is_written() {
    let rules = [rule(&[], &["#"], &["#"], &["d/%c"])];
    let of = |client| permits(&rules, None, client);
    assert_eq!(access(&of("a/b"), "d/a/b"), "-");
    assert_eq!(access(&of("#"), "d/x/y"), "-");
    let deep = "x/".repeat(filters::MAX_LEVELS);
    assert_eq!(access(&of(&deep), &format!("d/{deep}")), "-");
    assert_eq!(access(&of(&deep), "d/y"), "rw");
}

#[test]
fn a_file_is_followed_as_mosquitto_does() {
    let text = "topic read public\n\
                user anna\ntopic a/#\ntopic deny a/secret\ntopic read b\n\
                user quiet\n\
                pattern write c/%c\npattern read u/%u\npattern deny c/closed\npattern deny b\n";
    let of = |user, client| by_file(text, user, client);
    for (user, client, name, expected) in [
        (None, "c1", "public", "r"),
        (None, "c1", "c/c1", "w"),
        (None, "c1", "c/c2", "-"),
        (None, "c1", "a/x", "-"),
        (Some("anna"), "c1", "public", "-"),
        (Some("anna"), "c1", "a/x", "rw"),
        (Some("anna"), "c1", "a/secret", "-"),
        // What the user's own rules allow, no pattern denies.
        (Some("anna"), "c1", "b", "r"),
        (Some("anna"), "c1", "u/anna", "r"),
        (Some("quiet"), "c1", "a/x", "-"),
        (Some("quiet"), "c1", "u/quiet", "r"),
        (Some("unlisted"), "closed", "c/closed", "-"),
        (Some("unlisted"), "c1", "c/c1", "w"),
        (Some("unl+sted"), "c1", "c/c1", "-"),
        (Some("anna"), "c+", "a/x", "rw"),
        (Some("anna"), "c+", "u/anna", "-"),
    ] {
        assert_eq!(access(&of(user, client), name), expected, "{user:?} {client} {name}");
    }
}

#[test]
fn a_subscription_is_granted_where_something_may_come() {
    let anna = permits(&[rule(&["anna"], &["w/#"], &["a/+/b"], &["a/no/#"])], Some("anna"), "c");
    for (asked, expected) in [
        ("a/1/b", true),
        ("a/#", true),
        ("#", true),
        ("$share/g/a/+/b", true),
        ("$share/g/w/#", false),
        ("w/#", false),
        ("a/no/#", false),
        ("a/no/b", false),
        ("b/#", false),
        ("$SYS/#", false),
    ] {
        assert_eq!(anna.may_subscribe(&filter(asked)), expected, "{asked}");
    }
    assert!(by_file("", None, "c").may_subscribe(&filter("a")), "mosquitto looks at what comes");
}

#[test]
fn names_and_stars() {
    for (name, glob, expected) in [
        ("anna", "anna", true),
        ("anna", "ann", false),
        ("anna", "*", true),
        ("", "*", true),
        ("anna", "a*a", true),
        ("a", "a*a", false),
        ("abcabc", "a*bc", true),
        ("abcab", "a*bc", false),
        ("xaybzc", "*a*b*c", true),
        ("xaybzcd", "*a*b*c", false),
        ("annb", "ann*", true),
        ("ann", "ann*", true),
        ("äöü", "ä*ü", true),
    ] {
        assert_eq!(is_like(name, glob), expected, "{name} {glob}");
    }
}

#[test]
fn a_bad_filter_is_named() {
    let error = Rules::of_entries(&[rule(&[], &["ok"], &[], &[]), rule(&[], &[], &["a/#/b"], &[])]).unwrap_err();
    assert_eq!((error.entry, error.filter.as_str()), (2, "a/#/b"));
    assert!(error.to_string().contains("entry 2"), "{error}");
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "+", "#", "a/b", "$SYS", "", "%u", "x#y", "/"]).prop_map(str::to_owned)
}

proptest! {
    /// Whoever the client says it is: through a rule with its name it reaches no topic but its own.
    #[test]
    fn a_name_opens_only_its_own_level(user in name(), client_id in name(), levels in prop::collection::vec("[ab$]{0,4}", 1..4)) {
        let rules = [rule(&[], &["own/%u"], &["mine/%c/#"], &[])];
        let text = "pattern write own/%u\npattern read mine/%c/#\n";
        let name = levels.join("/");
        for acl in [permits(&rules, Some(&user), &client_id), by_file(text, Some(&user), &client_id)] {
            let own = format!("own/{name}");
            prop_assert_eq!(acl.may_publish(&topic(&own)) && name != user, false, "{}", own);
            let mine = format!("mine/{name}");
            prop_assert_eq!(acl.may_receive(&topic(&mine)) && levels[0] != client_id, false, "{}", mine);
        }
    }

    /// A subscription that is refused would have brought nothing.
    #[test]
    fn nothing_readable_is_refused(
        filters in prop::collection::vec((any::<bool>(), "(a|b|\\+)(/(a|b|\\+)){0,2}(/#)?"), 1..5),
        asked in "(a|b|\\+)(/(a|b|\\+)){0,2}(/#)?",
        name in "(a|b)(/(a|b)){0,3}",
    ) {
        let of = |wanted: bool| -> Vec<&str> {
            filters.iter().filter(|(reads, _)| *reads == wanted).map(|(_, filter)| filter.as_str()).collect()
        };
        let acl = permits(&[rule(&[], &[], &of(true), &of(false))], None, "c");
        let asked = filter(&asked);
        if asked.matches(&topic(&name)) && acl.may_receive(&topic(&name)) {
            prop_assert!(acl.may_subscribe(&asked));
        }
    }
}
