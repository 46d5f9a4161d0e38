#![expect(clippy::disallowed_methods, reason = "these tests use real time")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evermq_config::vip::Script;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

/// Checks that run, and what they tell.
struct Bench {
    told: UnboundedReceiver<(usize, Verdict)>,
    checks: tokio::task::JoinHandle<Infallible>,
}

impl Bench {
    fn new(tracks: &[Track]) -> Self {
        Self::resumed(tracks, None)
    }

    fn resumed(tracks: &[Track], before: Option<TrackState>) -> Self {
        let host = HostName::new("lb1").unwrap();
        let checks = Checks::new(tracks, &host, |_| before).unwrap();
        let (tell, told) = unbounded_channel();
        let checks = tokio::spawn(checks.run(move |index, verdict| tell.send((index, verdict)).unwrap_or_default()));
        Self { told, checks }
    }

    async fn next(&mut self) -> (usize, Verdict) {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.expect("nothing is told").unwrap()
    }

    async fn expect(&mut self, verdict: Verdict) {
        assert_eq!(self.next().await, (0, verdict));
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.checks.abort();
    }
}

/// A directory that user nobody can write to.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

fn script(line: &str) -> Script {
    Script {
        command: vec![line.to_owned()],
        interval: MS * 20,
        timeout: PATIENCE,
        rise: 1,
        fall: 1,
        user: None,
        shell: true,
    }
}

fn track(what: TrackWhat) -> Track {
    Track { name: "x".to_owned(), what, weight: 0 }
}

fn pid_track(path: &Path) -> Track {
    track(TrackWhat::Process { pid_file: path.to_owned() })
}

fn file_track(path: &Path) -> Track {
    track(TrackWhat::File { path: path.to_owned() })
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        tokio::time::sleep(MS * 5).await;
    }
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn a_script_falls_and_rises_by_its_counts() {
    let directory = directory();
    let (good, runs) = (directory.path().join("good"), directory.path().join("runs"));
    std::fs::write(&good, "").unwrap();
    let line = format!("echo run >> {}; test -e {}", runs.display(), good.display());
    let script = Script { rise: 3, fall: 4, ..script(&line) };
    let mut bench = Bench::new(&[track(TrackWhat::Script(script))]);
    bench.expect(Verdict::Good).await;
    std::fs::remove_file(&good).unwrap();
    let before = lines(&runs);
    bench.expect(Verdict::Failed).await;
    let failed = lines(&runs);
    assert!(failed >= before + 3, "{before} {failed}: one of the four may have been under way");
    std::fs::write(&good, "").unwrap();
    bench.expect(Verdict::Good).await;
    assert!(lines(&runs) >= failed + 3);
}

#[tokio::test]
async fn a_script_that_hangs_is_killed_with_its_children_and_has_failed() {
    let directory = directory();
    let pids = directory.path().join("pids");
    let line = format!("sleep 1000 & echo $! >> {}; echo $$ >> {0}; wait", pids.display());
    let script = Script { timeout: MS * 300, interval: PATIENCE * 10, ..script(&line) };
    let mut bench = Bench::new(&[track(TrackWhat::Script(script))]);
    bench.expect(Verdict::Failed).await;
    let text = std::fs::read_to_string(&pids).unwrap();
    let pids: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    // The shell is this process's child: no zombie stays. Its own child becomes init's.
    until("the shell's end", || !PathBuf::from(format!("/proc/{}", pids[1])).exists()).await;
    until("the child's end", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pids[0])).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    })
    .await;
}

#[tokio::test]
async fn a_script_that_prints_without_end_is_killed_and_starves_nobody() {
    let directory = directory();
    let path = directory.path().join("number");
    let endless = Script { timeout: MS * 300, interval: PATIENCE * 10, ..script("exec yes") };
    let tracks = [track(TrackWhat::Script(endless)), file_track(&path)];
    let mut bench = Bench::new(&tracks);
    assert_eq!(bench.next().await, (1, Verdict::Value(0)));
    std::fs::write(&path, "1").unwrap();
    let mut told = [bench.next().await, bench.next().await];
    told.sort_unstable_by_key(|told| told.0);
    assert_eq!(told, [(0, Verdict::Failed), (1, Verdict::Value(1))]);
}

#[tokio::test]
async fn a_slow_script_runs_once_at_a_time() {
    let directory = directory();
    let busy = directory.path().join("busy");
    let line = format!("mkdir {0} || exit 1; sleep 0.1; rmdir {0}", busy.display());
    let mut bench = Bench::new(&[track(TrackWhat::Script(script(&line)))]);
    bench.expect(Verdict::Good).await;
    // Several runs later it has still never met itself.
    tokio::time::timeout(MS * 600, bench.told.recv()).await.unwrap_err();
}

