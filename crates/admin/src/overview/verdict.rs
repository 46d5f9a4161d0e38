//! The verdict on a cluster. Down: clients are not served, as far as can be seen. Degraded: they are, and something needs a
//! hand before the next fault.

use evermq_daemon::health::Health;

use super::{Plan, Row, Vip};

/// A certificate that ends within so many days needs a hand.
pub const CERTIFICATE_SOON: i64 = 30;
/// A broker whose messages wait for another one for so many seconds needs a hand.
pub const LAG_SOON: f64 = 10.0;

pub(super) fn of(plan: &Plan, vips: &[Vip], hosts: &[Row]) -> (Health, Vec<String>) {
    let mut down = Vec::new();
    let mut degraded = Vec::new();
    for vip in vips {
        match vip.holders.as_slice() {
            [_] => {}
            [] if vip.asked.0 == vip.asked.1 => down.push(format!("nobody holds the VIP {}", vip.address)),
            [] => degraded.push(format!(
                "nobody who was asked holds the VIP {} ({} of {} lb hosts say whether they do)",
                vip.address, vip.asked.0, vip.asked.1
            )),
            several => down.push(format!("{} hold the VIP {} at once", several.join(" and "), vip.address)),
        }
    }
    for (role, program, is) in [("lb", "load balancer", is_lb as fn(&Row) -> bool), ("broker", "broker", is_broker)] {
        let all: Vec<&Row> = hosts.iter().filter(|row| is(row)).collect();
        let known = all.iter().filter(|row| row.state != "not asked").count();
        let working = all.iter().filter(|row| works(row, role)).count();
        if !all.is_empty() && known == all.len() && working == 0 {
            down.push(format!("no {program} answers"));
        }
    }
    for row in hosts {
        if row.state != "not asked" && (row.state != "up" || !row.notes.is_empty()) {
            let note = row.notes.first().map_or_else(String::new, |note| format!(": {note}"));
            let state = if row.state == "up" { String::new() } else { format!(" is {}", row.state) };
            degraded.push(format!("{}{state}{note}", row.host));
        }
        if let Some(lag) = row.lag.filter(|lag| lag.seconds > LAG_SOON) {
            degraded.push(format!("{} is {:.0} s ahead of another broker", row.host, lag.seconds));
        }
    }
    let mut versions: Vec<&str> = hosts.iter().flat_map(|row| &row.versions).map(String::as_str).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        degraded.push(format!("versions differ: {}", versions.join(", ")));
    }
    let not_asked = hosts.iter().filter(|row| row.state == "not asked").count();
    if not_asked > 0 && not_asked == plan.hosts.len() {
        degraded.push("no host was asked".to_owned());
    }
    let verdict = match (down.is_empty(), degraded.is_empty()) {
        (false, _) => Health::Down,
        (true, false) => Health::Degraded,
        (true, true) => Health::Up,
    };
    down.append(&mut degraded);
    (verdict, down)
}

fn is_lb(row: &Row) -> bool {
    row.roles.iter().any(|role| role == "lb")
}

fn is_broker(row: &Row) -> bool {
    row.roles.iter().any(|role| role == "broker")
}

/// Whether a host's program of that role answered.
fn works(row: &Row, role: &str) -> bool {
    match role {
        "lb" => row.lb_connections.is_some(),
        _ => row.broker_connections.is_some(),
    }
}
