//! Root, or as good as root: an ordinary user's test runs again in a user namespace of its own.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// A user who is root in namespaces of its own, with nothing but the loopback in its network.
const UNSHARE: [&str; 4] = ["--user", "--map-root-user", "--net", "--mount"];

/// `ip netns` keeps its names in /run, where an ordinary user may not write.
const RUN: &str = r#"
    directory=/run/netns
    test -d $directory || directory=/run
    mount -t tmpfs tmpfs $directory && exec "$@"
"#;

/// Returns only if network namespaces can be made here. The whole test program starts anew if it must: a process with
/// threads cannot enter a user namespace.
pub(crate) fn ensure() {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let trial = Command::new("unshare").args(UNSHARE).args(["sh", "-c", RUN, "sh", "true"]).output().unwrap();
    assert!(
        trial.status.success(),
        "this test makes network namespaces: run it as root (sudo -E cargo test), or let ordinary users have user namespaces \
         (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns): {}",
        String::from_utf8_lossy(&trial.stderr)
    );
    let test = std::env::current_exe().unwrap();
    let again = Command::new("unshare")
        .args(UNSHARE)
        .args(["sh", "-c", RUN, "sh"])
        .arg(test)
        .args(std::env::args_os().skip(1))
        .exec();
    panic!("cannot run unshare: {again}");
}
