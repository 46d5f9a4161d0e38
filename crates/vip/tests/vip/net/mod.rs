//! A network of namespaces on one switch, with `evermq-vip`, keepalived and load balancers that the test plays.
//!
//! Everything ends with [`Net`]: programs, namespaces, directories. Needs root, or a user namespace (see [`privilege`]).

#![expect(clippy::print_stderr, reason = "a failed test shows what the daemons wrote")]

pub(crate) mod fake_lb;
pub(crate) mod keepalived;
mod privilege;
pub(crate) mod service;
pub(crate) mod watch;

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use fake_lb::FakeLb;
use watch::AddressWatch;

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// The VIP of a network that speaks IPv6.
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);
/// The advertisement interval unless a test says otherwise. A machine that stands still for three of them has fallen silent: a
/// virtual one among others, or one whose processes are frozen, does so for some tenths of a second now and then.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);
/// Longer than any time in which a router that does not hear the other one would act: three intervals and a skew.
pub(crate) const CALM: Duration = Duration::from_millis(900);
/// For whatever should happen in milliseconds, or with VRRP 2 in six seconds, on a machine that may be very busy.
pub(crate) const SOON: Duration = Duration::from_secs(15);

static NETS: AtomicU32 = AtomicU32::new(0);

/// What the `[vip]` section says beyond the address.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) adverts: &'static str,
    pub(crate) interval: &'static str,
    pub(crate) preempt: bool,
    pub(crate) lb_timeout: &'static str,
    pub(crate) tickle: bool,
    /// With one of IPv6 the hosts have addresses of that family, too.
    pub(crate) vip: IpAddr,
    /// Further lines.
    pub(crate) more: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            adverts: "unicast",
            interval: "200ms",
            preempt: false,
            lb_timeout: "2s",
            tickle: true,
            vip: VIP.into(),
            more: "",
        }
    }
}

pub(crate) struct Net {
    id: String,
    options: Options,
    directory: tempfile::TempDir,
    hosts: Vec<Host>,
}

/// One machine: a namespace with an interface, a directory, an lb, and perhaps a VRRP daemon.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) address: Ipv4Addr,
    /// It has this one where the VIP is one of IPv6.
    pub(crate) address6: Ipv6Addr,
    pub(crate) namespace: String,
    pub(crate) lb: FakeLb,
    pub(crate) vip: AddressWatch,
    directory: PathBuf,
    config: PathBuf,
    port: String,
    switch: String,
    daemon: Option<Child>,
}