#[tokio::test]
async fn scripts_get_their_arguments_unchanged_and_run_as_nobody_where_root_runs_the_daemon() {
    let directory = directory();
    let out = directory.path().join("out");
    let path = directory.path().join("script");
    let text = directory.path().join("text");
    std::fs::write(
        &text,
        "#!/bin/sh\n{ id -un; printf '<%s>' \"$@\"; echo; echo $EVERMQ_TRACK $EVERMQ_HOST; } > $1.new; mv $1.new $1\n",
    )
    .unwrap();
    // By another process: what this one has open for writing cannot be run while another test starts a process.
    assert!(Command::new("install").args(["-m", "0755"]).args([&text, &path]).status().unwrap().success());
    let command = [path.to_str().unwrap(), out.to_str().unwrap(), "a b", "$HOME;*"].map(str::to_owned).into();
    let script = Script { command, shell: false, ..script("") };
    let mut bench = Bench::new(&[track(TrackWhat::Script(script))]);
    bench.expect(Verdict::Good).await;
    let text = std::fs::read_to_string(&out).unwrap();
    let expected = format!("<{}><a b><$HOME;*>\nx lb1\n", out.display());
    assert!(text.ends_with(&expected), "{text}");
    assert!(!text.starts_with("root\n"), "{text}");
    if nix::unistd::geteuid().is_root() {
        assert!(text.starts_with("nobody\n"), "{text}");
    }
}

#[tokio::test]
async fn root_is_for_those_who_write_it() {
    let directory = directory();
    let out = directory.path().join("out");
    let root = Script { user: Some("root".to_owned()), ..script(&format!("id -u > {}", out.display())) };
    let host = HostName::new("lb1").unwrap();
    let tracks = [track(TrackWhat::Script(root))];
    if !nix::unistd::geteuid().is_root() {
        let error = Checks::new(&tracks, &host, |_| None).unwrap_err().to_string();
        assert!(error.contains("track \"x\"") && error.contains("not root"), "{error}");
        return;
    }
    let plain = [track(TrackWhat::Script(script("true")))];
    assert!(Checks::new(&plain, &host, |_| None).unwrap().switch_users());
    assert!(!Checks::new(&tracks, &host, |_| None).unwrap().switch_users());
    let mut bench = Bench::new(&tracks);
    bench.expect(Verdict::Good).await;
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "0\n");
}

#[tokio::test]
async fn a_script_that_cannot_run_fails() {
    let script = Script { command: vec!["/nonexistent/check".to_owned()], shell: false, ..script("") };
    let mut bench = Bench::new(&[track(TrackWhat::Script(script))]);
    bench.expect(Verdict::Failed).await;
}

#[tokio::test]
async fn after_a_reload_a_script_goes_on_counting() {
    let directory = directory();
    let runs = directory.path().join("runs");
    let failing = Script { fall: 3, ..script(&format!("echo run >> {}; false", runs.display())) };
    let mut bench = Bench::resumed(&[track(TrackWhat::Script(failing))], Some(TrackState::Good));
    bench.expect(Verdict::Failed).await;
    assert!(lines(&runs) >= 3, "not at the first failure");
}

#[tokio::test]
async fn stopping_the_checks_kills_what_runs() {
    let directory = directory();
    let pid = directory.path().join("pid");
    let line = format!("echo $$ > {}; exec sleep 1000", pid.display());
    let bench = Bench::new(&[track(TrackWhat::Script(script(&line)))]);
    until("the script", || lines(&pid) == 1).await;
    let pid = std::fs::read_to_string(&pid).unwrap();
    drop(bench);
    until("its end", || !PathBuf::from(format!("/proc/{}", pid.trim())).exists()).await;
}

#[tokio::test]
async fn a_file_is_followed_as_it_is_written_replaced_and_removed() {
    let directory = directory();
    let path = directory.path().join("number");
    let mut bench = Bench::new(&[file_track(&path)]);
    bench.expect(Verdict::Value(0)).await;
    std::fs::write(&path, "5\n").unwrap();
    bench.expect(Verdict::Value(5)).await;
    std::fs::write(&path, "-7").unwrap();
    bench.expect(Verdict::Value(-7)).await;
    let new = directory.path().join("new");
    std::fs::write(&new, "9999999999999").unwrap();
    std::fs::rename(&new, &path).unwrap();
    bench.expect(Verdict::Value(i32::MAX)).await;
    std::fs::write(&path, "what").unwrap();
    bench.expect(Verdict::Value(0)).await;
    std::fs::write(&path, "3").unwrap();
    bench.expect(Verdict::Value(3)).await;
    std::fs::remove_file(&path).unwrap();
    bench.expect(Verdict::Value(0)).await;
    std::fs::create_dir(&path).unwrap();
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "4").unwrap();
    bench.expect(Verdict::Value(4)).await;
}

