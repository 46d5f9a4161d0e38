//! `evermq passwd`, and what mosquitto's own program makes of its files.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use evermq_access::PasswordFile;

fn passwd(file: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_evermq"))
        .arg("passwd")
        .arg(file)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever does not read it says why by its exit status.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn good(file: &Path, args: &[&str], input: &str) {
    let output = passwd(file, args, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn bad(file: &Path, args: &[&str], input: &str, code: i32, word: &str) {
    let output = passwd(file, args, input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(word), "{said}");
}

fn is_right(file: &Path, user: &str, password: &str) -> bool {
    let file = PasswordFile::load(file, evermq_access::Effort::All).unwrap().0;
    file.check(user, password.as_bytes(), &mut evermq_access::Memory::default()).is_some()
}

#[test]
fn users_come_change_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    good(&file, &["anna", "--batch"], "one\n");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    good(&file, &["Bob of Bath", "--batch"], "two");
    assert!(is_right(&file, "anna", "one") && is_right(&file, "Bob of Bath", "two"));
    assert!(fs::read_to_string(&file).unwrap().starts_with("anna:$argon2id$v=19$m=19456,t=2,p=1$"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    good(&file, &["anna", "--batch"], "thr ee \r\n");
    assert!(is_right(&file, "anna", "thr ee ") && !is_right(&file, "anna", "one"));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640, "a mode that was chosen stays");
    good(&file, &["anna", "--delete"], "");
    assert!(!is_right(&file, "anna", "thr ee ") && is_right(&file, "Bob of Bath", "two"));
    bad(&file, &["anna", "--delete"], "", 1, "no user \"anna\"");
    let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["passwords"], "nothing is left over");
}

#[test]
fn what_is_wrong_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    for (user, word) in [("a:b", "colon"), ("", "empty"), ("a\nb", "control")] {
        bad(&file, &[user, "--batch"], "one", 2, word);
    }
    bad(&file, &["anna", "--batch"], "\n", 2, "empty password");
    bad(&file, &["anna", "--delete"], "", 1, "cannot read");
    assert!(!file.exists());
    bad(&directory.path().join("none/passwords"), &["anna", "--batch"], "one", 1, "cannot open");
    fs::write(&file, "bob:plain\n").unwrap();
    bad(&file, &["anna", "--batch"], "one", 1, "passwords:1:1: error: user \"bob\"");
    assert_eq!(fs::read_to_string(&file).unwrap(), "bob:plain\n");
}

#[test]
fn a_file_of_mosquitto_keeps_its_users() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args(["theirs", "secret"]).output();
    assert!(made.expect("mosquitto_passwd is needed: apt-get install mosquitto").status.success());
    good(&file, &["ours", "--batch"], "own");
    assert!(is_right(&file, "theirs", "secret") && is_right(&file, "ours", "own"));
}

/// At a terminal of its own: what is typed does not come back.
#[test]
fn a_password_is_asked_for_without_showing_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = Command::new("setsid");
    command.args(["--ctty", env!("CARGO_BIN_EXE_evermq"), "passwd"]).arg(&file).arg("anna");
    let end = || Stdio::from(terminal.slave.as_fd().try_clone_to_owned().unwrap());
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    let mut screen = fs::File::from(terminal.master);
    let mut shown = String::new();
    for question in ["anna: ", "Again: "] {
        while !shown.ends_with(question) {
            let mut bytes = [0; 256];
            let count = screen.read(&mut bytes).unwrap();
            shown.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        screen.write_all(b"hidden\n").unwrap();
    }
    assert!(child.wait().unwrap().success(), "{shown}");
    assert!(!shown.contains("hidden"), "{shown}");
    assert!(is_right(&file, "anna", "hidden"));
}
