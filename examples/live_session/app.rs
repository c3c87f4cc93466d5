//! The state that all handlers share.

use std::sync::Arc;

use sparc::service::Sparc;

use crate::{demo_session::CurrentDemoSession, tokens::TokenKeys};

/// The state that all handlers share.
#[derive(Clone)]
pub struct App {
    pub sparc: Sparc,
    pub token_keys: Arc<TokenKeys>,
    pub demo_session: CurrentDemoSession,
}
