//! Who may see what, and what every answer carries.

use serde_json::json;

use crate::site::{Site, eventually};

#[test]
fn admins_act_readers_and_hosts_see_and_devices_do_neither() {
    let site = Site::new("readers = [\"prometheus\"]");
    let _endpoint = site.start("lb1");
    for (who, name, may) in
        [("admin", "admin", "act"), ("prometheus", "prometheus", "read"), ("broker1", "broker1", "read")]
    {
        let answer = site.get("lb1", Some(who), "/api/cluster").unwrap();
        assert_eq!((answer.status, &answer.json()["you"]), (200, &json!({ "name": name, "may": may })), "{who}");
        let drains = answer.json()["drains"].as_array().unwrap().len();
        assert_eq!(drains, usize::from(may == "act"), "{who}");
    }
    for path in ["/", "/page.js", "/api/host", "/api/cluster", "/metrics/lb"] {
        let refused = site.get("lb1", Some("device"), path).unwrap();
        assert_eq!(refused.status, 403, "{path}");
        assert!(refused.body.contains("admin.readers"), "{}", refused.body);
    }
    // Without a certificate there is no HTTP at all.
    assert!(site.get("lb1", None, "/").is_none());
}

#[test]
fn without_a_certificate_one_sees_only_where_the_file_says_so() {
    let site = Site::new("anonymous_read = true");
    let _endpoint = site.start("lb1");
    let answer = site.get("lb1", None, "/api/cluster").unwrap();
    assert_eq!((answer.status, &answer.json()["you"]), (200, &json!({ "name": "", "may": "read" })));
    let page = site.get("lb1", Some("device"), "/").unwrap();
    assert_eq!(page.status, 200);
    let drain = site.post("lb1", "device", "/api/drain", "content-type: application/json\r\n", "{}");
    assert_eq!(drain.status, 403);
}

#[test]
fn every_answer_forbids_what_is_from_elsewhere() {
    let site = Site::new("");
    let _endpoint = site.start("lb1");
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/nothing", "application/json"),
    ] {
        let answer = site.get("lb1", Some("admin"), path).unwrap();
        assert_eq!(answer.status, if path == "/nothing" { 404 } else { 200 });
        for line in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "cache-control: no-store",
            &format!("content-type: {kind}"),
        ] {
            assert!(answer.head.contains(line), "{path}: {line}: {}", answer.head);
        }
        assert!(!answer.body.contains("http://") || path == "/page.js", "{path} needs nothing from elsewhere");
    }
    let page = site.get("lb1", Some("admin"), "/").unwrap().body;
    assert!(!page.contains("<style") && !page.contains("style=") && !page.contains("onclick"), "the policy forbids it");
}

#[test]
fn a_reload_puts_other_names_in_force_and_ends_connections_of_before() {
    use std::io::{Read as _, Write as _};
    let site = Site::new("admins = [\"ann\"]");
    let _endpoint = site.start("lb1");
    assert_eq!(site.get("lb1", Some("admin"), "/api/host").unwrap().status, 403);
    let mut kept = site.open("lb1", Some("admin"));
    kept.write_all(b"GET /api/host HTTP/1.1\r\nhost: lb1\r\n\r\n").unwrap();
    let mut first = [0; 12];
    kept.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 403");

    site.write("admins = [\"ann\", \"admin\"]");
    assert_eq!(site.reload("lb1").unwrap()["changed"], true);
    let _ = kept.read_to_end(&mut Vec::new());
    eventually("the new names are in force", || {
        (site.get("lb1", Some("admin"), "/api/host")?.status == 200).then_some(())
    });
}
