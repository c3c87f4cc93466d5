//! What the tests' proxies between client and server have in common.

use tokio::net::TcpListener;

/// Opens a port for a proxy to the database's server. Returns the port's listener, the URL of the database through the
/// proxy, and the address of the server.
pub async fn listen_in_front_of(database: &testdb::Database) -> (TcpListener, String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (scheme_and_login, address_and_name) = database.url().rsplit_once('@').unwrap();
    let (server_address, database_name) = address_and_name.split_once('/').unwrap();
    let url = format!("{scheme_and_login}@{}/{database_name}", listener.local_addr().unwrap());
    (listener, url, server_address.to_owned())
}
