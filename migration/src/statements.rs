//! Splits an SQL file into statements, and finds what each one creates.

/// What a statement creates. Names are as written in the file, except that those of policies are unquoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A function, with its qualified name.
    Function(String),
    /// A trigger, with its name, and the qualified name of its table.
    Trigger(String, String),
    /// A policy, with its unquoted name, and the qualified name of its table.
    Policy(String, String),
    /// A view, with its qualified name.
    View(String),
    /// Nothing: the statement is a GRANT or REVOKE.
    GrantOrRevoke,
    /// Unknown: the statement is a DO block (which may create several policies or triggers), a COMMENT, a SET or the
    /// like.
    Other,
}

/// One statement of a file.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// Without the `--` comments before the statement, and without the semicolon after it.
    pub(crate) sql: &'static str,
    pub(crate) target: Target,
}

/// Returns every statement of the file.
pub(crate) fn parse(file: &'static str) -> Vec<Statement> {
    split(file).into_iter().map(|sql| Statement { sql, target: target(sql) }).collect()
}

/// Splits at semicolons outside quotes, dollar quotes and comments.
fn split(file: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut position = 0;
    while let Some(rest) = file.get(position..).filter(|rest| !rest.is_empty()) {
        // The length of what begins here: a comment, a quoted text, or one character.
        let length = if rest.starts_with("--") {
            rest.find('\n').map_or(rest.len(), |end| end + 1)
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            // A doubled quote inside a literal counts as the end of one literal and the beginning of the next, which
            // makes no difference.
            rest[1..].find(quote).map_or(rest.len(), |end| end + 2)
        } else if let Some(tag) = dollar_tag(rest) {
            rest[tag.len()..].find(tag).map_or(rest.len(), |end| end + 2 * tag.len())
        } else if rest.starts_with(';') {
            statements.push(&file[start..position]);
            start = position + 1;
            1
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        position += length;
    }
    statements.push(&file[start..]);
    statements.into_iter().map(without_leading_comments).filter(|sql| !sql.is_empty()).collect()
}

/// Returns `$$` or `$name$` at the beginning of the text.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text.strip_prefix('$')?.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))? + 1;
    text[end..].starts_with('$').then(|| &text[..=end])
}

fn without_leading_comments(mut sql: &str) -> &str {
    loop {
        sql = sql.trim();
        let Some(comment) = sql.strip_prefix("--") else { return sql };
        sql = comment.split_once('\n').map_or("", |(_, rest)| rest);
    }
}

fn target(sql: &str) -> Target {
    let mut words = words(sql);
    let verb = words.next().unwrap_or_default().to_ascii_uppercase();
    if matches!(verb.as_str(), "GRANT" | "REVOKE") {
        return Target::GrantOrRevoke;
    }
    if verb != "CREATE" {
        return Target::Other;
    }
    // The optional words `OR REPLACE` and `CONSTRAINT` may precede the kind.
    let mut kind = words.next().unwrap_or_default().to_ascii_uppercase();
    while matches!(kind.as_str(), "OR" | "REPLACE" | "CONSTRAINT") {
        kind = words.next().unwrap_or_default().to_ascii_uppercase();
    }
    let name = words.next().unwrap_or_default().to_owned();
    let mut table_after_on = || words.find(|word| word.eq_ignore_ascii_case("ON")).and_then(|_| words.next());
    match kind.as_str() {
        "FUNCTION" => Target::Function(name),
        "VIEW" => Target::View(name),
        "TRIGGER" => table_after_on().map_or(Target::Other, |table| Target::Trigger(name, table.to_owned())),
        "POLICY" => table_after_on().map_or(Target::Other, |table| {
            Target::Policy(name.trim_matches('"').replace("\"\"", "\""), table.to_owned())
        }),
        _ => Target::Other,
    }
}

/// Returns the words of a statement; parentheses and commas only separate them. A quoted name that is not qualified is
/// one word.
fn words(sql: &str) -> impl Iterator<Item = &str> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(' || c == ')' || c == ',');
        if rest.is_empty() {
            return None;
        }
        let end = match rest.strip_prefix('"') {
            // A doubled quotation mark is part of the name.
            Some(quoted) => quoted.replace("\"\"", "..").find('"').map_or(rest.len(), |end| end + 2),
            None => rest.find(|c: char| c.is_whitespace() || "(),".contains(c)).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::{Target, parse};

    #[test]
    fn statements_end_at_semicolons_outside_quotes_and_comments() {
        let file = "-- A; comment.\nSELECT ';', \"a;b\", $$;$$, $x$ $$;$$ $x$;\n/* ; */ DO $$ BEGIN; END $$;\n-- end";
        let statements: Vec<&str> = parse(file).iter().map(|statement| statement.sql).collect();
        assert_eq!(statements, ["SELECT ';', \"a;b\", $$;$$, $x$ $$;$$ $x$", "/* ; */ DO $$ BEGIN; END $$"]);
    }

    #[test]
    fn the_target_of_each_statement_is_found() {
        let target_of = |sql: &'static str| parse(sql).remove(0).target;
        assert_eq!(
            target_of("CREATE OR REPLACE FUNCTION private.a(b uuid) RETURNS"),
            Target::Function("private.a".into())
        );
        assert_eq!(target_of("CREATE VIEW public.v\nWITH (x) AS"), Target::View("public.v".into()));
        assert_eq!(
            target_of("CREATE OR REPLACE TRIGGER t\n AFTER UPDATE OF a, b ON public.users\n FOR EACH ROW"),
            Target::Trigger("t".into(), "public.users".into())
        );
        assert_eq!(
            target_of("CREATE POLICY \"Users on tour\"\nON public.users FOR SELECT"),
            Target::Policy("Users on tour".into(), "public.users".into())
        );
        assert_eq!(
            target_of("CREATE POLICY \"The \"\"best\"\" players\" ON public.users FOR SELECT"),
            Target::Policy("The \"best\" players".into(), "public.users".into())
        );
        assert_eq!(target_of("GRANT SELECT ON t TO anon"), Target::GrantOrRevoke);
        assert_eq!(target_of("DO $$ BEGIN END $$"), Target::Other);
    }
}
