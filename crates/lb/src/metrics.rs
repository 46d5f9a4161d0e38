//! The figures for Prometheus: `evermq_lb_*`, by listener and by backend. docs/lb.md explains each.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use evermq_daemon::metrics::{self, Counts, Exposition, Kind as Is};
use evermq_daemon::process;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::backend::Standing;
use crate::desk::{Desk, InForce, clock};
use crate::engine::ended::Why;
use crate::pool::Member;
use crate::tally::{Kind, Sums};

/// Shows them by HTTP, if and where the file says so.
#[derive(Debug, Default)]
pub(crate) struct Server {
    /// At the latest then it ends.
    until: CancellationToken,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Server {
    /// Shows nothing yet, and nothing any more from `until` on.
    pub(crate) fn new(until: CancellationToken) -> Self {
        Self { until, running: None }
    }

    /// Shows them there from now on, from within the control thread's runtime.
    pub(crate) fn turn_to(&mut self, listener: Option<TcpListener>, desk: &Arc<Desk>) {
        if let Some((end, _)) = self.running.take() {
            end.cancel();
        }
        let Some(listener) = listener else { return };
        let (end, desk) = (self.until.child_token(), Arc::clone(desk));
        let shown: metrics::Text = Arc::new(move || text(&desk, clock()));
        let token = end.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = metrics::serve(listener, shown, token).await {
                tracing::error!(%error, "the figures are not shown any more");
            }
        });
        self.running = Some((end, task));
    }

    /// Shows them no more.
    pub(crate) async fn stop(mut self) {
        if let Some((end, task)) = self.running.take() {
            end.cancel();
            // It cannot fail but by a panic, which has been printed.
            let _ = task.await;
        }
    }
}

/// The figures as they are.
#[must_use]
pub(crate) fn text(desk: &Desk, now: Instant) -> String {
    let mut text = Exposition::new();
    let in_force = desk.in_force();
    program(&mut text, desk, &in_force, now);
    listeners(&mut text, desk, &in_force);
    backends(&mut text, desk, &in_force);
    process::expose(&mut text, "evermq-lb");
    text.finish()
}

fn program(text: &mut Exposition, desk: &Desk, in_force: &InForce, now: Instant) {
    let uptime = now.saturating_duration_since(desk.started).as_secs_f64();
    text.family("evermq_lb_uptime_seconds", Is::Gauge, "Since the start.").sample(&[], uptime);
    if let Some(worker) = desk.workers.first() {
        let help = "Most client connections at once.";
        text.family("evermq_lb_connections_limit", Is::Gauge, help).sample(&[], worker.gate.admission.limit());
    }
    let help = "Clients that have said what they want and wait for a broker.";
    let waiting: usize = desk.workers.iter().map(|worker| worker.waiting()).sum();
    text.family("evermq_lb_queue_length", Is::Gauge, help).sample(&[], waiting);
    let reloads = in_force.reloads;
    text.family("evermq_lb_reloads_total", Is::Counter, "Times that the cluster file was read again, by result.")
        .sample(&[("result", "done")], reloads.done)
        .sample(&[("result", "refused")], reloads.refused);
    let log = desk.log.figures();
    text.family("evermq_lb_access_log_lines_total", Is::Counter, "Lines of the access log, by what became of them.")
        .sample(&[("result", "written")], log.written)
        .sample(&[("result", "dropped")], log.dropped)
        .sample(&[("result", "failed")], log.failed);
    let peers = desk.peers.as_deref().map(crate::peers::Peers::state).unwrap_or_default();
    let mut family = text.family(
        "evermq_lb_peer_connected",
        Is::Gauge,
        "Whether another lb is told of clients, and tells of its own.",
    );
    for peer in &peers {
        for (direction, connected) in [("to", peer.sending), ("from", peer.receiving)] {
            family.sample(&[("peer", &peer.name), ("direction", direction)], u8::from(connected));
        }
    }
}

fn listeners(text: &mut Exposition, desk: &Desk, in_force: &InForce) {
    // Of two that had one name, one after the other, the figures of the name are shown once.
    let mut fronts: Vec<_> = in_force.fronts.iter().map(|front| (&*front.name, front.figures.sum())).collect();
    fronts.sort_by_key(|(name, _)| *name);
    fronts.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1.accepted += later.1.accepted;
            first.1.ended += later.1.ended;
            first.1.to_backend += later.1.to_backend;
            first.1.to_client += later.1.to_client;
        }
        same
    });
    let sums: Vec<Sums> = fronts.iter().map(|(name, _)| desk.books.sums(Kind::Listener, name)).collect();
    let all = || fronts.iter().zip(&sums).map(|((name, figures), sums)| ([("listener", *name)], *figures, sums));

    let mut family = text.family("evermq_lb_accepted_total", Is::Counter, "Client connections that came.");
    for (labels, figures, _) in all() {
        family.sample(&labels, figures.accepted);
    }
    let mut family = text.family("evermq_lb_connections", Is::Gauge, "Client connections now.");
    for (labels, figures, _) in all() {
        family.sample(&labels, figures.accepted.saturating_sub(figures.ended));
    }
    let mut family = text.family("evermq_lb_ended_total", Is::Counter, "Client connections that have ended, by cause.");
    for (labels, _, sums) in all() {
        for why in Why::ALL {
            family.sample(&[labels[0], ("cause", why.name())], sums.ended(why));
        }
    }
    let mut family =
        text.family("evermq_lb_bytes_total", Is::Counter, "Bytes passed on, from clients (in) and to them (out).");
    for (labels, figures, _) in all() {
        family.sample(&[labels[0], ("direction", "in")], figures.to_backend);
        family.sample(&[labels[0], ("direction", "out")], figures.to_client);
    }
    let help = "From accepting a client until it had said what it wants (ClientHello, or TLS and CONNECT).";
    let mut family = text.family("evermq_lb_greeting_seconds", Is::Histogram, help);
    for (labels, _, sums) in all() {
        histogram(&mut family, &labels, &sums.greeting);
    }
}

