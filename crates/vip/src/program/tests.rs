#![expect(clippy::disallowed_methods, reason = "these tests use real time")]

use std::path::Path;
use std::time::Instant;

use nix::libc;

use super::*;

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn shell(line: &str) -> Program {
    Program {
        command: ["/bin/sh", "-c", line].map(str::to_owned).into(),
        account: Account::Own,
        environment: Vec::new(),
        leftovers: Leftovers::Kill,
    }
}

/// Root's tests check what root's programs give up; another user's cannot.
fn nobody() -> Account {
    let account = Account::of(None, "the test", "user").unwrap();
    assert!(
        account.switches() || !nix::unistd::geteuid().is_root(),
        "root's programs must not run as root: {account:?}"
    );
    account
}

async fn finish(running: &mut Running) -> ExitStatus {
    tokio::time::timeout(PATIENCE, running.wait()).await.unwrap().unwrap()
}

async fn output(program: &Program) -> String {
    let mut running = program.spawn().unwrap();
    let status = finish(&mut running).await;
    assert!(status.success(), "{status}: {}", running.output());
    running.output()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// State of a process as /proc tells; none if it is gone.
fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim().chars().next()
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {status}"));
    line[name.len()..].trim().to_owned()
}

async fn written_pid(path: &Path) -> i32 {
    let mut pid = None;
    until("a pid", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        pid = text.strip_suffix('\n').and_then(|text| text.parse().ok());
        pid.is_some()
    })
    .await;
    pid.unwrap()
}

#[tokio::test]
async fn a_program_gets_nothing_of_what_the_daemon_is() {
    // As evermq-vip has it.
    let mut blocked = nix::sys::signal::SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.add(Signal::SIGHUP);
    blocked.thread_block().unwrap();
    // SAFETY: no handler runs; nothing else in this test program cares for SIGUSR2.
    unsafe { nix::sys::signal::signal(Signal::SIGUSR2, nix::sys::signal::SigHandler::SigIgn) }.unwrap();
    let text = output(&Program { account: nobody(), ..shell("cat /proc/self/status") }).await;
    let status = &text;
    // Not the inheritable set, which gives nothing to an ordinary program.
    for capabilities in ["CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(status, capabilities).trim_start_matches('0'), "", "{capabilities} {status}");
    }
    assert_eq!(field(status, "SigBlk:").trim_start_matches('0'), "", "{status}");
    // But for the two that the C library keeps for itself, 32 and 33.
    let ignored = u64::from_str_radix(&field(status, "SigIgn:"), 16).unwrap() & !(0b11 << 31);
    assert_eq!(ignored, 0, "{status}");
    assert!(!field(status, "Uid:").split_whitespace().any(|uid| uid == "0"), "{status}");
    assert!(!field(status, "Gid:").split_whitespace().any(|gid| gid == "0"), "{status}");
    assert!(!field(status, "Groups:").split_whitespace().any(|gid| gid == "0"), "{status}");
    blocked.thread_unblock().unwrap();
}

#[tokio::test]
async fn open_files_stay_with_the_daemon_and_input_is_empty() {
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let listing = output(&shell("for fd in /proc/$$/fd/*; do readlink $fd; done; cat; ulimit -r")).await;
    drop(file);
    assert!(listing.contains("/dev/null") && listing.contains("pipe:"), "{listing}");
    assert!(
        !listing.contains("socket:") && !listing.contains("/status") && !listing.contains("anon_inode"),
        "{listing}"
    );
    assert!(listing.ends_with("\n0") || listing.contains("llegal"), "no real-time scheduling: {listing}");
}

