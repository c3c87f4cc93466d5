//! URLs of databases.

use std::env;

use crate::error::Error;

/// Returns the value of `DATABASE_URL`, if it is set and not empty.
pub(crate) fn configured_url() -> Option<String> {
    env::var("DATABASE_URL").ok().filter(|url| !url.is_empty())
}

/// Returns the URL of the same login and database on another server of this machine, which listens on `port`. Fails if
/// the URL has no login or no database: the URL of a private cluster has both, so it must be that of `DATABASE_URL`,
/// whose server the tests cannot control.
pub(crate) fn on_local_server(url: &str, port: u16) -> Result<String, Error> {
    let not_private_error = || Error::Control("it is not a private cluster; unset DATABASE_URL.".to_owned());
    let (login, rest) = url.rsplit_once('@').ok_or_else(not_private_error)?;
    let (_, database) = rest.split_once('/').ok_or_else(not_private_error)?;
    Ok(format!("{login}@127.0.0.1:{port}/{database}"))
}

/// Replaces the name of the database in a URL. The option `dbname`, which would override that name, is removed.
pub(crate) fn with_database(url: &str, name: &str) -> String {
    let (base, options) = url.split_once('?').unwrap_or((url, ""));
    let options: Vec<&str> =
        options.split('&').filter(|option| !option.is_empty() && !option.starts_with("dbname=")).collect();
    let options = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
    let authority_end = base
        .find("://")
        .and_then(|start| base[start + 3..].find('/').map(|slash| start + 3 + slash))
        .unwrap_or(base.len());
    format!("{}/{name}{options}", &base[..authority_end])
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_a_url_changes() {
        for (url, expected) in [
            ("postgres://a:b@h:1/old", "postgres://a:b@h:1/new"),
            ("postgres://h", "postgres://h/new"),
            ("postgres://h/old?sslmode=require", "postgres://h/new?sslmode=require"),
            ("postgres://h/?dbname=old&sslmode=require", "postgres://h/new?sslmode=require"),
            ("postgres://h?dbname=old", "postgres://h/new"),
        ] {
            assert_eq!(with_database(url, "new"), expected);
        }
    }
}
