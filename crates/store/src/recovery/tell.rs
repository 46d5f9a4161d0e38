//! What a start says of what it found.

use tracing::{info, warn};

use super::Recovered;

/// A line for what was cut off, one for each damage, and one for all of it.
pub(super) fn tell(recovered: &Recovered) {
    let report = &recovered.report;
    if let Some(torn) = &report.torn {
        info!(
            file = %torn.file.display(), offset = torn.offset, bytes = torn.len,
            "store: cut off what was being written when the broker stopped"
        );
    }
    for damage in &report.damage {
        warn!(
            file = %damage.file.display(), offset = damage.offset, bytes = damage.len, lost = %damage.lost,
            "store: a damaged file; the rest is used"
        );
    }
    if report.lost_messages + report.replaced_sessions > 0 {
        warn!(messages = report.lost_messages, sessions = report.replaced_sessions, "store: lost with what is damaged");
    }
    info!(
        segments = report.segments,
        bytes = report.bytes,
        records = report.records,
        sessions = recovered.sessions.len(),
        messages = recovered.messages.len(),
        retained = recovered.retained.len(),
        for_peers = recovered.mesh.forwards.len(),
        "store: opened"
    );
}
