//! Addresses of databases.

use std::env;

use crate::Error;

/// Returns the value of `DATABASE_URL`, if it has one.
pub(crate) fn configured_url() -> Option<String> {
    env::var("DATABASE_URL").ok().filter(|url| !url.is_empty())
}

/// Replaces the server of an address by one on another port of this machine.
pub(crate) fn with_port(url: &str, port: u16) -> Result<String, Error> {
    let other = || Error::Start("DATABASE_URL names a server that is not private.".to_owned());
    let (login, rest) = url.rsplit_once('@').ok_or_else(other)?;
    let (_, database) = rest.split_once('/').ok_or_else(other)?;
    Ok(format!("{login}@127.0.0.1:{port}/{database}"))
}

/// Replaces the database of an address.
pub(crate) fn with_database(url: &str, name: &str) -> String {
    let (address, options) = match url.split_once('?') {
        Some((address, options)) => (address, format!("?{options}")),
        None => (url, String::new()),
    };
    let authority_ends = address
        .find("://")
        .and_then(|start| address[start + 3..].find('/').map(|slash| start + 3 + slash))
        .unwrap_or(address.len());
    format!("{}/{name}{options}", &address[..authority_ends])
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_an_address_changes() {
        for (url, expected) in [
            ("postgres://a:b@h:1/old", "postgres://a:b@h:1/new"),
            ("postgres://h", "postgres://h/new"),
            ("postgres://h/old?sslmode=require", "postgres://h/new?sslmode=require"),
        ] {
            assert_eq!(with_database(url, "new"), expected);
        }
    }
}
