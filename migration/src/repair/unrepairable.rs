//! The differences that `up` cannot repair, and leaves to the operator.

use super::structure;
use crate::{check::Difference, manifest};

/// If `up` cannot repair the difference, returns a text that describes it. For types and roles, the text also says what
/// the operator must do.
pub(super) fn describe_if_unrepairable(difference: &Difference) -> Option<String> {
    let (Some(actual), Some(expected)) = (&difference.found, &difference.expected) else { return None };
    match manifest::kind(&difference.object) {
        "type" if !structure::needs_owner_change(difference) && structure::enum_changes(actual, expected).is_none() => {
            Some(format!(
                "{difference} (PostgreSQL can neither remove enum values nor reorder them: rename the existing type, \
                 create a new type under the old name with the manifest's values, and convert the columns to it)"
            ))
        }
        "domain" if !structure::needs_owner_change(difference) => Some(difference.to_string()),
        "role"
            if actual
                .split(", member of ")
                .next()
                .is_some_and(|before_memberships| before_memberships.contains(", owns ")) =>
        {
            Some(format!(
                "{difference} (a role of the API must own nothing of the schema: let an administrator give the \
                 ownership to the role that migrates, with REASSIGN OWNED BY or ALTER DATABASE, SCHEMA or PUBLICATION \
                 ... OWNER TO)"
            ))
        }
        _ => None,
    }
}
