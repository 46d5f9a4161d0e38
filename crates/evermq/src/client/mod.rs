//! `evermq pub` and `evermq sub`: an MQTT client with the flags of mosquitto_pub and mosquitto_sub.
//!
//! Both survive the loss of a connection once they have had one: they reconnect, and messages above QoS 0 are sent again
//! until they are acknowledged. Standard output carries payloads only; everything else goes to standard error.
//!
//! | module | subject |
//! |---|---|
//! | `options` | flags that both share, and the CONNECT that they make |
//! | `property` | `-D`: MQTT 5.0 properties |
//! | `tls` | certificates from PEM files; what to do about a failed handshake |
//! | `connect` | TCP, TLS, CONNECT; connecting again |
//! | `connection` | packets in and out, keep alive |
//! | `session` | pure: packet identifiers, acknowledgement, resending, exactly once |
//! | `publish`, `source` | `evermq pub`, and where its messages come from |
//! | `subscribe` | `evermq sub` |
//! | `stop` | signals and `-W` |
//! | `failure` | what can go wrong, in words, and the exit status |
//!
//! Tasks: the commands run on one current-thread runtime and spawn none. A thread reads standard input for `pub -l`; it
//! ends with the process, since a blocked read cannot be interrupted.
//!
//! Exit status: 0 done; the CONNACK's code where the server refuses the connection; 27 where `-W` ran out; 2 for a wrong
//! command line; 1 otherwise.

mod connect;
mod connection;
mod failure;
mod options;
mod property;
mod publish;
mod session;
mod source;
mod stop;
mod subscribe;
mod tls;

use std::future::Future;
use std::process::ExitCode;

pub use options::ConnectionArgs;
pub use publish::PubArgs;
pub use subscribe::SubArgs;

use failure::Failure;

use crate::output;

/// `evermq pub`
#[must_use]
pub fn run_pub(args: PubArgs) -> ExitCode {
    let voice = args.connection.voice();
    run("pub", voice, publish::run(args, voice))
}

/// `evermq sub`
#[must_use]
pub fn run_sub(args: SubArgs) -> ExitCode {
    let voice = args.connection.voice();
    run("sub", voice, subscribe::run(args, voice))
}

fn run(command: &str, voice: Voice, work: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Failure::Runtime).and_then(|runtime| runtime.block_on(work)) {
        Ok(code) => code,
        Err(failure) => {
            voice.complain(&format!("evermq {command}: {failure}"));
            ExitCode::from(failure.exit_status())
        }
    }
}

/// What is said on standard error.
#[derive(Debug, Clone, Copy)]
struct Voice {
    quiet: bool,
    debug: bool,
}

impl Voice {
    /// Something went wrong, or was set right.
    fn complain(self, text: &str) {
        if !self.quiet {
            output::complain(text);
        }
    }

    /// `-d`: every packet.
    fn trace(self, text: impl FnOnce() -> String) {
        if self.debug {
            output::complain(&text());
        }
    }
}
