#![expect(clippy::disallowed_methods, reason = "these tests use real time")]

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Programs that write to files of a directory.
struct Bench {
    directory: tempfile::TempDir,
    programs: Arc<Programs>,
    running: tokio::task::JoinHandle<()>,
}

fn facts() -> Facts {
    Facts {
        scope: Scope::Instance,
        name: "vip".to_owned(),
        vip: "10.0.0.100,10.0.0.101".to_owned(),
        interface: "eth0".to_owned(),
        host: "lb1".to_owned(),
    }
}

fn notify() -> Notify {
    Notify { master: Vec::new(), backup: Vec::new(), fault: Vec::new(), any: Vec::new(), timeout: PATIENCE, user: None }
}

fn news(state: Told, priority: u8) -> News {
    News { state, priority, reason: "the local lb is up".to_owned() }
}

impl Bench {
    /// `make` gets what each of the lines of shell has to be called by.
    fn new(make: impl FnOnce(&dyn Fn(&str) -> Vec<String>) -> Notify) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = directory.path().to_str().unwrap().to_owned();
        let shell = move |line: &str| {
            let line = line.replace("DIR", &path);
            ["/bin/sh", "-c", &line, "sh"].map(str::to_owned).to_vec()
        };
        let programs = Arc::new(Programs::new(&make(&shell), facts()).unwrap());
        let runner = programs.clone();
        let running = tokio::spawn(async move { runner.run().await });
        Self { directory, programs, running }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    async fn lines(&self, name: &str, count: usize) -> String {
        until(name, || self.text(name).lines().count() >= count).await;
        self.text(name)
    }

    /// Everything that was announced is done.
    async fn close(&mut self) {
        self.programs.close();
        tokio::time::timeout(PATIENCE, &mut self.running).await.expect("never ends").unwrap();
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_program_gets_the_state_in_arguments_and_environment() {
    let mut bench = Bench::new(|shell| Notify {
        master: shell("echo \"$*\" > DIR/master; env | grep EVERMQ_ | sort > DIR/env"),
        fault: shell("echo \"$*\" > DIR/fault"),
        any: shell("echo \"$* $EVERMQ_STATE\" >> DIR/any; id -u > DIR/user"),
        ..notify()
    });
    for (n, (state, priority)) in
        [(Told::Master, 200), (Told::Backup, 180), (Told::Fault, 0), (Told::Stop, 0)].into_iter().enumerate()
    {
        bench.programs.announce(news(state, priority));
        bench.lines("any", n + 1).await;
        // The next state may come only when the last program has ended, or it could be skipped.
        until("the program's end", || bench.programs.lock().is_idle()).await;
    }
    bench.close().await;
    assert_eq!(bench.text("master"), "INSTANCE vip MASTER 200\n");
    assert_eq!(bench.text("fault"), "INSTANCE vip FAULT 0\n");
    let any = "INSTANCE vip MASTER 200 master\nINSTANCE vip BACKUP 180 backup\nINSTANCE vip FAULT 0 fault\nINSTANCE vip STOP 0 stop\n";
    assert_eq!(bench.text("any"), any);
    let environment = bench.text("env");
    for line in [
        "EVERMQ_HOST=lb1",
        "EVERMQ_INSTANCE=vip",
        "EVERMQ_INTERFACE=eth0",
        "EVERMQ_PRIORITY=200",
        "EVERMQ_REASON=the local lb is up",
        "EVERMQ_STATE=master",
        "EVERMQ_VIP=10.0.0.100,10.0.0.101",
    ] {
        assert!(environment.lines().any(|found| found == line), "{line} is missing in {environment}");
    }
    let user = bench.text("user");
    assert_ne!(user, "0\n");
    assert_eq!(bench.programs.switch_users(), nix::unistd::geteuid().is_root());
    assert_eq!(bench.programs.skipped(), 0);
}

#[tokio::test]
async fn a_program_that_hangs_holds_nobody_up_and_only_the_newest_state_waits_for_it() {
    let mut bench = Bench::new(|shell| Notify {
        any: shell("echo $3 >> DIR/any; test $3 != MASTER || { echo $$ > DIR/pid; exec sleep 1000; }"),
        timeout: Duration::from_millis(500),
        ..notify()
    });
    bench.programs.announce(news(Told::Master, 200));
    bench.lines("pid", 1).await;
    let announced = Instant::now();
    for n in 0..1000_u32 {
        bench.programs.announce(news(if n % 2 == 0 { Told::Backup } else { Told::Fault }, 0));
    }
    bench.programs.announce(news(Told::Backup, 1));
    assert!(announced.elapsed() < PATIENCE);
    bench.close().await;
    assert_eq!(bench.text("any"), "MASTER\nBACKUP\n");
    assert_eq!(bench.programs.skipped(), 1000);
    assert!(!Path::new("/proc").join(bench.text("pid").trim()).exists(), "killed, and no zombie");
}

#[tokio::test]
async fn one_that_fails_or_cannot_run_does_not_stop_the_others() {
    let mut bench = Bench::new(|shell| Notify {
        master: vec!["/nonexistent/notify".to_owned()],
        backup: shell("exit 7"),
        any: shell("echo $3 >> DIR/any"),
        ..notify()
    });
    bench.programs.announce(news(Told::Master, 1));
    bench.lines("any", 1).await;
    bench.programs.announce(news(Told::Backup, 1));
    bench.close().await;
    assert_eq!(bench.text("any"), "MASTER\nBACKUP\n");
}

#[tokio::test]
async fn without_programs_there_is_nothing_to_wait_for() {
    let mut bench = Bench::new(|_| notify());
    bench.programs.announce(news(Told::Master, 1));
    bench.close().await;
    assert!(!bench.programs.switch_users());
}

#[test]
fn a_user_who_is_missing_is_told_at_the_start_and_only_if_a_program_needs_him() {
    let ghost = Notify { user: Some("no-such-user".to_owned()), ..notify() };
    assert!(Programs::new(&ghost, facts()).is_ok());
    let error = Programs::new(&Notify { any: vec!["/bin/true".to_owned()], ..ghost }, facts()).unwrap_err();
    assert!(error.to_string().contains("`notify_user`"), "{error}");
}

#[test]
fn every_transition_has_its_state() {
    let master = Ipv4Addr::new(10, 0, 0, 2);
    for (from, to, reason, expected) in [
        (State::Backup, State::Master, Reason::NoMaster, Told::Master),
        (State::Master, State::Backup, Reason::Outranked { master: master.into(), priority: 3 }, Told::Backup),
        (State::Initialize, State::Backup, Reason::Health(crate::track::Cause::LbUp), Told::Backup),
        (State::Master, State::Initialize, Reason::Health(crate::track::Cause::LbGone), Told::Fault),
        (State::Master, State::Initialize, Reason::Shutdown, Told::Stop),
        (State::Backup, State::Initialize, Reason::Shutdown, Told::Stop),
    ] {
        assert_eq!(Told::of(&Transition { from, to, reason }), expected);
    }
    assert_eq!(Scope::Group.to_string(), "GROUP");
}
