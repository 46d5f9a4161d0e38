//! `evermq lab` with the real kernel: hosts come, work, die, come back, and leave nothing behind. The programs of the stack
//! are stood in for by one that waits: what they do is tested elsewhere, with the same lab.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for, with a deadline")]

mod hosts;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// An unprivileged user, as every Debian has it.
const NOBODY: u32 = 65534;

/// A lab that ends with its test, and the place it is in.
struct Lab {
    place: tempfile::TempDir,
    user: u32,
}

impl Lab {
    /// A lab of the user who runs the tests, not up yet.
    fn new() -> Self {
        Self::of(geteuid().as_raw())
    }

    fn of(user: u32) -> Self {
        let place = tempfile::Builder::new().prefix("evermq-lab-test-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let bin = place.path().join("bin");
        fs::create_dir(&bin).unwrap();
        // A copy, because another user may not be able to reach the build's directory.
        install_program(env!("CARGO_BIN_EXE_evermq").as_ref(), &bin.join("evermq"));
        for program in ["evermq-lb", "evermq-vip", "evermq-broker"] {
            write_program(&bin.join(program), "echo started; exec sleep 1000000");
        }
        let labs = place.path().join("labs");
        fs::create_dir(&labs).unwrap();
        if user != geteuid().as_raw() {
            chown(&labs, Some(user), Some(user)).unwrap();
        }
        Self { place, user }
    }

    fn up() -> Self {
        let lab = Self::new();
        lab.ok(&["up", "--no-wait"]);
        lab
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.place.path().join("labs").join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.place.path().join("bin/evermq"));
        command.args(["lab", "--dir"]).arg(self.place.path().join("labs")).args(arguments).current_dir("/");
        if self.user != geteuid().as_raw() {
            command.uid(self.user).gid(self.user);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        // Another test's new process may still have the program open for writing, from before its exec.
        for _ in 0..1000 {
            match self.command(arguments).stdin(Stdio::null()).output() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                output => return output.unwrap(),
            }
        }
        panic!("the program is still open for writing");
    }

    /// Runs a command that has to succeed; gives its output.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "evermq lab {arguments:?}: {}\n{out}{err}", output.status);
        out
    }

    /// Runs a command that has to fail; gives what it says.
    #[track_caller]
    fn fails(&self, arguments: &[&str], status: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(status), "evermq lab {arguments:?}: {}", text(&output.stderr));
        text(&output.stderr)
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }

    fn host(&self, name: &str) -> Value {
        let status = self.status();
        status["hosts"].as_array().unwrap().iter().find(|host| host["name"] == name).unwrap().clone()
    }

    fn keeper(&self) -> i32 {
        let state = fs::read(self.directory("evermq").join("state.json")).unwrap();
        serde_json::from_slice::<Value>(&state).unwrap()["keeper"].as_i64().unwrap().try_into().unwrap()
    }

    /// A Perl script in a host; Perl is part of every Debian.
    fn perl(&self, host: &str, script: &str) -> Child {
        let mut command = self.command(&["exec", host, "--", "perl", "-MIO::Socket::INET", "-e", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["evermq", "second"] {
            let _ = self.command(&["--name", name, "down"]).output();
        }
    }
}

fn write_program(path: &Path, script: &str) {
    let text = path.with_extension("text");
    fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    install_program(&text, path);
}

/// By another process: what a test beside this one starts meanwhile would hold a file that this process writes, and a program
/// that somebody may still write cannot be started.
fn install_program(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "0755"]).args([from, to]).status().unwrap();
    assert!(status.success(), "install {} {}: {status}", from.display(), to.display());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The namespaces of a process and of all processes below it: the whole lab, seen from its keeper.
fn namespaces_below(keeper: i32) -> BTreeSet<(String, PathBuf)> {
    let mut pids = vec![keeper];
    let mut found = BTreeSet::new();
    while let Some(pid) = pids.pop() {
        for kind in ["pid", "net", "mnt", "uts", "user"] {
            found.extend(fs::read_link(format!("/proc/{pid}/ns/{kind}")).map(|id| (kind.to_owned(), id)));
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        pids.extend(children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
    }
    let ours: BTreeSet<_> = ["pid", "net", "mnt", "uts", "user"]
        .map(|kind| (kind.to_owned(), fs::read_link(format!("/proc/self/ns/{kind}")).unwrap()))
        .into();
    found.difference(&ours).cloned().collect()
}

/// The processes of this machine that are in one of these namespaces.
fn processes_in(namespaces: &BTreeSet<(String, PathBuf)>) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            namespaces
                .iter()
                .any(|(kind, id)| fs::read_link(format!("/proc/{pid}/ns/{kind}")).is_ok_and(|link| link == *id))
        })
        .collect()
}

