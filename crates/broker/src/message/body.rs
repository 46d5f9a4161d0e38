//! Where the message itself is.

use std::ops::Deref;
use std::sync::Arc;

use evermq_bridge::Message;

/// The message itself: in one piece with what its receivers share of it, unless other brokers wait for it too.
#[derive(Debug)]
pub enum Body {
    /// The sessions' alone.
    Own(Message),
    /// Others hold it as well.
    Shared(Arc<Message>),
}

impl From<Message> for Body {
    fn from(message: Message) -> Self {
        Self::Own(message)
    }
}

impl From<Arc<Message>> for Body {
    fn from(message: Arc<Message>) -> Self {
        Self::Shared(message)
    }
}

impl Deref for Body {
    type Target = Message;

    fn deref(&self) -> &Message {
        match self {
            Self::Own(message) => message,
            Self::Shared(message) => message,
        }
    }
}
