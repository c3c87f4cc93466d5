//! The differences that `up` recognizes as unrepairable before it changes anything. It leaves them to the operator.

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
        // A role's definition is a list of phrases, such as `bound by row security, owns the database, member of ...`.
        // The memberships come last, and are not searched, because the name of a role may contain anything.
        "role" if actual.split(", member of ").next().is_some_and(|phrases| phrases.contains(", owns ")) => {
            Some(format!(
                "{difference} (a role of the API must not own the database, its schemas, their objects or the \
                 publication: let an administrator give them to the role that runs the migrations, with REASSIGN OWNED \
                 BY, or with ALTER DATABASE ... OWNER TO, ALTER SCHEMA ... OWNER TO or ALTER PUBLICATION ... OWNER TO)"
            ))
        }
        _ => None,
    }
}