impl Net {
    /// Two lb hosts of priority 200 and 190, and a client.
    pub(crate) fn new(options: Options) -> Self {
        privilege::ensure();
        let id = format!("evip{}x{}", std::process::id(), NETS.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().unwrap();
        let mut net = Self { id, options, directory, hosts: Vec::new() };
        let switch = net.namespace("switch");
        run("ip", &["netns", "add", &switch]);
        let kind = ["type", "bridge", "forward_delay", "0", "mcast_snooping", "0"];
        run("ip", &[&["-n", &switch, "link", "add", "br0"][..], &kind].concat());
        run("ip", &["-n", &switch, "link", "set", "br0", "up"]);
        for (index, name) in ["lb1", "lb2", "client"].into_iter().enumerate() {
            let host = net.host(&switch, name, index as u8 + 1);
            net.hosts.push(host);
        }
        net
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    fn host(&self, switch: &str, name: &'static str, number: u8) -> Host {
        let namespace = self.namespace(name);
        let address = Ipv4Addr::new(10, 77, 0, number);
        let directory = self.directory.path().join(name);
        fs::create_dir_all(directory.join("run")).unwrap();
        run("ip", &["netns", "add", &namespace]);
        let port = format!("port{number}");
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &namespace];
        run("ip", &[&["-n", switch, "link", "add", &port][..], &peer].concat());
        run("ip", &["-n", switch, "link", "set", &port, "master", "br0", "up"]);
        run("ip", &["-n", &namespace, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        if self.options.vip.is_ipv6() {
            // Without a wait for duplicate address detection.
            run("ip", &["-n", &namespace, "link", "set", "eth0", "addrgenmode", "none"]);
            for own in [format!("fe80::{number}/64"), format!("{}/64", address6(number))] {
                run("ip", &["-n", &namespace, "address", "add", &own, "dev", "eth0", "nodad"]);
            }
        }
        run("ip", &["-n", &namespace, "link", "set", "lo", "up"]);
        run("ip", &["-n", &namespace, "link", "set", "eth0", "up"]);
        let config = directory.join("evermq.toml");
        fs::write(&config, self.file(&directory)).unwrap();
        Host {
            name,
            address,
            address6: address6(number),
            lb: FakeLb::new(&directory.join("run/lb.sock")),
            vip: AddressWatch::start(&namespace, self.options.vip),
            namespace,
            directory,
            config,
            port,
            switch: switch.to_owned(),
            daemon: None,
        }
    }

    /// The cluster file; only `run_dir` differs, as the hosts share one file system here.
    fn file(&self, directory: &Path) -> String {
        let Options { adverts, interval, preempt, lb_timeout, tickle, vip, more } = &self.options;
        let own6 = |number| {
            if vip.is_ipv6() { format!("address6 = \"{}\"", address6(number)) } else { String::new() }
        };
        format!(
            r#"
            [cluster]
            name = "test"
            run_dir = "{run_dir}"
            [vip]
            address = "{vip}"
            vrid = 51
            advert_interval = "{interval}"
            adverts = "{adverts}"
            preempt = {preempt}
            garp_repeat_delay = "1s"
            lb_timeout = "{lb_timeout}"
            tickle = {tickle}
            {more}
            [lb]
            listen = "[::]:9000"
            [tls]
            ca = "ca.crt"
            cert = "host.crt"
            key = "host.key"
            [[hosts]]
            name = "lb1"
            address = "10.77.0.1"
            {lb1}
            roles = ["lb"]
            [[hosts]]
            name = "lb2"
            address = "10.77.0.2"
            {lb2}
            roles = ["lb"]
            [[hosts]]
            name = "broker1"
            address = "10.77.0.8"
            roles = ["broker"]
            [[hosts]]
            name = "broker2"
            address = "10.77.0.9"
            roles = ["broker"]
            "#,
            run_dir = directory.join("run").display(),
            lb1 = own6(1),
            lb2 = own6(2),
        )
    }

    /// The hosts lb1 and lb2, and the client.
    pub(crate) fn hosts(&mut self) -> [&mut Host; 3] {
        let [lb1, lb2, client] = &mut self.hosts[..] else { unreachable!("made by new") };
        [lb1, lb2, client]
    }

    /// Both daemons and lbs, started; lb1 is master.
    pub(crate) fn start(&mut self) -> [&mut Host; 3] {
        let [lb1, lb2, _] = self.hosts();
        // One after the other: without preemption the first one keeps the VIP.
        lb1.lb.up();
        lb1.start();
        lb1.vip.wait(true);
        lb1.wait_for_state("master");
        lb2.lb.up();
        lb2.start();
        lb2.wait_for_state("backup");
        self.hosts()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            if std::thread::panicking() {
                eprintln!("--- {}:\n{}", host.name, host.log());
            }
            host.lb.die();
            if let Some(mut daemon) = host.daemon.take() {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            host.vip.stop();
        }
        for host in ["lb1", "lb2", "client", "switch"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(host)]).status();
        }
    }
}

impl Host {
    /// Writes keys into the `[vip]` section of the cluster file.
    pub(crate) fn set_vip(&self, keys: &str) {
        self.edit("[vip]\n", &format!("[vip]\n{keys}\n"));
    }

    /// Replaces a part of the cluster file.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from:?} is not in the cluster file:\n{text}");
        self.write_config(&text.replace(from, to));
    }

    /// Adds sections to the cluster file.
    pub(crate) fn append(&self, sections: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        self.write_config(&format!("{text}\n{sections}\n"));
    }

