//! The cluster as a table: what matters above it, a row for each host.

use evermq_admin::overview::{Lag, Overview, Row, Vip};
use evermq_admin::report::word;
use evermq_daemon::health::Health;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cells::{dash, time as duration};
use crate::table::Table;

pub(super) fn text(overview: &Overview, now_ms: u64) -> String {
    let mut text = format!("cluster {}: {}", overview.cluster, verdict(overview.verdict));
    for reason in &overview.reasons {
        text.push_str(&format!("\n  {}", printable(reason)));
    }
    for vip in &overview.vips {
        text.push_str(&format!("\n{}", held(vip, now_ms)));
    }
    if let Some(days) = overview.certificate_days {
        text.push_str(&format!("\ncertificates: {days} days left"));
    }
    let mut table = Table::titled(&["HOST", "ROLE", "STATE", "CONNECTIONS", "IN/S", "OUT/S", "LAG", "VERSION", "NOTE"]);
    for row in &overview.hosts {
        table.row(cells(overview, row));
    }
    format!("{text}\n\n{table}")
}

const fn verdict(health: Health) -> &'static str {
    word(health)
}

fn held(vip: &Vip, now_ms: u64) -> String {
    let service = if vip.address.contains(':') {
        format!("VIP [{}]:{}", vip.address, vip.port)
    } else {
        format!("VIP {}:{}", vip.address, vip.port)
    };
    match vip.holders.as_slice() {
        [] if vip.asked.0 < vip.asked.1 => {
            format!("{service}: held by none of the {} of {} lb hosts that say so", vip.asked.0, vip.asked.1)
        }
        [] => format!("{service}: held by nobody"),
        holders => {
            let since =
                vip.since.as_deref().map(|since| format!(" since {}", elapsed(since, now_ms))).unwrap_or_default();
            format!("{service}: held by {}{since}", holders.join(" and "))
        }
    }
}

/// `2026-11-23T15:20:11.250Z (3h12m)`
fn elapsed(since: &str, now_ms: u64) -> String {
    let Ok(at) = OffsetDateTime::parse(since, &Rfc3339) else { return since.to_owned() };
    let at_ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    format!("{since} ({})", duration(now_ms.saturating_sub(at_ms)))
}

fn cells(overview: &Overview, row: &Row) -> [String; 9] {
    let holds = overview.vips.iter().any(|vip| vip.is_held_by(&row.host));
    let rate = |rate: Option<f64>| rate.map_or_else(dash, |rate| format!("{rate:.0}"));
    [
        row.host.clone(),
        row.roles.join(", "),
        if holds { format!("{}, has the VIP", row.state) } else { row.state.clone() },
        connections(row),
        rate(row.rates.map(|rates| rates.received)),
        rate(row.rates.map(|rates| rates.sent)),
        row.lag.map_or_else(dash, lag),
        if row.versions.is_empty() { dash() } else { row.versions.join(", ") },
        row.notes.join("; "),
    ]
}

fn connections(row: &Row) -> String {
    match (row.lb_connections, row.broker_connections) {
        (None, None) => dash(),
        (Some(one), None) | (None, Some(one)) => one.to_string(),
        (Some(lb), Some(broker)) => format!("lb {lb}, broker {broker}"),
    }
}

fn lag(lag: Lag) -> String {
    if lag.messages == 0 { "0".to_owned() } else { format!("{} ({:.1} s)", lag.messages, lag.seconds) }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