fn backends(text: &mut Exposition, desk: &Desk, in_force: &InForce) {
    let pool = &in_force.pool;
    let sums: Vec<Sums> = pool.members().iter().map(|member| desk.books.sums(Kind::Backend, member.name())).collect();
    let all = || pool.members().iter().map(|member| (&**member, [("backend", member.name())]));
    for (name, kind, help, read) in OF_BACKEND {
        let mut family = text.family(name, kind, help);
        for (member, labels) in all() {
            family.sample(&labels, read(member));
        }
    }
    let mut family =
        text.family("evermq_lb_backend_state", Is::Gauge, "What health and clients say of a broker: 1 for its state.");
    for (member, labels) in all() {
        for state in Standing::ALL {
            let is = u8::from(member.standing() == state);
            family.sample(&[labels[0], ("state", state.name())], is);
        }
    }
    let mut family =
        text.family("evermq_lb_backend_admin_state", Is::Gauge, "What operators say of a broker: 1 for its state.");
    for (member, labels) in all() {
        for state in [Admin::Ready, Admin::Drain, Admin::Maint] {
            family.sample(&[labels[0], ("state", state.name())], u8::from(member.admin() == state));
        }
    }
    let mut family = text.family(
        "evermq_lb_backend_bytes_total",
        Is::Counter,
        "Bytes passed on, from clients (in) and to them (out).",
    );
    for (member, labels) in all() {
        let traffic = desk.workers.iter().map(|worker| worker.traffic(member.id()));
        let (bytes_in, bytes_out) = traffic.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        family.sample(&[labels[0], ("direction", "in")], bytes_in);
        family.sample(&[labels[0], ("direction", "out")], bytes_out);
    }
    let help = "Connections with a broker that have ended, by cause.";
    let mut family = text.family("evermq_lb_backend_ended_total", Is::Counter, help);
    for ((_, labels), sums) in all().zip(&sums) {
        for why in Why::ALL {
            family.sample(&[labels[0], ("cause", why.name())], sums.ended(why));
        }
    }
    for (name, help, read) in TIMES {
        let mut family = text.family(name, Is::Histogram, help);
        for ((_, labels), sums) in all().zip(&sums) {
            histogram(&mut family, &labels, read(sums));
        }
    }
}

type OfBackend = (&'static str, Is, &'static str, fn(&Member) -> f64);

#[expect(clippy::cast_precision_loss, reason = "counts of connections")]
const OF_BACKEND: [OfBackend; 5] = [
    ("evermq_lb_backend_connections", Is::Gauge, "Connections now, those being made included.", |member| {
        member.connections() as f64
    }),
    ("evermq_lb_backend_connections_total", Is::Counter, "Connections made.", |member| member.total() as f64),
    ("evermq_lb_backend_refusals_total", Is::Counter, "Clients that a broker did not let in.", |member| {
        member.refusals() as f64
    }),
    ("evermq_lb_backend_weight", Is::Gauge, "Its share beside the others'.", |member| f64::from(member.weight())),
    (
        "evermq_lb_backend_health_round_trip_seconds",
        Is::Gauge,
        "From PINGREQ to PINGRESP; 0 where no session stands.",
        |member| member.report().round_trip.map_or(0.0, |time| time.as_secs_f64()),
    ),
];

type Times = (&'static str, &'static str, fn(&Sums) -> &Counts);

const TIMES: [Times; 3] = [
    ("evermq_lb_queue_seconds", "From what a client said until a broker was chosen for it.", |sums| &sums.queue),
    ("evermq_lb_connect_seconds", "From there until the broker had taken the connection.", |sums| &sums.connect),
    ("evermq_lb_handshake_seconds", "From there until broker and client had answered each other twice.", |sums| {
        &sums.handshake
    }),
];

fn histogram(family: &mut evermq_daemon::metrics::Family<'_>, labels: &[(&str, &str)], counts: &Counts) {
    let buckets = counts.cumulative().map(|(bound, at_most)| (bound.as_secs_f64(), at_most));
    family.histogram(labels, buckets, counts.total(), counts.sum().as_secs_f64());
}