/// What is mounted, but for the namespaces of `ip netns`: others come and go with tests of the vip.
fn mounts() -> Vec<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().filter(|line| !line.contains(" /run/netns")).map(str::to_owned).collect()
}

/// Up, look, kill, heal, down; nothing stays.
fn whole_life(lab: &Lab) {
    let mounts = mounts();
    let links = fs::read_to_string("/proc/net/dev").unwrap().lines().count();
    let printed = lab.ok(&["up", "--no-wait"]);
    assert!(printed.contains("lab \"evermq\" is up"), "{printed}");
    let namespaces = namespaces_below(lab.keeper());
    // Pid, net, mnt and uts for the keeper and for each of five hosts; a user namespace where there is no root.
    let of = |kind: &str| namespaces.iter().filter(|(other, _)| other == kind).count();
    assert_eq!(["pid", "net", "mnt", "uts"].map(of), [6; 4]);
    assert_eq!(of("user"), usize::from(lab.user != 0));

    for (host, address) in [("lb1", "198.18.0.11"), ("broker2", "198.18.0.22"), ("client", "198.18.0.100")] {
        assert_eq!(lab.ok(&["exec", host, "--", "hostname"]).trim(), host);
        let script = "cat /proc/net/fib_trie; ls /run /etc/evermq/tls";
        let seen = lab.ok(&["exec", host, "--", "sh", "-c", script]);
        assert!(seen.contains(address), "{host}: {seen}");
        assert!(seen.contains("machine-etc") && seen.contains("ca.crt"), "{host}: {seen}");
        assert!(seen.contains(&format!("{host}.key")), "{host}: {seen}");
    }
    let keys = lab.ok(&["exec", "broker1", "--", "sh", "-c", "ls /etc/evermq/tls/*.key"]);
    assert_eq!(keys, "/etc/evermq/tls/broker1.key\n");

    lab.ok(&["kill", "lb1"]);
    assert_eq!((&lab.host("lb1")["alive"], &lab.host("lb1")["connected"]), (&false.into(), &false.into()));
    assert!(lab.fails(&["exec", "lb1", "--", "true"], 125).contains("host lb1 is dead"));
    lab.ok(&["heal", "lb1"]);
    let host = lab.host("lb1");
    assert_eq!((&host["alive"], &host["connected"]), (&true.into(), &true.into()));
    assert!(host["programs"].as_array().unwrap().iter().all(|program| program["pid"].is_i64()), "{host}");

    let namespaces: BTreeSet<_> = namespaces.union(&namespaces_below(lab.keeper())).cloned().collect();
    assert!(!processes_in(&namespaces).is_empty());
    lab.ok(&["down"]);
    assert!(!lab.directory("evermq").exists());
    // The keeper's own entry goes when its parent, or init, has looked at its exit status.
    eventually("no process is left", || processes_in(&namespaces).is_empty());
    assert_eq!(self::mounts(), mounts);
    assert_eq!(fs::read_to_string("/proc/net/dev").unwrap().lines().count(), links);
    assert!(lab.ok(&["down"]).contains("was not up"));
}

#[test]
fn a_lab_leaves_nothing_behind() {
    whole_life(&Lab::new());
}

#[test]
fn a_lab_of_an_unprivileged_user_leaves_nothing_behind() {
    // Who runs the tests unprivileged has tested this already with the other test.
    whole_life(&Lab::of(if geteuid().is_root() { NOBODY } else { geteuid().as_raw() }));
}

#[test]
fn a_lab_whose_keeper_was_killed_is_dead_as_a_whole_and_can_be_removed_and_made_anew() {
    let lab = Lab::up();
    let namespaces = namespaces_below(lab.keeper());
    let keeper = Pid::from_raw(lab.keeper());
    kill(keeper, Signal::SIGKILL).unwrap();
    eventually("every process has ended", || processes_in(&namespaces).is_empty());
    let said = lab.fails(&["status"], 1);
    assert!(said.contains("is dead") && said.contains(" down"), "{said}");
    lab.ok(&["up", "--no-wait"]);
    assert_eq!(lab.status()["hosts"].as_array().unwrap().len(), 5);
    kill(Pid::from_raw(lab.keeper()), Signal::SIGKILL).unwrap();
    eventually("it is dead", || lab.run(&["status"]).status.code() == Some(1));
    lab.ok(&["down"]);
    assert!(!lab.directory("evermq").exists());
}