#[tokio::test]
async fn an_ambient_capability_of_the_calling_thread_is_not_inherited() {
    let ambient = |operation: i32, capability: u64| {
        // SAFETY: numbers only; concerns this thread.
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, operation, capability, 0_u64, 0_u64) }
    };
    const CAP_NET_RAW: u32 = 13;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    let mut data = [[0_u32; 3]; 2];
    // SAFETY: the structures are those of version 3, for the calling thread.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()), 0);
        if data[0][1] & (1 << CAP_NET_RAW) == 0 {
            // Nothing to inherit: an ordinary user has no capability that could be made ambient.
            assert!(!nix::unistd::geteuid().is_root(), "root without CAP_NET_RAW: run this test with it");
            return;
        }
        data[0][2] |= 1 << CAP_NET_RAW;
        assert_eq!(libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()), 0);
    }
    assert_eq!(ambient(libc::PR_CAP_AMBIENT_RAISE, u64::from(CAP_NET_RAW)), 0);
    let status = output(&shell("cat /proc/self/status")).await;
    assert_eq!(field(&status, "CapAmb:").trim_start_matches('0'), "", "{status}");
    assert_eq!(ambient(libc::PR_CAP_AMBIENT_IS_SET, u64::from(CAP_NET_RAW)), 1, "the daemon keeps its own");
}

#[tokio::test]
async fn the_environment_is_path_and_evermqs() {
    let environment = vec![("EVERMQ_TRACK".to_owned(), "x y".to_owned())];
    let text = output(&Program { environment, command: vec!["/usr/bin/env".to_owned()], ..shell("") }).await;
    assert!(text.contains("EVERMQ_TRACK=x y") && text.contains("PATH="), "{text}");
    let foreign = text.lines().filter(|line| !line.starts_with("PATH=") && !line.starts_with("EVERMQ_"));
    assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[tokio::test]
async fn output_is_bounded_and_does_not_block_the_program() {
    let text = output(&shell("head -c 1000000 /dev/zero | tr '\\0' x; printf '\\033[31m' >&2")).await;
    assert_eq!(text.len(), KEPT_OUTPUT);
    let text = output(&shell("printf 'a\\033[31m\\nb'")).await;
    assert_eq!(text, "a [31m\nb");
}

#[tokio::test]
async fn the_exit_status_is_told_again_and_again_and_no_zombie_stays() {
    let mut running = shell("exit 3").spawn().unwrap();
    let pid = running.process.as_ref().unwrap().group.as_raw();
    assert_eq!(finish(&mut running).await.code(), Some(3));
    assert_eq!(state(pid), None);
    assert_eq!(finish(&mut running).await.code(), Some(3));
    assert!(Program { command: vec!["/nonexistent/program".to_owned()], ..shell("") }.spawn().is_err());
    assert!(Program { command: Vec::new(), ..shell("") }.spawn().is_err());
}

#[tokio::test]
async fn stopping_ends_the_whole_group_even_one_that_ignores_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let child = directory.path().join("pid");
    let line = format!("trap '' TERM; sleep 1000 & echo $! > {}; wait; sleep 1000", child.display());
    let mut running = shell(&line).spawn().unwrap();
    let pid = running.process.as_ref().unwrap().group.as_raw();
    let child = written_pid(&child).await;
    let started = Instant::now();
    let status = tokio::time::timeout(PATIENCE, running.stop()).await.unwrap().unwrap();
    assert!(!status.success());
    assert!(started.elapsed() >= GRACE, "SIGTERM comes first");
    assert_eq!(state(pid), None, "no zombie");
    until("the child to die", || matches!(state(child), None | Some('Z'))).await;
}

#[tokio::test]
async fn dropping_kills_and_leaves_no_zombie() {
    let running = shell("sleep 1000").spawn().unwrap();
    let pid = running.process.as_ref().unwrap().group.as_raw();
    drop(running);
    until("the end", || state(pid).is_none()).await;
}

#[tokio::test]
async fn what_is_left_behind_is_killed_or_kept_as_said() {
    let directory = tempfile::tempdir().unwrap();
    for leftovers in [Leftovers::Kill, Leftovers::Keep] {
        let path = directory.path().join(format!("{leftovers:?}"));
        let line = format!("sleep 1000 & echo $! > {}", path.display());
        let mut running = Program { leftovers, ..shell(&line) }.spawn().unwrap();
        assert!(finish(&mut running).await.success(), "an open pipe of what is left does not hold the end up");
        drop(running);
        let left = written_pid(&path).await;
        match leftovers {
            Leftovers::Kill => until("what is left to die", || matches!(state(left), None | Some('Z'))).await,
            Leftovers::Keep => {
                assert!(matches!(state(left), Some('S' | 'R')), "{:?}", state(left));
                nix::sys::signal::kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
            }
        }
    }
}
