//! What sessions ask of the store.

use std::sync::{Arc, Weak};

use evermq_mqtt::Publish;

use crate::backbone::Backbone;
use crate::journal::Journal;
use crate::router::Router;
use crate::session::Durable;

/// The store and those who know what is to be in it.
pub(super) struct Keeper {
    journal: Arc<Journal>,
    /// Weak: its sessions hold this.
    router: Weak<Router>,
    backbone: Weak<dyn Backbone>,
}

impl Keeper {
    pub(super) fn new(journal: &Arc<Journal>, router: &Arc<Router>, backbone: &Arc<dyn Backbone>) -> Self {
        Self { journal: Arc::clone(journal), router: Arc::downgrade(router), backbone: Arc::downgrade(backbone) }
    }
}

impl Durable for Keeper {
    fn is_full(&self) -> bool {
        self.journal.is_full()
    }

    fn is_needed_for(&self, publish: &Publish) -> bool {
        self.router.upgrade().is_some_and(|router| router.is_store_needed_for(publish))
            || self.backbone.upgrade().is_some_and(|backbone| backbone.keeps(publish))
    }
}
