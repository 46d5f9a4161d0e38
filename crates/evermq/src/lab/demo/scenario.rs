//! The demo's course: everything works, then one fault after the other, each of them healed before the next.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::clients::ClientsArgs;
use super::events::{Client, What};
use super::load::Load;
use super::observer::Observer;
use super::report::{Account, FaultAccount, Voice, millis};
use crate::lab::error::LabError;
use crate::lab::interrupt::Interrupt;
use crate::lab::plan::Program;
use crate::lab::registry::Lab;
use crate::lab::{clock, commands, ready};

/// How long the clients may take to be connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Undisturbed before the first fault, and after each one is healed.
const QUIET: Duration = Duration::from_millis(1500);
/// How long each fault is watched.
const WATCH: Duration = Duration::from_secs(3);
/// How long the account at the end may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the demo in a lab that has just been started.
pub(super) fn run(
    lab: &Lab,
    interrupt: &Interrupt,
    voice: &Voice,
    arguments: &ClientsArgs,
) -> Result<Account, LabError> {
    ready::wait(lab, interrupt, |text| voice.say(text))?;
    let load = Load::start(lab, arguments)?;
    let mut course = Course { lab, interrupt, voice, load, observer: Observer::default(), faults: Vec::new() };
    course.connect(arguments)?;
    course.lb_host()?;
    course.lb_program()?;
    course.broker()?;
    let messages = course.finish()?;
    let Course { faults, .. } = course;
    Ok(Account { faults, messages, rate: arguments.rate, probe_interval_ms: arguments.probe_interval })
}

struct Course<'a> {
    lab: &'a Lab,
    interrupt: &'a Interrupt,
    voice: &'a Voice,
    load: Load,
    observer: Observer,
    faults: Vec<FaultAccount>,
}

impl Course<'_> {
    fn connect(&mut self, arguments: &ClientsArgs) -> Result<(), LabError> {
        let ClientsArgs { rate, probe_interval } = arguments;
        self.voice.act(&format!(
            "a publisher and a subscriber connect through the VIP, QoS 1, {rate} messages a second; \
             beside them a new connection every {probe_interval} ms"
        ));
        let deadline = clock::monotonic() + CONNECT_TIMEOUT;
        while !self.observer.all_connected() {
            if !self.step(deadline)? {
                return Err(LabError::NotReady("the demo's clients cannot connect through the VIP".to_owned()));
            }
        }
        let at = clock::monotonic();
        self.watch(QUIET)?;
        // What the figures are to be held against.
        self.account("none".to_owned(), at);
        Ok(())
    }

    fn lb_host(&mut self) -> Result<(), LabError> {
        let host = ready::holder(self.lab, self.interrupt)?;
        self.fault(
            format!("host {host} dead"),
            &format!("{host} holds the VIP: its cable is pulled, every process in it killed"),
            |lab| commands::kill(lab, host),
        )?;
        self.heal(host)
    }

    fn lb_program(&mut self) -> Result<(), LabError> {
        let host = ready::holder(self.lab, self.interrupt)?;
        let program = Program::Lb.name();
        self.fault(
            format!("{program} on {host} killed"),
            &format!("{host} holds the VIP: its {program} is killed with -9"),
            |lab| commands::signal(lab, host, program, Signal::SIGKILL),
        )?;
        self.heal(host)
    }

    fn broker(&mut self) -> Result<(), LabError> {
        let host = self.observer.broker_of(Client::Subscriber).map(str::to_owned);
        let host = host.ok_or_else(|| LabError::NotReady("the subscriber is not connected".to_owned()))?;
        let program = Program::Broker.name();
        self.fault(
            format!("{program} on {host} killed"),
            &format!("{host} serves the subscriber: its {program} is killed with -9"),
            |lab| commands::signal(lab, &host, program, Signal::SIGKILL),
        )?;
        self.heal(&host)
    }

    fn fault(
        &mut self,
        fault: String,
        text: &str,
        strike: impl FnOnce(&Lab) -> Result<(), LabError>,
    ) -> Result<(), LabError> {
        // What came before belongs before.
        self.watch(Duration::ZERO)?;
        self.voice.act(text);
        let at = clock::monotonic();
        strike(self.lab)?;
        self.watch(WATCH)?;
        let text = self.account(fault, at).map_or_else(
            || "nobody can connect any more".to_owned(),
            |gap| format!("nobody could connect for {:.0} ms", millis(gap)),
        );
        self.voice.say(&text);
        if let Ok(host) = ready::holder(self.lab, self.interrupt) {
            self.voice.say(&format!("{host} holds the VIP"));
        }
        Ok(())
    }

    /// Notes what the fault at `at` has cost until now; gives the longest time without a new connection.
    fn account(&mut self, fault: String, at: Duration) -> Option<Duration> {
        let gap = self.observer.gap(at, clock::monotonic());
        self.faults.push(FaultAccount {
            fault,
            new_connections_ms: gap.map(millis),
            publisher: self.observer.felt(Client::Publisher, at).into(),
            subscriber: self.observer.felt(Client::Subscriber, at).into(),
        });
        gap
    }

    fn heal(&mut self, host: &str) -> Result<(), LabError> {
        self.voice.act(&format!("{host} is healed"));
        commands::heal(self.lab, host)?;
        ready::wait(self.lab, self.interrupt, |text| self.voice.say(text))?;
        self.watch(QUIET)
    }

    fn finish(&mut self) -> Result<super::tally::Messages, LabError> {
        self.voice.act("no new messages; the last ones arrive");
        self.load.finish()?;
        let deadline = clock::monotonic() + FINISH_TIMEOUT;
        while self.step(deadline)? {
            if let Some(messages) = self.observer.messages.take() {
                return Ok(messages);
            }
        }
        Err(LabError::NotReady("the demo's clients give no account".to_owned()))
    }

    /// Takes in what the clients say for so long.
    fn watch(&mut self, time: Duration) -> Result<(), LabError> {
        let deadline = clock::monotonic() + time;
        while self.step(deadline)? {}
        Ok(())
    }

    /// Takes in one event; `false` at the deadline.
    fn step(&mut self, deadline: Duration) -> Result<bool, LabError> {
        let Some(event) = self.load.next(deadline, self.interrupt)? else { return Ok(false) };
        self.observer.handle_event(&event);
        match &event.what {
            What::Connected { client, broker } => {
                self.voice.say_at(event.at(), &format!("{} is connected to {broker}", client.name()));
            }
            What::Disconnected { client, reason } => {
                self.voice.say_at(event.at(), &format!("{} has lost its connection: {reason}", client.name()));
            }
            What::Probe | What::Finished(_) => {}
        }
        Ok(true)
    }
}
