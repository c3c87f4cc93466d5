//! The identity of a caller: a user, a visitor or the service.

use rls::supabase;
use uuid::Uuid;

/// The identity that statements run as, without the claims (what a token says about the caller).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A signed-in user: role `authenticated`.
    User(Uuid),
    /// A visitor, who has not signed in: role `anon`.
    Anon,
    /// The service itself: role `service_role`, which bypasses row-level security.
    Service,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(id) => id.fmt(f),
            Self::Anon => f.write_str("anon"),
            Self::Service => f.write_str("service"),
        }
    }
}

impl Identity {
    /// Converts the identity of a connection or transaction. The claims are dropped.
    pub(crate) fn from_rls(identity: &rls::Identity) -> Self {
        match identity.user_id() {
            Some(id) => Self::User(id),
            None if identity.role() == supabase::SERVICE_ROLE => Self::Service,
            None => Self::Anon,
        }
    }

    /// Returns the id of the signed-in user, if there is one.
    pub(crate) fn user_id(self) -> Option<Uuid> {
        match self {
            Self::User(id) => Some(id),
            Self::Anon | Self::Service => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rls::supabase;

    use super::Identity;

    #[test]
    fn a_user_is_displayed_as_their_id_and_others_by_name() {
        let id = uuid::Uuid::new_v4();
        let texts = [supabase::user(id), supabase::anon(), supabase::service()]
            .map(|identity| Identity::from_rls(&identity).to_string());
        assert_eq!(texts, [id.to_string(), "anon".to_owned(), "service".to_owned()]);
    }
}
