//! The serialized form of an error, for clients of a web service.

use std::borrow::Cow;

use sea_orm::ActiveEnum;
use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Value, json};

use super::Error;

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Error", 4)?;
        object.serialize_field("code", self.code())?;
        object.serialize_field("message", &self.public_message())?;
        object.serialize_field("retryable", &self.is_retryable())?;
        object.serialize_field("details", &self.details())?;
        object.end()
    }
}

impl Error {
    /// Returns the message, or a general one in its place if the message could contain what only an operator may see:
    /// names of logins and hosts, the schema's version, or the server's message about a statement.
    fn public_message(&self) -> Cow<'static, str> {
        match self {
            Self::Misconfigured { .. } => "the service is misconfigured; tell its operator".into(),
            Self::ConnectFailed(_) | Self::SchemaMissing | Self::SchemaOutdated { .. } => {
                "the service cannot use its database; tell its operator".into()
            }
            Self::InvalidStatement { .. } => "a statement of the service cannot be run; tell its operator".into(),
            error => error.to_string().into(),
        }
    }

    /// Returns the variant's fields by name, without those that only an operator may see.
    fn details(&self) -> Value {
        match self {
            Self::IllegalTransition { from, to } => json!({ "from": from.to_value().value, "to": to.to_value().value }),
            Self::AdventureInvalid(errors) => json!({ "errors": errors }),
            Self::NotAllowed { rule } | Self::InvalidClaims { rule } => json!({ "rule": rule }),
            Self::ColumnNotGranted { table, instead } => json!({ "table": table, "instead": instead }),
            Self::NotFound { what } | Self::IdConflict { what } => json!({ "what": what }),
            Self::InvalidValue { field, rule } => json!({ "field": field, "rule": rule }),
            Self::RuleViolated { constraint } => json!({ "constraint": constraint }),
            _ => json!({}),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use entity::sea_orm_active_enums::SessionStatus;
    use sea_orm::{DbErr, RuntimeErr};
    use serde_json::json;

    use super::Error;
    use crate::adventures::{ValidationError, ValidationErrorKind};

    fn secret_db_error() -> DbErr {
        DbErr::Conn(RuntimeErr::Internal("a secret of the server".to_owned()))
    }

    /// One error of each variant.
    fn one_of_each_variant() -> Vec<Error> {
        let mut all = vec![
            Error::CharacterLimitReached,
            Error::RetiredLimitReached,
            Error::SeatLimitReached,
            Error::SessionLimitReached,
            Error::AdventureLimitReached,
            Error::CreatureLimitReached,
            Error::TooManyRows,
            Error::CharacterNameTaken,
            Error::CharacterRetired,
            Error::CharacterSeated,
            Error::CharacterNotYours,
            Error::NotYourChoice,
            Error::SessionFull,
            Error::PlayerRemoved,
            Error::SessionHasNoPlayer,
            Error::SessionLive,
            Error::SessionOver,
            Error::SessionStarted,
            Error::SessionNotActive,
            Error::NotSeated,
            Error::GameStateChanged,
            Error::MaxPlayersBelowSeated,
            Error::UnknownJoinCode,
            Error::AdventureNotPlayable,
            Error::AdventurePublished,
            Error::AdventureNotYours,
            Error::HeroicSaveSpent,
            Error::HeroicSaveNotNeeded,
            Error::HeroicSaveTooLate,
            Error::RollAlreadySaved,
            Error::RollNotSaveable,
            Error::CreatureNotInAdventure,
            Error::TutorialOutOfOrder,
            Error::StillReferenced,
            Error::AccountClosed,
            Error::UnknownAccount,
            Error::NotSignedIn,
            Error::NotSessionSeer,
            Error::IdentityChanged,
            Error::TransactionEndedByStatement,
            Error::TransactionFailed,
            Error::NestedTransactionOpen,
            Error::TransactionOver,
            Error::EventsExpired,
            Error::InvalidCursor,
            Error::DeadlineExceeded,
            Error::Busy,
            Error::PoolExhausted,
            Error::PoolClosed,
            Error::ReadOnly,
            Error::SchemaMissing,
        ];
        all.extend([
            Error::IllegalTransition { from: SessionStatus::Waiting, to: SessionStatus::StartingSoon },
            Error::AdventureInvalid(vec![ValidationError {
                node: Some("a".to_owned()),
                kind: ValidationErrorKind::NoEnemy,
            }]),
            Error::NotAllowed { rule: "only the service may give the badge" },
            Error::ColumnNotGranted { table: "users", instead: "read the profile" },
            Error::InvalidClaims { rule: "sub must be the UUID of an account" },
            Error::InvalidStatement { reason: "a secret of the server".to_owned() },
            Error::NotFound { what: "session" },
            Error::IdConflict { what: "roll" },
            Error::InvalidValue { field: "name", rule: "must have 2 to 50 characters" },
            Error::RuleViolated { constraint: "valid_name".to_owned() },
            Error::Misconfigured { reason: "a secret of the server".to_owned() },
            Error::ConnectFailed(rls::ConnectError::InvalidRootCertificate("a secret of the server".to_owned())),
            Error::SchemaOutdated { found: "a secret of the server".to_owned(), needed: "0.17" },
            Error::ConnectionLost(secret_db_error()),
            Error::CommitUnknown(secret_db_error()),
            Error::ServerExhausted(secret_db_error()),
            Error::Database(secret_db_error()),
        ]);
        all
    }

    #[test]
    fn every_error_serializes_to_the_same_shape_and_reveals_nothing_about_the_server() {
        let codes_source = include_str!("codes.rs");
        let is_code_entry = |line: &&str| line.contains(" => not_retryable(") || line.contains(" => retryable(");
        let code_entries = codes_source.lines().filter(is_code_entry);
        let codes: BTreeSet<&str> = one_of_each_variant().iter().map(Error::code).collect();
        assert_eq!(codes.len(), code_entries.count(), "`one_of_each_variant` must have every variant");
        for error in one_of_each_variant() {
            let serialized = serde_json::to_value(&error).unwrap();
            let fields: Vec<&str> = serialized.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(BTreeSet::from_iter(fields), BTreeSet::from(["code", "details", "message", "retryable"]));
            assert_eq!(serialized["code"], error.code());
            assert_eq!(serialized["retryable"], error.is_retryable());
            assert!(serialized["details"].is_object(), "{serialized}");
            assert!(!serialized.to_string().contains("secret"), "{serialized}");
        }
    }

    #[test]
    fn the_details_are_the_fields_of_the_variant() {
        let details = |code: &str| {
            let error = one_of_each_variant().into_iter().find(|error| error.code() == code).unwrap();
            serde_json::to_value(&error).unwrap()["details"].clone()
        };
        assert_eq!(details("illegal_transition"), json!({ "from": "waiting", "to": "starting_soon" }));
        assert_eq!(details("adventure_invalid"), json!({ "errors": [{ "node": "a", "kind": "no_enemy" }] }));
        assert_eq!(details("not_allowed"), json!({ "rule": "only the service may give the badge" }));
        assert_eq!(details("column_closed"), json!({ "table": "users", "instead": "read the profile" }));
        assert_eq!(details("not_found"), json!({ "what": "session" }));
        assert_eq!(details("id_conflict"), json!({ "what": "roll" }));
        assert_eq!(details("invalid_value"), json!({ "field": "name", "rule": "must have 2 to 50 characters" }));
        assert_eq!(details("rule_violated"), json!({ "constraint": "valid_name" }));
        assert_eq!(details("session_full"), json!({}));
    }

    /// A message about an input says what the input must be. Any other message says who is allowed to do it, or
    /// what to do about the refusal. The messages of three errors only say what happened: an illegal transition, and
    /// two mistakes of the calling program.
    #[test]
    fn messages_say_what_to_do_or_who_may_do_it() {
        let expected_phrases = [
            "must",
            "only",
            "first",
            "before",
            "instead",
            "choose",
            "sign in",
            "try again",
            "begin another",
            "connect again",
            "connect to",
            "tell",
            "allow more",
            "roll it back",
            "subscribe again",
            "cannot go from",
        ];
        for error in one_of_each_variant() {
            let serialized = serde_json::to_value(&error).unwrap();
            let message = serialized["message"].as_str().unwrap();
            let is_mistake_of_program = matches!(error.code(), "identity_changed" | "transaction_ended");
            assert!(
                is_mistake_of_program || expected_phrases.iter().any(|phrase| message.contains(phrase)),
                "{}: {message}",
                error.code()
            );
            assert!(!message.ends_with('.') && !message.contains("Error"), "{message}");
        }
    }

    #[test]
    fn every_input_rule_begins_with_must() {
        let mut rules = Vec::new();
        for_each_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |text| {
            for fields in text.split("InvalidValue {").skip(1).filter_map(|rest| rest.split('}').next()) {
                rules.extend(fields.split_once("rule: \"").map(|(_, rule)| rule.to_owned()));
            }
            // The last literal in a call of one of these macros is a rule. Calls on a single line are not found.
            for call_start in ["bounded_integer!(\n", "impl_text_conversions!(\n"] {
                for arguments in text.split(call_start).skip(1).filter_map(|rest| rest.split("\n);").next()) {
                    rules.extend(arguments.rsplit('"').nth(1).map(str::to_owned));
                }
            }
        });
        // In `constraints.rs`, a literal is a rule if it has a space.
        let lines = include_str!("constraints.rs").lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        let literals = code.split('"').skip(1).step_by(2);
        rules.extend(literals.filter(|literal| literal.contains(' ')).map(str::to_owned));
        for rule in &rules {
            assert!(rule.starts_with("must "), "{}", rule.lines().next().unwrap());
        }
        // If this fails, the rules are written in another way, and the search above no longer finds them.
        assert!(rules.len() > 100, "{}", rules.len());
    }

    /// Calls `visit` with the text of each file under a folder.
    fn for_each_file(folder: &Path, visit: &mut impl FnMut(String)) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                for_each_file(&path, visit);
            } else {
                visit(fs::read_to_string(path).unwrap());
            }
        }
    }
}