    /// By a new file that takes the old one's place, as editors do.
    fn write_config(&self, text: &str) {
        let new = self.config.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.config).unwrap();
    }

    /// The daemon's answer to the control request `reload`.
    pub(crate) fn reload(&self) -> Result<Value, String> {
        let request = serde_json::json!({ "request": "reload" });
        evermq_daemon::control::request(&self.directory.join("run/vip.sock"), &request, 2 * SOON)
            .map_err(|error| error.to_string())
    }

    /// The daemon's answer to the control request `metrics`.
    pub(crate) fn metrics(&self) -> String {
        let request = serde_json::json!({ "request": "metrics" });
        let text = evermq_daemon::control::request(&self.directory.join("run/vip.sock"), &request, SOON).unwrap();
        text.as_str().unwrap().to_owned()
    }

    /// A file beside the cluster file.
    pub(crate) fn file_beside(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether some interface has the address.
    pub(crate) fn has(&self, address: &str) -> bool {
        let shown = self.command("ip").args(["-oneline", "address"]).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).contains(&format!(" {address}/"))
    }

    /// A command in this host's namespace.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // `ip netns exec` would mount /sys anew, which a user namespace in a container may not.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg(program);
        command
    }

    /// `evermq-vip` with this host's configuration.
    pub(crate) fn evermq_vip(&self) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_evermq-vip"));
        command.arg("--config").arg(&self.config).args(["--host", self.name]);
        command
    }

    /// The same without some capabilities, as `setpriv --bounding-set` names them.
    pub(crate) fn evermq_vip_without(&self, capabilities: &str) -> Command {
        let mut command = self.command("setpriv");
        command.arg(format!("--bounding-set={capabilities}"));
        // Behind `nsenter --net=NAMESPACE`.
        command.args(self.evermq_vip().get_args().skip(1));
        command
    }

    /// Starts `evermq-vip`.
    pub(crate) fn start(&mut self) {
        let command = self.evermq_vip();
        self.spawn(command);
    }

    pub(crate) fn spawn(&mut self, mut command: Command) {
        assert!(self.daemon.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.directory.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// Waits for the daemon's end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        wait_for("the daemon's end", || daemon.try_wait().unwrap())
    }

    /// Process id of the daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon runs").id()
    }

    /// Process id of the daemon's guard.
    pub(crate) fn guard(&self) -> Option<u32> {
        let parent = format!("PPid:\t{}", self.pid());
        let is_guard = |pid: &u32| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&read("status")).lines().any(|line| line == parent)
                && read("cmdline").split(|byte| *byte == 0).any(|argument| argument == b"--guard")
        };
        let processes = fs::read_dir("/proc").unwrap();
        processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).find(is_guard)
    }

    /// kill -9 of the daemon and, before it could act, of its guard.
    pub(crate) fn kill_guard(&self) {
        // Stopped, the guard does not act for a daemon that is, and the daemon starts no other guard.
        let guard = Pid::from_raw(self.guard().unwrap().cast_signed());
        kill(guard, Signal::SIGSTOP).unwrap();
        self.signal(Signal::SIGSTOP);
        kill(guard, Signal::SIGKILL).unwrap();
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended();
    }

    /// Removes the host's interface.
    pub(crate) fn unplug(&self) {
        run("ip", &["-n", &self.namespace, "link", "delete", "eth0"]);
    }

    /// Gives the host a second interface on the same switch, up and without an address but that of the link.
    pub(crate) fn second_interface(&self, name: &str) {
        let port = format!("{}b", self.port);
        let peer = ["type", "veth", "peer", "name", name, "netns", &self.namespace];
        run("ip", &[&["-n", &self.switch, "link", "add", &port][..], &peer].concat());
        run("ip", &["-n", &self.switch, "link", "set", &port, "master", "br0", "up"]);
        run("ip", &["-n", &self.namespace, "link", "set", name, "up"]);
    }

    /// Makes the host's interface anew; it is down and has no address.
    pub(crate) fn plug(&self) {
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &self.namespace];
        run("ip", &[&["-n", &self.switch, "link", "add", &self.port][..], &peer].concat());
        run("ip", &["-n", &self.switch, "link", "set", &self.port, "master", "br0", "up"]);
    }

    /// Cuts the host off, or joins it again, while its interface stays up: as a switch between others would.
    pub(crate) fn cut(&self, cut: bool) {
        let state = if cut { "disabled" } else { "forwarding" };
        run("bridge", &["-n", &self.switch, "link", "set", "dev", &self.port, "state", state]);
    }

    /// Sets the other end of the host's interface up or down: it loses its carrier.
    pub(crate) fn cable(&self, state: &str) {
        run("ip", &["-n", &self.switch, "link", "set", &self.port, state]);
    }

    /// Everything that the daemons on this host have written.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Waits for lines of the log that hold all of `words`. Gives how many there are: the log comes after the deed.
    pub(crate) fn logged(&self, words: &[&str]) -> usize {
        let count = || self.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
        wait_for(&format!("{} to log {words:?}", self.name), || Some(count()).filter(|count| *count > 0))
    }

    /// The daemon's answer to the control request `state`; null while it does not answer.
    pub(crate) fn state(&self) -> Value {
        let request = serde_json::json!({ "request": "state" });
        evermq_daemon::control::request(&self.directory.join("run/vip.sock"), &request, SOON).unwrap_or_default()
    }

    pub(crate) fn wait_for_state(&self, state: &str) -> Value {
        wait_for(&format!("{} to be {state}", self.name), || {
            Some(self.state()).filter(|answer| answer["state"] == state)
        })
    }

    /// Runs `work` on a thread in this host's namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = &self.namespace;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                enter(namespace);
                work()
            });
            thread.join().unwrap()
        })
    }
}

fn address6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into())
}

/// Puts the calling thread into a namespace.
pub(crate) fn enter(namespace: &str) {
    let file = File::open(Path::new("/run/netns").join(namespace)).unwrap();
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
}

/// Asks every few milliseconds until there is something.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {SOON:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