/// The state of a process, and the system call that it waits in.
fn waits_in(pid: Pid) -> (char, Option<i64>) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
    let state = stat.rsplit_once(") ").unwrap().1.chars().next().unwrap();
    (state, call.split_once(' ').and_then(|(number, _)| number.parse().ok()))
}

/// By its user (Ctrl-Z, `fg`), or with the whole machine.
#[test]
fn a_command_that_is_stopped_while_it_waits_and_continued_gets_its_answer() {
    let lab = Lab::up();
    let keeper = Pid::from_raw(lab.keeper());
    kill(keeper, Signal::SIGSTOP).unwrap();
    let mut command = lab.command(&["cable", "broker1", "off"]);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(command.id().try_into().unwrap());
    for _ in 0..3 {
        eventually("it waits for the answer", || waits_in(pid) == ('S', Some(nix::libc::SYS_recvmsg)));
        kill(pid, Signal::SIGSTOP).unwrap();
        eventually("it is stopped", || waits_in(pid).0 == 'T');
        kill(pid, Signal::SIGCONT).unwrap();
    }
    kill(keeper, Signal::SIGCONT).unwrap();
    let output = command.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(lab.host("broker1")["connected"], false);
}

#[test]
fn labs_stand_beside_each_other_and_a_name_is_used_once() {
    let lab = Lab::up();
    let said = lab.fails(&["up", "--no-wait"], 1);
    assert!(said.contains("is up already") && said.contains(" down") && said.contains("--name OTHER"), "{said}");
    lab.ok(&["--name", "second", "up", "--no-wait"]);
    lab.ok(&["--name", "second", "kill", "broker1"]);
    assert_eq!(lab.host("broker1")["alive"], true);
    let said = lab.fails(&["--name", "third", "status"], 1);
    assert!(said.contains("(there is: evermq, second)"), "{said}");
    lab.ok(&["--name", "second", "down"]);
    assert_eq!(lab.host("broker1")["alive"], true);
}

#[test]
fn exec_is_transparent() {
    let lab = Lab::up();
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        assert_eq!(lab.run(&["exec", "client", "--", "sh", "-c", script]).status.code(), Some(status), "{script}");
    }
    lab.fails(&["exec", "client", "--", "no-such-program"], 127);
    lab.fails(&["exec", "client", "--", "/etc/passwd"], 126);
    lab.fails(&["exec", "no-such-host", "--", "true"], 125);

    let mut command = lab.command(&["exec", "client", "--", "sh", "-c", "pwd; cat; echo end >&2"]);
    command.current_dir(lab.place.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), format!("{}\nthrough\n", lab.place.path().display()));
    assert_eq!(text(&output.stderr), "end\n");

    let script = "trap 'echo ended; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = lab.command(&["exec", "client", "--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "ended");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_lab_whose_programs_do_not_work_says_which_and_shows_its_log() {
    let lab = Lab::new();
    write_program(&lab.place.path().join("bin/evermq-broker"), "echo no disk left; exit 3");
    let said = lab.fails(&["up"], 1);
    for part in ["evermq-broker on broker1: ended with status 3", "no disk left", "status`", "down`"] {
        assert!(said.contains(part), "{said}");
    }
    // It is still there to be looked at.
    assert_eq!(lab.host("broker1")["programs"][0]["ended"], "ended with status 3");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    let lab = Lab::new();
    fs::remove_file(lab.place.path().join("bin/evermq-vip")).unwrap();
    let said = lab.fails(&["up"], 1);
    assert!(said.contains("there is no evermq-vip in ") && said.contains("--bin-dir"), "{said}");
    assert!(!lab.directory("evermq").exists());
    write_program(&lab.place.path().join("bin/evermq-vip"), "exec sleep 1000000");
    let said = lab.fails(&["up", "--set", "lb.balance=random"], 2);
    assert!(said.contains("random"), "{said}");
    assert!(!lab.directory("evermq").exists());
    lab.fails(&["--name", "../up", "up"], 2);
}

#[test]
fn an_interrupted_up_leaves_nothing() {
    let lab = Lab::new();
    // The programs never become ready, so `up` waits.
    let child = lab.command(&["up"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("hosts run", || lab.run(&["exec", "client", "--", "true"]).status.success());
    let namespaces = namespaces_below(lab.keeper());
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(!lab.directory("evermq").exists());
    eventually("no process is left", || processes_in(&namespaces).is_empty());
}
