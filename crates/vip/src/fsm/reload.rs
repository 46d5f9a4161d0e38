//! Other settings for a router that goes on: its state stays, and so does what it has waited for.

use std::time::Instant;

use super::{Fsm, Settings, State};

impl Fsm {
    /// The settings are these from now on. Another priority comes by [`Fsm::handle_effective`].
    ///
    /// A master stays master, and a backup's deadline moves as if the settings had been in force before. A start delay that
    /// runs keeps its end.
    pub fn handle_settings(&mut self, settings: Settings, now: Instant) {
        self.notice_pause(now);
        let master_down_interval = self.master_down_interval();
        let before = std::mem::replace(&mut self.settings, settings);
        if (before.interval, before.version) != (settings.interval, settings.version) {
            match self.state {
                State::Initialize => self.master_interval = settings.interval,
                State::Backup => self.change_beat_as_backup(master_down_interval),
                State::Master => self.change_beat_as_master(now),
            }
        }
        if before.garp_refresh != settings.garp_refresh && self.state == State::Master {
            self.timers.refresh = (!settings.garp_refresh.is_zero()).then(|| now + settings.garp_refresh);
        }
        if before.permission != settings.permission {
            self.change_need_of_permission(now);
        }
    }
}
