//! Who gets in, and what it may do then: what the files say, and what a reload puts in its place.
//!
//! | the client | is |
//! |---|---|
//! | an lb of the cluster, on its own behalf | let in without a user name and without rules |
//! | shows a certificate that has the wanted name | that user; a user name in its CONNECT says nothing and is not looked at |
//! | shows a certificate without that name | to have a password; never anonymous |
//! | names an authentication method | whom its mechanism says |
//! | has a user name, and there is a password file | that user, if the password is right; never without one, or with an empty one |
//! | has neither, or a user name where there is no password file | anonymous, where that is allowed |
//!
//! The certificate wins as it does with mosquitto's `use_identity_as_username`: it proves who the client is, and a name that a
//! client may choose must not turn it into another one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use evermq_access::rules::BadRule;
use evermq_access::substitution::Subject;
use evermq_access::{AclFile, Effort, Hash, PasswordFile, Permits, Rules};
use evermq_config::broker::{Anonymous, Broker, CertificateIdentity};
use evermq_config::{Report, Severity};
use evermq_daemon::tls::Revocations;
use evermq_mqtt::packet::Connect;

use super::Client;
use super::certificate::{Certificate, Nameless, name_of};
use super::refusal::{REASONS, Refusal};
use super::verify::{Turn, Verifier, Wrong};
use crate::bridges::identity;

/// Everything that decides who gets in.
#[derive(Debug)]
pub struct Access {
    in_force: ArcSwap<InForce>,
    /// Counts what was put in force.
    epoch: AtomicU64,
    verifier: Verifier,
    told: [AtomicBool; REASONS],
}

/// What the files say.
#[derive(Debug)]
pub struct InForce {
    identity: CertificateIdentity,
    anonymous: Anonymous,
    /// Listeners with a word of their own about that, by their names.
    listeners: HashMap<String, Anonymous>,
    passwords: Option<Arc<PasswordFile>>,
    rules: Option<Rules>,
    revocations: Arc<Revocations>,
}

/// Why the files cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The password file or the ACL file.
    #[error("{0}")]
    File(Report),
    /// `[[broker.acl]]`.
    #[error(transparent)]
    Rule(#[from] BadRule),
}

/// A client that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Its user name.
    pub user: Option<Arc<str>>,
    proof: Proof,
    epoch: u64,
}

/// How it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// An lb of the cluster.
    Lb(Option<Arc<Certificate>>),
    /// A bridge of this broker's own.
    Bridge,
    Certificate(Arc<Certificate>),
    Password(Arc<Hash>),
    /// AUTH packets; and this certificate, which opened the door.
    Mechanism(Option<Arc<Certificate>>),
    /// Not at all.
    Anonymous {
        listener: Arc<str>,
        is_local: bool,
    },
}

impl InForce {
    /// Reads the files that `broker` names. What they say and should perhaps not comes back too. `revocations` are those that
    /// the listeners' handshakes ask.
    ///
    /// # Errors
    /// Every mistake in the first file that has any.
    pub fn load(broker: &Broker, revocations: Arc<Revocations>) -> Result<(Self, Report), AccessError> {
        let auth = &broker.auth;
        let mut warnings = Report::default();
        let mut note = |report: Report| warnings.problems.extend(report.problems);
        let load = |path: &std::path::Path| PasswordFile::load(path, Effort::Little);
        let passwords = read(auth.password_file.as_ref(), load, &mut note)?;
        let file = read(auth.acl_file.as_ref(), AclFile::load, &mut note)?;
        let listeners = broker.listeners.iter();
        let in_force = Self {
            identity: auth.identity,
            anonymous: auth.anonymous,
            listeners: listeners.filter_map(|listener| Some((listener.name.clone(), listener.anonymous?))).collect(),
            passwords: passwords.map(Arc::new),
            rules: match file {
                Some(file) => Some(Rules::File(file)),
                None => Rules::of_entries(&auth.rules)?,
            },
            revocations,
        };
        Ok((in_force, warnings))
    }

    fn allows_anonymous(&self, listener: &str, is_local: bool) -> bool {
        match self.listeners.get(listener).copied().unwrap_or(self.anonymous) {
            Anonymous::Off => false,
            Anonymous::Loopback => is_local,
            Anonymous::On => true,
        }
    }

