//! `[admin]`.

use super::*;

#[test]
fn it_is_off_unless_the_file_says_where() {
    let admin = good(MINIMAL).cluster.admin;
    assert_eq!((admin.listen, admin.anonymous_read), (None, false));
    assert_eq!((admin.admins, admin.readers), (vec!["admin".to_owned()], Vec::new()));
}

#[test]
fn each_host_is_asked_at_its_own_address() {
    let text =
        format!("{MINIMAL}\n[admin]\nlisten = \"0.0.0.0:9003\"\nadmins = [\"ann\"]\nreaders = [\"prometheus\"]\n");
    let cluster = good(&text).cluster;
    let host = cluster.hosts.iter().find(|host| host.name.as_str() == "broker1").unwrap();
    assert_eq!(cluster.admin.of_host(host), "192.168.10.21:9003".parse().ok());
    assert_eq!(cluster.admin.admins, ["ann"]);
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    for (line, help) in [
        ("listen = \"9003\"", "an address and a port"),
        ("admins = [\"\"]", "common names"),
        ("admins = \"admin\"", "common names"),
        ("anonymous_read = 1", "true or false"),
        ("listen = \"0.0.0.0:8883\"", "its own port"),
        ("listen = \"0.0.0.0:9001\"", "its own port"),
        ("admin = [\"x\"]", "admins"),
    ] {
        let report = bad(&format!("{MINIMAL}\n[admin]\n{line}\n"));
        let problem = &report.problems[0];
        assert!(problem.help.contains(help), "{line}: {report}");
        let place = problem.place.as_ref().unwrap();
        assert!(place.source_line.starts_with(line.split(' ').next().unwrap()), "{line}: {report}");
    }
}