#[tokio::test]
async fn a_file_is_found_where_the_kernel_gives_no_notice() {
    let directory = directory();
    // Neither the directory is there, nor is the file in it what is written.
    let (later, target) = (directory.path().join("later"), directory.path().join("target"));
    let path = later.join("number");
    let mut bench = Bench::new(&[file_track(&path)]);
    bench.expect(Verdict::Value(0)).await;
    std::fs::write(&target, "1").unwrap();
    std::fs::create_dir(&later).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    bench.expect(Verdict::Value(1)).await;
    std::fs::write(&target, "2").unwrap();
    bench.expect(Verdict::Value(2)).await;
    std::fs::remove_dir_all(&later).unwrap();
    bench.expect(Verdict::Value(0)).await;
    std::fs::create_dir(&later).unwrap();
    std::fs::write(&path, "6").unwrap();
    bench.expect(Verdict::Value(6)).await;
}

/// A process that is waited for as soon as it ends, as a real one would be by init.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> String {
        format!("{}\n", self.0.id())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_process_is_followed_through_death_and_restart() {
    let directory = directory();
    let path = directory.path().join("pid");
    let mut bench = Bench::new(&[pid_track(&path)]);
    bench.expect(Verdict::Failed).await;
    let first = Sleeper::new();
    std::fs::write(&path, first.pid()).unwrap();
    bench.expect(Verdict::Good).await;
    let killed = Instant::now();
    drop(first);
    bench.expect(Verdict::Failed).await;
    assert!(killed.elapsed() < PATIENCE);
    for text in ["", "0", "-1", "x", "4194305"] {
        std::fs::write(&path, text).unwrap();
    }
    let second = Sleeper::new();
    std::fs::write(&path, second.pid()).unwrap();
    bench.expect(Verdict::Good).await;
    // Taking the file away kills nobody.
    std::fs::remove_file(&path).unwrap();
    drop(second);
    bench.expect(Verdict::Failed).await;
}

#[tokio::test]
async fn a_successor_in_the_file_takes_over_without_a_failure_between() {
    let directory = directory();
    let path = directory.path().join("pid");
    let (first, second) = (Sleeper::new(), Sleeper::new());
    std::fs::write(&path, first.pid()).unwrap();
    let mut bench = Bench::new(&[pid_track(&path)]);
    bench.expect(Verdict::Good).await;
    std::fs::write(&path, second.pid()).unwrap();
    drop(first);
    // Nothing is told until the second one dies.
    tokio::time::timeout(MS * 300, bench.told.recv()).await.unwrap_err();
    drop(second);
    bench.expect(Verdict::Failed).await;
}

#[tokio::test]
async fn a_zombie_is_dead() {
    let directory = directory();
    let path = directory.path().join("pid");
    let mut zombie = Command::new("true").spawn().unwrap();
    let stat = format!("/proc/{}/stat", zombie.id());
    until("the zombie", || std::fs::read_to_string(&stat).unwrap_or_default().contains(") Z ")).await;
    std::fs::write(&path, zombie.id().to_string()).unwrap();
    let mut bench = Bench::new(&[pid_track(&path)]);
    bench.expect(Verdict::Failed).await;
    tokio::time::timeout(MS * 300, bench.told.recv()).await.unwrap_err();
    zombie.wait().unwrap();
}

#[tokio::test]
async fn each_track_has_its_own_index_and_interfaces_are_not_checked_here() {
    let directory = directory();
    let path = directory.path().join("number");
    std::fs::write(&path, "1").unwrap();
    let tracks = [
        track(TrackWhat::Interface { name: "lo".to_owned() }),
        file_track(&path),
        pid_track(&directory.path().join("pid")),
        track(TrackWhat::Script(script("true"))),
    ];
    let mut bench = Bench::new(&tracks);
    let mut told = [bench.next().await, bench.next().await, bench.next().await];
    told.sort_unstable_by_key(|told| told.0);
    assert_eq!(told, [(1, Verdict::Value(1)), (2, Verdict::Failed), (3, Verdict::Good)]);
}