    /// Why a client that got in before would not get in now.
    fn objection(&self, login: &Login) -> Option<&'static str> {
        match &login.proof {
            Proof::Bridge => None,
            Proof::Lb(certificate) | Proof::Mechanism(certificate) => {
                let certificate = certificate.as_ref()?;
                certificate.is_revoked(&self.revocations).then_some("certificate revoked")
            }
            Proof::Certificate(certificate) if certificate.is_revoked(&self.revocations) => Some("certificate revoked"),
            Proof::Certificate(certificate) => {
                let is_same = certificate.user(self.identity).ok() == login.user.as_deref();
                (!is_same).then_some("another name of the certificate is the user name now")
            }
            Proof::Password(hash) => {
                let passwords = self.passwords.as_ref();
                let now = passwords.and_then(|file| file.get(login.user.as_deref().unwrap_or_default()));
                match now {
                    None => Some("user gone"),
                    Some(now) => (now != hash).then_some("password changed"),
                }
            }
            Proof::Anonymous { listener, is_local } => {
                (!self.allows_anonymous(listener, *is_local)).then_some("anonymous clients are not let in any more")
            }
        }
    }
}

impl Access {
    /// With these rules.
    #[must_use]
    pub fn new(in_force: InForce) -> Arc<Self> {
        Arc::new(Self {
            in_force: ArcSwap::from_pointee(in_force),
            epoch: AtomicU64::new(1),
            verifier: Verifier::new(),
            told: Default::default(),
        })
    }

    /// Everybody gets in and may do everything; for tests.
    #[must_use]
    pub fn open() -> Arc<Self> {
        Self::new(InForce {
            identity: CertificateIdentity::CommonName,
            anonymous: Anonymous::On,
            listeners: HashMap::new(),
            passwords: None,
            rules: None,
            revocations: Arc::default(),
        })
    }

    /// Puts other rules in force, for those who come from now on; the broker asks about the others.
    pub fn replace(&self, in_force: InForce) {
        self.verifier.forget_but(in_force.passwords.as_deref());
        self.in_force.store(Arc::new(in_force));
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Who the client is, by what it shows.
    ///
    /// # Errors
    /// It may not come in; the reason is logged.
    pub async fn admit(&self, client: &Client, connect: &Connect, turn: &Turn<'_>) -> Result<Login, Refusal> {
        // Before the rules: a login by older rules than its epoch says would never be asked about again.
        let epoch = self.epoch();
        let in_force = self.in_force.load_full();
        let admitted = self.identify(&in_force, client, connect, turn).await;
        self.conclude(admitted, epoch, &in_force, client, connect)
    }

    /// The same for a client whom a mechanism has found to be `user`, while `epoch` was that of the rules or a later one.
    ///
    /// # Errors
    /// It may not come in; the reason is logged.
    pub fn admit_as(&self, client: &Client, connect: &Connect, user: &Arc<str>, epoch: u64) -> Result<Login, Refusal> {
        let in_force = self.in_force.load_full();
        let admitted = match &client.certificate {
            Some(certificate) if certificate.is_revoked(&in_force.revocations) => Err(Refusal::Revoked),
            certificate => Ok((Some(Arc::clone(user)), Proof::Mechanism(certificate.clone()))),
        };
        self.conclude(admitted, epoch, &in_force, client, connect)
    }

    /// Counts what has been put in force.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn conclude(
        &self,
        admitted: Result<(Option<Arc<str>>, Proof), Refusal>,
        epoch: u64,
        in_force: &InForce,
        client: &Client,
        connect: &Connect,
    ) -> Result<Login, Refusal> {
        match admitted {
            Ok((user, proof)) => Ok(Login { user, proof, epoch }),
            Err(refusal) => {
                self.tell(refusal, in_force, client, connect);
                Err(refusal)
            }
        }
    }

    async fn identify(
        &self,
        in_force: &InForce,
        client: &Client,
        connect: &Connect,
        turn: &Turn<'_>,
    ) -> Result<(Option<Arc<str>>, Proof), Refusal> {
        if client.certificate.as_ref().is_some_and(|certificate| certificate.is_revoked(&in_force.revocations)) {
            return Err(Refusal::Revoked);
        }
        if client.is_lb {
            return Ok((None, Proof::Lb(client.certificate.clone())));
        }
        let nameless = match &client.certificate {
            None => None,
            Some(certificate) => match certificate.user(in_force.identity) {
                Ok(user) => return Ok((Some(user.into()), Proof::Certificate(Arc::clone(certificate)))),
                Err(Nameless::Missing) => Some(Refusal::Nameless),
                Err(Nameless::Untold) => Some(Refusal::Untold),
            },
        };
        if let (Some(file), Some(user)) = (&in_force.passwords, &connect.username) {
            // Whatever the file says of the user: what everybody knows proves nothing.
            let password = connect.password.as_deref().filter(|password| !password.is_empty());
            let password = password.ok_or(Refusal::NoPassword)?;
            return match self.verifier.check(file, user, password, turn).await {
                Ok(hash) => Ok((Some(user.as_str().into()), Proof::Password(hash))),
                Err(Wrong::Password) => Err(Refusal::BadPassword),
                Err(Wrong::TooOften) => Err(Refusal::TooOften),
            };
        }
        if let Some(refusal) = nameless {
            return Err(refusal);
        }
        let is_local = client.is_local();
        if in_force.allows_anonymous(&client.listener, is_local) {
            return Ok((None, Proof::Anonymous { listener: Arc::clone(&client.listener), is_local }));
        }
        // A user name that nobody can check is as good as a wrong one.
        Err(if connect.username.is_some() { Refusal::Unchecked } else { Refusal::Nobody })
    }

    /// What the client may do; none where there are no rules.
    #[must_use]
    pub fn permits(&self, login: &Login, client_id: &str) -> Option<Arc<Permits>> {
        match login.proof {
            Proof::Lb(_) | Proof::Bridge => None,
            _ => self.permits_of(login.user.as_deref(), client_id),
        }
    }

    /// The same for a session whose client is away.
    #[must_use]
    pub fn permits_of(&self, user: Option<&str>, client_id: &str) -> Option<Arc<Permits>> {
        if identity::is_reserved(client_id) {
            return None;
        }
        let in_force = self.in_force.load();
        in_force.rules.as_ref().map(|rules| Arc::new(rules.of(Subject { user, client_id })))
    }

    /// Why a client that got in before would not get in now.
    #[must_use]
    pub fn objection(&self, login: &Login) -> Option<&'static str> {
        self.in_force.load().objection(login)
    }

    /// Whether other rules have been put in force since this client was admitted.
    #[must_use]
    pub fn is_newer_than(&self, login: &Login) -> bool {
        login.epoch != self.epoch()
    }

    /// The first time for each reason where operators look, then where developers do: strangers may come in thousands.
    fn tell(&self, refusal: Refusal, in_force: &InForce, client: &Client, connect: &Connect) {
        let (address, reason) = (client.address, refusal.text());
        let (id, user) = (&connect.client_id, connect.username.as_deref());
        let identity = name_of(in_force.identity);
        if self.told[refusal as usize].swap(true, Ordering::Relaxed) {
            tracing::debug!(%address, client = %id, user, identity, reason, "client refused");
        } else {
            tracing::info!(
                %address, client = %id, user, identity, reason,
                "client refused; the next ones for this reason are told at level debug"
            );
        }
    }
}

impl Login {
    /// A bridge of the broker's own: rules are for clients.
    #[must_use]
    pub const fn of_bridge() -> Self {
        Self { user: None, proof: Proof::Bridge, epoch: 0 }
    }

    /// Nobody, let in; for tests.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { user: None, proof: Proof::Anonymous { listener: Arc::default(), is_local: true }, epoch: 1 }
    }

    /// A user, let in by a certificate; for tests.
    #[must_use]
    pub fn of(user: &str) -> Self {
        Self { user: Some(user.into()), proof: Proof::Certificate(Arc::default()), epoch: 1 }
    }
}

fn read<T>(
    path: Option<&PathBuf>,
    load: impl Fn(&std::path::Path) -> Result<(T, Report), Report>,
    note: &mut impl FnMut(Report),
) -> Result<Option<T>, AccessError> {
    let Some(path) = path else { return Ok(None) };
    let (value, warnings) = load(path).map_err(AccessError::File)?;
    debug_assert!(
        warnings.problems.iter().all(|problem| problem.severity == Severity::Warning),
        "errors are no warnings"
    );
    note(warnings);
    Ok(Some(value))
}

#[cfg(test)]
mod tests;
